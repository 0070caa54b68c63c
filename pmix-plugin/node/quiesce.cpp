// SPDX-License-Identifier: BSD-3-Clause
// How a rank is brought to hold nothing that could not be carried, and back: the same for a move
// and for a snapshot (docs/PROTOCOL.md, "N → R").
#include <fmt/format.h>

#include "base/log.hpp"
#include "pmix-plugin/node/impl.hpp"

namespace ghost::plugin {

using Q = Quiesce;

// --- its gates ---

void NodeAgent::Impl::close_gate(RankSlot& s) {
    s.busy.clear();
    s.sharing.answered = false;
    if (const auto still = standstill(s)) return stands_still(s, still->why);
    if (!s.agent) s.busy = "the rank's agent is not attached";
    if (!s.busy.empty()) return gate_open(s), gate_answered(s);
    if (!change(s, Q::gating)) return;
    if (passes(s, fault::Point::node_gates, Stage::freeze, s.agent))
        s.agent->tell(kernet::GateOrder{s.seq});
}

// Why the rank's gate is not closed; empty: it is.
std::string NodeAgent::Impl::why_busy(const kernet::GateAnswer& m) {
    if (m.busy) return m.why.value_or("the rank is inside a call that cannot be interrupted");
    return m.rc == 0 ? std::string() : fmt::format("the rank's gate failed ({})", m.rc);
}

void NodeAgent::Impl::on_gated(RankSlot& s, const kernet::GateAnswer& m) {
    if (s.quiesce != Q::gating) return;
    s.tag = m.tag;
    s.busy = why_busy(m);
    // A snapshot waits for all ranks before the first leaves its server.
    const bool waits = s.snap.participates;
    if (s.busy.empty() && waits && adapter_.may_detach(s.rank, s.tag) == PreMark::busy)
        s.busy = in_pmix_call;
    s.busy.empty() ? void(change(s, Q::gated)) : open_gate(s);
    if (waits) return participant_.poke();
    gate_answered(s);
}

void NodeAgent::Impl::open_gate(RankSlot& s) {
    if (!change(s, Q::opening)) return;
    if (s.agent) s.agent->tell(kernet::UngateOrder{s.seq});
    if (!s.agent || !s.still.empty()) on_ungated(s);
}

void NodeAgent::Impl::on_ungated(RankSlot& s) {
    if (s.quiesce == Q::opening && change(s, Q::open)) gate_open(s);
}

// It is open, and not because all is over.
void NodeAgent::Impl::gate_open(RankSlot& s) {
    if (s.snap.participates) return participant_.poke();
    if (s.transfer == Transfer::returning) return back_home(s);
    report(Busy{s.seq, s.rank, s.busy});
}

// --- everything else ---

// False: it cannot leave now.
bool NodeAgent::Impl::leave_server(RankSlot& s) {
    if (!s.agent || adapter_.detach_from_server(s.rank, s.tag) == PreMark::busy) return false;
    if (!change(s, Q::closing)) return true;
    (void)passes(s, fault::Point::node_closes, Stage::freeze, s.agent);
    s.agent->tell(kernet::CloseOrder{s.seq});
    return true;
}

// The rank's end-of-file.
void NodeAgent::Impl::rank_closed(RankId rank, const ControlConnection* which) {
    RankSlot* s = find(rank);
    if (s == nullptr || s->agent.get() != which) return;
    s->agent.reset();
    switch (s->quiesce) {
        case Q::closing:
            return all_closed(*s);
        case Q::gating:
        case Q::gated:
            // It has ended, or is about to: what it was asked it will not answer.
            s->busy = "the rank's agent has gone";
            if (s->quiesce == Q::gated && s->snap.participates)
                snapshot_failed(*s, Stage::freeze, s->busy);
            open_gate(*s);
            return gate_answered(*s);
        case Q::opening:
            return on_ungated(*s);
        default:
            return;
    }
}

// It holds nothing any more that could not be carried.
void NodeAgent::Impl::all_closed(RankSlot& s) {
    if (!change(s, Q::quiet)) return;
    if (s.snap.participates ? s.snap.off : s.transfer == Transfer::returning) return resume(s);
    s.snap.participates ? freeze(s) : export_rank(s);
}

// --- back ---

// It is frozen, or is between two servers, and nobody's word will let it go on by itself.
void NodeAgent::Impl::resume(RankSlot& s) {
    if (s.ended) return back_home(s);
    if (!change(s, Q::resuming)) return;
    // Without a wrapper the one that adopts the tree does it, see adopt().
    if (s.wrapper) s.wrapper->tell(Resume{s.seq, s.thread});
    // A wrapper may have died between letting the tree run and saying so.
    take_early(s);
}

// The rank is on PMIx and on its links again: after a snapshot, a move, or one that was called off.
void NodeAgent::Impl::on_attached(RankSlot& s, const kernet::RankAttached& m) {
    const bool resumed = s.quiesce == Q::resuming;
    if (!resumed && s.transfer != Transfer::going) {
        if (m.rc != 0) return;
        return report(Located{settled_location(s, m.location)});
    }
    if (m.seq != s.seq) return;
    const bool failed = m.rc != 0;
    std::string why;
    if (failed) why = m.error.empty() ? "the rank could not attach to PMIx" : m.error;
    if (failed && !s.snap.participates) {
        s.failure_told = false;
        return fail(s, Stage::attach, why);
    }
    if (resumed) adapter_.reattach(s.rank);
    if (!(resumed ? change(s, Q::open) : change(s, Transfer::none))) return;
    if (s.snap.participates) return on_attached_again(s, m.location, why);
    if (s.transfer == Transfer::copying)
        return report(RankRunning{s.seq, s.rank, settled_location(s, m.location)});
    if (!resumed) return report(Done{s.seq, s.rank, settled_location(s, m.location)});
    if (change(s, Transfer::none)) report(Aborted{s.seq, s.rank, settled_location(s, m.location)});
}

// The rank has ended: nobody waits for its gates.
void NodeAgent::Impl::give_up_gates(RankSlot& s) {
    if (s.quiesce != Q::open) (void)change(s, Q::open);
}

}  // namespace ghost::plugin
