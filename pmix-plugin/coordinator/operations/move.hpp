// SPDX-License-Identifier: BSD-3-Clause
// The move of a rank to another node: PROTOCOL.md, "A move", coordinator's side.
#pragma once

#include <algorithm>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/fault.hpp"
#include "pmix-plugin/coordinator/operations/operation.hpp"

namespace ghost::plugin {

enum class MoveState {
    checking,      // nothing has been asked of anyone
    preparing,     // B starts a restore wrapper
    connecting,    // A's wrapper connects to it
    holding,       // every daemon answers; then no job-wide fence may complete
    gating,        // the rank is asked to close its gates, again and again
    transferring,  // the rank is frozen; its ghost goes from A to B
    copying,       // live: its skeleton has gone, it runs on while its memory goes
    switching,     // decided: every daemon moves the rank's entries, A destroys its copy
    going,         // B lets the rank run
    done,          // the rank runs at B
    aborting,      // A lets the rank go on, B drops its copy
    refused,       // nothing was done
    failed,        // the rank did not move, or was lost
};

inline constexpr StateTable move_states([] {
    using S = MoveState;
    using C = CoordinatorSettings;
    return std::to_array<OperationRow<S>>({
        {S::checking, "checking", Phase::prepare, to({S::preparing, S::refused, S::done})},
        {S::preparing, "preparing", Phase::prepare, to({S::connecting, S::failed}), &C::prepare_us},
        {S::connecting, "connecting", Phase::prepare, to({S::holding, S::aborting, S::failed}),
         &C::connect_us},
        {S::holding, "holding", Phase::quiesce, to({S::gating, S::aborting, S::failed}),
         &C::hold_us, false, true},
        {S::gating, "gating", Phase::quiesce,
         to({S::holding, S::transferring, S::aborting, S::failed}), &C::gate_us, true},
        {S::transferring, "transferring", Phase::capture,
         to({S::switching, S::copying, S::aborting, S::failed}), &C::transfer_us, true},
        {S::copying, "copying", Phase::prepare, to({S::holding, S::aborting, S::failed}),
         &C::transfer_us},
        {S::switching, "switching", Phase::commit, to({S::going, S::failed}), &C::switch_us, true},
        {S::going, "going", Phase::resume, to({S::done, S::failed}), &C::go_us, true},
        {S::done, "done", Phase::finish, 0},
        {S::aborting, "aborting", Phase::resume, to({S::failed}), &C::abort_us, true},
        {S::refused, "refused", Phase::finish, 0},
        {S::failed, "failed", Phase::finish, 0},
    });
}());

struct Move {
    MoveState state = MoveState::checking;
    uint32_t epoch = 0;  // of the placement after it
    RankId rank = 0;
    NodeId from = 0;
    NodeId to = 0;
    std::string from_name;
    std::string to_name;
    std::string mode;                     // live or stop
    bool chosen = false;                  // that, by Ghost
    std::optional<uint64_t> memory = {};  // bytes, by which it was chosen to go live
    std::string not_live;                 // why it cannot be live; of one by stop: it was tried

    std::optional<AgentThread> agent;  // of the rank, as its wrapper must know it
    uint64_t ping = 0;                 // every daemon must have answered this ping
    bool gated = false;                // the rank has left its server, and may be frozen
    bool still = false;                // it cannot act, whatever it is told
    bool unconfirmed = false;          // A has not said that it goes on
    std::vector<SharedPart> shared;    // with other ranks, as A has found it
    std::optional<Ready> ready;
    bool connected = false;
    bool holds = false;      // the fences
    bool busy = false;       // it was inside a call at the last try
    bool converged = false;  // live: it may be stopped for the last time
    bool exported = false;
    bool held = false;
    uint64_t bytes = 0;
    uint64_t total = 0;
    uint64_t rounds = 0;

    bool early = false;     // it is refused for what comes by itself: the start, MPI_Init
    int64_t started = 0;    // µs, the coordinator's clock
    int64_t entered = 0;    // its state
    int64_t gate_sent = 0;  // the last `gate`
    int64_t downtime = 0;
    int64_t lasted = 0;  // the whole move
    bool moved = false;
    bool harmed = false;  // the job was
    bool ended = false;   // the rank has, while it was tried
    std::string end;      // how that is told
    std::string why;      // of a failure

