// SPDX-License-Identifier: BSD-3-Clause
// What a move or a snapshot of a rank's tree works on.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <optional>
#include <string>
#include <sys/types.h>
#include <utility>
#include <vector>

#include "base/result.hpp"
#include "ghost-core/criu/dump.hpp"
#include "ghost-core/criu/shared_memory.hpp"
#include "ghost-core/supervisor/guard.hpp"
#include "pmix-plugin/protocol/node_wrapper.hpp"
#include "pmix-plugin/protocol/parts.hpp"
#include "pmix-plugin/wrapper/rank_metadata.hpp"
#include "pmix-plugin/wrapper/stdio.hpp"
#include "pmix-plugin/wrapper/worker.hpp"

namespace ghost::plugin {

// Which rank this wrapper is for, from the environment the runtime component sets.
struct Identity {
    std::string job;
    uint32_t rank = 0;
    std::string life;         // of the job
    std::string node_socket;  // empty: no node agent, the rank is not movable
    std::string criu = "criu";

    static Identity from_environment();
    // `init`: of the rank's tree, 0 while there is none.
    WrapperHello hello(WrapperMode mode, pid_t init, std::string why = {}) const;
    // What both ends of a move prove to know, of the job's secret: nobody of another life of the
    // job does. Empty without one.
    std::string proof(const std::string& secret) const {
        return secret.empty() ? secret : secret + "/" + life;
    }
    // What all metadata of its ghosts begin with.
    RankMetadata metadata(uint64_t seq) const { return {.job = job, .rank = rank, .seq = seq}; }
    Failed failed(uint64_t seq, Stage stage, std::string why) const {
        return {seq, rank, stage, std::move(why)};
    }
};

// All outlive whoever has them; main thread only, but for `who`, `root` and what `stdio` allows.
struct TreeParts {
    const Identity& who;
    pid_t root = 0;
    Stdio& stdio;
    core::Guard& guard;
    std::function<void(const std::string& packet)> send;  // to the node agent

    template <typename T>
    void tell(const T& message) const {
        send(schema::encode(message));
    }
    void tell(const Outgoing& message) const { send(encode(message)); }
    void fail(uint64_t seq, Stage stage, std::string why) const {
        tell(who.failed(seq, stage, std::move(why)));
    }
};

// What a process of this node is to a user: "rank 2", "process 4711".
std::string rank_or_process(pid_t pid);

// Memory that a rank's tree shares with others; they can only move, or be saved and restored, as
// one.
struct Sharing {
    std::vector<core::SharedMemory> memory;
    std::vector<SharedPart> parts;      // of each, the ranks of the job that have it
    std::vector<std::string> lines;     // of each, with whom it is shared, for the user
    std::vector<std::string> refusals;  // those of what ranks of the job do not share alone

    // What criu and the others were told is still so; `now` is what is there. Sizes may change.
    Status confirm(const Sharing& now);
    // To these criu's keys of it.
    std::vector<std::string> with_keys(std::vector<std::string> externals) const;
    // For whoever makes the tree again; `unit`: the ranks that have to be together.
    SharedMappings metadata(const std::vector<uint32_t>& unit) const;
    // What is in those of these ids, while nobody can write to them.
    Result<core::SkeletonFiles> contents(const std::vector<std::string>& ids) const;
};
// `seen`: what the node agent sees, of a user's rank.
Result<Sharing> sharing_of(pid_t root, const Identity& who, const std::vector<SharedPart>& seen);

// refused, with all of these lines; none: it is fine.
Status refused_for(const std::vector<std::string>& lines);
// What the rank shares, if it can be taken out of its system as it is now, `sockets` looked at too.
Result<Sharing> check_rank(pid_t root, const Identity& who,
                           const std::vector<std::string>& externals,
                           const std::vector<SharedPart>& seen, bool sockets);

// A tree that stands still waits for all it shares memory with.
class SharersWait {
  public:
    // On the worker, after each `still`: until as many `share` have come. False: it is off.
    bool wait();
    void share();
    void call_off();

  private:
    std::mutex mutex_;
    std::condition_variable changed_;
    int stills_ = 0, shares_ = 0;
    bool off_ = false;
};

// The quiets of a live move: the main thread begins one, the worker ends it.
class LiveTurns {
  public:
    // How far the worker has come.
    enum class Wish { connected, converged, none };

    void reset();
    // On the main thread: the rank is quiet; standard input as it is carried.
    void begin(RankStdio stdio);
    void call_off();
    // On the worker: whether it is quiet, after so long at most. An error: it is off.
    Result<bool> wait(int64_t us);
    // The same: what is to be said before it waits, once.
    Wish wish();
    RankStdio stdio();
    void end();

  private:
    std::mutex mutex_;
    std::condition_variable changed_;
    RankStdio stdio_;
    Wish wish_ = Wish::connected;
    bool quiet_ = false, off_ = false;
};

// The signal that tells a rank's agent that its tree runs again:
// SIGRTMAX-2 to one thread of the tree whose init is `root`. not_found: no such thread.
Status wake_agent(pid_t root, const std::optional<AgentThread>& agent);

}  // namespace ghost::plugin
