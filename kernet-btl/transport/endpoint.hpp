// SPDX-License-Identifier: BSD-3-Clause
// Everything of KerNet in one process: its sockets (one per stream, that is per peer rank), their
// links, and the listeners peers connect to.
//
// Two sides meet here. The *control side* (rank agent's thread) accepts, connects, shakes hands,
// suspends and wakes up. The *data side* (the threads that call MPI; see socket.hpp) sends and
// receives; it never waits for the control side except at a closed gate. Links go from one side to
// the other through lock-free mail boxes. Design: "Dynamic Streams" (Gallard, Morin, RR-4987), 3.2.
#pragma once

#include <cstdint>
#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "kernet-btl/transport/location.hpp"
#include "kernet-btl/link/fault.hpp"
#include "kernet-btl/link/ring.hpp"
#include "kernet-btl/wire/handshake.hpp"

namespace kernet {

class DataPath;       // data side, datapath.hpp
class LoopHub;        // link/loop.hpp
struct TrialFigures;  // link/trial.hpp

struct EndpointConfig {
    std::string job;  // decimal job number; part of addresses and of every handshake
    uint32_t rank = 0;
    std::string secret_hex;  // 64 hex digits, the key of handshake MACs
    std::string life;        // of the job, drawn at its start: part of that key and of addresses
    int node = -1;           // daemon number; -1 unknown
    std::string node_name;
    uint64_t epoch = 0;      // placement number of this rank
    std::string if_include;  // comma-separated interface names or CIDR nets; "" = all but loopback,
                             // or loopback if there is nothing else
    bool use_shm = true;     // link `shm` with peers on the same node
    bool use_tcp = true;     // connections between nodes: link `tcp`, and all that begin as one
    // Links to prefer with peers on other nodes, in order, comma-separated (link/table.hpp). What
    // cannot be had with a peer is passed over; `tcp` is the last in any case. With `auto` among
    // them they are measured, and the best one is taken, or `tcp` (choice.hpp).
    std::string links = "tcp";
    // What says how good a link is that was measured, instead of TrialFigures::ratio(): tests.
    std::function<double(wire::LinkKind kind, const TrialFigures&)> judge;
    // A peer that answers nothing for so long is taken for dead, and connected to again. By link
    // tcp its node's system answers for it, by links of packets its agent.
    int64_t dead_after_us = 30'000'000;
    std::shared_ptr<LoopHub> loop;   // where peers in this process are found: link `loop`
    FaultPlan faults;                // what packets are to suffer: tests
    size_t ring_bytes = 512 * 1024;  // payload ring of link shm, per direction, bytes
    uint32_t ring_frames = 2048;     // lines of link shm's ring, per direction; power of two
    RingPieces ring_pieces;          // of a bulk message in it
    std::string tcp_congestion = "reno,cubic";  // tried in order; "" = the system's
    std::string filters;  // of all streams, docs/FILTERS.md; "" or "none": no filters
    int64_t connect_timeout_us = 2'000'000;  // one attempt, connect to end of handshake
    int64_t retry_min_us = 1'000;            // back-off between attempts, doubles
    int64_t retry_max_us = 500'000;
    bool threads = false;  // several threads may be on the data side at once: take a lock
};

// Owner: whoever created it. Control functions: one thread at a time (a mutex enforces it), in
// practice the rank agent's; set_location() also from the thread that initialises MPI.
class Endpoint {
  public:
    // Opens listeners for the given place. Code::invalid for a bad configuration, Code::io,
    // Code::unsupported; what filters lack here is said with the filter's name.
    static Result<std::unique_ptr<Endpoint>> create(const EndpointConfig& config);
    ~Endpoint();
    Endpoint(const Endpoint&) = delete;
    Endpoint& operator=(const Endpoint&) = delete;

    // --- control side ---
    // Where this process listens now; attached is false between suspend_all() and wakeup_all().
    Location location() const;
    // Readable when service() has something to do (an epoll descriptor with a timer inside);
    // -1 while suspended. Changes with every wakeup_all().
    int service_fd() const;
    // Accepts, connects, shakes hands, retries, keeps alive. Never blocks. Harmless when suspended.
    void service();

    // Closes the gate: returns when no thread is inside a data-path call, and none enters until
    // open_gate(). Waits for a call in progress (microseconds; a call never blocks). Idempotent.
    void close_gate();
    void open_gate();
    bool gate_closed() const;

    // The gate must be closed. Copies unconsumed rings and closes every link, listener, epoll,
    // timer and eventfd: afterwards the process has no descriptor and no shared mapping of ours.
    // KerNet sockets become *suspended*; what is in flight is kept. Idempotent.
    void suspend_all();
    // The job was restarted: from the next wakeup_all() there are links only with who is of this
    // life too. Only while suspended, else Code::invalid.
    Status begin_life(const std::string& life);
    // Attaches again, here or elsewhere: new listeners under the given place and epoch, then
    // reconnects (from service()) to all peers that had streams, at their `peers` locations (newer
    // ones than known) or the last known ones. Also for going on in place after an aborted move
    // (same node, same epoch). The gate stays closed: call open_gate() afterwards. On an error
    // (no listener possible) it can be called again.
    Status wakeup_all(int node, const std::string& node_name, uint64_t epoch,
                      const std::vector<Location>& peers);

    // A peer's location: the first one, or it moved. A lower epoch than the known one is ignored.
    // attached == false: frames for it are kept and no connection is tried until the next one.
    void set_location(const Location& location);
    // Called from service() when a peer could not be reached at its known location for a while, or
    // none is known: ask the node agent ("locate"). At most once per back-off interval and peer.
    std::function<void(uint32_t rank)> on_unknown_location;

    // --- data side ---
    DataPath& data();
    // Inside the gate, and any thread: until it may leave again, this process is to be where it is.
    void stay() { staying_++; }
    void may_leave() { staying_--; }
    // The gate must be closed.
    bool stays() const { return staying_ > 0; }

  private:
    std::atomic<int> staying_{0};
    struct Impl;
    explicit Endpoint(std::unique_ptr<Impl> impl);
    std::unique_ptr<Impl> impl_;
};

}  // namespace kernet