    // It did not move live, and is tried by stop: nothing was done to it, and it is known to run.
    bool stops_instead() const {
        return chosen && mode == "live" && !not_live.empty() && !harmed && !ended && !unconfirmed;
    }
};

class MoveOperation;

// Ranks that share memory move together, each by a move of its own: all are connected before the
// first gate closes, all are frozen before the memory is taken (their node agent sees to that), all
// copies are whole before the first is decided; before that, what ends one of them ends all.
struct MoveUnit {
    // Which ranks, and what each has: as the targets are told.
    std::map<RankId, std::vector<SharedPart>> ranks;

    uint64_t number = 0;                  // of its first move
    std::vector<MoveOperation*> members;  // that are not over
    std::string to;                       // where they go, if it was to be chosen
    std::optional<RankId> broken_by;
    // It is another one than was thought: this is.
    std::map<RankId, std::vector<SharedPart>> found;

    // The same of all members.
    bool all(const auto& what) const { return std::ranges::all_of(members, what); }
};

struct MoveOrder {
    RankId rank = 0;
    std::string to;       // node name; empty: it is chosen
    std::string mode;     // live or stop
    bool chosen = false;  // that, by Ghost: what is too small goes by stop
    std::shared_ptr<MoveUnit> unit = {};
    std::string not_live = {};            // why it is not tried so
    std::vector<std::string> among = {};  // nodes to choose from; none: any other one
};

class MoveOperation : public StagedOperation<Move, move_states> {
  public:
    MoveOperation(Job& job, MoveOrder order, Progress progress, Finished finished);

    void begin() override;
    void message(NodeId from, const schema::Received& m) override;
    void node_lost(NodeId node) override;
    void stop(const std::string& why) override;
    bool undo(const std::string& why) override;
    std::optional<Placement> placement() const override;
    void show(Json& ps) const override;

  private:
    std::string describe() const override;
    void impossible(MoveState next) override;
    void entered() override;
    void expired() override;
    int64_t waited_us() const;  // in its state
    bool is_slow() const;
    std::string limit_text() const;
    // Of its unit, itself included, those in this state.
    void together(MoveState state, const auto& act) {
        for (MoveOperation* one : std::vector(unit_.members))
            if (one->data_.state == state) act(*one);
    }
    // switching, going, done: the copy at B is the rank, whatever happens.
    bool is_decided() const;

    // move_checks.cpp: what is refused before anyone is asked anything
    std::optional<std::string> check();
    std::optional<std::string> check_rank();
    std::optional<std::string> choose();
    std::optional<std::string> check_target();

    void prepare();
    void on_ready(const Ready& m);
    void connect();
    void on_connected(const Connected& m);
    void look_at_sharers();
    std::string why_not_alone() const;
    bool is_live() const { return data_.mode == "live"; }
    void try_hold();
    void send_gate();
    void on_busy(const Busy& m);
    void on_exported(const Exported& m);
    void on_running(const RankRunning& m);
    void on_converged();
    void on_progress(const TransferProgress& m);
    void transfer_goes_on();
    bool from_source(const schema::Received& m);
    bool from_target(const schema::Received& m);
    void decide_if_whole();
    void decide();
    void vote(NodeId from, int votes);
    void switch_expired();
    void all_switched();
    void note_end(const Failed& m);
    void look_for_end();
    void look_for_stop(NodeId from, const Failed& m);
    void on_failed(NodeId from, const Failed& m);
    std::string what_failed(NodeId from, const Failed& m) const;
    void on_standstill(NodeId from, const std::string& why);
    void on_failed_again(NodeId from, const Failed& m, const std::string& whole);
    void on_done(const Done& m);
    void on_aborted(const Aborted& m);

    bool passes(fault::Point point);  // false: aborted
    void abort(const std::string& why);
    void break_unit();
    void lose(const std::string& why);
    void finish(MoveState state);
    std::string failure() const;

    const MoveOrder order_;
    MoveUnit& unit_;
};

// A rank that came back after nobody waited for it any more has new listeners all the same; a vote
// that comes late counts.
void late_move_message(Job& job, NodeId from, const schema::Received& m);

}  // namespace ghost::plugin
