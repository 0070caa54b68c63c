#include "pmix-plugin/orte4/rank_input.hpp"

#include "base/log.hpp"
#include "pmix-plugin/message.hpp"
#include "pmix-plugin/orte4/job.hpp"
#include "pmix-plugin/orte4/output.h"
#include "pmix-plugin/wrapper/base64.hpp"

namespace ghost::plugin::orte4 {
namespace {

constexpr size_t piece_bytes = 256 * 1024;
constexpr int64_t limit_us = 20'000'000;  // a source that is lost sends nothing

}  // namespace

RankInput::RankInput(Loop& loop, Messenger& messenger) : loop_(loop), messenger_(messenger) {
    messenger_.add_handler([this](NodeId, const Json& m) {
        if (text(m, "t") == "rank_input") hear(m);
    });
}

void RankInput::hold(RankId rank) {
    ghost_output_hold_input(app_jobid(), rank);
}

void RankInput::resume(RankId rank) {
    if (!expected_.contains(rank)) ghost_output_resume_input(app_jobid(), rank);
}

void RankInput::send(RankId rank, NodeId to) const {
    std::string data(piece_bytes, '\0');
    for (bool last = false; !last;) {
        int end = 0;
        const size_t taken =
            ghost_output_take_input(app_jobid(), rank, data.data(), data.size(), &end);
        last = taken < data.size() - ghost_output_piece || end != 0;
        if (taken > 0) log::debug("rank {}: {} bytes of input go with it", rank, taken);
        messenger_.send(to, {{"t", "rank_input"},
                             {"rank", rank},
                             {"data", encode(data.data(), taken)},
                             {"end", end != 0},
                             {"last", last}});
    }
}

void RankInput::expect(RankId rank) {
    ghost_output_hold_input(app_jobid(), rank);
    Expected& input = expected_[rank];
    input.here = true;
    input.limit = loop_.after(limit_us, [this, rank] {
        log::error("rank {}: input that waited for it where it was has not come", rank);
        expected_[rank].complete = true;
        expected_[rank].limit = 0;
        give_if_due(rank);
    });
    give_if_due(rank);
}

void RankInput::hear(const Json& m) {
    const auto rank = static_cast<RankId>(number(m, "rank"));
    Expected& input = expected_[rank];
    input.data += decode(text(m, "data"));
    input.end = input.end || flag(m, "end");
    input.complete = flag(m, "last");
    give_if_due(rank);
}

void RankInput::give_if_due(RankId rank) {
    const auto found = expected_.find(rank);
    const Expected& input = found->second;
    if (!input.complete || !input.here) return;
    if (input.limit != 0) loop_.cancel(input.limit);
    ghost_output_give_input(app_jobid(), rank, input.data.data(), input.data.size(),
                            input.end ? 1 : 0);
    expected_.erase(found);
    ghost_output_resume_input(app_jobid(), rank);
}

}  // namespace ghost::plugin::orte4
