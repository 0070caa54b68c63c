// SPDX-License-Identifier: BSD-3-Clause
#include "pmix-plugin/coordinator/operations/engine.hpp"

#include <algorithm>
#include <fmt/format.h>
#include <utility>

#include "pmix-plugin/coordinator/operations/snapshot_history.hpp"

namespace ghost::plugin {
namespace {

constexpr size_t most_waiting = 1024;
constexpr int most_anew = 2;  // times in a row that a limit begins again because it came late

}  // namespace

void order_step(CoordinatorRuntime& adapter, const Liveness& liveness, DaemonMessage step,
                uint64_t seq, uint64_t attempt) {
    adapter.broadcast(
        schema::encode_as(between_daemons, step, StepOrder{seq, attempt, liveness.tree()}));
}

std::optional<std::string> refusal(const Job& job) {
    if (const auto daemon = job.fences.owing()) {
        return fmt::format("node {} has not answered since the last move: no rank can move now",
                           job.liveness.name_of(*daemon));
    }
    if (job.snapshots.stopped()) {
        return "the job is stopped after its snapshot: SIGCONT to mpirun lets it go on";
    }
    return std::nullopt;
}

bool has_ended(const Job& job) {
    const auto ranks = job.adapter.ranks();
    const auto over = [](const RankInfo& rank) { return rank.life == RankLife::ended; };
    return !ranks.empty() && std::ranges::all_of(ranks, over);
}

std::string why_no_job(const Job& job) {
    return has_ended(job) ? job_has_ended : "the job has not started yet: try again in a moment";
}

std::optional<std::string> why_not_running(const RankInfo& rank) {
    switch (rank.life) {
        case RankLife::starting:
            return fmt::format(
                "rank {} is not in MPI yet: try again when its program has called MPI_Init (one "
                "that never does can be neither moved nor saved)",
                rank.rank);
        case RankLife::running:
            return std::nullopt;
        case RankLife::ended:
            return fmt::format("rank {} has ended", rank.rank);
    }
    return std::nullopt;
}

// --- an operation ---

Operation::~Operation() {
    stop_timers();
}

void Operation::take_number() {
    seq_ = job_.engine.next_number();
}

void Operation::set_limit(int64_t us, int anew) {
    if (limit_) job_.adapter.cancel(*limit_);
    limit_.reset();
    if (us == 0) return;
    limit_ = job_.adapter.after(us, [this, us, anew, due = job_.settings.now() + us] {
        limit_.reset();
        // mpirun was stopped, and everybody else with it: they go on from where they were. One that
        // is late every time is not stopped, but slow.
        const bool late = job_.settings.now() - due > job_.settings.late_us;
        if (late && anew < most_anew) return set_limit(us, anew + 1);
        expired();
    });
}

// One at a time: what is to be tried again already is not put off.
void Operation::retry_after(int64_t us, std::function<void()> step) {
    if (retry_) return;
    retry_ = job_.adapter.after(us, [this, step = std::move(step)] {
        retry_.reset();
        step();
    });
}

void Operation::stop_timers() {
    if (limit_) job_.adapter.cancel(*limit_);
    if (retry_) job_.adapter.cancel(*retry_);
    limit_.reset();
    retry_.reset();
}

void Operation::end() {
    over_ = true;
    job_.engine.ended();
}

// --- the engine ---

bool Scope::meets(const Scope& other) const {
    if (all || other.all || (steps && other.steps)) return true;
    return std::ranges::any_of(ranks, [&](RankId rank) { return other.ranks.contains(rank); });
}

bool Engine::add(Request request) {
    if (is_full()) return false;
    waiting_.push_back(std::move(request));
    wake();
    return true;
}

void Engine::ask(Request request) {
    std::vector<Request> one;
    one.push_back(std::move(request));
    ask(std::move(one));
}

void Engine::ask(std::vector<Request> requests) {
    if (is_full()) {
        for (const Request& one : requests) one.refuse("too many requests wait already");
        return;
    }
    for (const Request& one : requests)
        if (asked_ && one.owner != 0) asked_(one);
    std::ranges::move(requests, std::back_inserter(waiting_));
    wake();
}

bool Engine::is_full() const {
    return stopped_ || waiting_.size() >= most_waiting;
}

void Engine::wake() {
    if (beginning_)
        soon();
    else if (!soon_)
        begin_waiting();
}

// Not at once: the caller is still inside the operation that is over.
void Engine::soon() {
    if (soon_ || stopped_) return;
    soon_ = loop_.after(0, [this] {
        soon_.reset();
        step();
    });
}

void Engine::step() {
    for (Running& running : running_) {
        if (!running.operations.empty() && running.is_over()) go_on(running);
    }
    std::erase_if(running_, [](const Running& running) { return running.operations.empty(); });
    tell_undone();
    begin_waiting();
}

// Who waits for a rank goes before whoever asked for it later.
bool Engine::may_begin(const Request& request, const std::deque<Request>& before) const {
    const auto in_the_way = [&](const Request& other) { return request.scope.meets(other.scope); };
    return running_.size() < limits_.at_once && std::ranges::none_of(before, in_the_way) &&
           std::ranges::none_of(running_, [&](const Running& r) { return in_the_way(r.request); });
}

bool Engine::room_at(const std::set<NodeId>& nodes) const {
    if (!limits_.at_node) return true;
    return std::ranges::all_of(nodes, [this](NodeId node) {
        const auto there = std::ranges::count_if(
            running_, [node](const Running& r) { return r.burdened.contains(node); });
        return static_cast<size_t>(there) < limits_.at_node(node);
    });
}

void Engine::begin_waiting() {
    beginning_ = true;
    std::deque<Request> before;
    for (std::deque<Request> all = std::exchange(waiting_, {}); !all.empty(); all.pop_front()) {
        if (!may_begin(all.front(), before)) {
            before.push_back(std::move(all.front()));
            continue;
        }
        auto burdened = all.front().burdens ? all.front().burdens() : std::set<NodeId>();
        if (!room_at(burdened)) {
            before.push_back(std::move(all.front()));
            continue;
        }
        running_.push_back({std::move(all.front()), std::move(burdened), false, {}});
        go_on(running_.back());
    }
    // Those that were added meanwhile came later.
    std::ranges::move(waiting_, std::back_inserter(before));
    waiting_ = std::move(before);
    beginning_ = false;
}

void Engine::go_on(Running& running) {
    if (running.undone && running.request.refuse) running.request.refuse(undone_by_user);
    running.operations = running.undone ? Operations() : running.request.next();
    if (running.operations.empty()) return soon();
    for (const auto& one : running.operations)
        if (!one->is_over()) one->begin();
}

void Engine::drop(uint64_t owner) {
    std::erase_if(waiting_, [owner](const Request& r) {
        return r.owner == owner && !(r.begun && r.begun());
    });
}

void Engine::undo(uint64_t id, std::function<void(const std::vector<Undone>&)> over) {
    const auto meant = [id](const Request& r) { return r.id != 0 && (id == 0 || r.id == id); };
    Undoing undoing;
    undoing.over = std::move(over);
    // First what waits: it is not forgotten for what is undone before it.
    std::deque<Request> stays, goes;
    for (Request& request : std::exchange(waiting_, {}))
        (meant(request) ? goes : stays).push_back(std::move(request));
    waiting_ = std::move(stays);
    for (const Request& request : goes)
        if (request.refuse) request.refuse(undone_by_user);
    for (Running& running : running_) {
        if (!meant(running.request) || running.undone) continue;
        bool undone = running.is_over();
        running.undone = true;
        for (const auto& one : running.operations)
            if (!one->is_over()) undone |= one->undo(undone_by_user);
        undoing.ids.insert(running.request.id);
        undoing.all.push_back({running.request.id, running.request.what, undone});
    }
    for (const Request& request : goes) undoing.all.push_back({request.id, request.what, true});
    undoing_.push_back(std::move(undoing));
    soon();
}

void Engine::tell_undone() {
    std::list<Undoing> told;
    for (auto it = undoing_.begin(); it != undoing_.end();) {
        const auto now = it++;
        const bool runs = std::ranges::any_of(running_, [now](const Running& running) {
            return running.undone && now->ids.contains(running.request.id);
        });
        if (!runs) told.splice(told.end(), undoing_, now);
    }
    for (const Undoing& one : told) one.over(one.all);
}

bool Engine::message(NodeId from, const schema::Received& m) {
    for (Operation* operation : under_way()) {
        if (operation->seq() != m.seq()) continue;
        operation->message(from, m);
        return true;
    }
    return false;
}

void Engine::node_lost(NodeId node) {
    for (Operation* operation : under_way())
        if (!operation->is_over()) operation->node_lost(node);
}

bool Engine::lost(const std::string& why) {
    return std::ranges::any_of(under_way(), [&](Operation* one) { return one->lost(why); });
}

// What one of them would still add waits behind.
void Engine::interrupt(const std::string& why, Request request) {
    beginning_ = true;
    stop_all(why);
    beginning_ = false;
    running_.push_back({std::move(request), {}, false, {}});
    go_on(running_.back());
}

void Engine::stop_all(const std::string& why) {
    std::list<Running> all;
    all.swap(running_);
    for (Running& running : all) {
        const bool goes = !running.is_over();
        for (const auto& one : running.operations)
            if (!one->is_over()) one->stop(why);
        if (!goes && running.request.refuse) running.request.refuse(why);
    }
}

void Engine::stop(const std::string& why) {
    if (std::exchange(stopped_, true)) return;
    if (soon_) loop_.cancel(*soon_);
    soon_.reset();
    stop_all(why);
    for (Request& request : std::exchange(waiting_, {})) {
        if (request.refuse) request.refuse(why);
    }
    for (const Undoing& one : std::exchange(undoing_, {})) one.over(one.all);
}

NodeId Engine::node_of(RankId rank, NodeId node) const {
    for (const Running& running : running_)
        for (const auto& one : running.operations) {
            const auto place = one->placement();
            if (place && place->rank == rank && place->decided) return place->to;
        }
    return node;
}

std::optional<NodeId> Engine::target_of(RankId rank) const {
    for (const Operation* operation : under_way()) {
        const auto place = operation->placement();
        if (place && place->rank == rank) return place->to;
    }
    return std::nullopt;
}

void Engine::show(Json& ps) const {
    for (const Running& running : running_)
        for (const auto& one : running.operations) {
            if (one->is_over()) continue;
            const size_t moves = ps.contains("moves") ? ps["moves"].size() : 0;
            one->show(ps);
            if (ps.contains("moves") && ps["moves"].size() > moves)
                ps["moves"].back()["id"] = running.request.id;
        }
    for (const Request& request : waiting_)
        ps["queue"].push_back({{"id", request.id}, {"what", request.what}});
}

}  // namespace ghost::plugin
