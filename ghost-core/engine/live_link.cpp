// SPDX-License-Identifier: BSD-3-Clause
#include "ghost-core/engine/live_link.hpp"

#include <algorithm>
#include <cstring>
#include <fmt/format.h>
#include <fstream>
#include <functional>

#include "base/hash.hpp"
#include "ghost-core/engine/live.hpp"

namespace ghost::core {
namespace {

std::function<void(const char*)>& probe() {
    static std::function<void(const char*)> current;
    return current;
}

uint64_t checksum(const Head& head, const iovec* pieces, size_t count) {
    XXH3_state_t* state = XXH3_createState();
    XXH3_64bits_reset_withSeed(state, XXH3_64bits(&head, offsetof(Head, checksum)));
    for (size_t i = 0; i < count; i++)
        XXH3_64bits_update(state, pieces[i].iov_base, pieces[i].iov_len);
    const uint64_t out = XXH3_64bits_digest(state);
    XXH3_freeState(state);
    return out;
}

template <typename T>
void put(std::string& out, const T& value) {
    out.append(reinterpret_cast<const char*>(&value), sizeof value);
}

template <typename T>
bool take(std::string_view& from, T& value) {
    if (from.size() < sizeof value) return false;
    std::memcpy(&value, from.data(), sizeof value);
    from.remove_prefix(sizeof value);
    return true;
}

}  // namespace

void set_live_probe(std::function<void(const char*)> with) {
    probe() = std::move(with);
}

void at_point(const char* point) {
    if (probe()) probe()(point);
}

Error LiveLink::Message::damaged() const {
    return make_error(Code::corrupt, "read message of the other side", std::to_string(head.type));
}

ClockSample tree_offsets(pid_t root) {
    ClockSample out;
    std::ifstream in(fmt::format("/proc/{}/timens_offsets", root));
    std::string name;
    for (int64_t seconds = 0, ns = 0; in >> name >> seconds >> ns;)
        (name == "monotonic" ? out.monotonic_ns : out.boottime_ns) = seconds * 1000000000 + ns;
    return out;
}

Status LiveLink::send(LiveMessageType type, int inner_pid, uint64_t count, uint64_t number,
                      std::vector<iovec> payload) {
    Head head;
    head.type = static_cast<uint32_t>(type);
    head.inner_pid = inner_pid;
    head.count = count;
    head.number = number;
    for (const auto& piece : payload) head.bytes += piece.iov_len;
    head.checksum = checksum(head, payload.data(), payload.size());
    payload.insert(payload.begin(), {&head, sizeof head});
    sent_ += sizeof head + head.bytes;
    return link_.write_gather(payload.data(), payload.size());
}

Status LiveLink::send_text(LiveMessageType type, std::string_view text) {
    return send(type, 0, 0, 0, {{const_cast<char*>(text.data()), text.size()}});
}

Result<LiveLink::Message> LiveLink::receive() {
    Message out;
    auto* at = reinterpret_cast<char*>(&out.head);
    for (size_t done = 0; done < sizeof out.head;) {
        auto got = link_.read(at + done, sizeof out.head - done);
        if (!got) return got.error();
        if (*got == 0) return because(Code::peer_lost, "the other side has hung up");
        done += *got;
    }
    if (out.head.bytes > message_limit) return out.damaged();
    out.payload.resize(out.head.bytes);
    for (size_t done = 0; done < out.payload.size();) {
        auto got = link_.read(out.payload.data() + done, out.payload.size() - done);
        if (!got) return got.error();
        if (*got == 0) return because(Code::peer_lost, "the other side has hung up");
        done += *got;
    }
    const iovec all{out.payload.data(), out.payload.size()};
    if (checksum(out.head, &all, 1) != out.head.checksum) return out.damaged();
    return out;
}

Result<LiveLink::Message> LiveLink::expect(LiveMessageType type) {
    auto message = receive();
    if (!message || message->type() == type) return message;
    if (message->type() == LiveMessageType::refused || message->type() == LiveMessageType::give_up)
        return because(Code::refused, "the other side gives up: " + message->payload);
    return message->damaged();
}

Status GhostPart::write(const void* data, size_t size) {
    return link_.send(LiveMessageType::ghost, 0, 0, 0, {{const_cast<void*>(data), size}});
}

Status GhostPart::write_gather(iovec* pieces, size_t count) {
    return link_.send(LiveMessageType::ghost, 0, 0, 0, {pieces, pieces + count});
}

Result<size_t> GhostPart::read(void* data, size_t size) {
    while (used_ == piece_.size() && !ended_) {
        auto message = link_.receive();
        if (!message) return message.error();
        if (message->type() == LiveMessageType::give_up) {
            given_up_ = message->payload;
            return because(Code::refused, "the source gives up: " + message->payload);
        }
        anew_ = message->type() == LiveMessageType::anew;
        if (anew_) return because(Code::busy, "the source takes its skeleton anew");
        if (message->type() != LiveMessageType::ghost &&
            message->type() != LiveMessageType::ghost_end)
            return message->damaged();
        ended_ = message->type() == LiveMessageType::ghost_end;
        piece_ = std::move(message->payload);
        used_ = 0;
    }
    const size_t part = std::min(size, piece_.size() - used_);
    std::memcpy(data, piece_.data() + used_, part);
    used_ += part;
    return part;
}

Status GhostPart::finalize() {
    return link_.send(LiveMessageType::ghost_end);
}

std::string pack(const std::vector<ThreadState>& threads) {
    std::string out;
    for (const auto& thread : threads) {
        put(out, thread.inner_tid);
        put(out, thread.registers);
        put(out, thread.signal_mask);
        put(out, static_cast<uint32_t>(thread.extended.size()));
        out += thread.extended;
    }
    return out;
}

Result<std::vector<ThreadState>> unpack_threads(const LiveLink::Message& message,
                                                std::string_view& rest) {
    std::vector<ThreadState> out;
    rest = message.payload;
    for (uint64_t i = 0; i < message.head.count; i++) {
        ThreadState one;
        uint32_t size = 0;
        if (!take(rest, one.inner_tid) || !take(rest, one.registers) ||
            !take(rest, one.signal_mask) || !take(rest, size) || size > rest.size())
            return message.damaged();
        one.extended = rest.substr(0, size);
        rest.remove_prefix(size);
        out.push_back(std::move(one));
    }
    return out;
}

}  // namespace ghost::core
