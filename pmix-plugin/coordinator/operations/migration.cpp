// SPDX-License-Identifier: BSD-3-Clause
#include "pmix-plugin/coordinator/operations/migration.hpp"

#include <fmt/format.h>

namespace ghost::plugin {
namespace {

struct Migration {
    MigrationOrder order;
    MoveOperation::Progress progress;
    std::function<void(const Move&)> moved;
    std::function<void(const MigrationResult&)> finished;
    MigrationResult result;

    bool over() const { return result.exit != 0 || result.moves.size() == order.ranks.size(); }

    void take(const Move& move) {
        if (moved) moved(move);
        result.moves.push_back(move);
        if (!move.why.empty() && move.state != MoveState::done) {
            result.exit = move.harmed ? 3 : 1;
            result.error = move.why;
            const size_t left = order.ranks.size() - result.moves.size();
            if (left > 0) result.error += fmt::format(" ({} more ranks were not tried)", left);
        }
        if (over()) finished(result);
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
    auto all = std::make_shared<Migration>(Migration{
        std::move(order), std::move(progress), std::move(moved), std::move(finished), {}});
    Request request;
    request.owner = owner;
    request.scope.ranks = {all->order.ranks.begin(), all->order.ranks.end()};
    request.next = [&job, all]() -> std::unique_ptr<Operation> {
        if (all->over()) return nullptr;
        const RankId rank = all->order.ranks[all->result.moves.size()];
        return std::make_unique<MoveOperation>(job, MoveOrder{rank, all->order.to, all->order.mode},
                                               all->progress,
                                               [all](const Move& move) { all->take(move); });
    };
    request.refuse = [all](const std::string& why) { all->refuse(why); };
    return request;
}

}  // namespace ghost::plugin
