// SPDX-License-Identifier: BSD-3-Clause
// A node's part in a snapshot or a restart of the job: takes the coordinator's orders, has the
// local ranks carry them out, and answers each step once, together with the daemons below it in the
// tree (docs/PROTOCOL.md, "A snapshot of the job", party N).
//
// Knows nothing of slots and wrappers: those are behind LocalRanks, so that the same code runs with
// ranks that are only counted (benchmarks/scale).
#pragma once

#include <map>
#include <optional>
#include <set>
#include <string>
#include <tuple>
#include <vector>

#include "pmix-plugin/runtime/interface/event_loop.hpp"
#include "pmix-plugin/runtime/interface/messenger.hpp"
#include "pmix-plugin/runtime/interface/runtime_adapter.hpp"

namespace ghost::plugin {

// The tree over the live daemons by which the steps of a snapshot are answered (docs/PROTOCOL.md,
// "A snapshot of the job").
// Live daemons ordered by number; the parent of the one at place i is at place (i-1)/8. Everybody
// makes it from the same order of the coordinator, so nobody needs to agree with anybody.
class DaemonTree {
  public:
    static constexpr NodeId width = 8;

    DaemonTree() = default;
    // Daemons 0 to count-1 but those in `without`, as seen by `self`.
    DaemonTree(NodeId count, std::vector<NodeId> without, NodeId self);

    bool member() const { return member_; }  // false: self is none of them
    bool root() const { return member_ && place_ == 0; }
    NodeId parent() const { return parent_; }  // the root's is itself
    const std::vector<NodeId>& children() const { return children_; }

  private:
    bool member_ = false;
    NodeId place_ = 0;
    NodeId parent_ = 0;
    std::vector<NodeId> children_;
};

struct LocalAnswer {
    bool complete = false;  // every local rank has answered
    StepAnswer answer;
};

// The ranks of this node, as the part sees them.
class LocalRanks {
  public:
    virtual ~LocalRanks() = default;
    // A step begins; `order` is the coordinator's message (for `written`, which follows by itself,
    // null). The answer is asked for by look(), at once and after every poke().
    virtual void begin_step(ParticipantStep step, const schema::Received* order) = 0;
    virtual LocalAnswer look(ParticipantStep step) = 0;
    // The step is over for this node: its answer has been sent.
    virtual void step_answered(ParticipantStep step) = 0;
    // How far the local ranks are with their transfers.
    virtual void progress(uint64_t& bytes, uint64_t& total) const = 0;
};

// Loop thread only; owned by the node agent.
class SnapshotParticipant {
  public:
    SnapshotParticipant(EventLoop& loop, Messenger& messenger, LocalRanks& ranks)
        : loop_(loop), messenger_(messenger), ranks_(ranks) {}
    ~SnapshotParticipant() { stop(); }

    // snap_..., restart_..., recover_... and snap_up messages; false: it is another one.
    bool message(NodeId from, const schema::Received& m);
    // Something has changed with a local rank.
    void poke();
    // A local rank's transfer went on.
    void progressed();
    void stop();

    ParticipantStep step() const { return step_; }
    uint64_t seq() const { return seq_; }

  private:
    using Key = std::tuple<uint64_t, ParticipantStep, uint64_t>;  // seq, step, try

    // What an order says beside its step.
    struct Attempt {
        uint64_t seq = 0;
        uint64_t number = 0;
        DaemonSet tree;
    };

    static Attempt attempt_of(const schema::Received& m);
    void order(ParticipantStep step, const schema::Received& m);
    bool fits(ParticipantStep step, uint64_t seq, uint64_t attempt) const;
    void begin(ParticipantStep step, uint64_t attempt, const schema::Received* m);
    void answer_from_below(NodeId from, const StepUp& up);
    void progress_from_below(NodeId from, const StepProgress& m);
    void answer(StepAnswer all);
    void hear_others();
    void end_hearing();
    void tell_progress();

    EventLoop& loop_;
    Messenger& messenger_;
    LocalRanks& ranks_;
    ParticipantStep step_ = ParticipantStep::idle;
    uint64_t seq_ = 0;
    uint64_t try_ = 0;
    bool answered_ = false;
    bool looking_ = false;
    DaemonTree tree_;
    // Answers of daemons below; one may be here before the order it belongs to is.
    std::map<Key, std::map<NodeId, StepAnswer>> below_;
    std::map<NodeId, std::pair<uint64_t, uint64_t>> progress_;  // of the daemons below
    std::optional<TimerId> progress_timer_;
    std::optional<TimerId> hearing_timer_;  // before what is refused goes up, see poke()
    bool heard_ = false;                    // the others have had time to say what they refuse
};

}  // namespace ghost::plugin
