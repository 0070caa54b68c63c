// SPDX-License-Identifier: BSD-3-Clause
// Source of a move: connect, gate, export; then leave, or go on as if nothing had happened.
#include <fmt/format.h>

#include "base/log.hpp"
#include "pmix-plugin/node/impl.hpp"

namespace ghost::plugin {

using S = RankSlotState;

void NodeAgent::Impl::connect(const Connect& m) {
    RankSlot* s = find(m.rank);
    if (s == nullptr || s->state != S::home || s->ended || !s->wrapper || !s->unmovable.empty()) {
        const bool told = s != nullptr && !s->unmovable.empty();
        return report(Failed{m.seq, m.rank, "connect",
                             fmt::format("rank {} has no wrapper here that could move it{}{}",
                                         m.rank, told ? ": " : "", told ? s->unmovable : "")});
    }
    if (const std::string why = why_tied(*s); !why.empty())
        return report(Failed{m.seq, m.rank, "check", fmt::format("rank {}: {}", m.rank, why)});
    s->seq = m.seq;
    s->failure_told = false;
    s->abort_asked = false;
    change(*s, S::connecting);
    s->wrapper->tell(m);
}

// Looked at while the rank runs: nothing has been done to it yet.
std::string NodeAgent::Impl::why_tied(const RankSlot& s) const {
    return settings_.tied && s.init > 0 ? settings_.tied(s.init) : std::string();
}

void NodeAgent::Impl::gate(const GateRank& m) {
    RankSlot* s = find(m.rank);
    if (s == nullptr || s->seq != m.seq || s->state != S::connected) return;
    if (s->finalizing) return busy(*s, "the rank is in MPI_Finalize");
    if (!s->agent) return busy(*s, "the rank's agent is not attached");
    change(*s, S::gating);
    s->agent->send({{"t", "gate"}, {"seq", s->seq}});
}

void NodeAgent::Impl::busy(RankSlot& s, const std::string& why) {
    if (s.state == S::gating) change(s, S::connected);
    report(Busy{s.seq, s.rank, why});
}

// Why the rank's gate is not closed; empty: it is.
std::string NodeAgent::Impl::why_busy(const Json& m) {
    if (flag(m, "busy") || number(m, "busy") != 0) {
        return text(m, "why", "the rank is inside a call that cannot be moved");
    }
    if (signed_number(m, "rc") == 0) return {};
    return fmt::format("the rank's gate failed ({})", signed_number(m, "rc"));
}

void NodeAgent::Impl::on_gated(RankSlot& s, const Json& m) {
    std::string why = why_busy(m);
    const auto tag = static_cast<uint32_t>(number(m, "tag"));
    if (why.empty() && adapter_.detach_from_server(s.rank, tag) == PreMark::busy) {
        why = "the rank is inside a PMIx call that cannot be moved";
    }
    if (!why.empty()) {
        s.agent->send({{"t", "ungate"}, {"seq", s.seq}});
        return busy(s, why);
    }
    change(s, S::closing);
    s.agent->send({{"t", "close"}, {"seq", s.seq}});
}

// The rank's end-of-file: it holds nothing any more that could not be carried.
void NodeAgent::Impl::all_closed(RankSlot& s) {
    if (s.abort_asked) return resume(s);
    change(s, S::exporting);
    report(RankGated{s.seq, s.rank, s.thread});
    if (s.wrapper) s.wrapper->tell(Export{s.seq});
}

void NodeAgent::Impl::source_answer(RankSlot& s, const schema::Received& m) {
    switch (m.type<FromWrapper>()) {
        case FromWrapper::connected:
            if (s.state != S::connecting) return;
            change(s, S::connected);
            return report(Connected{s.seq, s.rank});
        case FromWrapper::exported:
            if (s.state != S::exporting) return;
            change(s, S::exported);
            return pass_on(s, m.as<Exported>());
        case FromWrapper::progress:
            if (s.state == S::exporting) pass_on(s, m.as<TransferProgress>());
            return;
        case FromWrapper::failed:
            return fail(s, m.as<Failed>().stage, m.as<Failed>().why);
        case FromWrapper::gone:
            if (s.state == S::leaving) gone(s);
            return;
        default:
            return;
    }
}

// --- the move is off ---

void NodeAgent::Impl::abort_source(RankSlot& s) {
    switch (s.state) {
        case S::connecting:
        case S::connected:
            if (s.wrapper) s.wrapper->tell(Cancel{s.seq});
            return back_home(s);
        case S::gating:
            if (s.wrapper) s.wrapper->tell(Cancel{s.seq});
            change(s, S::ungating);
            if (!s.agent) return back_home(s);
            return s.agent->send({{"t", "ungate"}, {"seq", s.seq}});
        case S::closing:
            // Its connection to the PMIx server is gone already: it must close and come back.
            s.abort_asked = true;
            return;
        case S::exporting:
        case S::exported:
            return resume(s);
        default:
            return;  // resuming, ungating: the answer is on its way; leaving: decided
    }
}

void NodeAgent::Impl::resume(RankSlot& s) {
    change(s, S::resuming);
    if (s.ended) return back_home(s);
    // Without a wrapper the one that adopts the tree does it, see adopt().
    if (s.wrapper) s.wrapper->tell(Resume{s.seq, s.thread});
}

void NodeAgent::Impl::back_home(RankSlot& s) {
    change(s, S::home);
    report(Aborted{s.seq, s.rank, {}, s.ended, std::exchange(s.unreported, false)});
}

// --- the move is decided ---

void NodeAgent::Impl::leave(RankSlot& s, const Switch& m) {
    s.seq = m.seq;
    s.from = adapter_.self();
    s.to = m.to;
    change(s, S::leaving);
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
    change(s, S::draining);
    drain(s);
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
