// A restart of the job on one node: the wrappers the runtime has started look at their ghosts,
// import them and go on, each when all of them can (docs/PROTOCOL.md, "A restart of the job").
#include <fmt/format.h>

#include "base/log.hpp"
#include "pmix-plugin/node/impl.hpp"

namespace ghost::plugin {

using S = RankSlotState;

// A wrapper that is to import its rank has said hello; the order may be here already or not.
void NodeAgent::Impl::hello_restart(RankSlot& s) {
    s.seq = 0;
    s.snap = {};
    s.snap.part = s.snap.restart = true;
    change(s, S::preparing);
    if (participant_.step() == ParticipantStep::checked) {
        check_slot(s);
        participant_.poke();
    }
}

void NodeAgent::Impl::prepare_restart(const Json& order) {
    restart_epoch_ = static_cast<uint32_t>(number(order, "epoch"));
    each_part(&Impl::check_slot);
}

void NodeAgent::Impl::check_slot(RankSlot& s) {
    if (s.state != S::preparing || !s.wrapper) return;
    s.epoch = restart_epoch_;
    s.wrapper->send({{"t", "prepare"}, {"seq", 0}, {"epoch", s.epoch}, {"rank", s.rank}});
}

void NodeAgent::Impl::import_slot(RankSlot& s) {
    if (s.state == S::ready && s.wrapper) s.wrapper->send({{"t", "import"}, {"seq", 0}});
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

void NodeAgent::Impl::restart_answer(RankSlot& s, const std::string& type, const Json& m) {
    if (type == "progress") {
        s.snap.bytes = number(m, "bytes");
        s.snap.total = number(m, "total");
        return participant_.progressed();
    }
    if (type == "failed") {
        snapshot_failed(s, text(m, "stage", "import"), text(m, "why"));
    } else if (type == "checked" && s.state == S::preparing) {
        change(s, S::ready);
    } else if (type == "held" && s.state == S::ready) {
        if (const Json* agent = field(m, "agent")) s.thread = *agent;
        change(s, S::held);
    } else {
        return log::debug("{} of the wrapper of rank {} does not fit", type, s.rank);
    }
    participant_.poke();
}

void NodeAgent::Impl::go_on(RankSlot& s) {
    if (s.state != S::held) return;
    if (!s.wrapper) return snapshot_failed(s, "go", "the wrapper has gone");
    change(s, S::going);
    s.wrapper->send({{"t", "go"}, {"seq", 0}, {"agent", s.thread}});
}

// True: the runtime is not told, the coordinator ends the job with all reasons.
bool NodeAgent::Impl::restart_wrapper_died(RankSlot& s, int status) {
    snapshot_failed(s, "import", fmt::format("its wrapper ended with status {}", status));
    s.ended = true;
    if (s.wrapper) std::exchange(s.wrapper, nullptr)->close();
    participant_.poke();
    return true;
}

}  // namespace ghost::plugin
