// SPDX-License-Identifier: BSD-3-Clause
// An operation: a set of ranks that goes through phases. A move, a snapshot and a restart are
// operations; each is a table of states and what its messages mean in them.
#pragma once

#include <algorithm>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <utility>

#include "base/state_machine.hpp"
#include "pmix-plugin/coordinator/event_log.hpp"
#include "pmix-plugin/coordinator/job_files.hpp"
#include "pmix-plugin/coordinator/liveness.hpp"
#include "pmix-plugin/coordinator/operations/fences.hpp"
#include "pmix-plugin/coordinator/policy.hpp"
#include "pmix-plugin/coordinator/settings.hpp"
#include "pmix-plugin/protocol/client_coordinator.hpp"
#include "pmix-plugin/runtime/interface/background.hpp"
#include "pmix-plugin/runtime/interface/location_table.hpp"

namespace ghost::plugin {

enum class Phase : uint8_t {
    prepare,  // nothing has been done to a rank
    quiesce,  // the job's fences are held, gates close
    capture,  // trees are frozen; their state is taken
    commit,   // it becomes what holds from now on
    resume,   // ranks go on, here or there
    finish,   // over
};

// A row of an operation's table. An operation that is refused what its table does not have gives up
// as far as it can: see Operation::impossible().
template <typename State>
struct OperationRow {
    State state;
    const char* name;
    Phase phase;
    uint32_t next;
    // Longest stay, or longest time without progress; none: the state does not wait.
    int64_t CoordinatorSettings::*limit = nullptr;
    // Ranks are frozen, or are about to: whoever serves them must not wait for a processor.
    bool urgent = false;
    // Every daemon has to answer: one that has gone silent is given up first.
    bool every_daemon = false;

    constexpr int64_t limit_us(const CoordinatorSettings& settings) const {
        if (limit == nullptr) return 0;
        return settings.*limit + (every_daemon ? settings.until_given_up_us() : 0);
    }
};

// The numbers of the job's placements: one for every move, in the order in which they are reserved.
// Loop thread only; owned by the coordinator. Of a rank's placements a later one has the higher
// number: moves of one rank come one after the other. A number whose move came to nothing may be
// given again: nobody has ever been anywhere by it.
class Epochs {
  public:
    // The highest that was decided.
    uint32_t now() const { return now_; }
    // The job goes on from a snapshot.
    void set(uint32_t epoch) { now_ = epoch; }
    uint32_t reserve(uint64_t seq) {
        uint32_t highest = now_;
        for (const auto& [other, epoch] : reserved_) highest = std::max(highest, epoch);
        return reserved_[seq] = highest + 1;
    }
    void decide(uint64_t seq) {
        if (auto it = reserved_.find(seq); it != reserved_.end()) now_ = std::max(now_, it->second);
        reserved_.erase(seq);
    }
    void give_back(uint64_t seq) { reserved_.erase(seq); }
    // Every operation is over.
    void give_all_back() { reserved_.clear(); }

  private:
    uint32_t now_ = 0;
    std::map<uint64_t, uint32_t> reserved_;  // by operation
};

class Operation;
class Engine;
class SnapshotHistory;

// To every daemon: a step of a snapshot, or of what ends it. Those that are alive answer.
void order_step(CoordinatorRuntime& adapter, const Liveness& liveness, DaemonMessage step,
                uint64_t seq, uint64_t attempt);

// Where ranks are from now on.
using Publish = std::function<void(const std::vector<kernet::Location>&)>;

// What operations share with each other and with the coordinator, which outlives them.
struct Job {
    CoordinatorRuntime& adapter;
    const CoordinatorSettings& settings;
    const SnapshotPolicy& policy;
    Liveness& liveness;
    LocationTable& locations;
    Background& background;
    std::shared_ptr<JobLock> lock;
    Fences& fences;
    Epochs& epochs;
    std::set<NodeId>& drained;  // no rank goes there any more
    SnapshotHistory& snapshots;
    Engine& engine;                              // the other operations
    EventLog& events;                            // each tells when it begins, and how it ended
    Publish publish;                             // to every node
    std::function<void(NodeId)> tell_locations;  // all that are known, to one that joins
    // A rank is no more, as `told` says to the user: the job recovers, or ends.
    std::function<void(RankId, const std::string& told)> lose_rank;
};

// What one is told that somebody undoes.
inline constexpr const char* undone_by_user = "it was cancelled";

// All its ranks have.
bool has_ended(const Job& job);
// Of one whose ranks do not run (yet, or any more).
std::string why_no_job(const Job& job);

// Why neither a move nor a snapshot can begin now; nothing: they can.
std::optional<std::string> refusal(const Job& job);

// Why this rank cannot be in one, by its life; nothing: it can.
std::optional<std::string> why_not_running(const RankInfo& rank);

// Loop thread only; owned by the engine.
class Operation {
  public:
    explicit Operation(Job& job) : job_(job) {}
    virtual ~Operation();
    Operation(const Operation&) = delete;
    Operation& operator=(const Operation&) = delete;

