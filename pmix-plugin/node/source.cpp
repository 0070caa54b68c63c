// SPDX-License-Identifier: BSD-3-Clause
// Source of a move: connect, gate, export; then leave, or go on as if nothing had happened.
#include <fmt/format.h>

#include "base/fault.hpp"
#include "base/log.hpp"
#include "pmix-plugin/node/impl.hpp"

namespace ghost::plugin {

using T = Transfer;

void NodeAgent::Impl::connect(const Connect& m) {
    RankSlot* s = find(m.rank);
    if (s != nullptr && s->ended)
        return report(Failed{m.seq, m.rank, Stage::rank, has_ended(m.rank)});
    if (s == nullptr || !s->at_rest() || !s->wrapper || !s->unmovable.empty()) {
        const bool told = s != nullptr && !s->unmovable.empty();
        return report(Failed{m.seq, m.rank, Stage::connect,
                             fmt::format("rank {} has no wrapper here that could move it{}{}",
                                         m.rank, told ? ": " : "", told ? s->unmovable : "")});
    }
    if (const auto still = standstill(*s))
        return report(Failed{m.seq, m.rank, Stage::standstill, still->why});
    if (const std::string why = why_tied(*s); !why.empty())
        return report(Failed{m.seq, m.rank, Stage::check, fmt::format("rank {}: {}", m.rank, why)});
    s->seq = m.seq;
    s->failure_told = s->seen_still = false;
    s->sharing = {};
    s->still.clear();
    Connect order = m;
    order.secret = adapter_.secret();
    s->sharing.seen = order.shared = seen_memory(*s);
    if (change(*s, T::connecting) &&
        passes(*s, fault::Point::node_connects, Stage::connect, s->wrapper))
        s->wrapper->tell(order);
    look_at_ranks_later();
}

// Looked at while the rank runs: nothing has been done to it yet.
std::string NodeAgent::Impl::why_tied(const RankSlot& s) const {
    return settings_.tied && s.init > 0 ? settings_.tied(s.init) : std::string();
}

void NodeAgent::Impl::gate(const GateRank& m) {
    RankSlot* s = find(m.rank);
    if (s == nullptr || s->seq != m.seq || !waits_for_gate(s->transfer)) return;
    if (s->quiesce == Quiesce::open) close_gate(*s);
}

void NodeAgent::Impl::export_rank(RankSlot& s) {
    if (!change(s, T::exporting)) return;
    report(RankGated{s.seq, s.rank, s.thread});
    if (!passes(s, fault::Point::node_exports, Stage::exporting, s.wrapper)) return;
    Export order{s.seq};
    if (auto why = add_sharers(s, order.unit, order.saves); !why.empty())
        return fail(s, Stage::check, why);
    if (s.wrapper) s.wrapper->tell(order);
}

void NodeAgent::Impl::source_answer(RankSlot& s, const schema::Received& m) {
    switch (m.type<FromWrapper>()) {
        case FromWrapper::connected:
            if (s.transfer != T::connecting || !change(s, T::connected)) return;
            s.sharing.parts = m.as<Connected>().shared;
            return pass_on(s, m.as<Connected>());
        case FromWrapper::still:
            if (s.transfer == T::exporting) on_still(s);
            return;
        case FromWrapper::sketched:
            if (s.transfer == T::exporting) copy_on(s);
            return;
        case FromWrapper::converged:
            if (s.transfer == T::copying) pass_on(s, m.as<Converged>());
            return;
        case FromWrapper::exported:
            if (s.transfer == T::exporting && change(s, T::exported)) pass_on(s, m.as<Exported>());
            return;
        case FromWrapper::progress:
            if (s.transfer == T::exporting || s.transfer == T::copying)
                pass_on(s, m.as<TransferProgress>());
            return;
        case FromWrapper::failed:
            return fail(s, m.as<Failed>().stage, m.as<Failed>().why);
        case FromWrapper::gone:
            if (s.transfer == T::leaving) gone(s);
            return;
        default:
            return;
    }
}

// A live move: the skeleton is taken. The rank attaches here again, see on_attached().
void NodeAgent::Impl::copy_on(RankSlot& s) {
    if (!change(s, T::copying) || !change(s, Quiesce::resuming)) return;
    if (s.wrapper) s.wrapper->tell(Wake{s.seq, s.thread});
}

// --- the move is off ---

void NodeAgent::Impl::abort_source(RankSlot& s) {
    const bool over = s.transfer == T::returning || s.transfer == T::leaving;
    if (over || s.transfer == T::draining) return;  // on its way; or decided
    const bool touched = s.quiesce >= Quiesce::closing;
    const bool copies = s.transfer == T::copying;
    if ((!touched || copies) && s.wrapper) s.wrapper->tell(Cancel{s.seq});
    if (!change(s, T::returning)) return;
    (void)passes(s, fault::Point::node_returns, Stage::moving, s.wrapper);
    switch (s.quiesce) {
        case Quiesce::resuming:
            // Said once more: nobody knows whether it has been heard.
            if (s.ended) return back_home(s);
            if (s.wrapper) s.wrapper->tell(Resume{s.seq, s.thread});
            return;
        case Quiesce::open:
            return back_home(s);
        case Quiesce::gating:
        case Quiesce::gated:
            return open_gate(s);
        case Quiesce::quiet:
            return resume(s);
        default:
            return;  // opening; closing: its server has dropped it, it must close and come back
    }
}

void NodeAgent::Impl::back_home(RankSlot& s) {
    give_up_gates(s);
    if (!change(s, T::none)) return;
    // What the target saw was its end coming, then.
    if (s.finalizing && !is_gone(s))
        if (const auto still = standstill(s))
            report(Failed{s.seq, s.rank, Stage::standstill, still->why});
    report(Aborted{s.seq, s.rank, {}, is_gone(s), std::exchange(s.unreported, false)});
}

// --- the move is decided ---

void NodeAgent::Impl::leave(RankSlot& s, const Switch& m) {
    s.seq = m.seq;
    s.from = adapter_.self();
    s.to = m.to;
    // Two copies must not run: one that cannot leave as it should does not stay either.
    if (!change(s, T::leaving)) kill_tree(s, settings_.tree);
    (void)passes(s, fault::Point::node_leaves, Stage::switching, s.wrapper);
    if (s.agent) std::exchange(s.agent, nullptr)->close();
    auto votes = adapter_.switch_rank(s.rank, s.from, s.to);
    if (votes.ok()) {
        s.votes = *votes;
    } else {
        log::error("rank {} left, but: {}", s.rank, votes.error().message());
    }
    if (!s.wrapper) return die_expired(s);
    s.wrapper->tell(Die{s.seq});
    set_timer(s, settings_.die_us, &Impl::die_expired);
}

// The wrapper cannot do it, or does not: two copies must not run.
void NodeAgent::Impl::die_expired(RankSlot& s) {
    kill_tree(s, settings_.tree);
    gone(s);
}

void NodeAgent::Impl::gone(RankSlot& s) {
    s.ended = true;
    s.spare.clear();
    s.output_waited = 0;
    if (change(s, T::draining)) drain(s);
}

void NodeAgent::Impl::drain(RankSlot& s) {
    if (adapter_.output_pending(s.rank)) {
        if (s.output_waited < settings_.output_us) {
            s.output_waited += settings_.output_poll_us;
            return set_timer(s, settings_.output_poll_us, &Impl::drain);
        }
        log::warning("output of rank {} was not read for {} ms: given up", s.rank,
                     settings_.output_us / 1000);
    }
    adapter_.close_output(s.rank);
    if (s.wrapper) s.wrapper->tell(Bye{});
    report(Switched{s.seq, s.rank, s.votes});
    forget(s.rank);
}

}  // namespace ghost::plugin
