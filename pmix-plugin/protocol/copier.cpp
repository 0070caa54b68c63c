// SPDX-License-Identifier: BSD-3-Clause
#include "pmix-plugin/protocol/copier.hpp"

namespace ghost::plugin {

using schema::Field;
using schema::field;
using schema::message;
using schema::record;

namespace {

constexpr const char* folder_says = "of snapshots, absolute";
constexpr const char* proof_says = "what both ends prove to know";
constexpr const char* reason_says = "empty: all is well";

constexpr Field files_fields[] = {
    field<&CopyFiles::files>("files", "in the folder of snapshots"),
};
constexpr Field send_fields[] = {
    field<&CopySend::host>("host", "where the other listens"),
    field<&CopySend::port>("port", "TCP port"),
    field<&CopySend::token>("token", "what to show there"),
    field<&CopySend::proof>("proof", proof_says),
    field<&CopySend::folder>("folder", folder_says),
    field<&CopySend::rate>("rate", "at most, 0: no limit").in("bytes/s"),
};
constexpr Field take_fields[] = {
    field<&CopyTake::proof>("proof", proof_says),
    field<&CopyTake::folder>("folder", folder_says),
    field<&CopyTake::interfaces>("interfaces", "it listens there; empty: at all"),
};
constexpr Field listens_fields[] = {
    field<&CopyListens::host>("host", "where it listens; empty: at every address"),
    field<&CopyListens::port>("port", "TCP port"),
    field<&CopyListens::token>("token", "what to show there"),
};
constexpr Field progress_fields[] = {
    field<&CopyProgress::bytes>("bytes", "sent").in("bytes"),
    field<&CopyProgress::total>("total", "to be sent").in("bytes"),
};
constexpr Field done_fields[] = {field<&CopyDone::why>("why", reason_says)};
constexpr Field item_fields[] = {
    field<&CopyItem::name>("name", "in the folder of snapshots"),
    field<&CopyItem::bytes>("bytes", "of the file, or the stream").in("bytes"),
    field<&CopyItem::tail>("tail", "XXH3-64 of its last 64 KiB; of a stream empty"),
    field<&CopyItem::target>("target", "what a stream is for; else the file is sent as it is"),
};
constexpr Field list_fields[] = {field<&CopyList::items>("items", "files, in this order")};
constexpr Field wanted_fields[] = {
    field<&CopyWanted::which>("which", "places in the list of those that are not here"),
    field<&CopyWanted::why>("why", "nothing can be taken: reason").or_default(),
};
constexpr Field kept_fields[] = {field<&CopyKept::why>("why", reason_says)};

}  // namespace

constinit const schema::Record CopyFiles::table =
    record<CopyFiles>("files", "more of what is to be sent", files_fields);
constinit const schema::Record CopySend::table =
    record<CopySend>("send", "those files go there; `progress`, then `done`", send_fields);
constinit const schema::Record CopyTake::table =
    record<CopyTake>("take", "files come; `listens`, then `done`", take_fields);
constinit const schema::Record CopyListens::table =
    record<CopyListens>("listens", "the other end may connect", listens_fields);
constinit const schema::Record CopyProgress::table =
    record<CopyProgress>("progress", "five times a second", progress_fields);
constinit const schema::Record CopyDone::table =
    record<CopyDone>("done", "the process ends", done_fields);
constinit const schema::Record CopyItem::table =
    record<CopyItem>("item", "a file that is to be copied", item_fields);
constinit const schema::Record CopyList::table =
    record<CopyList>("list", "what is to be copied; `wanted`", list_fields);
constinit const schema::Record CopyWanted::table =
    record<CopyWanted>("wanted", "each of these follows, and its XXH3-64; `kept`", wanted_fields);
constinit const schema::Record CopyKept::table =
    record<CopyKept>("kept", "all are there, under their names", kept_fields);

namespace {

constexpr schema::Message to_messages[] = {
    message<CopyFiles>(ToCopier::files),
    message<XorStream>(ToCopier::stream),
    message<CopySend>(ToCopier::send),
    message<CopyTake>(ToCopier::take),
};
constexpr schema::Message from_messages[] = {
    message<CopyListens>(FromCopier::listens),
    message<CopyProgress>(FromCopier::progress),
    message<CopyDone>(FromCopier::done),
};
constexpr schema::Message between_messages[] = {
    message<CopyList>(BetweenCopiers::list),
    message<CopyWanted>(BetweenCopiers::wanted),
    message<CopyKept>(BetweenCopiers::kept),
};

}  // namespace

constinit const schema::Family to_copier = schema::family("N to copier", to_messages);
constinit const schema::Family from_copier = schema::family("copier to N", from_messages);
constinit const schema::Family between_copiers =
    schema::family("copier to copier", between_messages);

}  // namespace ghost::plugin
