// SPDX-License-Identifier: BSD-3-Clause
#include "pmix-plugin/coordinator/operations/migration.hpp"

#include <algorithm>
#include <fmt/format.h>
#include <optional>
#include <utility>

#include "pmix-plugin/coordinator/operations/targets.hpp"

namespace ghost::plugin {
namespace {

// Ranks that share memory may have shared more, or less, when they are looked at again.
constexpr int most_looks = 8;

// What one command asks for.
struct Migration {
    Job& job;
    MigrationOrder order;
    MoveOperation::Progress progress;
    std::function<void(const MigrationResult&)> finished;
    MigrationResult result = {};
    size_t lines = 0;  // that are not over
    bool begun = false;
    std::string refused = {};         // why nothing more is moved
    std::set<RankId> elsewhere = {};  // has left the node whose ranks are meant, or has ended
    std::set<RankId> sharing = {};    // found to share memory: they are tried again together
    std::function<bool(std::vector<RankId>)> together = {};  // false: that cannot be

    bool stopped() const { return result.exit != 0 && !order.all_that_can; }
    bool is_over(RankId rank) const {
        return elsewhere.contains(rank) ||
               std::ranges::find(result.moves, rank, &Move::rank) != result.moves.end();
    }
    // A name that was given goes to the move as it is, which says what is wrong with it.
    bool is_chosen() const { return order.is_chosen || order.to.size() != 1; }

    void take(const Move& move, bool is_why) {
        result.moves.push_back(move);
        if (move.why.empty() || move.state == MoveState::done) return;
        result.exit = std::max(result.exit, move.harmed ? 3 : 1);
        if (is_why || result.error.empty()) result.error = move.why;
        if (stopped()) lines -= job.engine.forget(order.id);
    }
    void refuse(const std::string& why) {
        result.exit = std::max(result.exit, 1);
        refused = why;
    }
    void line_over() {
        if (--lines > 0 || !finished) return;
        if (const auto again = std::exchange(sharing, {});
            !again.empty() && together({again.begin(), again.end()}))
            return;
        const auto left =
            std::ranges::count_if(order.ranks, [this](RankId rank) { return !is_over(rank); });
        if (result.error.empty() && !refused.empty())
            result.error = refused + ": nothing more is moved";
        else if (result.exit != 0 && left > 0)
            result.error += fmt::format(" ({} more ranks were not tried)", left);
        std::exchange(finished, nullptr)(result);
    }
};

// Ranks that move one after the other, or together.
struct Line {
    std::shared_ptr<Migration> all;
    std::vector<RankId> ranks;
    bool with_sharers = false;
    std::shared_ptr<MoveUnit> unit = {};  // that moves
    std::vector<Move> ended = {};         // of it
    int looks = 0;
    std::string not_live = {};  // why those that are under way are not tried live
    bool over = false;

    bool chooses() const { return all->order.mode == "auto"; }
    std::string mode() const {
        if (!chooses()) return all->order.mode;
        return not_live.empty() ? "live" : "stop";
    }
    // The next one; none: that was all.
    std::optional<RankId> next() const {
        const auto left =
            std::ranges::find_if_not(ranks, [this](RankId rank) { return all->is_over(rank); });
        return over || all->stopped() || left == ranks.end() ? std::nullopt : std::optional(*left);
    }

    void take(const Move& move) {
        ended.push_back(move);
        if (ended.size() == unit->ranks.size()) settle();
    }

    // All of the unit have come to their end.
    void settle() {
        const auto moves = std::exchange(ended, {});
        const bool looked = !unit->found.empty() && std::ranges::all_of(moves, [](const Move& m) {
            return m.state == MoveState::failed;
        });
        if (looked && with_sharers && ++looks < most_looks) return;
        if (looked && !with_sharers && all->order.all_that_can) {
            for (const Move& move : moves) all->sharing.insert(move.rank);
            return end();
        }
        if (stops_instead(moves)) return;
        not_live.clear();
        looks = 0;
        for (const Move& move : moves) all->take(move, move.rank == unit->broken_by);
        if (!next()) end();
    }

    // Nothing was done to those that cannot move live.
    bool stops_instead(const std::vector<Move>& moves) {
        const auto found = std::ranges::find_if(moves, &Move::stops_instead);
        if (found == moves.end()) return false;
        not_live = found->not_live;
        return true;
    }

    void end() {
        if (!std::exchange(over, true)) all->line_over();
    }

    void refuse(const std::string& why) {
        if (over) return;
        all->refuse(why);
        end();
    }

    // Of all from a node: those that are there no more.
    void pass_over() {
        if (all->order.all_from.empty()) return;
        const auto node = all->job.adapter.find_node(all->order.all_from);
        for (const RankInfo& info : all->job.adapter.ranks())
            if (info.life == RankLife::ended || info.node != node) all->elsewhere.insert(info.rank);
    }

