// SPDX-License-Identifier: BSD-3-Clause
// Target of a move: a restore wrapper that holds, the switch, go; and the switch on all other
// nodes.
#include <fmt/format.h>

#include "base/log.hpp"
#include "pmix-plugin/node/impl.hpp"

namespace ghost::plugin {

using S = RankSlotState;

void NodeAgent::Impl::prepare(const Prepare& m) {
    const RankId rank = m.rank;
    if (RankSlot* old = find(rank);
        old != nullptr && is_target(old->state) && old->state <= S::held) {
        abort_target(*old);  // of an attempt whose abort was lost
    }
    RankSlot* known = find(rank);
    const bool lives_here = known != nullptr && !known->ended && known->state != S::home;
    if (lives_here || (known != nullptr && known->wrapper)) {
        return report(Failed{m.seq, rank, "prepare", fmt::format("rank {} is here already", rank)});
    }
    forget(rank);
    RankSlot& s = slot(rank);
    s.seq = m.seq;
    s.epoch = m.epoch;
    s.from = m.from;
    s.to = adapter_.self();
    change(s, S::preparing);
    std::vector<std::string> argv = {settings_.wrapper,    "--restore", "--rank",
                                     fmt::to_string(rank), "--job",     adapter_.job_name(),
                                     "--control-fd",       "3"};
    auto spawned = adapter_.spawn_restore(
        rank, argv, [this, rank, seq = s.seq](int status) { restore_ended(rank, seq, status); });
    if (!spawned.ok()) {
        fail(s, "prepare", spawned.error().message());
        return forget(rank);
    }
    s.wrapper = open_wrapper(rank, std::move(spawned->control));
    s.wrapper->tell(m);
}

void NodeAgent::Impl::target_answer(RankSlot& s, const schema::Received& m) {
    switch (m.type<FromWrapper>()) {
        case FromWrapper::failed:
            return fail(s, m.as<Failed>().stage, m.as<Failed>().why);
        case FromWrapper::ready:
            if (s.state != S::preparing) return;
            change(s, S::ready);
            return pass_on(s, m.as<Ready>());
        case FromWrapper::progress:
            if (s.state == S::ready) pass_on(s, m.as<TransferProgress>());
            return;
        case FromWrapper::held:
            if (s.state != S::ready) return;
            change(s, S::held);
            adapter_.expect_client(s.rank);
            return pass_on(s, m.as<Held>());
        default:
            return;
    }
}

void NodeAgent::Impl::restore_ended(RankId rank, uint64_t seq, int status) {
    RankSlot* s = find(rank);
    if (!running_ || s == nullptr || s->seq != seq || !is_target(s->state)) return;
    fail(*s, "import", fmt::format("the restore wrapper ended with status {}", status));
    if (s->state < S::switched) forget(rank);
}

void NodeAgent::Impl::abort_target(RankSlot& s) {
    if (s.state >= S::switched) return;  // decided: cannot be
    RankId rank = s.rank;
    forget(rank);
    adapter_.discard_restore(rank);
}

// On every node of the job; what it means here depends on who we are.
void NodeAgent::Impl::switch_rank(const Switch& m) {
    if (m.seq <= switched_seq_) return;
    switched_seq_ = m.seq;
    RankSlot* s = find(m.rank);
    if (m.from == adapter_.self()) return leave(s != nullptr ? *s : slot(m.rank), m);
    const bool comes = m.to == adapter_.self();
    if (comes && s != nullptr && s->state == S::held) return join(*s);
    auto votes = adapter_.switch_rank(m.rank, m.from, m.to);
    if (votes.ok() && !comes) return report(Switched{m.seq, m.rank, *votes});
    report(Failed{m.seq, m.rank, "switch",
                  votes.ok() ? "no copy of the rank is held here" : votes.error().message()});
}

void NodeAgent::Impl::join(RankSlot& s) {
    auto votes = adapter_.switch_rank(s.rank, s.from, s.to);
    change(s, S::switched);
    if (!votes.ok()) return fail(s, "switch", votes.error().message());
    report(Switched{s.seq, s.rank, *votes});
}

void NodeAgent::Impl::go(const Go& m) {
    RankSlot* s = find(m.rank);
    if (s == nullptr || s->seq != m.seq || s->state != S::switched) return;
    if (!s->wrapper) return fail(*s, "go", "the restore wrapper has gone");
    change(*s, S::going);
    if (m.agent) s->thread = m.agent;
    s->wrapper->tell(Go{s->seq, s->rank, s->thread});
}

// The rank is on PMIx and on its links again: after a move, or after one that was called off.
void NodeAgent::Impl::on_attached(RankSlot& s, const Json& m) {
    if (s.snap.part && (s.state == S::resuming || s.state == S::going)) {
        return on_attached_again(s, m);
    }
    const bool moving = s.state == S::resuming || s.state == S::going;
    if (!moving) {
        if (field(m, "location") == nullptr || signed_number(m, "rc") != 0) return;
        return report(Located{settled_location(s, m)});
    }
    if (number(m, "seq") != s.seq) return;
    if (signed_number(m, "rc") != 0) {
        s.failure_told = false;
        return fail(s, "attach", text(m, "error", "the rank could not attach to PMIx"));
    }
    const bool resumed = s.state == S::resuming;
    if (resumed) adapter_.reattach(s.rank);
    change(s, S::home);
    if (resumed) return report(Aborted{s.seq, s.rank, settled_location(s, m)});
    report(Done{s.seq, s.rank, settled_location(s, m)});
}

}  // namespace ghost::plugin
