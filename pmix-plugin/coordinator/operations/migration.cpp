// SPDX-License-Identifier: BSD-3-Clause
#include "pmix-plugin/coordinator/operations/migration.hpp"

#include <algorithm>
#include <fmt/format.h>
#include <optional>
#include <utility>

namespace ghost::plugin {
namespace {

// Ranks that share memory may have shared more, or less, when they are looked at again.
constexpr int most_looks = 8;

struct Migration {
    MigrationOrder order;
    MoveOperation::Progress progress;
    std::function<void(const Move&)> moved;
    std::function<void(const MigrationResult&)> finished;
    MigrationResult result;
    std::shared_ptr<MoveUnit> unit;  // that moves
    std::vector<Move> ended;         // of it
    int looks = 0;
    std::string not_live;  // why those that are under way are not tried live

    std::string mode() const {
        if (order.mode != "auto") return order.mode;
        return not_live.empty() ? "live" : "stop";
    }
    bool is_moved(RankId rank) const {
        return std::ranges::find(result.moves, rank, &Move::rank) != result.moves.end();
    }
    // The next one; none: that was all.
    std::optional<RankId> next() const {
        const auto left =
            std::ranges::find_if_not(order.ranks, [this](RankId rank) { return is_moved(rank); });
        return left == order.ranks.end() ? std::nullopt : std::optional(*left);
    }
    bool over() const { return result.exit != 0 || !next(); }

    void take(const Move& move) {
        ended.push_back(move);
        if (ended.size() == unit->ranks.size()) settle();
    }

    // All of the unit have come to their end.
    void settle() {
        const auto all = std::exchange(ended, {});
        const bool looked = !unit->found.empty() && std::ranges::all_of(all, [](const Move& move) {
            return move.state == MoveState::failed;
        });
        if (looked && order.with_sharers && ++looks < most_looks) return;
        if (stops_instead(all)) return;
        not_live.clear();
        for (const Move& move : all) {
            if (moved) moved(move);
            result.moves.push_back(move);
            if (move.why.empty() || move.state == MoveState::done) continue;
            result.exit = std::max(result.exit, move.harmed ? 3 : 1);
            if (move.rank == unit->broken_by || result.error.empty()) result.error = move.why;
        }
        const auto left =
            std::ranges::count_if(order.ranks, [this](RankId rank) { return !is_moved(rank); });
        if (result.exit != 0 && left > 0)
            result.error += fmt::format(" ({} more ranks were not tried)", left);
        looks = 0;
        if (over()) finished(result);
    }

    // Nothing was done to those that cannot move live.
    bool stops_instead(const std::vector<Move>& all) {
        if (mode() != "live" || order.mode != "auto") return false;
        for (const Move& move : all) {
            if (move.harmed || move.ended || move.not_live.empty()) continue;
            not_live = move.not_live;
            return true;
        }
        return false;
    }

    void refuse(const std::string& why) {
        if (over()) return;
        result.exit = 1;
        result.error = why + ": nothing more is moved";
        finished(result);
    }
};

}  // namespace

Request migration(Job& job, uint64_t owner, MigrationOrder order, MoveOperation::Progress progress,
                  std::function<void(const Move&)> moved,
                  std::function<void(const MigrationResult&)> finished) {
    auto all = std::make_shared<Migration>(Migration{std::move(order),
                                                     std::move(progress),
                                                     std::move(moved),
                                                     std::move(finished),
                                                     {},
                                                     {},
                                                     {},
                                                     0,
                                                     {}});
    Request request;
    request.owner = owner;
    // Which ranks share memory with them is not known yet.
    request.scope.all = all->order.with_sharers;
    request.scope.ranks = {all->order.ranks.begin(), all->order.ranks.end()};
    request.next = [&job, all]() -> Operations {
        const auto next = all->over() ? std::nullopt : all->next();
        Operations out;
        if (!next) return out;
        auto unit = std::make_shared<MoveUnit>();
        unit->ranks[*next];
        if (all->looks > 0)
            unit->ranks = all->unit->found.empty() ? all->unit->ranks : all->unit->found;
        all->unit = unit;
        const auto add = [&](RankId rank) {
            out.push_back(std::make_unique<MoveOperation>(
                job, MoveOrder{rank, all->order.to, all->mode(), unit, all->not_live},
                all->progress, [all](const Move& move) { all->take(move); }));
        };
        add(*next);
        for (const auto& [rank, parts] : unit->ranks)
            if (rank != *next) add(rank);
        return out;
    };
    request.refuse = [all](const std::string& why) { all->refuse(why); };
    return request;
}

}  // namespace ghost::plugin
