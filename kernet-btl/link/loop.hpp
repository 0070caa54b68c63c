// SPDX-License-Identifier: BSD-3-Clause
// Link `loop`: packets between two ends in one process. Loses what does not fit.
#pragma once

#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <vector>

#include "kernet-btl/link/packet_driver.hpp"

namespace kernet {

// Where the ends of one process find each other. Any thread; outlives its drivers.
class LoopHub : public std::enable_shared_from_this<LoopHub> {
  public:
    std::unique_ptr<PacketDriver> make();

    struct Inbox {
        std::mutex mutex;
        std::deque<std::vector<uint8_t>> packets;
        size_t bytes = 0;
        bool closed = false;
    };

  private:
    friend class LoopDriver;
    std::shared_ptr<Inbox> find(uint64_t id);
    void forget(uint64_t id);

    std::mutex mutex_;
    uint64_t next_ = 1;
    std::map<uint64_t, std::weak_ptr<Inbox>> inboxes_;
};

}  // namespace kernet
