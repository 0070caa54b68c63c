// Target of a move: a restore wrapper that holds, the switch, go; and the switch on all other
// nodes.
#include <fmt/format.h>

#include "base/log.hpp"
#include "pmix-plugin/node/impl.hpp"

namespace ghost::plugin {

using S = RankSlotState;

void NodeAgent::Impl::prepare(const Json& m) {
    auto rank = static_cast<RankId>(number(m, "rank"));
    if (RankSlot* old = find(rank);
        old != nullptr && is_target(old->state) && old->state <= S::held) {
        abort_target(*old);  // of an attempt whose abort was lost
    }
    RankSlot* known = find(rank);
    const bool lives_here = known != nullptr && !known->ended && known->state != S::home;
    if (lives_here || (known != nullptr && known->wrapper)) {
        return report({{"t", "failed"},
                       {"seq", number(m, "seq")},
                       {"rank", rank},
                       {"stage", "prepare"},
                       {"why", fmt::format("rank {} is here already", rank)}});
    }
    forget(rank);
    RankSlot& s = slot(rank);
    s.seq = number(m, "seq");
    s.epoch = static_cast<uint32_t>(number(m, "epoch"));
    s.from = static_cast<NodeId>(number(m, "from"));
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
    s.wrapper->send(
        {{"t", "prepare"}, {"seq", s.seq}, {"epoch", s.epoch}, {"rank", rank}, {"from", s.from}});
}

void NodeAgent::Impl::target_answer(RankSlot& s, const std::string& type, const Json& m) {
    if (type == "failed") {
        return fail(s, text(m, "stage", "target"), text(m, "why", "no reason given"));
    }
    if (type == "ready" && s.state == S::preparing) {
        change(s, S::ready);
        Json ready = {{"t", "ready"},
                      {"seq", s.seq},
                      {"rank", s.rank},
                      {"port", number(m, "port")},
                      {"token", text(m, "token")}};
        // Without a host of its own the coordinator puts this node's name there.
        if (std::string host = text(m, "host"); !host.empty()) ready["host"] = host;
        return report(ready);
    }
    if (type == "progress" && s.state == S::ready) {
        return report({{"t", "progress"},
                       {"seq", s.seq},
                       {"rank", s.rank},
                       {"bytes", number(m, "bytes")},
                       {"total", number(m, "total")}});
    }
    if (type == "held" && s.state == S::ready) {
        change(s, S::held);
        adapter_.expect_client(s.rank);
        return report(
            {{"t", "held"}, {"seq", s.seq}, {"rank", s.rank}, {"bytes", number(m, "bytes")}});
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
void NodeAgent::Impl::switch_rank(const Json& m) {
    auto rank = static_cast<RankId>(number(m, "rank"));
    auto from = static_cast<NodeId>(number(m, "from"));
    auto to = static_cast<NodeId>(number(m, "to"));
    const uint64_t seq = number(m, "seq");
    if (seq <= switched_seq_) return;
    switched_seq_ = seq;
    RankSlot* s = find(rank);
    if (from == adapter_.self()) return leave(s != nullptr ? *s : slot(rank), m);
    if (to == adapter_.self() && s != nullptr && s->state == S::held) return join(*s);
    auto votes = adapter_.switch_rank(rank, from, to);
    if (votes.ok() && to != adapter_.self()) {
        return report({{"t", "switched"}, {"seq", seq}, {"rank", rank}, {"votes", *votes}});
    }
    report({{"t", "failed"},
            {"seq", seq},
            {"rank", rank},
            {"stage", "switch"},
            {"why", votes.ok() ? "no copy of the rank is held here" : votes.error().message()}});
}

void NodeAgent::Impl::join(RankSlot& s) {
    auto votes = adapter_.switch_rank(s.rank, s.from, s.to);
    change(s, S::switched);
    if (!votes.ok()) return fail(s, "switch", votes.error().message());
    report({{"t", "switched"}, {"seq", s.seq}, {"rank", s.rank}, {"votes", *votes}});
}

void NodeAgent::Impl::go(const Json& m) {
    RankSlot* s = find(static_cast<RankId>(number(m, "rank")));
    if (s == nullptr || s->seq != number(m, "seq") || s->state != S::switched) return;
    if (!s->wrapper) return fail(*s, "go", "the restore wrapper has gone");
    change(*s, S::going);
    if (const Json* agent = field(m, "agent")) s->thread = *agent;
    s->wrapper->send({{"t", "go"}, {"seq", s->seq}, {"agent", s->thread}});
}

// The rank is on PMIx and on its links again: after a move, or after one that was called off.
void NodeAgent::Impl::on_attached(RankSlot& s, const Json& m) {
    if (s.snap.part && (s.state == S::resuming || s.state == S::going)) {
        return on_attached_again(s, m);
    }
    const bool moving = s.state == S::resuming || s.state == S::going;
    if (!moving) {
        if (field(m, "location") == nullptr || signed_number(m, "rc") != 0) return;
        return report({{"t", "located"}, {"location", settled_location(s, m)}});
    }
    if (number(m, "seq") != s.seq) return;
    if (signed_number(m, "rc") != 0) {
        s.failure_told = false;
        return fail(s, "attach", text(m, "error", "the rank could not attach to PMIx"));
    }
    const bool resumed = s.state == S::resuming;
    if (resumed) adapter_.reattach(s.rank);
    change(s, S::home);
    report({{"t", resumed ? "aborted" : "done"},
            {"seq", s.seq},
            {"rank", s.rank},
            {"location", settled_location(s, m)}});
}

}  // namespace ghost::plugin
