// SPDX-License-Identifier: BSD-3-Clause
// One snapshot of a rank's tree, from copying its memory to the synced file: what of it blocks.
#pragma once

#include <atomic>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "base/control_socket.hpp"
#include "base/signing.hpp"
#include "ghost-core/engine/checkpoint.hpp"
#include "ghost-core/criu/written_files.hpp"
#include "ghost-core/resource/paced.hpp"
#include "pmix-plugin/wrapper/tree_parts.hpp"
#include "pmix-plugin/wrapper/worker.hpp"

namespace ghost::plugin {

// What is asked for, and what an incremental one is based on: files relative to the folder of
// snapshots, nearest first.
struct SnapshotOrder : SnapPrepareRank {
    std::vector<std::string> chain;
    std::shared_ptr<const SigningKey> key;  // this one's and the chain's; none: it is not signed

    bool stays() const { return then != Then::go_on; }  // frozen, once it is saved
    std::string path() const { return folder + "/" + file; }
    std::vector<std::string> paths() const;    // all of it
    std::vector<std::string> parents() const;  // all of `chain`
};

// run() on the worker; everything else from any thread.
class SnapshotJob {
  public:
    struct Tree {
        Identity who;
        pid_t root = 0;
        std::vector<std::string> externals;           // criu keys
        std::string work_dir;                         // criu's
        std::function<void(RankStdio&)> note_output;  // Stdio's
    };
    using Say = std::function<void(Outgoing)>;
    // Called whenever something was done, be it that no bytes have come.
    using Progress = std::function<void(uint64_t bytes, uint64_t total)>;

    // `checkpointer` is used by nobody else until run() has returned.
    SnapshotJob(SnapshotOrder order, Tree tree, core::Checkpointer& checkpointer);

    // Says snap_ready and snap_captured, returns snap_written or failed. Whatever happens, the tree
    // runs on, but with order().stays() when it was saved. When freeze() was called the agent gets
    // its signal as soon as the tree runs again, whatever happens; with order().stays() only if the
    // tree was not frozen.
    Outgoing run(const Say& say, const Progress& progress);

    // snap_freeze: the state of standard input and output at this moment, and the agent.
    void freeze(RankStdio stdio, const SnapFreeze& order);
    // All it shares memory with have come as far as it has.
    void share() { sharers_.share(); }
    // snap_write: the tree's neighbours run again too.
    void write();
    // Ends it as soon as that does no harm; from then on nothing is written any more.
    void call_off();
    // Whether the agent has had its signal.
    bool woken() const { return woken_; }
    bool told_to_freeze();
    const SnapshotOrder& order() const { return order_; }

  private:
    Outgoing take();
    bool parents_are_there() const;
    Result<Sharing> check(bool sockets) const;
    Status wait_for_sharers();
    Status save_shared();
    Status open();
    bool must_be_direct() const;
    Status wait_for_order(bool direct);
    void wait_to_write();
    void look_at_it();
    nlohmann::json final_metadata();
    nlohmann::json early_metadata() const;
    Outgoing copied();
    Outgoing direct();
    Outgoing written(uint64_t page_bytes, uint64_t zero_bytes, const std::string& digest);
    const char* kind() const { return incremental_ ? "incremental" : "full"; }
    bool in_copy(uint64_t bytes);
    void in_ghost(uint64_t bytes, uint64_t total);
    void in_file(uint64_t bytes);
    void wake();
    Failed failure(const Error& error) const;

    const SnapshotOrder order_;
    const Tree tree_;
    core::Checkpointer& checkpointer_;
    const Say* say_ = nullptr;
    const Progress* progress_ = nullptr;
    Stage stage_ = Stage::check;
    std::unique_ptr<core::Resource> out_;
    core::PacedResource* paced_ = nullptr;  // in out_; guarded by mutex_ against call_off()
    std::vector<core::WrittenFile> files_;
    uint64_t memory_ = 0;
    bool incremental_ = false;
    bool captured_ = false;
    Sharing sharing_;  // as of the preparation
    SharersWait sharers_;
    core::SkeletonFiles shared_;  // of it, what this ghost has
    std::atomic<uint64_t> copied_{0}, total_{0}, done_{0};

    std::mutex mutex_;
    std::condition_variable changed_;
    enum class Command { none, freeze, write, off } command_ = Command::none;
    bool called_off_ = false;  // whatever the word was
    SnapFreeze frozen_for_;
    std::optional<RankStdio> stdio_;
    std::optional<AgentThread> agent_;
    std::atomic<bool> woken_{false};
};

}  // namespace ghost::plugin
