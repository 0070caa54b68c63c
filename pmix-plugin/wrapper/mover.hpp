// SPDX-License-Identifier: BSD-3-Clause
// The source's part of a move in the wrapper: connect, export, then resume or die.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <sys/types.h>

#include "base/state_machine.hpp"
#include "ghost-core/engine/live.hpp"
#include "ghost-core/engine/migration.hpp"
#include "ghost-core/criu/realtime_priority.hpp"
#include "ghost-core/resource/network.hpp"
#include "ghost-core/supervisor/work_folder.hpp"
#include "pmix-plugin/wrapper/tree_parts.hpp"
#include "pmix-plugin/wrapper/worker.hpp"

namespace ghost::plugin {

enum class MoveState {
    idle,         // no move
    connecting,   // the worker connects to the target and warms criu
    connected,    // the target's wrapper waits for the ghost
    exporting,    // the rank is quiet: the worker freezes and sends
    copying,      // live: the rank runs on, the worker sends what it writes
    calling_off,  // any of them, but the move was called off meanwhile
    exported,     // the tree is frozen, whole, at both ends
    leaving,      // decided: what the rank wrote goes out, then the tree is killed
    gone,         // killed and said so
};

struct MoveRow {
    MoveState state;
    const char* name;
    uint32_t next;
};
constexpr StateTable move_states(std::to_array<MoveRow>({
    // leaving: of a tree that another wrapper exported, and this one adopted
    {MoveState::idle, "idle", to({MoveState::idle, MoveState::connecting, MoveState::leaving})},
    {MoveState::connecting, "connecting",
     to({MoveState::connected, MoveState::idle, MoveState::calling_off})},
    // calling_off: live
    {MoveState::connected, "connected",
     to({MoveState::exporting, MoveState::idle, MoveState::calling_off})},
    {MoveState::exporting, "exporting",
     to({MoveState::exported, MoveState::copying, MoveState::idle, MoveState::calling_off})},
    {MoveState::copying, "copying",
     to({MoveState::exporting, MoveState::idle, MoveState::calling_off})},
    // again, in other words
    {MoveState::calling_off, "calling off", to({MoveState::calling_off, MoveState::idle})},
    {MoveState::exported, "exported", to({MoveState::leaving, MoveState::idle})},
    {MoveState::leaving, "leaving", to({MoveState::gone})},
    {MoveState::gone, "gone", 0},
}));

// Main thread only.
class Mover {
  public:
    // `before`: called by the worker before a move begins, while the rank runs; tells what of its
    // memory is to lie in huge pages again, beside what does now.
    Mover(TreeParts parts, std::function<core::HugeMemory()> before);

    // Takes a message of the node agent; false: not one of a move.
    bool handle(const schema::Received& message);
    int fd() const { return worker_.fd(); }  // readable: call worker_done()
    void worker_done();
    // Call in every round, after the pumps ran.
    void step();
    // The tree has ended by itself, or must: whatever goes on is broken off.
    void break_off();

    bool idle() const { return state_ == MoveState::idle && !worker_.busy(); }
    bool busy() const { return worker_.busy(); }
    // The tree has ended: nothing is to be left of a move that was connected. Not while busy().
    void leave_nothing() { drop_connection(); }
    bool stopped() const { return state_ == MoveState::exported; }
    bool leaving() const { return state_ == MoveState::leaving; }
    bool gone() const { return state_ == MoveState::gone; }

  protected:
    // False: the table has no such change, which is a bug of ours. The node agent is told that the
    // move failed, so that it lets the rank go on.
    bool change(MoveState to);

  private:
    bool may(MoveState next) const { return move_states.allows(state_, next); }
    void connect(const Connect& where);
    Status ask(core::NetworkResource& target, const core::ExportRequest& request, bool live);
    Status look_at_shared(const std::vector<SharedPart>& seen);
    core::ExportRequest request() const;
    void start_export(const Export& order);
    Outgoing export_tree(const Export& order, RankMetadata metadata, core::ExportRequest request);
    Status weigh(const Connect& where);
    Status exported() const;
    Json final_metadata(RankStdio stdio) const;
    Outgoing export_live(const Connect& where, const core::ExportRequest& request);
    Outgoing live_failed(uint64_t seq, const Error& error) const;
    void heard(const Outgoing& said);
    void wake(const std::optional<AgentThread>& agent);
    Status check(const core::ExportRequest& request);
    void call_off(const schema::Received& order);
    void resume(const schema::Received& order);
    void die(uint64_t seq);
    void drop_connection();
    void finished(const Outgoing& answer);

    TreeParts parts_;
    const std::function<core::HugeMemory()> before_;
    core::HugeMemory huge_;
    MoveState state_ = MoveState::idle;
    uint64_t seq_ = 0;
    Worker worker_;
    core::WorkFolder folder_;
    std::unique_ptr<core::NetworkResource> target_;
    std::optional<core::ReadyExport> ahead_;        // waits for `export`, in folder_
    std::vector<std::string> externals_;            // of it
    Sharing sharing_;                               // the same
    std::vector<SharedPart> seen_;                  // by the node agent, of that
    std::optional<SharersWait> sharers_;            // of an export
    LiveTurns turns_;                               // of a live one
    std::shared_ptr<core::LiveTracking> tracking_;  // of one that is exported
    core::TreeFacts told_;                          // what the target has answered
    std::vector<core::FileLock> given_;             // by an export, to what was made of it
    bool live_ = false;                             // the one that is connected
    uint64_t memory_ = 0;                           // of the rank, when a live one began
    std::optional<Connect> waiting_;                // to be done when the worker is free
    std::optional<schema::Received> last_order_;    // Resume or Cancel while the worker was busy
    bool carried_ = false;
    std::optional<core::RealtimePriority> realtime_;  // as long as there is a move
};

}  // namespace ghost::plugin
