// SPDX-License-Identifier: BSD-3-Clause
#include "pmix-plugin/coordinator/operations/drain.hpp"

#include <algorithm>
#include <fmt/format.h>
#include <utility>

namespace ghost::plugin {
namespace {

struct Drain {
    Job& job;
    DrainOrder order;
    std::function<void(const DrainResult&)> finished;
    NodeId node = 0;
    std::string name = {};
    DrainResult result = {};
    bool begun = false;

    // Why it does not begin.
    std::string check();
    std::string why_of(RankId rank) const;
    // True: its daemon is to leave; else that was all.
    bool all_moved(const MigrationResult& moved);
    void look_who_stays();
    void left(const Leave& leave);
    void stays(const std::string& why);
    void finish() {
        if (begun) job.events.over(order.id, name, result);
        std::exchange(finished, nullptr)(result);
    }
};

std::string Drain::check() {
    const auto found = job.adapter.find_node(order.node);
    if (!found) return fmt::format("node {} is not part of the job", order.node);
    node = *found;
    name = job.liveness.name_of(node);
    if (job.drained.contains(node))
        return fmt::format("node {} is drained already, or being drained", name);
    for (const std::string& to : order.to)
        if (!job.adapter.find_node(to)) return fmt::format("node {} is not part of the job", to);
    if (const size_t guests = job.adapter.guests_at(node); guests > 0)
        return fmt::format(
            "{} processes that the job has spawned (MPI_Comm_spawn) are on node {}: drain it when "
            "they have ended",
            guests, name);
    return {};
}

std::string Drain::why_of(RankId rank) const {
    const auto move = std::ranges::find(result.moved.moves, rank, &Move::rank);
    if (move != result.moved.moves.end() && !move->why.empty()) return move->why;
    return result.moved.error.empty() ? "it came meanwhile" : result.moved.error;
}

void Drain::look_who_stays() {
    for (const RankInfo& info : job.adapter.ranks())
        if (info.life != RankLife::ended && job.engine.node_of(info.rank, info.node) == node)
            result.stay.push_back({info.rank, why_of(info.rank)});
}

void Drain::stays(const std::string& why) {
    job.drained.erase(node);
    result.exit = std::max(result.exit, 1);
    result.error = why;
    finish();
}

bool Drain::all_moved(const MigrationResult& moved) {
    result.moved = moved;
    if (moved.exit == 3) {
        result.exit = 3;
        return stays(moved.error), false;
    }
    if (!job.adapter.job_running()) return stays(why_no_job(job)), false;
    look_who_stays();
    if (!result.stay.empty()) {
        std::vector<RankId> ranks;
        for (const auto& one : result.stay) ranks.push_back(one.rank);
        stays(fmt::format("node {} is not drained: rank{} {} {} there: {}", name,
                          ranks.size() == 1 ? "" : "s", fmt::join(ranks, ", "),
                          ranks.size() == 1 ? "stays" : "stay", result.stay[0].why));
        return false;
    }
    result.drained = true;
    if (node == job.adapter.self()) {
        result.note = fmt::format(
            "no rank is on node {} any more; mpirun runs there and stays: the node must not be "
            "switched off while the job runs",
            name);
        finish();
        return false;
    }
    return true;
}

void Drain::left(const Leave& leave) {
    result.left = leave.state == LeaveState::done;
    if (result.left && leave.ended) {
        result.note = fmt::format(
            "node {} has left the job: it can be switched off, and can not come back to this job",
            name);
    } else if (result.left) {
        result.note = fmt::format(
            "node {} is out of the job, which needs nothing there any more; its daemon has not "
            "said that it ended",
            name);
    } else {
        result.exit = 1;
        result.error = fmt::format(
            "no rank is on node {} any more, but its daemon stays ({}): do not switch the node off "
            "while the job runs, and drain it again",
            name, leave.why);
        job.drained.erase(node);
        result.drained = false;
    }
    finish();
}

void moved_all(const std::shared_ptr<Drain>& all, const MigrationResult& result) {
    if (!all->all_moved(result)) return;
    const auto over = [all](const Leave& leave) { all->left(leave); };
    all->job.engine.ask(leave_request(all->job, all->order.id, all->node, over));
}

}  // namespace

void drain(Job& job, uint64_t owner, DrainOrder order, MoveOperation::Progress progress,
           std::function<void(const DrainResult&)> finished) {
    auto all = std::make_shared<Drain>(Drain{job, std::move(order), std::move(finished)});
    if (const auto node = job.adapter.find_node(all->order.node);
        node && !job.liveness.alive(*node)) {
        all->result.drained = all->result.left = true;
        all->result.note = fmt::format("node {} has left the job already", all->order.node);
        return all->finish();
    }
    if (const std::string why = all->check(); !why.empty()) {
        all->result.exit = 1;
        all->result.error = why;
        return all->finish();
    }
    job.drained.insert(all->node);
    all->begun = true;
    job.events.draining(all->order.id, all->name, all->order.to);
    MigrationOrder moves;
    moves.id = all->order.id;
    moves.all_from = all->name;
    moves.to = all->order.to;
    moves.is_chosen = true;
    moves.mode = all->order.mode;
    moves.all_that_can = true;
    job.engine.ask(migration(job, owner, std::move(moves), std::move(progress),
                             [all](const MigrationResult& result) { moved_all(all, result); }));
}

}  // namespace ghost::plugin
