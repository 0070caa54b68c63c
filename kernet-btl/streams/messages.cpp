// SPDX-License-Identifier: BSD-3-Clause
#include "kernet-btl/streams/messages.hpp"

#include <algorithm>

namespace kernet {

using ghost::schema::message;

namespace {

using ghost::schema::field;
using ghost::schema::Field;
using ghost::schema::Form;
using ghost::schema::record;
using ghost::schema::Record;

constexpr uint64_t most_name = 255;
constexpr size_t most_answered = 1024;
constexpr uint64_t last_state = static_cast<uint64_t>(SocketState::unattached);
constexpr uint64_t last_type = static_cast<uint64_t>(StreamType::lifo);
constexpr uint64_t last_operation = static_cast<uint64_t>(Operation::look);
constexpr uint64_t any_role = role_reader | role_writer;

constexpr Field farewell_fields[] = {
    field<&SentFarewell::writer>("writer", "number of its socket").at_most(max_sockets - 1),
    field<&SentFarewell::incarnation>("inc", "incarnation of that socket"),
    field<&SentFarewell::count>("count", "messages of it that were taken"),
};
constexpr Field socket_fields[] = {
    field<&SentSocket::state>("state", "0 free, 1 attached, 2 suspended, 3 unattached")
        .at_most(last_state),
    field<&SentSocket::role>("role", "1 reads, 2 writes, 3 both").at_most(any_role),
    field<&SentSocket::lost>("lost", "unattached, for its process or node is gone"),
    field<&SentSocket::incarnation>("inc", "grows with every attach and wakeup"),
    field<&SentSocket::key>("key", "of a suspended one: what whoever wakes it must show"),
    field<&SentSocket::farewells>("bye", "how far a reader that is away had got")
        .items_at_most(max_sockets),
    field<&SentSocket::where>("at", "of an attached one: where its process is"),
};
constexpr Field answered_fields[] = {
    field<&SentAnswered::request>("request", "its name"),
    field<&SentAnswered::socket>("socket", "number of the socket concerned"),
    field<&SentAnswered::key>("key", "that the request gave"),
};
constexpr Field entry_fields[] = {
    field<&SentEntry::id>("id", "of the stream").at_least(1),
    field<&SentEntry::type>("type", "0 direct, 1 fifo, 2 lifo").at_most(last_type),
    field<&SentEntry::grows>("grows", "attach makes a socket when none is free"),
    field<&SentEntry::destroyed>("destroyed", "kept so that no older copy comes back"),
    field<&SentEntry::creator>("creator", "number of its node, -1: not known").at_least(-1),
    field<&SentEntry::class_name>("class", "of the objects it carries").at_most(most_name),
    field<&SentEntry::filters>("filters", "of its messages").at_most(most_name),
    field<&SentEntry::term>("term", "of the home that wrote it"),
    field<&SentEntry::change>("change", "counts that home's changes"),
    field<&SentEntry::sockets>("sockets", "in order of their numbers").items_at_most(max_sockets),
    field<&SentEntry::answered>("answered", "requests that were carried out last")
        .items_at_most(most_answered),
};
constexpr Field change_fields[] = {
    field<&SentChange::operation>("op",
                                  "0 create, 1 attach, 2 suspend, 3 wakeup, 4 unattach, 5 move, 6 "
                                  "lost, 7 node_left, 8 destroy, 9 look")
        .at_most(last_operation),
    field<&SentChange::id>("id", "of the stream"),
    field<&SentChange::socket>("socket", "its number"),
    field<&SentChange::incarnation>("inc", "of the socket, as the requester knows it"),
    field<&SentChange::key>("key", "suspend: the new one; wakeup: the one that was given"),
    field<&SentChange::node>("node", "node_left: which").at_least(-1),
    field<&SentChange::role>("role", "as a socket's").at_most(any_role),
    field<&SentChange::farewells>("bye", "as a socket's").items_at_most(max_sockets),
    field<&SentChange::type>("type", "as an entry's").at_most(last_type),
    field<&SentChange::sockets>("sockets", "create: how many; 0: it grows"),
    field<&SentChange::class_name>("class", "create").at_most(most_name),
    field<&SentChange::filters>("filters", "create").at_most(most_name),
    field<&SentChange::where>("at", "where the process is, or is now"),
};
constexpr Field error_fields[] = {
    field<&SentError::code>("code", "ghost::Code").or_default(),
    field<&SentError::tried>("tried", "what was tried").or_default(),
    field<&SentError::object>("object", "on what").or_default(),
    field<&SentError::why>("why", "why not, in words").or_default(),
    field<&SentError::sys>("sys", "errno, 0: none").or_default(),
};

constexpr const char* the_request = "name of the request";
constexpr const char* the_stream = "of the stream";
constexpr const char* the_nonce = "of the home's step, said again in the answer";
constexpr const char* the_number = "of the process's request";

constexpr Field ask_home_fields[] = {
    field<&AskHome::request>("request", the_request),
    field<&AskHome::change>("change", "what is asked for"),
};
constexpr Field home_answer_fields[] = {
    field<&HomeAnswer::request>("request", the_request),
    field<&HomeAnswer::ok>("ok", "it was carried out"),
    field<&HomeAnswer::socket>("socket", "number of the socket concerned"),
    field<&HomeAnswer::code>("code", "not ok: ghost::Code").or_default(),
    field<&HomeAnswer::tried>("tried", "not ok: what was tried").or_default(),
    field<&HomeAnswer::object>("object", "not ok: on what").or_default(),
    field<&HomeAnswer::why>("why", "not ok: why, in words").or_default(),
    field<&HomeAnswer::sys>("sys", "not ok: errno, 0: none").or_default(),
    field<&HomeAnswer::entry>("entry", "after it, `answered` empty"),
};
constexpr Field get_fields[] = {
    field<&GetEntry::id>("id", the_stream),
    field<&GetEntry::nonce>("nonce", the_nonce),
    field<&GetEntry::term>("term", "that the home will write in"),
};
constexpr Field have_fields[] = {
    field<&HaveEntry::id>("id", the_stream),
    field<&HaveEntry::nonce>("nonce", "of `get`"),
    field<&HaveEntry::ok>("ok", "no later home is known here"),
    field<&HaveEntry::fence>("fence", "no term below it may write here"),
    field<&HaveEntry::entry>("entry", "the replica here, if there is one"),
};
constexpr Field put_fields[] = {
    field<&PutEntry::nonce>("nonce", the_nonce),
    field<&PutEntry::entry>("entry", "to be kept"),
};
constexpr Field took_fields[] = {
    field<&TookEntry::id>("id", the_stream),
    field<&TookEntry::nonce>("nonce", "of `put`"),
    field<&TookEntry::ok>("ok", "it was taken: no later home is known here"),
    field<&TookEntry::fence>("fence", "no term below it may write here"),
};
constexpr Field drop_fields[] = {
    field<&DropEntry::id>("id", the_stream),
    field<&DropEntry::term>("term", "of the version that may go"),
    field<&DropEntry::change>("change", "of the version that may go"),
};

constexpr Field process_hello_fields[] = {
    field<&ProcessHello::process>("process", "number it had, 0: none").or_default(),
};
constexpr Field ask_manager_fields[] = {
    field<&AskManager::n>("n", the_number),
    field<&AskManager::change>("change", "what is asked for"),
};
constexpr Field open_channel_fields[] = {
    field<&OpenChannel::n>("n", the_number),
    field<&OpenChannel::channel>("channel", "whose messages it takes"),
};
constexpr Field send_fields[] = {
    field<&SendByChannel::n>("n", the_number),
    field<&SendByChannel::node>("node", "name of the node"),
    field<&SendByChannel::channel>("channel", "the channel"),
    field<&SendByChannel::type>("type", "of the message, the sender's own"),
    field<&SendByChannel::bytes>("bytes", "the message, in hex"),
};
constexpr Field list_nodes_fields[] = {field<&ListNodes::n>("n", the_number)};

constexpr Field manager_welcome_fields[] = {
    field<&ManagerWelcome::process>("process", "its number"),
    field<&ManagerWelcome::cluster>("cluster", "name of the managers' cluster"),
    field<&ManagerWelcome::node>("node", "number of the manager").at_least(-1),
    field<&ManagerWelcome::node_name>("node_name", "name of the node"),
    field<&ManagerWelcome::secret>("secret", "of the cluster, in hex"),
    field<&ManagerWelcome::if_include>("if_include", "network interfaces of its links"),
    field<&ManagerWelcome::filters>("filters", "of all its streams"),
};
constexpr Field node_fields[] = {
    field<&SentNode::name>("name", "the node's"),
    field<&SentNode::state>("state", "what is known of it"),
};
constexpr Field manager_answer_fields[] = {
    field<&ManagerAnswer::n>("n", the_number),
    field<&ManagerAnswer::socket>("socket", "number of the socket concerned"),
    field<&ManagerAnswer::error>("error", "why it was not carried out"),
    field<&ManagerAnswer::entry>("entry", "of the stream, after it"),
    field<&ManagerAnswer::nodes>("nodes", "answers `nodes`").or_default(),
};
constexpr Field map_fields[] = {field<&NewMap::entry>("entry", "`answered` is empty")};
constexpr Field arrived_fields[] = {
    field<&ChannelArrived::from>("from", "name of the node"),
    field<&ChannelArrived::channel>("channel", "the channel"),
    field<&ChannelArrived::type>("type", "as it was sent"),
    field<&ChannelArrived::bytes>("bytes", "the message, in hex"),
};

const char* wrong_with(const std::vector<SentFarewell>& farewells) {
    std::vector<uint16_t> writers;
    for (const SentFarewell& one : farewells) writers.push_back(one.writer);
    std::sort(writers.begin(), writers.end());
    const bool twice = std::adjacent_find(writers.begin(), writers.end()) != writers.end();
    return twice ? "bye names a writer twice" : nullptr;
}

const char* check_socket(const void* object) {
    const auto& socket = *static_cast<const SentSocket*>(object);
    const bool attached = socket.state == static_cast<uint8_t>(SocketState::attached);
    if (attached && !socket.where) return "at is missing of what is attached";
    return wrong_with(socket.farewells);
}

const char* check_entry(const void* object) {
    const auto& entry = *static_cast<const SentEntry*>(object);
    const bool direct = entry.type == static_cast<uint8_t>(StreamType::direct);
    return direct && entry.sockets.size() != 2 ? "sockets of a direct stream are not two" : nullptr;
}

const char* check_change(const void* object) {
    return wrong_with(static_cast<const SentChange*>(object)->farewells);
}

std::vector<SentFarewell> sent_farewells(const Farewells& farewells) {
    std::vector<SentFarewell> out;
    for (const auto& [writer, one] : farewells) out.push_back({writer, one.incarnation, one.count});
    return out;
}

Farewells farewells_of(const std::vector<SentFarewell>& sent) {
    Farewells out;
    for (const SentFarewell& one : sent) out[one.writer] = {one.incarnation, one.count};
    return out;
}

SentSocket sent_socket(const SocketEntry& socket) {
    SentSocket out{static_cast<uint8_t>(socket.state),
                   socket.role,
                   socket.lost,
                   socket.incarnation,
                   socket.key,
                   sent_farewells(socket.farewells),
                   std::nullopt};
    if (socket.state == SocketState::attached) out.where = socket.where;
    return out;
}

SocketEntry socket_of(const SentSocket& sent) {
    SocketEntry out{
        static_cast<SocketState>(sent.state), sent.role, sent.lost, sent.incarnation, sent.key, {},
        farewells_of(sent.farewells)};
    // Of others than attached ones it says nothing.
    if (out.state == SocketState::attached) out.where = *sent.where;
    return out;
}

}  // namespace

constinit const Record SentFarewell::table = record<SentFarewell>(
    "farewell", "how far a reader had got with one writer", farewell_fields, Form::array);
constinit const Record SentSocket::table =
    record<SentSocket>("socket", "of a stream", socket_fields, Form::object, check_socket);
constinit const Record SentAnswered::table = record<SentAnswered>(
    "answered", "a request that was carried out", answered_fields, Form::array);
constinit const Record SentEntry::table = record<SentEntry>(
    "entry", "what the directory knows of one stream", entry_fields, Form::object, check_entry);
constinit const Record SentChange::table =
    record<SentChange>("change", "a request to the directory; what counts depends on the operation",
                       change_fields, Form::object, check_change);
constinit const Record SentError::table =
    record<SentError>("failure", "why a request was not carried out", error_fields);

constinit const Record AskHome::table =
    record<AskHome>("ask", "to the stream's home; `answer`", ask_home_fields);
constinit const Record HomeAnswer::table =
    record<HomeAnswer>("answer", "a quorum has the change, or it is refused", home_answer_fields);
constinit const Record GetEntry::table =
    record<GetEntry>("get", "a new home asks for what is known; `have`", get_fields);
constinit const Record HaveEntry::table = record<HaveEntry>("have", "answers `get`", have_fields);
constinit const Record PutEntry::table =
    record<PutEntry>("put", "the home has changed the entry; `took`", put_fields);
constinit const Record TookEntry::table = record<TookEntry>("took", "answers `put`", took_fields);
constinit const Record DropEntry::table =
    record<DropEntry>("drop", "others keep the entry now", drop_fields);

constinit const Record ProcessHello::table =
    record<ProcessHello>("hello", "first message; `welcome`", process_hello_fields);
constinit const Record AskManager::table =
    record<AskManager>("ask", "of the directory; `answer`", ask_manager_fields);
constinit const Record OpenChannel::table = record<OpenChannel>(
    "channel", "its messages are to come to this process; `answer`", open_channel_fields);
constinit const Record SendByChannel::table = record<SendByChannel>(
    "send", "to whoever takes the channel's messages there; `answer`", send_fields);
constinit const Record ListNodes::table =
    record<ListNodes>("nodes", "which are there? `answer`", list_nodes_fields);

constinit const Record ManagerWelcome::table =
    record<ManagerWelcome>("welcome", "answers `hello`", manager_welcome_fields);
constinit const Record SentNode::table =
    record<SentNode>("node", "a node of the cluster", node_fields, Form::array);
constinit const Record ManagerAnswer::table =
    record<ManagerAnswer>("answer", "what became of a request", manager_answer_fields);
constinit const Record NewMap::table =
    record<NewMap>("map", "a stream of this process has changed", map_fields);
constinit const Record ChannelArrived::table =
    record<ChannelArrived>("message", "has come by a channel", arrived_fields);

SentEntry sent(const Entry& entry) {
    SentEntry out{entry.id,
                  static_cast<uint8_t>(entry.type),
                  entry.grows,
                  entry.destroyed,
                  entry.creator,
                  entry.class_name,
                  entry.filters,
                  entry.version.term,
                  entry.version.change,
                  {},
                  {}};
    for (const SocketEntry& socket : entry.sockets) out.sockets.push_back(sent_socket(socket));
    for (const Answered& one : entry.answered)
        out.answered.push_back({one.request, one.socket, one.key});
    return out;
}

Entry as_meant(const SentEntry& sent) {
    Entry out{sent.id,      static_cast<StreamType>(sent.type),
              sent.grows,   sent.destroyed,
              sent.creator, sent.class_name,
              sent.filters, {sent.term, sent.change},
              {},           {}};
    for (const SentSocket& socket : sent.sockets) out.sockets.push_back(socket_of(socket));
    for (const SentAnswered& one : sent.answered)
        out.answered.push_back({one.request, one.socket, one.key});
    return out;
}

SentChange sent(const Change& change) {
    return {static_cast<uint8_t>(change.operation),
            change.id,
            change.socket,
            change.incarnation,
            change.key,
            change.node,
            change.role,
            sent_farewells(change.farewells),
            static_cast<uint8_t>(change.type),
            change.sockets,
            change.class_name,
            change.filters,
            change.where};
}

Change as_meant(const SentChange& sent) {
    return {static_cast<Operation>(sent.operation),
            sent.id,
            sent.socket,
            sent.incarnation,
            sent.key,
            sent.node,
            sent.role,
            sent.where.value_or(Location{}),
            farewells_of(sent.farewells),
            static_cast<StreamType>(sent.type),
            sent.sockets,
            sent.class_name,
            sent.filters};
}

SentError sent(const ghost::Error& error) {
    return {static_cast<int32_t>(error.code), error.tried, error.object, error.why, error.sys};
}

ghost::Error as_meant(const SentError& sent) {
    const bool known = sent.code >= 0 && sent.code <= static_cast<int32_t>(ghost::Code::internal);
    return {known ? static_cast<ghost::Code>(sent.code) : ghost::Code::corrupt, sent.tried,
            sent.object, sent.why, sent.sys};
}

namespace {

constexpr ghost::schema::Message between_managers_messages[] = {
    message<AskHome>(ManagerMessage::ask),    message<HomeAnswer>(ManagerMessage::answer),
    message<GetEntry>(ManagerMessage::get),   message<HaveEntry>(ManagerMessage::have),
    message<PutEntry>(ManagerMessage::put),   message<TookEntry>(ManagerMessage::took),
    message<DropEntry>(ManagerMessage::drop),
};
constexpr ghost::schema::Message to_manager_messages[] = {
    message<ProcessHello>(ToManager::hello),  message<AskManager>(ToManager::ask),
    message<OpenChannel>(ToManager::channel), message<SendByChannel>(ToManager::send),
    message<ListNodes>(ToManager::nodes),
};
constexpr ghost::schema::Message from_manager_messages[] = {
    message<ManagerWelcome>(FromManager::welcome),
    message<ManagerAnswer>(FromManager::answer),
    message<NewMap>(FromManager::map),
    message<ChannelArrived>(FromManager::message),
};

}  // namespace

constinit const ghost::schema::Family between_managers =
    ghost::schema::family("manager to manager", between_managers_messages);
constinit const ghost::schema::Family to_manager =
    ghost::schema::family("process to manager", to_manager_messages);
constinit const ghost::schema::Family from_manager =
    ghost::schema::family("manager to process", from_manager_messages);

}  // namespace kernet
