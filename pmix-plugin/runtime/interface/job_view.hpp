// SPDX-License-Identifier: BSD-3-Clause
// What the runtime knows of the job: what every daemon does, and what mpirun does beside that.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <sys/types.h>
#include <vector>

#include "base/control_socket.hpp"
#include "pmix-plugin/runtime/interface/messenger.hpp"
#include "pmix-plugin/snapshots/manifest.hpp"

namespace ghost::plugin {

using RankId = uint32_t;

struct NodeInfo {
    NodeId id = 0;
    std::string name;
    bool alive = true;
};

// One that joins the job while it runs.
struct NewNode {
    NodeId id = 0;       // of its daemon
    uint32_t place = 0;  // in the runtime's list of nodes
    std::string name;
    int slots = 0;
};

enum class RankLife {
    starting,  // its program has not called MPI_Init; it may be none of MPI
    running,   // in MPI_Init or past it
    ended
};

struct RankInfo {
    RankId rank = 0;
    NodeId node = 0;
    pid_t pid = 0;  // the wrapper's process id, on the rank's node only; else 0
    RankLife life = RankLife::starting;

    bool running() const { return life == RankLife::running; }
};

// In every daemon.
class JobView {
  public:
    virtual ~JobView() = default;

    virtual std::string job_name() const = 0;  // the application job's number in decimal; "" before
    virtual std::vector<NodeInfo> nodes() const = 0;
    virtual std::string secret() const = 0;       // the job's secret in hex; "" before it is known
    virtual std::string life() const = 0;         // drawn at every start and restart; "" likewise
    virtual std::string rank_socket() const = 0;  // address ranks and wrappers connect to, here
    // An MCA parameter as it is set ("ghost_checkpoint_interval"); nothing if it is not.
    virtual std::optional<std::string> parameter(const std::string& /*name*/) const { return {}; }
};

// Where its ranks are.
class RankView {
  public:
    virtual ~RankView() = default;

    virtual std::vector<RankInfo> ranks() const = 0;
};

// In mpirun: of the whole job.
class JobFacts {
  public:
    virtual ~JobFacts() = default;

    virtual bool job_running() const = 0;  // launched, and not every rank has ended
    // Guests: processes of other jobs than this one, spawned by its ranks or by each other, that
    // have not ended.
    virtual size_t guests() const { return 0; }
    virtual size_t guests_at(NodeId /*node*/) const { return 0; }  // those of them on one node
    // Some daemon hears from mpirun through another one. Contributions of ranks that have moved
    // cannot be counted there.
    virtual bool relayed() const { return false; }
    virtual std::optional<NodeId> find_node(const std::string& name) const = 0;
    virtual int slots(NodeId node) const = 0;               // 0: unknown
    virtual int cores(NodeId /*node*/) const { return 0; }  // 0: unknown
    virtual bool input_ended() const { return false; }      // all of its own has been read
    // All that it has read of its standard input for this rank, since it had read so many bytes,
    // is there to be given again.
    virtual bool has_input_since(RankId /*rank*/, uint64_t /*bytes*/) const { return false; }
    // What it has shown of the ranks' output; of those that are not named, nothing.
    virtual std::vector<ShownOutput> shown_output() const { return {}; }
    // Of mpirun, as far as it is decided; nothing: the runtime does not say.
    virtual std::optional<int> exit_status() const { return {}; }
    virtual std::string session_dir() const = 0;  // job family's folder on this node, exists
    // Asked for at every snapshot, before the ranks are listed. Texts may be any bytes. The offset
    // of the input is where mpirun began to read: what the rank was given since is added.
    virtual JobDescription describe_job() const { return {}; }
};

}  // namespace ghost::plugin
