// SPDX-License-Identifier: BSD-3-Clause
// The rank agent: the thread in a rank that answers for it while the application computes.
//
// It keeps one control connection to its node's agent (docs/PROTOCOL.md, "R → N"), closes and
// reopens the gates of the data path (kernet::Endpoint) and of the PMIx client, and brings both up
// again at the node where the rank wakes. The application never takes part, whatever its thread
// level. Between `close` and the wake the rank holds no descriptor of ours and none of PMIx.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "base/result.hpp"

namespace kernet {

class Endpoint;
struct AgentPorts;
struct Location;

// Who the rank is and where its node agent listens.
struct AgentConfig {
    std::string job;          // GHOST_JOB
    uint32_t rank = 0;        // GHOST_RANK
    std::string node_socket;  // GHOST_NODE_SOCKET, the same name on every node of the job
    std::string host_socket;  // of a guest, GHOST_HOST_SOCKET: that of the job it is a guest of
    std::string secret;       // 64 hex digits; see fetch_secret()
    std::string life;         // GHOST_LIFE, of the job; a restart begins another
    int node = -1;            // GHOST_NODE_ID
    std::string node_name;    // GHOST_NODE_NAME
    std::string filters;      // GHOST_FILTERS, of all streams; "" if there are none
    // Called on the agent's thread after a move, before what the rank has published is told to its
    // new server: where it is now is to be published too.
    std::function<void(const Location&)> moved;

    // Limits, milliseconds. Only the tests change them.
    int wait_slice_ms = 1000;       // one wait for the wake-up signal
    int silent_slices = 20;         // slices without a signal before the node agent is asked
    int gone_looks = 3;             // this often there is no node agent, then the rank gives up
    int gate_limit_ms = 300000;     // gates that nobody opens open; longer than any request takes
    int connect_pause_ms = 20;      // between attempts to connect when waking
    int connect_limit_ms = 60000;   // all attempts together, then the rank gives up
    int reconnect_pause_ms = 2000;  // between attempts while attached (the rank runs on without)
    int pmix_limit_ms = 10000;      // one operation on the PMIx progress thread

    // Code::not_found if this process was not started as a rank of a ghost job (then no agent is
    // needed), Code::invalid if the environment is incomplete.
    static ghost::Result<AgentConfig> from_environment();
    // The same for a guest, a rank of a job that ranks of a ghost job have spawned: it talks with
    // them under their job's name and secret, as `rank`, and has no agent and no node_socket.
    static ghost::Result<AgentConfig> of_guest(uint32_t rank);
    // The secret, of the node agent, which need not listen yet; it is in no environment. Waits for
    // it, for limit_ms at most.
    ghost::Status fetch_secret(int limit_ms = 60'000);
};

// Owned by the BTL component, one per process. start() and stop() are called on the MPI thread;
// everything else happens on the agent's own thread, which blocks every signal.
class RankAgent {
  public:
    // Starts the thread; the connection is made in the background, so that MPI_Init never waits
    // for it. `endpoint` must outlive the agent. From here until stop() the agent's thread is the
    // one that calls endpoint.service() and the other calls the endpoint reserves for it.
    // Fails with Code::unsupported if the libpmix in this process is not one whose layouts are
    // known (4.2.x): the rank runs, but cannot be moved.
    static ghost::Result<std::unique_ptr<RankAgent>> start(Endpoint& endpoint,
                                                           const AgentConfig& config);
    // The same on other implementations of what the agent drives; for tests.
    static ghost::Result<std::unique_ptr<RankAgent>> start(AgentPorts ports,
                                                           const AgentConfig& config);
    ~RankAgent();

    // Whether the node agent answers: then it says where any rank of the job is, as soon as that is
    // known. Any thread.
    bool attached() const;

    // At MPI_Finalize, before PMIx is finalized: says `bye` and ends the thread. Waits for a move
    // that is under way; after it the rank stays where it is until it ends.
    void stop();

  private:
    class Impl;
    explicit RankAgent(std::unique_ptr<Impl> impl);
    std::unique_ptr<Impl> impl_;
};

}  // namespace kernet
