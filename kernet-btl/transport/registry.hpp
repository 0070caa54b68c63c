// The peers of an endpoint, by rank, shared by both sides; and the bell the data side rings when
// it has a request for the control side.
#pragma once

#include <memory>
#include <mutex>
#include <unordered_map>
#include <vector>

#include "kernet-btl/transport/mailbox.hpp"

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
    // Data side: something waits for room in a link, and may do so when this thread has long gone
    // to compute. The control side looks after it until nothing waits any more.
    void want_push() {
        if (push_wanted_.load(std::memory_order_relaxed)) return;
        if (!push_wanted_.exchange(true, std::memory_order_acq_rel)) ring_bell();
    }
    bool push_wanted() const { return push_wanted_.load(std::memory_order_acquire); }
    // Control side, gate closed.
    void set_push_wanted(bool wanted) { push_wanted_.store(wanted, std::memory_order_release); }

    // Control side: the eventfd ring_bell() writes to, -1 for none (suspended). The gate is closed
    // whenever this changes, or nobody uses the data side yet.
    void set_bell(int fd) { bell_.store(fd, std::memory_order_release); }

    Mailbox offers;

  private:
    std::mutex mutex_;
    std::unordered_map<uint32_t, std::unique_ptr<PeerShared>> peers_;
    std::atomic<int> bell_{-1};
    std::atomic<bool> push_wanted_{false};
};

}  // namespace kernet
