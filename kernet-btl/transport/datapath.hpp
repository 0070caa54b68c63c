// SPDX-License-Identifier: BSD-3-Clause
// The data side of an endpoint: its KerNet sockets and their progress.
//
// Functions marked (gate) enter the gate themselves and may be called by any data-path thread; the
// others are called inside it, or by the control side while it is closed.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <poll.h>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/clock.hpp"
#include "base/fd.hpp"
#include "kernet-btl/transport/filtered.hpp"
#include "kernet-btl/transport/gate.hpp"
#include "kernet-btl/transport/registry.hpp"
#include "kernet-btl/transport/socket.hpp"
#include "kernet-btl/link/frame.hpp"

namespace kernet {

class DataPath {
  public:
    DataPath(Registry& registry, bool threads) : gate_(threads), registry_(registry) {}

    Gate& gate() { return gate_; }
    Registry& registry() { return registry_; }
    FramePool& pool() { return pool_; }

    // Who receives; before the first attach() and before any peer may connect.
    void set_receiver(Receiver* receiver) { receiver_ = receiver; }
    // What every message goes through, at both ends of every stream; before the first attach().
    void set_filters(std::unique_ptr<Filters> filters) { filters_ = std::move(filters); }
    // A new socket's; null without filters.
    std::unique_ptr<Filtered> filtered(uint32_t peer) {
        return filters_ ? std::make_unique<Filtered>(*filters_, pool_, peer) : nullptr;
    }

    // (gate) The socket of the stream to `peer`, made at first use. Lives as long as the endpoint.
    Socket& attach(uint32_t peer);
    // (gate) Moves what can be moved; returns the number of events. Does nothing when called from
    // a callback of the receiver.
    int progress() {
        int events = 0;
        Idle idle = Idle::spin;
        {
            Gate::Holder inside(gate_);
            if (gate_.nested()) return 0;
            events = progress_inside();
            idle = how_to_idle();
        }
        if (idle != Idle::spin) [[unlikely]]
            give_way(idle);
        return events;
    }
    // The same for a caller that is inside the gate, at the outermost level. It gives way itself.
    int progress_inside();
    // What is done between two passes when nothing has come. A processor is given to others when a
    // peer is away (whoever brings it back, criu, agents and daemons, would wait behind ranks that
    // spin), or when the linked ranks of this node outnumber its processors (the one that is waited
    // for may be waiting for a processor; Open MPI's mpi_yield_when_idle, decided when a job
    // starts, knows nothing of ranks that have moved).
    enum class Idle { spin, yield, sleep };
    // Inside the gate.
    Idle how_to_idle() const {
        if (idle_passes_ == 0) [[likely]]
            return Idle::spin;
        if (unlinked_ == 0) return idle_passes_ > passes_before_yield ? Idle::yield : Idle::spin;
        return idle_passes_ < passes_before_sleep ? Idle::yield : Idle::sleep;
    }
    // Outside the gate; `sleep` takes 50 to 100 µs (the default timer slack).
    static void give_way(Idle idle);
    // Inside the gate: a caller is going to sleep until something comes, and has slept.
    // Appends what becomes readable then; a link closed meanwhile, and rings, say nothing: sleep
    // for a short time.
    void begin_sleep(std::vector<pollfd>& readable);
    bool has_quick() const { return !quick_.empty(); }
    void end_sleep();
    // How far drain() is to get.
    enum class Drained : uint8_t {
        written,       // nothing waits to go out
        acknowledged,  // peers have all of it, those included that are away for now
        met,           // no peer is away, and nothing waits: all can be told what follows
    };
    // (gate) Progress until then, at most that long. False: it was not enough.
    bool drain(int64_t limit_us, Drained how = Drained::written);
    // Inside the gate, when a peer is gone: a socket with messages for it that no link ever took;
    // null if there is none.
    Socket* undeliverable();
    // (gate) Gives all sockets back: the peers are told.
    void unattach_all();

    // Gate closed.
    // Takes new links and sends what waits for them, on behalf of a rank that may not enter the
    // data side for hours. The receiver is told of released() only.
    struct Pushed {
        bool waits = false;  // something still does
        bool moved = false;  // something went that had waited
    };
    Pushed push();
    // Drops the links whose peer's node does not answer any more.
    void leave_dead();
    // Any time, by the control side: links that must be looked after have been looked at by the
    // rank itself since the last call.
    bool looked_after() {
        const uint32_t looks = looks_.load(std::memory_order_relaxed);
        const bool counted = tended_.load(std::memory_order_relaxed) || registry_.push_wanted();
        return std::exchange(looks_seen_, looks) != looks && counted;
    }
    void suspend_all();
    // Only while suspended.
    void begin_life(const std::string& life);
    void wakeup_all();

    // A socket has got or lost a link.
    void links_changed() { stale_ = true; }

  private:
    static constexpr uint32_t passes_before_yield = 10;   // less than 1 µs
    static constexpr uint32_t passes_before_sleep = 200;  // about 0.2 ms, most of it sched_yield()

    Socket& socket_of(PeerShared& peer);
    void count_look() {
        looks_.store(looks_.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
    }
    void take_offers();
    void sort_links();
    int poll_slow();
    void count_idle(int events);
    void watch_slow();
    void tell_slow();

    Gate gate_;
    Registry& registry_;
    FramePool pool_;
    std::unique_ptr<Filters> filters_;
    Receiver* receiver_ = nullptr;
    std::unordered_map<uint32_t, std::unique_ptr<Socket>> sockets_;
    std::vector<Socket*> quick_;  // sockets by the link they have now (Link::Traits)
    std::vector<Socket*> slow_;
    ghost::Fd poller_;          // epoll set of slow_; none if there are none
    uint32_t sleeping_ = 0;     // callers between begin_sleep() and end_sleep()
    uint32_t unlinked_ = 0;     // attached sockets whose link is being made, or whose peer moves
    size_t processors_ = 0;     // of this node; 0: not known yet
    bool crowded_ = false;      // the linked ranks of this node outnumber its processors
    uint32_t idle_passes_ = 0;  // in a row, while a peer is away or the node crowded
    bool stale_ = false;        // quick_ and slow_ are to be made anew
    uint32_t pass_ = 0;
    ghost::LastTime passed_;
    std::atomic<bool> tended_{false};  // there are links that must be looked after
    std::atomic<uint32_t> looks_{0};   // at slow links, by the rank; wraps
    uint32_t looks_seen_ = 0;          // the control side's
};

}  // namespace kernet