    std::optional<NodeId> node_of(RankId rank) const {
        for (const RankInfo& info : all->job.adapter.ranks())
            if (info.rank == rank) return info.node;
        return std::nullopt;
    }

    std::set<NodeId> burdens() const {
        const auto rank = next();
        const auto from = rank ? node_of(*rank) : std::nullopt;
        if (!from) return {};
        std::set<NodeId> out = {*from};
        if (const auto to = all->is_chosen() ? choose(*rank, *from) : named()) out.insert(*to);
        return out;
    }
    std::optional<NodeId> named() const { return all->job.adapter.find_node(all->order.to[0]); }
    std::optional<NodeId> choose(RankId rank, NodeId from) const {
        auto chosen = choose_target(all->job, all->order.to, from, {rank});
        return chosen ? std::optional(*chosen) : std::nullopt;
    }
};

Operations operations_of(const std::shared_ptr<Line>& line) {
    Migration& all = *line->all;
    all.begun = true;
    line->pass_over();
    Operations out;
    const auto next = line->next();
    if (!next) return line->end(), std::move(out);
    auto unit = std::make_shared<MoveUnit>();
    unit->ranks[*next];
    if (line->looks > 0)
        unit->ranks = line->unit->found.empty() ? line->unit->ranks : line->unit->found;
    line->unit = unit;
    const auto add = [&](RankId rank) {
        MoveOrder order{rank,         all.is_chosen() ? "" : all.order.to[0],
                        line->mode(), line->chooses(),
                        unit,         line->not_live,
                        all.order.to};
        out.push_back(
            std::make_unique<MoveOperation>(all.job, std::move(order), all.progress,
                                            [line](const Move& move) { line->take(move); }));
    };
    add(*next);
    for (const auto& [rank, parts] : unit->ranks)
        if (rank != *next) add(rank);
    return out;
}

Request request_of(const std::shared_ptr<Line>& line, uint64_t owner) {
    const auto& all = line->all;
    Request request;
    request.id = all->order.id;
    request.owner = owner;
    request.what = fmt::format("move of rank{} {}", line->ranks.size() > 1 ? "s" : "",
                               fmt::join(line->ranks, ", "));
    // Which ranks share memory with them is not known yet.
    request.scope.all = line->with_sharers;
    request.scope.ranks = {line->ranks.begin(), line->ranks.end()};
    request.burdens = [line] { return line->burdens(); };
    request.begun = [all] { return all->begun; };
    request.next = [line] { return operations_of(line); };
    request.refuse = [line](const std::string& why) { line->refuse(why); };
    return request;
}

// Why it names no ranks.
std::string find_ranks(const Job& job, MigrationOrder& order) {
    const auto node = job.adapter.find_node(order.all_from);
    if (!node) return fmt::format("node {} is not part of the job", order.all_from);
    for (const RankInfo& info : job.adapter.ranks())
        if (info.life != RankLife::ended && job.engine.node_of(info.rank, info.node) == *node)
            order.ranks.push_back(info.rank);
    return {};
}

}  // namespace

std::vector<Request> migration(Job& job, uint64_t owner, MigrationOrder order,
                               MoveOperation::Progress progress,
                               std::function<void(const MigrationResult&)> finished) {
    std::vector<Request> out;
    if (!order.all_from.empty()) {
        const std::string why = find_ranks(job, order);
        if (!why.empty() || order.ranks.empty()) {
            finished({{}, why.empty() ? 0 : 1, why});
            return out;
        }
    }
    if (order.mode.empty()) order.mode = job.policy.mode;
    auto all = std::make_shared<Migration>(
        Migration{job, std::move(order), std::move(progress), std::move(finished)});
    const auto add = [&](std::vector<RankId> ranks) {
        ++all->lines;
        out.push_back(request_of(
            std::make_shared<Line>(Line{all, std::move(ranks), all->order.with_sharers}), owner));
    };
    if (all->order.with_sharers) {
        add(all->order.ranks);
        return out;
    }
    all->together = [whole = std::weak_ptr(all), owner](std::vector<RankId> ranks) {
        const auto all = whole.lock();
        if (!all || all->job.engine.is_undone(all->order.id)) return false;
        ++all->lines;
        auto line = std::make_shared<Line>(Line{all, std::move(ranks), true});
        if (all->job.engine.add(request_of(line, owner))) return true;
        --all->lines;
        return false;
    };
    std::set<RankId> named;
    for (const RankId rank : all->order.ranks)
        if (named.insert(rank).second) add({rank});
    return out;
}

}  // namespace ghost::plugin
