// SPDX-License-Identifier: BSD-3-Clause
// What simulated wrappers do in a move until the target holds the rank, and when it ends.
#include "pmix-plugin/runtime/sim/cluster.hpp"

namespace ghost::plugin::sim {

void Cluster::connect(const std::shared_ptr<Wrapper>& w, const Connect& m) {
    Connected answer{.seq = m.seq, .shared = shared_by(w->rank)};
    if (m.live && chance.memory < m.live_from.value_or(0)) answer.not_live = "it is small";
    if (m.live && chance.untracked) answer.not_live = "this kernel cannot";
    if (!answer.not_live.empty() && !m.live_from)
        return say(w, Failed{.seq = m.seq, .stage = Stage::live, .why = answer.not_live});
    w->live = m.live && answer.not_live.empty();
    w->sketched = false;
    w->sketches = 0;
    w->linked = m.seq;
    if (w->live) answer.memory = chance.memory;
    say(w, answer);
}

// A live move: the skeleton is taken while the rank is quiet, and it need be no longer.
void Cluster::sketch(const std::shared_ptr<Wrapper>& w, uint64_t seq) {
    if (chance.fail_live && chance.fail_ranks.contains(w->rank)) {
        const char* why = "it has a timer";
        if (const auto stage = chance.fail_at_target)
            hang_up(w, *stage, *stage == Stage::live ? why : "the other side has hung up");
        return say(w, Failed{.seq = seq, .stage = *chance.fail_live, .why = why});
    }
    w->sketched = true;
    say(w, Sketched{seq});
}

void Cluster::copy_on(const std::shared_ptr<Wrapper>& w, const Wake& m) {
    expect_thread(m.agent);
    if (!w->tree || !w->tree->alive) return;
    wake(w->tree);
    later(nobody, [this, w, seq = m.seq] {
        if (!w->alive || !w->tree->alive || w->exports != seq) return;
        say(w, TransferProgress{seq, w->rank, 4096, 0});
        say(w, Converged{seq, w->rank});
    });
}

void Cluster::export_tree(const std::shared_ptr<Wrapper>& w, const Export& m) {
    const uint64_t seq = m.seq;
    // One that has ended is told of by what is tried with it.
    if (w->tree->alive && !w->tree->closed) violate("export of a rank that has not closed");
    w->exports = seq;
    if (!m.saves.empty()) shared_saved.insert(w->rank);
    later(nobody, [this, w, seq, alone = m.unit.empty()] {
        if (!w->alive || w->exports != seq) return;
        if (!w->tree->alive)
            return say(w, Failed{.seq = seq,
                                 .stage = Stage::exporting,
                                 .why = "cannot freeze process 7: it has ended"});
        if (w->live && !w->sketched) return sketch(w, seq);
        if (chance.fail_stage == Stage::exporting && chance.fail_ranks.contains(w->rank))
            return say(w, Failed{.seq = seq, .stage = Stage::exporting, .why = "no luck"});
        if (w->live && chance.sketches > ++w->sketches) return sketch(w, seq);
        w->tree->stopped = true;
        alone ? exported(w, seq) : say(w, Still{seq});
    });
}

void Cluster::exported(const std::shared_ptr<Wrapper>& w, uint64_t seq) {
    if (chance.sharers.contains(w->rank)) w->torn = sharer_runs();
    later(nobody, [this, w, seq] {
        if (!w->alive || !w->tree->alive || w->exports != seq) return;
        say(w, Exported{.seq = seq, .bytes = 4096});
        later(nobody, [this, rank = w->rank, epoch = w->tree->epoch, seq] {
            ghost_arrives(rank, epoch, seq);
        });
    });
}

void Cluster::end_rank(RankId rank) {
    for (auto& w : wrappers_) {
        if (w->rank != rank || !w->alive || !w->tree || !w->tree->runs()) continue;
        drop_tree(*w->tree);
        (void)w->control.send_text(schema::encode(Exit{0})).ok();
        return wrapper_gone(w, 0);
    }
}

void Cluster::end_rank_slowly(RankId rank) {
    for (auto& w : wrappers_) {
        if (w->rank != rank || !w->alive || !w->tree || !w->tree->runs()) continue;
        drop_tree(*w->tree);
        hang_up(w, Stage::importing, "the other side has hung up");
        return later(nobody, [this, w] {
            if (!w->alive) return;
            (void)w->control.send_text(schema::encode(Exit{0})).ok();
            wrapper_gone(w, 0);
        });
    }
}

// Where its rank goes a stream ends too early.
void Cluster::hang_up(const std::shared_ptr<Wrapper>& w, Stage stage, const char* why) {
    for (auto& b : wrappers_) {
        const bool waits = b->restore && b->alive && b->rank == w->rank && !b->tree;
        if (w->linked == 0 || !waits) continue;
        say(b, Failed{.seq = w->linked, .stage = stage, .why = why});
    }
}

void Cluster::ghost_arrives(RankId rank, uint32_t epoch, uint64_t seq) {
    for (auto& b : wrappers_) {
        if (!b->restore || !b->alive || b->rank != rank || b->tree) continue;
        if (b->told != shared_by(rank).size()) violate("a rank is to share, and not told what");
        b->tree = std::make_shared<Tree>();
        b->tree->rank = rank;
        b->tree->node = b->node;
        b->tree->init = ++last_pid_;
        b->tree->stopped = b->tree->closed = b->held = true;
        b->tree->epoch = epoch + 1;
        b->tree->life = daemons_[b->node]->life_;
        trees_.push_back(b->tree);
        say(b, Held{.seq = seq, .bytes = 4096, .init = {}, .agent = {}});
    }
}

}  // namespace ghost::plugin::sim
