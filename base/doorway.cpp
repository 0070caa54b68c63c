// SPDX-License-Identifier: BSD-3-Clause
#include "base/doorway.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <map>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

namespace ghost {
namespace {

constexpr int64_t second_us = 1'000'000;
constexpr int64_t pause_us = 10'000;  // after more have come
constexpr int64_t rest_us = 100'000;  // when descriptors or memory have run out

Doorway::Origin origin_of(const sockaddr_storage& address) {
    Doorway::Origin out{};
    if (address.ss_family == AF_INET6) {
        std::memcpy(out.data(), &reinterpret_cast<const sockaddr_in6&>(address).sin6_addr, 16);
    } else if (address.ss_family == AF_INET) {
        // As a socket of both families has it (RFC 4291, 2.5.5.2).
        out[10] = out[11] = 0xff;
        std::memcpy(out.data() + 12, &reinterpret_cast<const sockaddr_in&>(address).sin_addr, 4);
    }
    return out;
}

// Of one connection that was on its way and came to nothing: there may be others (accept(2)).
bool is_his_alone(int error) {
    return error != EAGAIN && error != EMFILE && error != ENFILE && error != ENOBUFS &&
           error != ENOMEM && error != EINVAL && error != EBADF && error != ENOTSOCK;
}

}  // namespace

std::optional<Doorway::Arrived> Doorway::accept(int listener, int64_t now) {
    while (is_open(now)) {
        sockaddr_storage address{};
        socklen_t size = sizeof address;
        Fd fd(::accept4(listener, reinterpret_cast<sockaddr*>(&address), &size,
                        SOCK_CLOEXEC | SOCK_NONBLOCK));
        const int error = fd ? 0 : errno;
        if (error == EMFILE || error == ENFILE || error == ENOBUFS || error == ENOMEM) {
            rests_until_ = now + rest_us;
        }
        if (error != 0 && !is_his_alone(error)) {
            errno = error;
            return std::nullopt;
        }
        budget_us_ -= second_us / limits_.most_a_second;
        if (fd) return Arrived{std::move(fd), origin_of(address)};
    }
    errno = EAGAIN;
    return std::nullopt;
}

std::optional<uint64_t> Doorway::enter(uint64_t id, const Origin& from, int64_t now) {
    std::optional<uint64_t> out;
    if (strangers_.size() >= limits_.most) {
        out = weakest().id;
        leave(*out);
    }
    strangers_.push_back({id, from, now, false});
    return out;
}

void Doorway::spoke(uint64_t id) {
    for (Stranger& stranger : strangers_) {
        if (stranger.id == id) stranger.spoken = true;
    }
}

void Doorway::leave(uint64_t id) {
    std::erase_if(strangers_, [id](const Stranger& stranger) { return stranger.id == id; });
}

// Only where all places are taken. Of the address that has most places.
const Doorway::Stranger& Doorway::weakest() const {
    std::map<Origin, size_t> places;
    for (const Stranger& stranger : strangers_) places[stranger.from]++;
    const auto before = [&](const Stranger& a, const Stranger& b) {
        const size_t of_a = places[a.from], of_b = places[b.from];
        if (of_a != of_b) return of_a > of_b;
        return a.spoken < b.spoken;  // as they came among equals
    };
    return *std::min_element(strangers_.begin(), strangers_.end(), before);
}

int64_t Doorway::kept_until(const Stranger& stranger) const {
    return stranger.since + (stranger.spoken ? limits_.spoken_us : limits_.mute_us);
}

void Doorway::refill(int64_t now) {
    if (now > refilled_at_) budget_us_ = std::min(budget_us_ + now - refilled_at_, saved_us);
    refilled_at_ = now;
}

bool Doorway::is_open(int64_t now) {
    refill(now);
    if (now < rests_until_) return false;
    if (budget_us_ < second_us / limits_.most_a_second) {
        rests_until_ = now + pause_us;
        return false;
    }
    return strangers_.size() < limits_.most || kept_until(weakest()) <= now;
}

std::vector<uint64_t> Doorway::late(int64_t now) const {
    std::vector<uint64_t> out;
    for (const Stranger& stranger : strangers_) {
        if (stranger.since + limits_.greeting_us <= now) out.push_back(stranger.id);
    }
    return out;
}

int64_t Doorway::wakes_at(int64_t now) {
    int64_t next = strangers_.empty() ? 0 : strangers_.front().since + limits_.greeting_us;
    if (is_open(now)) return next;
    const int64_t opens = now < rests_until_ ? rests_until_ : kept_until(weakest());
    return next == 0 ? opens : std::min(next, opens);
}

void accept_only_who_speaks(int listener, int seconds) {
    setsockopt(listener, IPPROTO_TCP, TCP_DEFER_ACCEPT, &seconds, sizeof seconds);
}

}  // namespace ghost
