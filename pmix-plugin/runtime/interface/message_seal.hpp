// SPDX-License-Identifier: BSD-3-Clause
// Messages between daemons, sealed where the runtime sends them as they are (XChaCha20-Poly1305).
//
// A sealed message: 8 bytes that the sender's process has drawn, 8 bytes counter, the bytes, 16
// bytes authentication. The key is made of the job's secret and life; sender, receiver and counter
// are authenticated. What comes from one sender to one receiver, or to all, has growing counters.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <utility>

#include "base/result.hpp"

namespace ghost::plugin {

// One thread.
class MessageSeal {
  public:
    static constexpr uint32_t everybody = UINT32_MAX;  // as a receiver

    // secret: hex. Both ends of a life have the same.
    MessageSeal(uint32_t self, const std::string& secret, const std::string& life);
    ~MessageSeal();
    MessageSeal(const MessageSeal&) = delete;
    MessageSeal& operator=(const MessageSeal&) = delete;

    std::string close(uint32_t to, std::string_view text);
    // refused: it is of another life or a stranger's, was changed, is for somebody else, or it or a
    // later one has come before.
    Result<std::string> open(uint32_t from, std::string_view sealed);

  private:
    using Key = std::array<unsigned char, 32>;
    using Drawn = std::array<unsigned char, 8>;
    struct Heard {
        Drawn drawn{};  // by the one process that this sender is
        uint64_t counter = 0;
    };

    const uint32_t self_;
    Key key_{};
    Drawn drawn_{};
    std::map<uint32_t, uint64_t> sent_;                     // last counter, by receiver
    std::map<std::pair<uint32_t, uint32_t>, Heard> heard_;  // by sender and receiver
};

}  // namespace ghost::plugin
