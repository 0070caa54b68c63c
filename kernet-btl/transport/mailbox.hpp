// What the control side and the data side hand each other. Lock-free; neither ever waits.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>

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

}  // namespace kernet
