// SPDX-License-Identifier: BSD-3-Clause
#include "pmix-plugin/coordinator/coordinator.hpp"

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <map>
#include <optional>
#include <string.h>
#include <unistd.h>

#include "base/exit_status.hpp"
#include "base/log.hpp"
#include "pmix-plugin/runtime/interface/background.hpp"
#include "pmix-plugin/coordinator/clients.hpp"
#include "pmix-plugin/coordinator/interval.hpp"
#include "pmix-plugin/coordinator/job_files.hpp"
#include "pmix-plugin/coordinator/liveness.hpp"
#include "pmix-plugin/coordinator/operations/continuation.hpp"
#include "pmix-plugin/coordinator/operations/drain.hpp"
#include "pmix-plugin/coordinator/operations/grow.hpp"
#include "pmix-plugin/coordinator/operations/mend.hpp"
#include "pmix-plugin/coordinator/operations/restart.hpp"
#include "pmix-plugin/coordinator/operations/snapshot_history.hpp"
#include "pmix-plugin/coordinator/policy.hpp"
#include "pmix-plugin/coordinator/recoveries.hpp"
#include "pmix-plugin/coordinator/schedule.hpp"
#include "pmix-plugin/runtime/interface/location_table.hpp"

namespace ghost::plugin {
namespace {

constexpr int64_t gather_us = 1000;  // locations that come together go out together
constexpr size_t batch_bytes = 64 * 1024;
constexpr size_t most_named = 8;  // ranks, in a message
constexpr int most_at_node = 8;   // moves at the same time, if nothing is said

// 0: no signal.
std::string how_it_ended(int signal) {
    const char* name = sigabbrev_np(signal);
    return signal == 0       ? "has given up"
           : name != nullptr ? fmt::format("was killed by SIG{}", name)
                             : fmt::format("was killed by signal {}", signal);
}

}  // namespace

// Shared with the adapter's handlers by weak pointer: those cannot be taken back.
class Coordinator::Impl : public std::enable_shared_from_this<Coordinator::Impl> {
  public:
    Impl(CoordinatorRuntime& adapter, CoordinatorSettings settings);

    Status start();
    void stop();
    void snapshot(uint64_t owner, SnapshotOrder order, SnapshotOperation::Progress progress,
                  SnapshotOperation::Finished finished);

  private:
    void message(NodeId from, const schema::Received& m);
    bool node_lost(NodeId node);
    std::vector<RankId> ranks_on(NodeId node) const;
    std::string why_lost(NodeId node) const;
    void rank_lost(RankId rank, int signal);
    void rank_died(NodeId from, const RankDied& m);
    void lose_rank(RankId rank, const std::string& told);
    bool recover(const std::string& lost, std::optional<RankId> rank, int status);
    void recovered(const Restart& restart);
    void lost(NodeId node);
    void mend();
    bool hosts_ranks(NodeId node) const;
    void publish(const std::vector<kernet::Location>& locations);
    void send_locations();
    void tell_locations(NodeId node);
    void ps_asked(std::function<void(const Json&)> answer);
    void answer_ps();
    Json ps() const;
    Json groups_of_parity() const;
    Json ps_snapshots() const;
    void say(const std::string& line) const;

    // --- requests ---
    void take_signals();
    void begin_restart();
    void launched();
    Engine::Limits limits() const;
    void snapshot_unasked(SnapshotOrder order, SnapshotOperation::Finished finished = nullptr);
    void control(Lifecycle::JobControl request);
    void migrate(uint64_t owner, MigrationOrder order, MoveOperation::Progress progress,
                 std::function<void(const MigrationResult&)> finished);
    void drain_node(uint64_t owner, DrainOrder order, MoveOperation::Progress progress,
                    std::function<void(const DrainResult&)> finished);
    int64_t mtbf_us() const;
    void choose_interval(const SnapshotRun& run);
    bool snapshot_due();
    void say_once(const std::string& why);

