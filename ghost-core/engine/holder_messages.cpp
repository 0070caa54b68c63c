// SPDX-License-Identifier: BSD-3-Clause
#include "ghost-core/engine/holder_messages.hpp"

namespace ghost::core {

using schema::field;
using schema::message;
using schema::record;
using schema::Record;

namespace {

constexpr const char* its_name = "the ghost's";
constexpr const char* its_size = "of the ghost";
constexpr const char* its_parts = "how many it has, if it has several (MemoryBuffer::Layout)";
constexpr const char* its_layout = "where their table is";
constexpr const char* its_about = "what was said of it, for who lists it";

constexpr schema::Field ask_spare_fields[] = {
    field<&AskSpare::bytes>("bytes", "that are needed").in("bytes"),
};
constexpr schema::Field keep_fields[] = {
    field<&KeepGhost::name>("name", its_name),
    field<&KeepGhost::bytes>("bytes", its_size).in("bytes"),
    field<&KeepGhost::parts>("parts", its_parts).or_default(),
    field<&KeepGhost::parts_at>("parts_at", its_layout).in("bytes").or_default(),
    field<&KeepGhost::about>("about", its_about).or_default(),
};
constexpr schema::Field get_fields[] = {
    field<&GetGhost::name>("name", "the ghost's; empty: the newest"),
};
constexpr schema::Field drop_fields[] = {
    field<&DropGhost::name>("name", its_name),
};
constexpr schema::Field spare_fields[] = {
    field<&LentSpare::capacity>("capacity", "of the memory").in("bytes"),
};
constexpr schema::Field ghost_fields[] = {
    field<&LentGhost::name>("name", its_name),
    field<&LentGhost::bytes>("bytes", its_size).in("bytes"),
    field<&LentGhost::parts>("parts", its_parts).or_default(),
    field<&LentGhost::parts_at>("parts_at", its_layout).in("bytes").or_default(),
    field<&LentGhost::about>("about", its_about).or_default(),
};
constexpr schema::Field listed_fields[] = {
    field<&ListedGhost::name>("name", its_name),
    field<&ListedGhost::bytes>("bytes", its_size).in("bytes"),
    field<&ListedGhost::about>("about", its_about).or_default(),
};
constexpr schema::Field list_fields[] = {
    field<&GhostList::ghosts>("ghosts", "the newest first"),
};

}  // namespace

constinit const Record AskSpare::table = record<AskSpare>(
    "spare", "memory that is warm from an older ghost; `spare` or `none`", ask_spare_fields);
constinit const Record KeepGhost::table = record<KeepGhost>(
    "keep", "with its memory: from now on the ghost of that name, an older one is given up; `kept`",
    keep_fields);
constinit const Record GetGhost::table =
    record<GetGhost>("get", "a ghost's memory; `ghost`", get_fields);
constinit const Record ListGhosts::table = record<ListGhosts>("list", "all that is kept; `list`");
constinit const Record DropGhost::table =
    record<DropGhost>("drop", "a ghost and all spare memory are given up; `dropped`", drop_fields);
constinit const Record StopHolder::table =
    record<StopHolder>("stop", "the holder ends, with all it holds; `stopped`");

constinit const Record LentSpare::table =
    record<LentSpare>("spare", "with the best fitting memory", spare_fields);
constinit const Record NoSpare::table = record<NoSpare>("none", "there is none");
constinit const Record GhostKept::table = record<GhostKept>("kept", "the holder has the ghost");
constinit const Record LentGhost::table =
    record<LentGhost>("ghost", "with its memory", ghost_fields);
constinit const Record ListedGhost::table =
    record<ListedGhost>("listed", "a ghost that is kept in memory", listed_fields);
constinit const Record GhostList::table =
    record<GhostList>("list", "what is kept in memory", list_fields);
constinit const Record GhostDropped::table =
    record<GhostDropped>("dropped", "the ghost is not kept any more");
constinit const Record HolderStopped::table =
    record<HolderStopped>("stopped", "the holder ends now");

namespace {

constexpr schema::Message to_holder_messages[] = {
    message<AskSpare>(ToHolder::spare), message<KeepGhost>(ToHolder::keep),
    message<GetGhost>(ToHolder::get),   message<ListGhosts>(ToHolder::list),
    message<DropGhost>(ToHolder::drop), message<StopHolder>(ToHolder::stop),
};
constexpr schema::Message from_holder_messages[] = {
    message<LentSpare>(FromHolder::spare),       message<NoSpare>(FromHolder::none),
    message<GhostKept>(FromHolder::kept),        message<LentGhost>(FromHolder::ghost),
    message<GhostList>(FromHolder::list),        message<GhostDropped>(FromHolder::dropped),
    message<HolderStopped>(FromHolder::stopped), message<schema::Complaint>(FromHolder::error),
};

}  // namespace

constinit const schema::Family to_holder = schema::family("client to holder", to_holder_messages);
constinit const schema::Family from_holder =
    schema::family("holder to client", from_holder_messages);

}  // namespace ghost::core
