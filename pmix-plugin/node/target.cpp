// SPDX-License-Identifier: BSD-3-Clause
// Target of a move: a restore wrapper that holds, the switch, go; and the switch on all other
// nodes.
#include <fmt/format.h>

#include "base/fault.hpp"
#include "base/log.hpp"
#include "pmix-plugin/node/impl.hpp"

namespace ghost::plugin {

using T = Transfer;

void NodeAgent::Impl::prepare(const Prepare& m) {
    const RankId rank = m.rank;
    if (RankSlot* old = find(rank);
        old != nullptr && is_target(old->transfer) && old->transfer <= T::held) {
        abort_target(*old);  // of an attempt whose abort was lost
    }
    RankSlot* known = find(rank);
    const bool lives_here = known != nullptr && !known->ended && !known->at_rest();
    if (lives_here || (known != nullptr && known->wrapper)) {
        return report(
            Failed{m.seq, rank, Stage::prepare, fmt::format("rank {} is here already", rank)});
    }
    forget(rank);
    RankSlot& s = slot(rank);
    s.seq = m.seq;
    s.epoch = m.epoch;
    s.from = m.from;
    s.to = adapter_.self();
    s.sharing = {};
    s.sharing.parts = m.shared;
    if (!change(s, T::preparing)) return;
    if (auto why = why_no_room(m.shared); !why.empty()) {
        fail(s, Stage::target, why);
        return forget(rank);
    }
    std::vector<std::string> argv = {settings_.wrapper,    "--restore", "--rank",
                                     fmt::to_string(rank), "--job",     adapter_.job_name(),
                                     "--control-fd",       "3"};
    auto spawned = adapter_.spawn_restore(
        rank, argv, [this, rank, seq = s.seq](int status) { restore_ended(rank, seq, status); });
    if (!spawned.ok()) {
        fail(s, Stage::prepare, spawned.error().message());
        return forget(rank);
    }
    s.wrapper = open_wrapper(rank, std::move(spawned->control));
    Prepare order = m;
    if (!passes(s, fault::Point::node_prepares, Stage::prepare, s.wrapper)) return;
    order.secret = adapter_.secret();
    order.interfaces = adapter_.parameter("btl_kernet_if_include").value_or("");
    s.wrapper->tell(order);
    if (m.shared.empty()) return;
    if (Status given = give_files(s, m.unit); !given)
        fail(s, Stage::prepare, given.error().message());
}

void NodeAgent::Impl::target_answer(RankSlot& s, const schema::Received& m) {
    switch (m.type<FromWrapper>()) {
        case FromWrapper::failed:
            return fail(s, m.as<Failed>().stage, m.as<Failed>().why);
        case FromWrapper::ready:
            if (s.transfer == T::preparing && change(s, T::ready)) pass_on(s, m.as<Ready>());
            return;
        case FromWrapper::progress:
            if (s.transfer == T::ready) pass_on(s, m.as<TransferProgress>());
            return;
        case FromWrapper::held:
            if (!passes(s, fault::Point::node_holds, Stage::importing, s.wrapper)) return;
            if (s.transfer != T::ready || !change(s, T::held)) return;
            s.sharing = {};  // it has it mapped
            adapter_.expect_client(s.rank);
            return pass_on(s, m.as<Held>());
        default:
            return;
    }
}

void NodeAgent::Impl::restore_ended(RankId rank, uint64_t seq, int status) {
    RankSlot* s = find(rank);
    if (!running_ || s == nullptr || s->seq != seq || !is_target(s->transfer)) return;
    fail(*s, Stage::importing, fmt::format("the restore wrapper ended with status {}", status));
    if (s->transfer < T::switched) forget(rank);
}

void NodeAgent::Impl::abort_target(RankSlot& s) {
    if (s.transfer >= T::switched) return;  // decided: cannot be
    RankId rank = s.rank;
    forget(rank);
    adapter_.discard_restore(rank);
}

// On every node of the job; what it means here depends on who we are.
void NodeAgent::Impl::switch_rank(const Switch& m) {
    if (m.seq <= std::exchange(seen_[m.rank].switched, m.seq)) return;
    RankSlot* s = find(m.rank);
    if (m.from == adapter_.self()) return leave(s != nullptr ? *s : slot(m.rank), m);
    const bool comes = m.to == adapter_.self();
    if (comes && s != nullptr && s->transfer == T::held) return join(*s);
    auto votes = adapter_.switch_rank(m.rank, m.from, m.to);
    if (votes.ok() && !comes) return report(Switched{m.seq, m.rank, *votes});
    report(Failed{m.seq, m.rank, Stage::switching,
                  votes.ok() ? "no copy of the rank is held here" : votes.error().message()});
}

void NodeAgent::Impl::join(RankSlot& s) {
    if (!passes(s, fault::Point::node_joins, Stage::switching, s.wrapper)) return;
    auto votes = adapter_.switch_rank(s.rank, s.from, s.to);
    if (!change(s, T::switched)) return;
    if (!votes.ok()) return fail(s, Stage::switching, votes.error().message());
    report(Switched{s.seq, s.rank, *votes});
}

void NodeAgent::Impl::go(const Go& m) {
    RankSlot* s = find(m.rank);
    if (s == nullptr || s->seq != m.seq || s->transfer != T::switched) return;
    if (!s->wrapper) return fail(*s, Stage::going, "the restore wrapper has gone");
    if (!change(*s, T::going)) return;
    if (m.agent) s->thread = m.agent;
    if (!passes(*s, fault::Point::node_goes, Stage::going, s->wrapper)) return;
    s->wrapper->tell(Go{s->seq, s->rank, s->thread});
}

}  // namespace ghost::plugin
