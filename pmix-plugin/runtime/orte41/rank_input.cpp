// SPDX-License-Identifier: BSD-3-Clause
#include "pmix-plugin/runtime/orte41/rank_input.hpp"

#include <algorithm>

#include "base/log.hpp"
#include "pmix-plugin/runtime/orte41/job.hpp"
#include "pmix-plugin/runtime/orte41/output.h"

namespace ghost::plugin::orte41 {
namespace {

constexpr size_t piece_bytes = 256 * 1024;
constexpr int64_t limit_us = 20'000'000;  // for each piece: a source that is lost sends nothing

}  // namespace

RankInput::RankInput(Loop& loop, RmlMessenger& messenger, const KeptInput& kept)
    : loop_(loop), messenger_(messenger), kept_(kept) {
    messenger_.add_handler([this](NodeId from, const schema::Received& m) {
        if (m.is<RankInputWant>()) on_want(from, m.as<RankInputWant>());
        if (m.is<RankInputPiece>()) on_piece(m.as<RankInputPiece>());
        if (m.is<NodeLost>()) node_lost(m.as<NodeLost>().node);
    });
}

void RankInput::hold(RankId rank) {
    // The rank is here: what is left of an earlier departure, whose target waited for too long, is
    // nobody's any more, and would be taken for the next target's.
    departed_.erase(rank);
    wants_.erase(rank);
    ghost_output_hold_input(app_jobid(), rank);
}

void RankInput::resume(RankId rank) {
    if (!waits(rank)) ghost_output_resume_input(app_jobid(), rank);
}

void RankInput::leave(RankId rank) {
    Departed& input = departed_[rank] = {};
    std::string data(piece_bytes, '\0');
    size_t all = 0;
    for (bool last = false; !last;) {
        int end = 0;
        const size_t taken =
            ghost_output_take_input(app_jobid(), rank, data.data(), data.size(), &end);
        last = taken < data.size() - ghost_output_piece || end != 0;
        input.pieces.push_back(data.substr(0, taken));
        input.end = end != 0;
        all += taken;
    }
    if (all > 0) log::debug("rank {}: {} bytes of input go with it", rank, all);
    answer(rank);
}

void RankInput::give_again(RankId rank, uint64_t from) {
    again_[rank] = {from, kept_.place(), ghost_output_input_ended() != 0};
    log::debug("rank {}: {} bytes of input are there to be given again", rank,
               again_[rank].to - from);
}

void RankInput::forget() {
    for (const auto& [rank, input] : expected_)
        if (input.limit != 0) loop_.cancel(input.limit);
    expected_.clear();
    departed_.clear();
    again_.clear();
    wants_.clear();
}

void RankInput::on_want(NodeId by, const RankInputWant& m) {
    wants_[m.rank] = {by, m.move, m.at};
    answer(m.rank);
}

// Nothing is given up before its target has said that it has it.
void RankInput::answer(RankId rank) {
    const auto want = wants_.find(rank);
    if (const auto kept = again_.find(rank); kept != again_.end() && want != wants_.end())
        return answer_again(rank, kept->second, want->second);
    const auto found = departed_.find(rank);
    if (found == departed_.end() || want == wants_.end()) return;
    Departed& input = found->second;
    const auto [by, move, at] = want->second;
    for (size_t i = 0; i < std::min<size_t>(at, input.pieces.size()); ++i)
        std::string().swap(input.pieces[i]);
    if (at >= input.pieces.size()) {
        departed_.erase(found);
        wants_.erase(want);
        return;
    }
    const std::string& data = input.pieces[at];
    const bool last = at + 1 == input.pieces.size();
    messenger_.tell(by, RankInputPiece{rank, move, at, {data}, last && input.end, last});
}

void RankInput::answer_again(RankId rank, const Again& input, const Want& want) {
    const uint64_t begin = input.from + want.at * piece_bytes;
    const uint64_t end = std::min(begin + piece_bytes, input.to);
    if (want.at > 0 && begin >= input.to) {
        again_.erase(rank);
        wants_.erase(rank);
        return;
    }
    std::string data = kept_.read(begin, end - begin);
    if (data.size() < end - begin)
        log::error("rank {}: standard input since its snapshot cannot be read any more", rank);
    const bool last = end == input.to;
    messenger_.tell(
        want.by,
        RankInputPiece{rank, want.move, want.at, {std::move(data)}, last && input.end, last});
}

void RankInput::expect(RankId rank, NodeId from) {
    ghost_output_hold_input(app_jobid(), rank);
    Expected& input = expected_[rank] = {.from = from, .move = ++moves_, .data = {}};
    ask(rank, input);
}

void RankInput::ask(RankId rank, Expected& input) {
    if (input.limit != 0) loop_.cancel(input.limit);
    input.limit = loop_.after(limit_us, [this, rank] { expired(rank); });
    messenger_.tell(input.from, RankInputWant{rank, input.move, input.pieces});
}

void RankInput::on_piece(const RankInputPiece& m) {
    const RankId rank = m.rank;
    const auto found = expected_.find(rank);
    if (found == expected_.end() || m.move != found->second.move || m.at != found->second.pieces)
        return;
    Expected& input = found->second;
    input.data += m.data.data;
    ++input.pieces;
    ask(rank, input);
    if (m.last) give(rank, m.end);
}

void RankInput::expired(RankId rank) {
    Expected& input = expected_[rank];
    input.limit = 0;
    log::error(
        "rank {}: standard input that waited for it where it was has not come; it goes on "
        "without",
        rank);
    give(rank, false);
}

// Nothing more will come from there, and nobody must be kept waiting for it.
void RankInput::node_lost(NodeId node) {
    std::vector<RankId> ranks;
    for (const auto& [rank, input] : expected_)
        if (input.from == node) ranks.push_back(rank);
    for (const RankId rank : ranks) {
        log::warning("rank {}: standard input that waited for it on its lost node, if any, is lost",
                     rank);
        give(rank, false);
    }
}

void RankInput::give(RankId rank, bool end) {
    const auto found = expected_.find(rank);
    const Expected& input = found->second;
    if (input.limit != 0) loop_.cancel(input.limit);
    log::debug("rank {}: {} bytes of input have come{}", rank, input.data.size(),
               end ? ", and its end" : "");
    ghost_output_give_input(app_jobid(), rank, input.data.data(), input.data.size(), end ? 1 : 0);
    expected_.erase(found);
    ghost_output_resume_input(app_jobid(), rank);
}

}  // namespace ghost::plugin::orte41