    // Starts it; it may be over before this returns. It says so once (end()).
    virtual void begin() = 0;
    // A message that has its number.
    virtual void message(NodeId from, const schema::Received& m) = 0;
    // The daemon is gone (lost or given up); the fences know already.
    virtual void node_lost(NodeId node) = 0;
    // mpirun ends, or all ranks are lost: whoever asked for it is told; no message is sent any
    // more.
    virtual void stop(const std::string& why) = 0;
    // Ranks are lost, or a node with ranks. True: it ends them all and begins anew.
    virtual bool lost(const std::string& /*why*/) { return false; }
    // Somebody wants it undone: it is as far as it can be, and then over. False: it has happened.
    virtual bool undo(const std::string& /*why*/) { return false; }

    // 0: of a restart, and before it begins.
    uint64_t seq() const { return seq_; }
    bool is_over() const { return over_; }
    virtual Phase phase() const = 0;
    // Where a rank is to be by it.
    struct Placement {
        RankId rank = 0;
        NodeId to = 0;
        bool decided = false;
    };
    virtual std::optional<Placement> placement() const { return std::nullopt; }
    // Adds what `ghost ps` shows of it.
    virtual void show(Json& ps) const = 0;

  protected:
    void take_number();
    void set_limit(int64_t us, int anew = 0);  // 0: none
    void retry_after(int64_t us, std::function<void()> step);
    void stop_timers();
    void end();
    // The limit has passed.
    virtual void expired() = 0;

    Job& job_;

  private:
    uint64_t seq_ = 0;
    bool over_ = false;
    std::optional<TimerId> limit_;
    std::optional<TimerId> retry_;
};

// The part of an operation that its table describes. `Data` is what it is as plain data, with
// `state`; `table` is a StateTable of OperationRow.
template <typename Data, const auto& table>
class StagedOperation : public Operation {
  public:
    using State = decltype(Data::state);
    // At every change of state but the last, and when a transfer goes on.
    using Progress = std::function<void(const Data&)>;
    // Once, at its end; `data` is in a final state, or mpirun ends.
    using Finished = std::function<void(const Data&)>;

    StagedOperation(Job& job, Progress progress, Finished finished)
        : Operation(job), progress_(std::move(progress)), finished_(std::move(finished)) {}

    Phase phase() const final { return table[data_.state].phase; }

  protected:
    // False: there is no such way; impossible() has seen to it.
    bool change(State next) {
        const bool before = table[data_.state].urgent;
        const auto who = [this] { return describe(); };
        if (!table.change(data_.state, next, log::Level::info, who)) {
            impossible(next);
            return false;
        }
        if (table[next].urgent != before) job_.adapter.raise_priority(table[next].urgent);
        stop_timers();
        entered();
        wait_on();
        if (table.is_final(next)) return true;
        if (!std::exchange(has_begun_, true)) job_.events.begun(data_);
        tell_progress();
        return true;
    }
    // The state's limit begins anew.
    void wait_on() { set_limit(limit_us()); }
    int64_t limit_us() const { return table[data_.state].limit_us(job_.settings); }
    // False: not now; `again` follows. While a batch of others comes to its end their limits run,
    // and not this one's.
    bool hold_fences(std::function<void()> again) {
        if (job_.fences.hold(seq())) {
            held_since_ = job_.settings.now();
            if (first_held_ == 0) first_held_ = held_since_;
            return true;
        }
        if (job_.fences.closing()) wait_on();
        retry_after(job_.settings.hold_retry_us, std::move(again));
        return false;
    }
    // They are held another time, for something else.
    void held_anew() { first_held_ = 0; }
    // A rank is inside a call. What that waits for may be behind the fences, such as what a rank
    // has not published yet that stands in one: when they have been held for long enough these go
    // on, and `held_state` tries anew. All tries together have the limit of this state.
    bool held_long_enough() const {
        return job_.settings.now() - held_since_ >= job_.settings.patience_us;
    }
    void let_fences_go_on(State held_state, std::function<void()> again) {
        if (job_.settings.now() - first_held_ >= limit_us()) return expired();
        if (!change(held_state)) return;
        job_.fences.release(seq());
        retry_after(job_.settings.gate_retry_us, std::move(again));
    }
    void tell_progress() const {
        if (progress_) progress_(data_);
    }
    // Into a final state; hand_over() follows.
    void conclude(State last) {
        data_.lasted = job_.settings.now() - data_.started;
        change(last);
    }
    // The last thing it does.
    void hand_over() {
        stop_timers();
        if (table[data_.state].urgent) job_.adapter.raise_priority(false);
        progress_ = nullptr;
        end();
        job_.events.over(data_);
        if (auto finished = std::exchange(finished_, nullptr)) finished(data_);
    }

    virtual std::string describe() const = 0;
    virtual void entered() {}
    // The table has no way to `next`, which is a bug: it gives up while that harms nobody, and goes
    // on to the limits of its state after that.
    virtual void impossible(State next) = 0;

    Data data_;

  private:
    int64_t held_since_ = 0, first_held_ = 0;  // the fences
    bool has_begun_ = false;
    Progress progress_;
    Finished finished_;
};

}  // namespace ghost::plugin
