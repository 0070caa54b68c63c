// Source of a move: connect, gate, export; then leave, or go on as if nothing had happened.
#include <fmt/format.h>

#include "base/log.hpp"
#include "pmix-plugin/node/impl.hpp"

namespace ghost::plugin {

using S = RankSlotState;

void NodeAgent::Impl::connect(const Json& m) {
    auto rank = static_cast<RankId>(number(m, "rank"));
    const uint64_t seq = number(m, "seq");
    RankSlot* s = find(rank);
    if (s == nullptr || s->state != S::home || s->ended || !s->wrapper || !s->unmovable.empty()) {
        return report({{"t", "failed"},
                       {"seq", seq},
                       {"rank", rank},
                       {"stage", "connect"},
                       {"why", fmt::format("rank {} has no wrapper here that could move it{}{}",
                                           rank, s == nullptr || s->unmovable.empty() ? "" : ": ",
                                           s == nullptr ? "" : s->unmovable)}});
    }
    if (const std::string why = why_tied(*s); !why.empty()) {
        return report({{"t", "failed"},
                       {"seq", seq},
                       {"rank", rank},
                       {"stage", "check"},
                       {"why", fmt::format("rank {}: {}", rank, why)}});
    }
    s->seq = seq;
    s->failure_told = false;
    s->abort_asked = false;
    change(*s, S::connecting);
    s->wrapper->send({{"t", "connect"},
                      {"seq", seq},
                      {"epoch", number(m, "epoch")},
                      {"rank", rank},
                      {"host", text(m, "host")},
                      {"port", number(m, "port")},
                      {"token", text(m, "token")}});
}

// Looked at while the rank runs: nothing has been done to it yet.
std::string NodeAgent::Impl::why_tied(const RankSlot& s) const {
    return settings_.tied && s.init > 0 ? settings_.tied(s.init) : std::string();
}

void NodeAgent::Impl::gate(const Json& m) {
    RankSlot* s = find(static_cast<RankId>(number(m, "rank")));
    if (s == nullptr || s->seq != number(m, "seq") || s->state != S::connected) return;
    if (s->finalizing) return busy(*s, "the rank is in MPI_Finalize");
    if (!s->agent) return busy(*s, "the rank's agent is not attached");
    change(*s, S::gating);
    s->agent->send({{"t", "gate"}, {"seq", s->seq}});
}

void NodeAgent::Impl::busy(RankSlot& s, const std::string& why) {
    if (s.state == S::gating) change(s, S::connected);
    report({{"t", "busy"}, {"seq", s.seq}, {"rank", s.rank}, {"why", why}});
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
    report({{"t", "gated"}, {"seq", s.seq}, {"rank", s.rank}, {"agent", s.thread}});
    if (s.wrapper) s.wrapper->send({{"t", "export"}, {"seq", s.seq}});
}

void NodeAgent::Impl::source_answer(RankSlot& s, const std::string& type, const Json& m) {
    if (type == "connected" && s.state == S::connecting) {
        change(s, S::connected);
        return report(s, "connected");
    }
    if (type == "exported" && s.state == S::exporting) {
        change(s, S::exported);
        return report({{"t", "exported"},
                       {"seq", s.seq},
                       {"rank", s.rank},
                       {"bytes", number(m, "bytes")},
                       {"rounds", number(m, "rounds", 1)},
                       {"zero_bytes", number(m, "zero_bytes")}});
    }
    if (type == "progress" && s.state == S::exporting) {
        return report({{"t", "progress"},
                       {"seq", s.seq},
                       {"rank", s.rank},
                       {"bytes", number(m, "bytes")},
                       {"total", number(m, "total")}});
    }
    if (type == "failed") {
        return fail(s, text(m, "stage", "source"), text(m, "why", "no reason given"));
    }
    if (type == "gone" && s.state == S::leaving) return gone(s);
}

// --- the move is off ---

void NodeAgent::Impl::abort_source(RankSlot& s) {
    switch (s.state) {
        case S::connecting:
        case S::connected:
            if (s.wrapper) s.wrapper->send({{"t", "cancel"}, {"seq", s.seq}});
            return back_home(s);
        case S::gating:
            if (s.wrapper) s.wrapper->send({{"t", "cancel"}, {"seq", s.seq}});
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
    if (s.wrapper) s.wrapper->send({{"t", "resume"}, {"seq", s.seq}, {"agent", s.thread}});
}

void NodeAgent::Impl::back_home(RankSlot& s) {
    change(s, S::home);
    report({{"t", "aborted"},
            {"seq", s.seq},
            {"rank", s.rank},
            {"ended", s.ended},
            {"unreported", std::exchange(s.unreported, false)}});
}

// --- the move is decided ---

void NodeAgent::Impl::leave(RankSlot& s, const Json& m) {
    s.seq = number(m, "seq");
    s.from = adapter_.self();
    s.to = static_cast<NodeId>(number(m, "to"));
    change(s, S::leaving);
    if (s.agent) std::exchange(s.agent, nullptr)->close();
    auto votes = adapter_.switch_rank(s.rank, s.from, s.to);
    if (votes.ok()) {
        s.votes = *votes;
    } else {
        log::error("rank {} left, but: {}", s.rank, votes.error().message());
    }
    if (!s.wrapper) return die_expired(s);
    s.wrapper->send({{"t", "die"}, {"seq", s.seq}});
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
    if (s.wrapper) s.wrapper->send({{"t", "bye"}});
    report({{"t", "switched"}, {"seq", s.seq}, {"rank", s.rank}, {"votes", s.votes}});
    forget(s.rank);
}

}  // namespace ghost::plugin
