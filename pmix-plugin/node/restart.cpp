// SPDX-License-Identifier: BSD-3-Clause
// A restart of the job on one node: the wrappers the runtime has started look at their ghosts,
// import them and go on, each when all of them can (docs/PROTOCOL.md, "A restart of the job").
#include <fmt/format.h>

#include "base/log.hpp"
#include "pmix-plugin/node/impl.hpp"

namespace ghost::plugin {

using T = Transfer;

// A wrapper that is to import its rank has said hello; the order may be here already or not.
void NodeAgent::Impl::hello_restart(RankSlot& s) {
    s.seq = 0;
    s.snap = {};
    s.sharing = {};
    s.snap.participates = s.snap.restart = true;
    if (!change(s, T::preparing)) return;
    if (participant_.step() == ParticipantStep::checked) {
        check_slot(s);
        participant_.poke();
    }
}

void NodeAgent::Impl::prepare_restart(const RestartPrepare& order) {
    restart_epoch_ = order.epoch;
    each_part(&Impl::check_slot);
}

void NodeAgent::Impl::check_slot(RankSlot& s) {
    if (s.transfer != T::preparing || !s.wrapper) return;
    s.epoch = restart_epoch_;
    Prepare order{0, s.epoch, s.rank};
    const auto shown = shown_.find(s.rank);
    if (recovering_) {
        order.shown = shown != shown_.end() ? shown->second : ShownOutput{s.rank};
        order.shown->anew = counts_anew_;
    }
    s.wrapper->tell(order);
}

void NodeAgent::Impl::import_slot(RankSlot& s) {
    if (s.transfer != T::ready || !s.wrapper) return;
    if (!passes(s, fault::Point::node_restart_imports, Stage::importing, s.wrapper)) return;
    if (Status given = give_files(s, 0); !given)
        snapshot_failed(s, Stage::importing, given.error().message());
}

// Has the wrapper of every rank the runtime starts here said hello?
bool NodeAgent::Impl::all_restart_slots() const {
    for (const RankInfo& info : adapter_.ranks()) {
        if (info.node != adapter_.self()) continue;
        auto it = slots_.find(info.rank);
        if (it == slots_.end() || !it->second.snap.restart) return false;
    }
    return true;
}

void NodeAgent::Impl::restart_answer(RankSlot& s, const schema::Received& m) {
    if (m.is<TransferProgress>()) return transfer_progressed(s, m.as<TransferProgress>());
    if (m.is<Failed>()) {
        snapshot_failed(s, m.as<Failed>().stage, m.as<Failed>().why);
    } else if (m.is<Checked>() && s.transfer == T::preparing) {
        s.sharing.parts = m.as<Checked>().shared;
        if (auto why = why_apart(s.sharing.parts); !why.empty())
            snapshot_failed(s, Stage::check, why);
        (void)change(s, T::ready);
    } else if (m.is<Held>() && s.transfer == T::ready) {
        if (m.as<Held>().agent) s.thread = m.as<Held>().agent;
        (void)change(s, T::held);
    } else {
        return log::debug("{} of the wrapper of rank {} does not fit", m.name(), s.rank);
    }
    participant_.poke();
}

void NodeAgent::Impl::go_on(RankSlot& s) {
    if (s.transfer != T::held) return;
    if (!s.wrapper) return snapshot_failed(s, Stage::going, "the wrapper has gone");
    if (!change(s, T::going)) return;
    s.wrapper->tell(Go{0, s.rank, s.thread});
}

// True: the runtime is not told, the coordinator ends the job with all reasons. In a recovery the
// runtime has to know that the wrapper is gone before it can start the next.
bool NodeAgent::Impl::restart_wrapper_died(RankSlot& s, int status) {
    snapshot_failed(s, Stage::importing, fmt::format("its wrapper ended with status {}", status));
    s.ended = true;
    if (s.wrapper) std::exchange(s.wrapper, nullptr)->close();
    participant_.poke();
    return !recovering_;
}

}  // namespace ghost::plugin
