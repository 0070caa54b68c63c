// The data side of an endpoint: its KerNet sockets and their progress.
//
// Functions marked (gate) enter the gate themselves and may be called by any data-path thread; the
// others are called inside it, or by the control side while it is closed.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/fd.hpp"
#include "kernet-btl/kernet/filtered.hpp"
#include "kernet-btl/kernet/gate.hpp"
#include "kernet-btl/kernet/registry.hpp"
#include "kernet-btl/kernet/socket.hpp"
#include "kernet-btl/link/frame.hpp"

namespace kernet {

class DataPath {
  public:
    DataPath(Registry& registry, bool threads) : gate_(threads), registry_(registry) {}

    Gate& gate() { return gate_; }
    Registry& registry() { return registry_; }
    FramePool& pool() { return pool_; }

    // Who receives; before the first attach() and before any peer may connect.
    void set_sink(Sink* sink) { sink_ = sink; }
    // What every message goes through, at both ends of every stream; before the first attach().
    void set_filters(std::unique_ptr<Filters> filters) { filters_ = std::move(filters); }
    // A new socket's; null without filters.
    std::unique_ptr<Filtered> filtered(uint32_t peer) {
        return filters_ ? std::make_unique<Filtered>(*filters_, pool_, peer) : nullptr;
    }
    // How bulk messages are cut for a ring, bytes; multiples of 64, at most 64 KiB.
    void set_pieces(size_t min, size_t max) {
        piece_min_ = min;
        piece_max_ = max;
    }
    size_t piece_min() const { return piece_min_; }
    size_t piece_max() const { return piece_max_; }

    // (gate) The socket of the stream to `peer`, made at first use. Lives as long as the endpoint.
    Socket& attach(uint32_t peer);
    // (gate) Moves what can be moved; returns the number of events. Does nothing when called from
    // a callback of the sink.
    int progress() {
        Inside inside(gate_);
        return gate_.nested() ? 0 : progress_inside();
    }
    // The same for a caller that is inside the gate, at the outermost level.
    int progress_inside();
    // (gate) Progress until nothing waits to go out, at most that long.
    void drain(int64_t limit_us);
    // (gate) Gives all sockets back: the peers are told.
    void unattach_all();

    // Gate closed.
    // Takes new links and sends what waits for them, on behalf of a rank that may not enter the
    // data side for hours. The sink is told of released() only. True if something still waits.
    bool push();
    // Any time, by the control side: links that must be looked after have been looked at by the
    // rank itself since the last call.
    bool looked_after() {
        const uint32_t looks = looks_.load(std::memory_order_relaxed);
        return tended_.load(std::memory_order_relaxed) &&
               std::exchange(looks_seen_, looks) != looks;
    }
    void suspend_all();
    void wakeup_all();

    // A socket has got or lost a link.
    void links_changed() { stale_ = true; }

  private:
    Socket& socket_of(PeerShared& peer);
    void take_offers();
    void sort_links();
    int poll_streams();
    void watch_streams();

    Gate gate_;
    Registry& registry_;
    FramePool pool_;
    std::unique_ptr<Filters> filters_;
    Sink* sink_ = nullptr;
    size_t piece_min_ = 2048;
    size_t piece_max_ = 65536;
    std::unordered_map<uint32_t, std::unique_ptr<Socket>> sockets_;
    std::vector<Socket*> rings_;  // sockets by the link they have now
    std::vector<Socket*> streams_;
    ghost::Fd poller_;       // epoll set of streams_; none if there are none
    uint32_t unlinked_ = 0;  // attached sockets whose link is being made, or whose peer moves
    bool stale_ = false;     // rings_ and streams_ are to be made anew
    uint32_t pass_ = 0;
    std::atomic<bool> tended_{false};  // there are links that must be looked after
    std::atomic<uint32_t> looks_{0};   // at stream links, by the rank; wraps
    uint32_t looks_seen_ = 0;          // the control side's
};

}  // namespace kernet
