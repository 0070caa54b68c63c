// SPDX-License-Identifier: BSD-3-Clause
#include "kernet-btl/streams/stream_socket.hpp"

#include <algorithm>
#include <utility>

#include "base/log.hpp"
#include "kernet-btl/streams/stream_direct.hpp"
#include "kernet-btl/streams/stream_queue.hpp"

namespace kernet {

namespace {

constexpr size_t max_early = 4096;

}  // namespace

std::unique_ptr<StreamSocket> StreamSocket::make(StreamHost& host, const Entry& entry,
                                                 uint16_t number, size_t limit) {
    if (entry.type == StreamType::direct) {
        return std::make_unique<DirectSocket>(host, entry, number, limit);
    }
    return std::make_unique<QueueSocket>(host, entry, number, limit);
}

bool read_body(const nlohmann::json& json, BodyPtr& out) {
    if (!json.is_binary()) return false;
    const auto& bytes = json.get_binary();
    out = make_body(bytes.data(), bytes.size());
    return true;
}

StreamSocket::StreamSocket(StreamHost& host, const Entry& entry, uint16_t number, size_t limit)
    : host_(host),
      entry_(entry),
      number_(number),
      incarnation_(entry.sockets[number].incarnation),
      role_(entry.sockets[number].role),
      limit_(limit) {}

void StreamSocket::begin() {
    for (const SocketEntry& socket : entry_.sockets) {
        if (socket.state == SocketState::attached) host_.know(socket.where);
    }
    judge_end();
    mapped();
}

void StreamSocket::update(const Entry& entry) {
    // (sockets are never taken out of a stream)
    if (entry.version <= entry_.version || entry.sockets.size() < entry_.sockets.size()) return;
    entry_ = entry;
    begin();
    for (Early& early : std::exchange(early_, {})) receive(early.header, std::move(early.body));
    host_.woken();
}

void StreamSocket::judge_end() {
    const SocketEntry& own = entry_.sockets[number_];
    if (own.state == SocketState::unattached && own.lost) {
        end_ = StreamEnd::own;
        return;
    }
    bool lost = false;
    for (size_t number = 0; number < entry_.sockets.size(); number++) {
        const SocketEntry& other = entry_.sockets[number];
        if (number == number_) continue;
        if (other.state != SocketState::unattached) return;
        lost |= other.lost;
    }
    if (entry_.grows && !entry_.destroyed) return;  // somebody may come yet
    end_ = lost ? StreamEnd::lost : entry_.destroyed ? StreamEnd::destroyed : StreamEnd::left;
    if (entry_.type == StreamType::direct && !lost) end_ = StreamEnd::left;
}

void StreamSocket::receive(const wire::StreamHeader& header, BodyPtr body) {
    if (stopped_ || header.to_incarnation != static_cast<uint16_t>(incarnation_)) return;
    if (header.from >= entry_.sockets.size() ||
        static_cast<int16_t>(header.from_incarnation -
                             static_cast<uint16_t>(entry_.sockets[header.from].incarnation)) > 0) {
        if (early_.size() < max_early) early_.push_back({header, std::move(body)});
        return;
    }
    const SocketEntry* from = attached(header.from);
    if (!from || header.from_incarnation != static_cast<uint16_t>(from->incarnation)) return;
    received(header, std::move(body));
}

void StreamSocket::go_on() {
    stopped_ = false;
    resume_all();
}

const SocketEntry* StreamSocket::attached(uint16_t number) const {
    if (number >= entry_.sockets.size()) return nullptr;
    const SocketEntry& socket = entry_.sockets[number];
    return socket.state == SocketState::attached ? &socket : nullptr;
}

void StreamSocket::tell(uint16_t to, wire::StreamKind kind, uint64_t number, const BodyPtr& body,
                        uint32_t ack) {
    const SocketEntry* other = attached(to);
    if (!other) return;
    wire::StreamHeader header;
    header.stream = entry_.id;
    header.number = number;
    header.ack = ack;
    header.from = number_;
    header.to = to;
    header.from_incarnation = static_cast<uint16_t>(incarnation_);
    header.to_incarnation = static_cast<uint16_t>(other->incarnation);
    header.kind = kind;
    host_.send_message(other->where.rank, header, body);
}

}  // namespace kernet
