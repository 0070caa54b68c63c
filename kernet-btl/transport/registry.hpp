// SPDX-License-Identifier: BSD-3-Clause
// What the control side and the data side of an endpoint hand each other: its peers, by rank, and
// what each side asks for of them; new links; and the bell the data side rings when it has a
// request. Neither side ever waits for the other.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <unordered_map>
#include <vector>

#include "kernet-btl/link/link.hpp"

namespace kernet {

// One peer as both sides see it. Owned by the registry, lives as long as the endpoint.
struct PeerShared {
    explicit PeerShared(uint32_t rank) : rank(rank) {}
    const uint32_t rank;
    // Written by the data side after every frame; a handshake may read an older value, which only
    // makes the peer repeat some frames.
    std::atomic<uint64_t> received{0};
    // Requests to the control side, a set of Request bits.
    std::atomic<uint32_t> requests{0};
    // Generation of the link the data side found broken or was told to leave.
    std::atomic<uint64_t> lost_generation{0};
    // Written by the control side: the peer is no more, and there is no link.
    std::atomic<bool> gone{false};
};

enum Request : uint32_t {
    want_link = 1,       // there is something to send and no link
    link_lost = 2,       // lost_generation is gone
    peer_suspended = 4,  // it said so before it closed; it will come back by itself
    peer_left = 8,       // it said bye
    link_mute = 16,      // with link_lost: nothing ever came by it
    link_lossy = 32,     // the link that was lost, or replaced, last had lost too much
};

// A new link for the data side.
struct LinkHandoff {
    LinkHandoff* next = nullptr;
    PeerShared* peer = nullptr;
    uint64_t generation = 0;
    uint64_t peer_last_seen = 0;  // last frame of ours the peer has
    std::unique_ptr<Link> link;
};

// Stack of offers; taken all at once, oldest first.
class Mailbox {
  public:
    ~Mailbox() { drop(take()); }

    bool empty() const { return head_.load(std::memory_order_relaxed) == nullptr; }
    void put(std::unique_ptr<LinkHandoff> offer) {
        LinkHandoff* raw = offer.release();
        raw->next = head_.load(std::memory_order_relaxed);
        while (!head_.compare_exchange_weak(raw->next, raw, std::memory_order_release,
                                            std::memory_order_relaxed)) {
        }
    }
    // The caller owns the list.
    LinkHandoff* take() {
        LinkHandoff* list = head_.exchange(nullptr, std::memory_order_acquire);
        LinkHandoff* reversed = nullptr;
        while (list) {
            LinkHandoff* next = list->next;
            list->next = reversed;
            reversed = list;
            list = next;
        }
        return reversed;
    }
    static void drop(LinkHandoff* list) {
        while (list) {
            std::unique_ptr<LinkHandoff> offer(list);
            list = offer->next;
        }
    }

  private:
    std::atomic<LinkHandoff*> head_{nullptr};
};

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

    // Control side.
    void set_gone(PeerShared& peer, bool gone) {
        if (peer.gone.exchange(gone, std::memory_order_acq_rel) != gone && gone)
            gone_.store(true, std::memory_order_release);
    }
    // Data side: some peer is gone since it was last asked.
    bool take_gone() {
        return gone_.load(std::memory_order_relaxed) &&
               gone_.exchange(false, std::memory_order_acq_rel);
    }

    // Control side: the eventfd ring_bell() writes to, -1 for none (suspended). The gate is closed
    // whenever this changes, or nobody uses the data side yet.
    void set_bell(int fd) { bell_.store(fd, std::memory_order_release); }

    Mailbox offers;

  private:
    std::mutex mutex_;
    std::unordered_map<uint32_t, std::unique_ptr<PeerShared>> peers_;
    std::atomic<int> bell_{-1};
    std::atomic<bool> push_wanted_{false};
    std::atomic<bool> gone_{false};
};

}  // namespace kernet