    CoordinatorRuntime& adapter_;
    CoordinatorSettings settings_;
    SnapshotPolicy policy_;
    LocationTable locations_;
    Background background_;
    std::shared_ptr<JobLock> lock_ = std::make_shared<JobLock>();
    EventLog events_;
    Liveness liveness_;
    Fences fences_;
    Epochs epochs_;
    std::set<NodeId> drained_;
    uint64_t last_request_ = 0;
    SnapshotHistory snapshots_;
    Engine engine_;
    Job job_;
    Recoveries recoveries_;
    Schedule schedule_;
    std::optional<IntervalChoice> choice_;  // ghost_checkpoint_interval auto
    int64_t told_interval_ = 0;             // by the event log
    Clients clients_;
    bool scheduled_ = false;                      // the schedule's last snapshot is not over
    std::string said_;                            // of the schedule's last that was not made
    std::map<RankId, kernet::Location> changed_;  // to be sent to every node
    uint64_t version_ = 0;                        // of the table of locations: broadcasts so far
    std::optional<TimerId> gather_;
    std::vector<std::function<void(const Json&)>> asked_;  // `ps`, until the daemons have looked
    uint64_t asked_ping_ = 0;
    std::optional<TimerId> asked_limit_;
    bool launched_ = false;
    bool running_ = false;
};

Coordinator::Impl::Impl(CoordinatorRuntime& adapter, CoordinatorSettings settings)
    : adapter_(adapter),
      settings_(std::move(settings)),
      policy_([this] {
          std::vector<std::string> wrong;
          SnapshotPolicy policy = read_policy(adapter_, wrong);
          for (const std::string& line : wrong) say(line);
          return policy;
      }()),
      background_(adapter_, settings_.threads),
      events_(adapter_, settings_),
      liveness_(
          adapter_, settings_, [this](NodeId node) { return hosts_ranks(node); },
          [this](NodeId node) { lost(node); }),
      fences_(adapter_),
      snapshots_(adapter_, settings_, liveness_,
                 [this](const auto& locations) { publish(locations); }),
      engine_(adapter_, limits(), [this](const Request& request) { events_.asked(request); }),
      job_{adapter_,
           settings_,
           policy_,
           liveness_,
           locations_,
           background_,
           lock_,
           fences_,
           epochs_,
           drained_,
           snapshots_,
           engine_,
           events_,
           [this](const auto& locations) { publish(locations); },
           [this](NodeId node) { tell_locations(node); },
           [this](RankId rank, const std::string& told) { lose_rank(rank, told); }},
      recoveries_(job_),
      schedule_(adapter_, policy_.interval_auto ? IntervalChoice::first_us : policy_.interval_us,
                settings_.now, [this] { return snapshot_due(); }),
      clients_(adapter_,
               {[this](std::function<void(const Json&)> answer) { ps_asked(std::move(answer)); },
                [this](uint64_t owner, MigrationOrder order, MoveOperation::Progress progress,
                       std::function<void(const MigrationResult&)> finished) {
                    migrate(owner, std::move(order), std::move(progress), std::move(finished));
                },
                [this](uint64_t owner, SnapshotOrder order, SnapshotOperation::Progress progress,
                       SnapshotOperation::Finished finished) {
                    snapshot(owner, std::move(order), std::move(progress), std::move(finished));
                },
                [this](uint64_t owner, DrainOrder order, MoveOperation::Progress progress,
                       std::function<void(const DrainResult&)> finished) {
                    drain_node(owner, std::move(order), std::move(progress), std::move(finished));
                },
                [this](uint64_t owner, GrowOrder order, GrowOperation::Progress progress,
                       GrowOperation::Finished finished) {
                    order.id = ++last_request_;
                    engine_.ask(grow_request(job_, owner, std::move(order), std::move(progress),
                                             std::move(finished)));
                },
                [this](uint64_t id, auto over) {
                    engine_.undo(id, [this, over = std::move(over)](const auto& all) {
                        for (const Engine::Undone& one : all)
                            if (one.undone) events_.cancelled(one.id, one.what);
                        over(all);
                    });
                },
                [this](uint64_t owner) { engine_.drop(owner); }}) {}

// A move keeps a core busy at each of its ends, or the link between them.
Engine::Limits Coordinator::Impl::limits() const {
    if (policy_.at_once > 0) return {policy_.at_once};
    return {SIZE_MAX, [this](NodeId node) {
                return static_cast<size_t>(std::clamp(adapter_.cores(node), 1, most_at_node));
            }};
}

Status Coordinator::Impl::start() {
    if (running_) return {};
    running_ = true;
    std::weak_ptr<Impl> weak = weak_from_this();
    adapter_.on_message([weak](NodeId from, const schema::Received& m) {
        if (auto self = weak.lock(); self && self->running_) self->message(from, m);
    });
    adapter_.on_node_lost([weak](NodeId node) {
        auto self = weak.lock();
        return self && self->running_ && self->node_lost(node);
    });
    adapter_.on_rank_ended([weak](RankId rank, int status) {
        if (auto self = weak.lock(); self && self->running_) self->events_.rank_ended(rank, status);
    });
    adapter_.on_rank_lost([weak](RankId rank, int signal) {
        if (auto self = weak.lock(); self && self->running_) self->rank_lost(rank, signal);
    });
    liveness_.start();
    take_signals();
    if (!policy_.restart.empty()) begin_restart();
    std::string path = settings_.socket;
    if (path.empty()) path = adapter_.session_dir() + "/ghost.sock";
    return clients_.listen(path);
}

void Coordinator::Impl::stop() {
    if (!running_) return;
    running_ = false;
    schedule_.stop();
    engine_.stop(job_has_ended);
    events_.ended();
    snapshots_.stop();
    clients_.stop();
    liveness_.stop();
    if (gather_) adapter_.cancel(*gather_);
    gather_.reset();
    if (asked_limit_) adapter_.cancel(*std::exchange(asked_limit_, std::nullopt));
    background_.stop();
    lock_->give_up();
}

void Coordinator::Impl::say(const std::string& line) const {
    if (settings_.say) return settings_.say(line);
    std::fprintf(stderr, "ghost: %s\n", line.c_str());
}

void Coordinator::Impl::message(NodeId from, const schema::Received& m) {
    switch (m.type<DaemonMessage>()) {
        case DaemonMessage::pong:
            liveness_.pong(from, m.as<Pong>());
            if (!asked_.empty() && liveness_.answered(asked_ping_)) answer_ps();
            return;
        case DaemonMessage::located:
            publish({m.as<Located>().location});
            return launched();
        case DaemonMessage::rank_died:
            return rank_died(from, m.as<RankDied>());
        case DaemonMessage::input_taken:
            return recoveries_.input_taken(m.as<InputTaken>());
        case DaemonMessage::snap_up:
        case DaemonMessage::snap_progress:
            // Those of daemons below are for this node's own agent.
            if (from != adapter_.self()) return;
            // The snapshot whose end is confirmed late may still be at its folder.
            snapshots_.message(m);
            engine_.message(from, m);
            return;
        case DaemonMessage::ready:
        case DaemonMessage::connected:
        case DaemonMessage::gated:
        case DaemonMessage::busy:
        case DaemonMessage::running:
        case DaemonMessage::converged:
        case DaemonMessage::exported:
        case DaemonMessage::held:
        case DaemonMessage::failed:
        case DaemonMessage::progress:
        case DaemonMessage::switched:
        case DaemonMessage::done:
        case DaemonMessage::aborted:
        case DaemonMessage::leaving:
        case DaemonMessage::joined:
        case DaemonMessage::copies_made:
        case DaemonMessage::copies_progress:
            if (!engine_.message(from, m)) late_move_message(job_, from, m);
            return;
        default:
            return;  // for the node agent, or the runtime's own
    }
}

// The first rank has attached: the job runs.
void Coordinator::Impl::launched() {
    liveness_.launched();
    if (std::exchange(launched_, true)) return;
    recoveries_.job_runs();
    events_.started(epochs_.now());
    if (policy_.interval_auto) choice_.emplace(mtbf_us());
    schedule_.start();
}

bool Coordinator::Impl::node_lost(NodeId node) {
    if (liveness_.is_given_up(node)) return true;
    const bool running = adapter_.job_running();
    if (running && !hosts_ranks(node)) return liveness_.give_up(node, false), true;
    const std::string why = why_lost(node);  // before its ranks are forgotten
    const auto ranks = ranks_on(node);
    if (running && policy_.recover.nodes) {
        liveness_.dismiss(node);
        if (recover(fmt::format("node {} was lost", liveness_.name_of(node)), {}, 1)) {
            events_.node_lost(liveness_.name_of(node), ranks);
            // The runtime gives it up when this returns.
            adapter_.after(0, [weak = weak_from_this(), node] {
                if (auto self = weak.lock(); self && self->running_)
                    self->adapter_.tell_all(NodeLost{node});
            });
            return true;
        }
    }
    lost(node);
    if (running) adapter_.abort_job(1, why);
    return running;
}

// --- recoveries ---

// The runtime of its node has not been told, and waits for our word.
void Coordinator::Impl::rank_died(NodeId from, const RankDied& m) {
    const int signal = m.status > 128 && m.status != lost_server_status ? m.status - 128 : 0;
    const std::string lost =
        fmt::format("rank {} {} on {}", m.rank, how_it_ended(signal), liveness_.name_of(from));
    const int status = m.status == 0 ? 1 : m.status;
    if (!policy_.recover.ranks || !recover(lost, m.rank, status))
        return adapter_.tell(from, RankEnds{m.rank});
    events_.rank_lost(m.rank, liveness_.name_of(from), signal);
}

// Not at once: an operation says so, and a recovery ends them all.
void Coordinator::Impl::lose_rank(RankId rank, const std::string& told) {
    const auto end = [this, told] {
        adapter_.abort_job(1, fmt::format("ghost: {}; {}", told, way_on_or_none(job_)));
    };
    if (!policy_.recover.ranks) return end();
    adapter_.after(0, [weak = weak_from_this(), rank, told, end] {
        auto self = weak.lock();
        if (self && self->running_ && !self->recover(told, rank, 1)) end();
    });
}

// False: the job ends, as it would without.
bool Coordinator::Impl::recover(const std::string& lost, std::optional<RankId> rank, int status) {
    if (engine_.lost(lost)) return true;
    const auto order = recoveries_.after(lost, rank, status);
    if (!order.why.empty()) {
        say(fmt::format("{}, and the job cannot go on from its snapshot: {}", lost, order.why));
        return false;
    }
    snapshots_.stop();
    fences_.forget();
    epochs_.give_all_back();
    locations_ = {};
    changed_.clear();
    engine_.interrupt(
        lost, recovery_request(job_, order.order, [this](const Restart& one) { recovered(one); }));
    return true;
}

void Coordinator::Impl::recovered(const Restart& restart) {
    if (restart.state != RestartState::done) return;
    epochs_.set(restart.epoch);
    recoveries_.done();
    mend();
    say(fmt::format("{}: the job goes on from snapshot {} of {} ({} ranks, {:.1f} s)", restart.lost,
                    restart.name, restart.taken, restart.ranks,
                    static_cast<double>(restart.lasted) / 1e6));
}

std::vector<RankId> Coordinator::Impl::ranks_on(NodeId node) const {
    std::vector<RankId> ranks;
    for (const RankInfo& info : adapter_.ranks())
        if (info.running() && engine_.node_of(info.rank, info.node) == node)
            ranks.push_back(info.rank);
    return ranks;
}

// The job cannot go on without its ranks.
std::string Coordinator::Impl::why_lost(NodeId node) const {
    const auto ranks = ranks_on(node);
    const auto named = ranks.begin() + static_cast<long>(std::min(ranks.size(), most_named));
    return fmt::format(
        "ghost: node {} is lost (switched off, cut off, or its daemon has ended), and {} {}{} with "
        "it: "
        "the job ends; {}",
        liveness_.name_of(node), ranks.size() == 1 ? "rank" : "ranks",
        fmt::join(ranks.begin(), named, ", "), named == ranks.end() ? "" : ", …",
        way_on_or_none(job_));
}

// Open MPI says that the job ends, and why, but not what to do.
void Coordinator::Impl::rank_lost(RankId rank, int signal) {
    const auto ranks = adapter_.ranks();
    const auto info = std::ranges::find(ranks, rank, &RankInfo::rank);
    const std::string node = info == ranks.end() ? "" : liveness_.name_of(info->node);
    events_.rank_lost(rank, node, signal);
    const std::string way = way_on(job_);
    if (way.empty()) return;
    say(fmt::format("rank {} {}{}: {}", rank, how_it_ended(signal),
                    node.empty() ? "" : " on " + node, way));
}

void Coordinator::Impl::lost(NodeId node) {
    events_.node_lost(liveness_.name_of(node), ranks_on(node));
    adapter_.tell_all(NodeLost{node});
    fences_.node_lost(node);
    engine_.node_lost(node);
    mend();
}

// What a node had in its memory is gone with it.
void Coordinator::Impl::mend() {
    const auto& kept = snapshots_.kept();
    if (!kept.empty() && kept.front().run->outlives_nodes()) (void)engine_.add(mend_request(job_));
}

bool Coordinator::Impl::hosts_ranks(NodeId node) const {
    return std::ranges::any_of(adapter_.ranks(), [&](const RankInfo& info) {
        return info.running() && engine_.node_of(info.rank, info.node) == node;
    });
}

// --- requests ---

void Coordinator::Impl::take_signals() {
    std::weak_ptr<Impl> weak = weak_from_this();
    auto take = [&](int signum, std::function<void(Impl&)> action) {
        auto taken = adapter_.on_signal(signum, [weak, action = std::move(action)] {
            if (auto self = weak.lock(); self && self->running_) action(*self);
        });
        if (!taken.ok()) say(taken.error().message());
    };
    take(SIGCONT, [](Impl& self) {
        if (const auto by = self.snapshots_.goes_on())
            self.engine_.add(continue_request(self.job_, *by));
    });
    if (policy_.signal != 0) {
        take(policy_.signal, [](Impl& self) {
            const char* name = sigabbrev_np(self.policy_.signal);
            self.snapshot_unasked({.asked_by = name != nullptr ? name : "signal"});
        });
    }
    adapter_.on_job_control([weak](Lifecycle::JobControl request) {
        auto self = weak.lock();
        if (!self || !self->running_) return request.answer(job_has_ended);
        self->control(std::move(request));
    });
}

// Why nothing came of it is said at mpirun's terminal: PMIx's answer has no room for it.
void Coordinator::Impl::control(Lifecycle::JobControl request) {
    const ControlOrder& order = request.order;
    const auto over = [this, act = order.act, answer = request.answer](const std::string& why) {
        if (running_ && !why.empty())
            say(fmt::format("PMIx_Job_control, {}: {}", name_of(act), why));
        answer(why);
    };
    switch (order.act) {
        case ControlAct::checkpoint:
            return snapshot_unasked(
                {.then = order.then, .asked_by = "PMIx_Job_control"},
                [answer = request.answer](const SnapshotRun& run) { answer(run.why); });
        case ControlAct::migrate: {
            if (order.ranks.empty()) return over("a migration names at least one rank");
            MigrationOrder moves;
            moves.ranks = order.ranks;
            if (!order.node.empty()) moves.to = {order.node};
            moves.mode = order.mode;
            return migrate(0, std::move(moves), nullptr,
                           [over](const MigrationResult& all) { over(all.error); });
        }
        case ControlAct::drain: {
            DrainOrder leaves;
            leaves.node = order.node;
            leaves.mode = order.mode;
            return drain_node(0, std::move(leaves), nullptr,
                              [over](const DrainResult& all) { over(all.error); });
        }
    }
}

void Coordinator::Impl::migrate(uint64_t owner, MigrationOrder order,
                                MoveOperation::Progress progress,
                                std::function<void(const MigrationResult&)> finished) {
    order.id = ++last_request_;
    engine_.ask(migration(job_, owner, std::move(order), std::move(progress), std::move(finished)));
}

void Coordinator::Impl::drain_node(uint64_t owner, DrainOrder order,
                                   MoveOperation::Progress progress,
                                   std::function<void(const DrainResult&)> finished) {
    order.id = ++last_request_;
    drain(job_, owner, std::move(order), std::move(progress),
          [this, finished = std::move(finished)](const DrainResult& result) {
              if (running_ && result.left) mend();
              if (finished) finished(result);
          });
}

void Coordinator::Impl::begin_restart() {
    engine_.add(restart_request(job_, policy_.restart, [this](const Restart& restart) {
        epochs_.set(restart.epoch);
        say(fmt::format("the job goes on from snapshot {} of {} ({} ranks)", restart.name,
                        restart.taken, restart.ranks));
        launched();
    }));
}

void Coordinator::Impl::snapshot(uint64_t owner, SnapshotOrder order,
                                 SnapshotOperation::Progress progress,
                                 SnapshotOperation::Finished finished) {
    Request request =
        snapshot_request(job_, owner, std::move(order), std::move(progress), std::move(finished));
    request.id = ++last_request_;
    engine_.ask(std::move(request));
}

// Nobody waits for the answer at a terminal: what failed is said.
void Coordinator::Impl::snapshot_unasked(SnapshotOrder order,
                                         SnapshotOperation::Finished finished) {
    snapshot(0, std::move(order), nullptr,
             [this, finished = std::move(finished)](const SnapshotRun& run) {
                 if (running_ && run.state != SnapshotState::done) say(run.why);
                 if (finished) finished(run);
             });
}

// Why the schedule's snapshots come to nothing, as long as it is the same; empty: one was made.
void Coordinator::Impl::say_once(const std::string& why) {
    if (why != std::exchange(said_, why) && !why.empty()) say(why);
}

// A node fails once a year, as is assumed unless the user knows better, and any of them ends the
// job's work. What the job itself has seen counts where that is worse.
int64_t Coordinator::Impl::mtbf_us() const {
    constexpr int64_t year_us = int64_t{365} * 24 * 3600 * 1'000'000;
    const int64_t expected =
        policy_.mtbf_us > 0
            ? policy_.mtbf_us
            : year_us / std::max<int64_t>(1, static_cast<int64_t>(adapter_.nodes().size()));
    return std::min(expected, recoveries_.measured_mtbf_us().value_or(expected));
}

void Coordinator::Impl::choose_interval(const SnapshotRun& run) {
    choice_->set_mtbf(mtbf_us());
    choice_->measured(run.pause, run.lasted);
    const int64_t chosen = choice_->interval_us(), told = told_interval_;
    schedule_.set_interval(chosen);
    if (std::abs(chosen - told) <= told / 4) return;
    told_interval_ = chosen;
    events_.interval(chosen, *choice_->cost_us(), choice_->mtbf_us());
}

bool Coordinator::Impl::snapshot_due() {
    if (scheduled_) return false;
    if (!adapter_.job_running()) return true;
    if (snapshots_.stopped()) return say_once(*refusal(job_) + ": no snapshots until then"), true;
    scheduled_ = true;
    snapshot(0, {.asked_by = "interval"}, nullptr, [this](const SnapshotRun& run) {
        scheduled_ = false;
        if (choice_ && run.state == SnapshotState::done) choose_interval(run);
        if (running_) say_once(run.state == SnapshotState::done ? std::string() : run.why);
    });
    return true;
}

void Coordinator::Impl::publish(const std::vector<kernet::Location>& locations) {
    for (const kernet::Location& location : locations)
        if (locations_.take(location)) changed_[location.rank] = location;
    if (gather_ || changed_.empty()) return;
    gather_ = adapter_.after(gather_us, [this] {
        gather_.reset();
        send_locations();
    });
}

namespace {

// In messages of no more than so many bytes.
void in_batches(const std::map<RankId, kernet::Location>& locations,
                const std::function<void(Locations&)>& send) {
    Locations out;
    size_t bytes = 0;
    const auto flush = [&] {
        if (!out.entries.empty()) send(out);
        out.entries.clear();
        bytes = 0;
    };
    for (const auto& [rank, location] : locations) {
        bytes += schema::encode(location).size();
        out.entries.push_back(location);
        if (bytes > batch_bytes) flush();
    }
    flush();
}

}  // namespace

void Coordinator::Impl::send_locations() {
    in_batches(std::exchange(changed_, {}), [this](Locations& batch) {
        batch.version = ++version_;
        adapter_.tell_all(batch);
    });
}

void Coordinator::Impl::tell_locations(NodeId node) {
    in_batches(locations_.all(), [this, node](Locations& batch) {
        batch.version = version_;
        adapter_.tell(node, batch);
    });
}

namespace {

// `still`: what its node says of one that runs.
std::string state_of(RankLife life, const std::string& still) {
    switch (life) {
        case RankLife::starting:
            return "not in MPI yet";
        case RankLife::running:
            return still.empty() ? "running" : still;
        case RankLife::ended:
            return "ended";
    }
    return "";
}

}  // namespace

// A daemon that does not answer at once is not waited for. Before the job is launched some may not
// be there yet: what is sent to them then ends mpirun.
void Coordinator::Impl::ps_asked(std::function<void(const Json&)> answer) {
    if (!launched_) return answer(ps());
    asked_.push_back(std::move(answer));
    asked_ping_ = liveness_.ping_now(true);
    if (asked_limit_) return;
    asked_limit_ = adapter_.after(settings_.look_us, [this] { answer_ps(); });
}

void Coordinator::Impl::answer_ps() {
    if (asked_limit_) adapter_.cancel(*std::exchange(asked_limit_, std::nullopt));
    const Json all = ps();
    for (const auto& answer : std::exchange(asked_, {})) answer(all);
}

Json Coordinator::Impl::ps() const {
    Json nodes = Json::array(), ranks = Json::array();
    std::map<NodeId, int> used;
    for (const RankInfo& info : adapter_.ranks()) {
        const kernet::Location* location = locations_.find(info.rank);
        used[info.node] += info.life != RankLife::ended;
        ranks.push_back({{"rank", info.rank},
                         {"node", liveness_.name_of(info.node)},
                         {"running", info.running()},
                         {"state", state_of(info.life, liveness_.standing_of(info.rank))},
                         {"epoch", location != nullptr ? location->epoch : 0},
                         {"movable", info.running() && location != nullptr}});
    }
    for (const NodeInfo& info : adapter_.nodes()) {
        // One that has left, and another daemon is there now.
        if (adapter_.find_node(info.name) != info.id && !liveness_.alive(info.id)) continue;
        nodes.push_back({{"id", info.id},
                         {"name", info.name},
                         {"alive", liveness_.alive(info.id)},
                         {"slots", adapter_.slots(info.id)},
                         {"used", used[info.id]},
                         {"drained", drained_.contains(info.id)}});
    }
    Json out = {
        {"job", adapter_.job_name()},     {"pid", ::getpid()}, {"running", adapter_.job_running()},
        {"epoch", epochs_.now()},         {"nodes", nodes},    {"ranks", ranks},
        {"waiting", engine_.unfinished()}};
    out.update(ps_snapshots());
    engine_.show(out);
    return out;
}

// Names of nodes that have each other's.
Json Coordinator::Impl::groups_of_parity() const {
    Json out = Json::array();
    const auto& kept = snapshots_.kept();
    if (kept.empty() || kept.front().run.get() != snapshots_.last()) return out;
    for (const ParitySet& set : kept.front().parity) {
        Json group = Json::array();
        for (const auto& member : set.members) group.push_back(member.node);
        out.push_back(std::move(group));
    }
    return out;
}

// The last one, and µs until the next.
Json Coordinator::Impl::ps_snapshots() const {
    Json out = Json::object();
    if (const SnapshotRun* last = snapshots_.last()) {
        out["snapshot"] = result_of(*last);
        out["snapshot"]["time"] = last->time;
        Json copies = Json::object();
        for (const auto& [node, other] : last->copied)
            copies[liveness_.name_of(node)] = liveness_.name_of(other);
        if (!copies.empty()) out["snapshot"]["copies"] = copies;
        if (Json groups = groups_of_parity(); !groups.empty())
            out["snapshot"]["parity"] = std::move(groups);
    }
    if (auto next = schedule_.next_in()) out["next_snapshot_us"] = *next;
    if (choice_) {
        Json& interval = out["interval"] = Json::object();
        interval["us"] = choice_->interval_us();
        interval["mtbf_us"] = choice_->mtbf_us();
        if (const auto cost = choice_->cost_us()) interval["cost_us"] = *cost;
    }
    if (snapshots_.stopped()) out["stopped"] = true;
    return out;
}

Coordinator::Coordinator(CoordinatorRuntime& adapter, CoordinatorSettings settings)
    : impl_(std::make_shared<Impl>(adapter, std::move(settings))) {}
Coordinator::~Coordinator() {
    impl_->stop();
}
Status Coordinator::start() {
    return impl_->start();
}
void Coordinator::stop() {
    impl_->stop();
}
void Coordinator::snapshot(SnapshotOrder order, std::function<void(const SnapshotRun&)> finished) {
    impl_->snapshot(0, std::move(order), nullptr, std::move(finished));
}

}  // namespace ghost::plugin
