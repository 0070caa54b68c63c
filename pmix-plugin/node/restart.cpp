// A restart of the job on one node: the wrappers the runtime has started look at their ghosts,
// import them and go on, each when all of them can (docs/PROTOCOL.md, "A restart of the job").
#include <fmt/format.h>

#include "base/log.hpp"
#include "pmix-plugin/node/impl.hpp"

namespace ghost::plugin {

using S = SeatState;

// A wrapper that is to import its rank has said hello; the order may be here already or not.
void NodeAgent::Impl::hello_restart(Seat& s) {
    s.seq = 0;
    s.snap = {};
    s.snap.part = s.snap.restart = true;
    change(s, S::preparing);
    if (part_.step() == PartStep::checked) {
        check_seat(s);
        part_.poke();
    }
}

void NodeAgent::Impl::prepare_restart(const Json& order) {
    restart_epoch_ = static_cast<uint32_t>(number(order, "epoch"));
    each_part(&Impl::check_seat);
}

void NodeAgent::Impl::check_seat(Seat& s) {
    if (s.state != S::preparing || !s.wrapper) return;
    s.epoch = restart_epoch_;
    s.wrapper->send({{"t", "prepare"}, {"seq", 0}, {"epoch", s.epoch}, {"rank", s.rank}});
}

void NodeAgent::Impl::import_seat(Seat& s) {
    if (s.state == S::ready && s.wrapper) s.wrapper->send({{"t", "import"}, {"seq", 0}});
}

// Has the wrapper of every rank the runtime starts here said hello?
bool NodeAgent::Impl::all_restart_seats() const {
    for (const RankInfo& info : adapter_.ranks()) {
        if (info.node != adapter_.self()) continue;
        auto it = seats_.find(info.rank);
        if (it == seats_.end() || !it->second.snap.restart) return false;
    }
    return true;
}

void NodeAgent::Impl::restart_answer(Seat& s, const std::string& type, const Json& m) {
    if (type == "progress") {
        s.snap.bytes = number(m, "bytes");
        s.snap.total = number(m, "total");
        return part_.progressed();
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
    part_.poke();
}

void NodeAgent::Impl::go_on(Seat& s) {
    if (s.state != S::held) return;
    if (!s.wrapper) return snapshot_failed(s, "go", "the wrapper has gone");
    change(s, S::going);
    s.wrapper->send({{"t", "go"}, {"seq", 0}, {"agent", s.thread}});
}

// True: the runtime is not told, the coordinator ends the job with all reasons.
bool NodeAgent::Impl::restart_wrapper_died(Seat& s, int status) {
    snapshot_failed(s, "import", fmt::format("its wrapper ended with status {}", status));
    s.ended = true;
    if (s.wrapper) std::exchange(s.wrapper, nullptr)->close();
    part_.poke();
    return true;
}

}  // namespace ghost::plugin
