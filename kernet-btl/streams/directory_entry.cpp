// SPDX-License-Identifier: BSD-3-Clause
#include "kernet-btl/streams/directory_entry.hpp"

#include <algorithm>
#include <fmt/format.h>

namespace kernet {

namespace {

using ghost::Code;
using ghost::make_error;

std::string name_of(const Entry& entry) {
    return fmt::format("stream {:016x}", entry.id);
}
std::string name_of(const Entry& entry, uint16_t socket) {
    return fmt::format("socket {} of stream {:016x}", socket, entry.id);
}

Status enter(const Entry& entry, uint16_t number, SocketEntry& socket, SocketState to) {
    if (socket.lost) {
        return make_error(Code::refused, "change", name_of(entry, number),
                          "it has been given up since its process ended or its node was away for "
                          "longer than the time of grace");
    }
    if (!socket_states.allows(socket.state, to)) {
        return make_error(Code::refused,
                          fmt::format("change from {} to {}", socket_states.name(socket.state),
                                      socket_states.name(to)),
                          name_of(entry, number));
    }
    socket.state = to;
    return {};
}

Status attach(Entry& entry, const Change& change, uint16_t& number) {
    auto& sockets = entry.sockets;
    auto free = std::find_if(sockets.begin(), sockets.end(),
                             [](const SocketEntry& s) { return s.state == SocketState::free; });
    if (free == sockets.end()) {
        if (!entry.grows || sockets.size() >= max_sockets) {
            return make_error(Code::refused, "attach to", name_of(entry), "no socket is free");
        }
        free = sockets.insert(sockets.end(), SocketEntry{});
    }
    number = static_cast<uint16_t>(free - sockets.begin());
    GHOST_TRY(enter(entry, number, *free, SocketState::attached));
    free->incarnation++;
    free->role = entry.type == StreamType::direct ? role_reader | role_writer : change.role;
    free->where = change.where;
    return {};
}

void keep_farewells(SocketEntry& socket, const Change& change) {
    for (const auto& [writer, farewell] : change.farewells) socket.farewells[writer] = farewell;
}

void leave(SocketEntry& socket, bool lost) {
    socket.state = SocketState::unattached;
    socket.lost = lost;
    socket.key = 0;
    socket.where = {};
}

// A DIRECT stream that both have left is closed.
void close_if_left(Entry& entry) {
    const bool all = std::all_of(
        entry.sockets.begin(), entry.sockets.end(),
        [](const SocketEntry& socket) { return socket.state == SocketState::unattached; });
    if (entry.type == StreamType::direct && all) entry.destroyed = true;
}

Status change_socket(Entry& entry, const Change& change, uint16_t number) {
    SocketEntry& socket = entry.sockets[number];
    if (change.operation == Operation::wakeup) {
        if (socket.state == SocketState::suspended && socket.key != change.key) {
            return make_error(Code::refused, "wake up with a handle of another suspend",
                              name_of(entry, number));
        }
        GHOST_TRY(enter(entry, number, socket, SocketState::attached));
        socket.incarnation++;
        socket.key = 0;
        socket.where = change.where;
        return {};
    }
    // A late word about an earlier incarnation concerns nobody any more.
    if (socket.incarnation != change.incarnation) {
        return make_error(Code::refused, "change an earlier incarnation of",
                          name_of(entry, number));
    }
    switch (change.operation) {
        case Operation::suspend:
            GHOST_TRY(enter(entry, number, socket, SocketState::suspended));
            socket.key = change.key;
            socket.where = {};
            keep_farewells(socket, change);
            return {};
        case Operation::move:
            if (socket.state != SocketState::attached) {
                return make_error(Code::refused, "move", name_of(entry, number));
            }
            socket.where = change.where;
            return {};
        case Operation::unattach:
        case Operation::lost:
            GHOST_TRY(enter(entry, number, socket, SocketState::unattached));
            leave(socket, change.operation == Operation::lost);
            keep_farewells(socket, change);
            close_if_left(entry);
            return {};
        default:
            return make_error(Code::internal, operation_name(change.operation),
                              name_of(entry, number));
    }
}

Status create(Entry& entry, const Change& change) {
    if (entry.id != 0) return make_error(Code::refused, "create once more", name_of(entry));
    const bool direct = change.type == StreamType::direct;
    if (change.sockets > max_sockets || (direct && change.sockets != 2)) {
        return make_error(Code::invalid, "create a stream with so many sockets",
                          std::to_string(change.sockets));
    }
    entry.id = change.id;
    entry.type = change.type;
    entry.creator = change.where.node;
    entry.grows = change.sockets == 0;
    entry.class_name = change.class_name;
    entry.filters = change.filters;
    entry.sockets.resize(change.sockets);
    return {};
}

void destroy(Entry& entry) {
    entry.destroyed = true;
    for (SocketEntry& socket : entry.sockets) {
        if (socket.state != SocketState::unattached) leave(socket, false);
    }
}

void node_left(Entry& entry, int node) {
    for (SocketEntry& socket : entry.sockets) {
        if (socket.state == SocketState::attached && socket.where.node == node) leave(socket, true);
    }
    close_if_left(entry);
}

}  // namespace

const char* operation_name(Operation operation) {
    static constexpr const char* names[] = {"create", "attach", "suspend",   "wakeup",  "unattach",
                                            "move",   "lost",   "node_left", "destroy", "look"};
    return names[static_cast<int>(operation)];
}

size_t Entry::connected() const {
    return static_cast<size_t>(std::count_if(
        sockets.begin(), sockets.end(),
        [](const SocketEntry& socket) { return socket.state == SocketState::attached; }));
}

bool Entry::ready() const {
    return !destroyed &&
           std::none_of(sockets.begin(), sockets.end(), [](const SocketEntry& socket) {
               return socket.state == SocketState::free || socket.state == SocketState::suspended;
           });
}

Status apply(Entry& entry, const Change& change, uint16_t& socket) {
    socket = change.socket;
    if (change.operation == Operation::create) return create(entry, change);
    if (entry.id == 0) {
        return make_error(Code::not_found, "find", fmt::format("stream {:016x}", change.id));
    }
    if (change.operation == Operation::look) return {};
    if (entry.destroyed) {
        return make_error(Code::not_found, "find", name_of(entry), "it has been destroyed");
    }
    switch (change.operation) {
        case Operation::attach:
            return attach(entry, change, socket);
        case Operation::destroy:
            destroy(entry);
            return {};
        case Operation::node_left:
            node_left(entry, change.node);
            return {};
        default:
            break;
    }
    if (change.socket >= entry.sockets.size()) {
        return make_error(Code::not_found, "find", name_of(entry, change.socket));
    }
    return change_socket(entry, change, change.socket);
}

}  // namespace kernet
