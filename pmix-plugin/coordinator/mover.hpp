// SPDX-License-Identifier: BSD-3-Clause
// Carries out one move at a time: the state machine of PROTOCOL.md, "A move", coordinator's side.
#pragma once

#include <functional>
#include <optional>
#include <set>
#include <string>

#include "pmix-plugin/coordinator/liveness.hpp"
#include "pmix-plugin/coordinator/move.hpp"
#include "pmix-plugin/runtime/interface/directory.hpp"

namespace ghost::plugin {

struct MoveOrder {
    RankId rank = 0;
    std::string to;    // node name
    std::string mode;  // "" and "auto" are "stop" today
};

// Loop thread only; owned by the coordinator.
class Mover {
  public:
    // The job-wide state the mover shares with the rest of the coordinator.
    struct Context {
        RuntimeAdapter& adapter;
        const CoordinatorSettings& settings;
        Liveness& liveness;
        Directory& directory;
        uint64_t& last_seq;                                    // of moves and snapshots
        std::function<void(const kernet::Location&)> publish;  // to every node
        std::function<std::optional<std::string>()> obstacle;  // why nothing can begin now
    };
    using Progress = std::function<void(const Move&)>;
    using Finished = std::function<void(const Move&)>;

    explicit Mover(Context context) : c_(context) {}

    bool busy() const { return move_.has_value(); }
    // Starts a move; `finished` is called once, perhaps before begin() returns.
    void begin(const MoveOrder& order, Progress progress, Finished finished);
    void message(NodeId from, const schema::Received& m);
    // The daemon is gone (lost or given up).
    void node_lost(NodeId node);
    // Does a rank live on the node, or is one bound to wake there?
    bool hosts(NodeId node) const;
    uint32_t epoch() const { return epoch_; }
    // The job goes on from a snapshot.
    void set_epoch(uint32_t epoch) { epoch_ = epoch; }
    // Why no operation can begin: a daemon owes its answer to the last move.
    std::optional<std::string> unsettled() const;
    const Move* current() const { return move_ ? &*move_ : nullptr; }
    // Drops everything without another message; `finished` is called for a move under way.
    void stop();

  private:
    // Daemons with ranks that owe `switched` of a finished move: the fences stay held for them.
    struct Unsettled {
        uint64_t seq = 0;
        std::set<NodeId> nodes;
        int votes = 0;
    };

    void change(MoveState next);
    std::optional<std::string> check(const MoveOrder& order);
    std::optional<std::string> check_rank(RankId rank);
    std::optional<std::string> check_target(const MoveOrder& order);
    void retry_after(int64_t us, void (Mover::*step)());
    void expired();
    std::string limit_text() const;

    void on_ready(const Ready& m);
    void try_hold();
    void send_gate();
    void on_busy(const Busy& m);
    void on_exported(const Exported& m);
    void on_progress(const TransferProgress& m);
    void transfer_goes_on();
    bool from_source(const schema::Received& m);
    bool from_target(const schema::Received& m);
    void decide_if_whole();
    void on_switched(NodeId from, int votes);
    void switch_expired();
    void all_switched();
    void on_failed(NodeId from, const Failed& m);
    void on_failed_again(NodeId from, const std::string& stage, const std::string& whole);
    void on_done(const Done& m);
    void on_aborted(const Aborted& m);
    void unsettled_message(NodeId from, const schema::Received& m);
    void late(NodeId from, const schema::Received& m);
    void unsettled_answer(NodeId from, int votes);

    void abort(const std::string& why);
    void lose(const std::string& why);
    void release();
    void finish(MoveState state);
    std::string unharmed() const;

    Context c_;
    std::optional<Move> move_;
    std::optional<Unsettled> unsettled_;
    Progress progress_;
    Finished finished_;
    uint32_t epoch_ = 0;
    std::optional<TimerId> limit_;
    std::optional<TimerId> retry_;
};

}  // namespace ghost::plugin
