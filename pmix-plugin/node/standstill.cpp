// SPDX-License-Identifier: BSD-3-Clause
// Ranks that cannot act: what they are asked they would not answer, and whoever waits for them is
// told why at once.
#include <fmt/format.h>
#include <unistd.h>

#include "pmix-plugin/node/impl.hpp"

namespace ghost::plugin {
namespace {

using Q = Quiesce;
using T = Transfer;

// Nothing of the tree is stopped or traced by its wrapper's doing.
bool is_left_alone(const RankSlot& s) {
    const bool saved = s.snap.work == SnapWork::writing || s.snap.work == SnapWork::written;
    const bool here = s.transfer <= T::copying || s.transfer == T::returning;
    return here && (s.quiesce <= Q::closing || (s.quiesce == Q::resuming && saved));
}

Halt halt_of_rank(const RankSlot& s, const TreeControl& control) {
    const pid_t inner = s.thread ? s.thread->pid : 0;
    return control.halt ? control.halt(s.init, inner) : halt_of_inner(s.init, inner, ::getpid());
}

// Of its wrapper, if that has started it.
Halt halt_of_parent(const RankSlot& s, const TreeControl& control) {
    if (control.halt_of_parent) return control.halt_of_parent(s.init);
    const pid_t parent = parent_of(s.init);
    return parent != ::getpid() ? halt_of(parent, ::getpid()) : Halt();
}

}  // namespace

std::optional<Standstill> NodeAgent::Impl::standstill(const RankSlot& s) const {
    if (s.ended || s.init <= 1) return std::nullopt;
    if (s.finalizing)
        return Standstill{
            "after MPI_Finalize",
            fmt::format("rank {} is in MPI_Finalize or past it: it can be neither moved nor saved",
                        s.rank)};
    // mpirun passes SIGTSTP on to the wrappers as SIGSTOP, and they to their ranks.
    if (halt_of_parent(s, settings_.tree).stopped)
        return Standstill{"suspended",
                          fmt::format("rank {} is suspended with its job (SIGTSTP or SIGSTOP): "
                                      "SIGCONT to mpirun, or the batch system, lets it go on",
                                      s.rank)};
    const Halt halt = is_left_alone(s) ? halt_of_rank(s, settings_.tree) : Halt();
    if (!halt) return std::nullopt;
    if (halt.tracer == 0)
        return Standstill{"stopped", fmt::format("rank {} is stopped (SIGSTOP or SIGTSTP): `kill "
                                                 "-CONT {}` on {} lets it go on",
                                                 s.rank, halt.pid, own_name())};
    const std::string by = fmt::format("{} {}", halt.by, halt.tracer);
    return Standstill{"traced by " + by,
                      fmt::format("rank {} is traced by {} on {}, and can be neither moved nor "
                                  "saved until that lets it go",
                                  s.rank, by, own_name())};
}

void NodeAgent::Impl::pong(NodeId to, const Ping& m) {
    Pong out{.n = m.n, .looked = m.look, .still = {}};
    for (const auto& [rank, s] : slots_) {
        const auto still = m.look ? standstill(s) : std::nullopt;
        if (still) out.still.push_back({rank, still->state});
    }
    adapter_.tell(to, out);
}

void NodeAgent::Impl::look_at_ranks_later() {
    if (look_timer_ || !running_) return;
    look_timer_ = adapter_.after(settings_.look_us, [this] {
        look_timer_.reset();
        look_at_ranks();
    });
}

void NodeAgent::Impl::look_at_ranks() {
    std::vector<RankId> waited_for;
    for (const auto& [rank, s] : slots_)
        if (s.snap.participates || s.transfer != T::none) waited_for.push_back(rank);
    for (const RankId rank : waited_for)
        if (RankSlot* s = find(rank); s != nullptr && !s->snap.restart) look_at(*s);
    if (!waited_for.empty()) look_at_ranks_later();
}

// Seen twice: somebody may just look at it, as a wrapper that has been replaced did.
void NodeAgent::Impl::look_at(RankSlot& s) {
    const auto still = standstill(s);
    const bool before = std::exchange(s.seen_still, still.has_value());
    if (!still) return s.still.clear();
    if (before) stands_still(s, still->why);
}

void NodeAgent::Impl::stands_still(RankSlot& s, const std::string& why) {
    s.still = why;
    if (s.snap.participates) {
        snapshot_failed(s, Stage::standstill, why);
        participant_.poke();
    } else if (is_target(s.transfer)) {
        // Said again and again: a move that is decided waits as long as it hears of it.
        report(Failed{s.seq, s.rank, Stage::standstill, why});
    } else {
        fail(s, Stage::standstill, why);
    }
    if (s.quiesce == Q::opening) on_ungated(s);
}

}  // namespace ghost::plugin
