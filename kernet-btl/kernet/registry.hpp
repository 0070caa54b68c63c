// The peers of an endpoint, by rank, shared by both sides; and the bell the data side rings when
// it has a request for the control side.
#pragma once

#include <memory>
#include <mutex>
#include <unordered_map>
#include <vector>

#include "kernet-btl/kernet/mailbox.hpp"

namespace kernet {

class Registry {
  public:
    // Finds or makes; the lock is held for a look-up only.
    PeerShared& peer(uint32_t rank) {
        std::lock_guard lock(mutex_);
        auto& slot = peers_[rank];
        if (!slot) slot = std::make_unique<PeerShared>(rank);
        return *slot;
    }
    std::vector<PeerShared*> all() {
        std::lock_guard lock(mutex_);
        std::vector<PeerShared*> out;
        out.reserve(peers_.size());
        for (auto& [rank, peer] : peers_) out.push_back(peer.get());
        return out;
    }

    // Data side.
    void ask(PeerShared& peer, uint32_t request) {
        if ((peer.requests.fetch_or(request, std::memory_order_acq_rel) & request) == request) {
            return;  // asked before and not taken yet
        }
        ring_bell();
    }
    void ring_bell();

    // Control side: the eventfd ring_bell() writes to, -1 for none (suspended). The gate is closed
    // whenever this changes, or nobody uses the data side yet.
    void set_bell(int fd) { bell_.store(fd, std::memory_order_release); }

    Mailbox offers;

  private:
    std::mutex mutex_;
    std::unordered_map<uint32_t, std::unique_ptr<PeerShared>> peers_;
    std::atomic<int> bell_{-1};
};

}  // namespace kernet
