// SPDX-License-Identifier: BSD-3-Clause
// A snapshot of the job on one node: what the local ranks and their wrappers are asked for, and how
// all of them come home again (docs/PROTOCOL.md, "A snapshot of the job").
#include <algorithm>
#include <fmt/format.h>

#include "base/fault.hpp"
#include "base/log.hpp"
#include "base/own_file.hpp"
#include "pmix-plugin/node/impl.hpp"
#include "pmix-plugin/snapshots/folder.hpp"

namespace ghost::plugin {

using Q = Quiesce;
using W = SnapWork;

// --- the part's view of the local ranks ---

void NodeAgent::Impl::begin_step(ParticipantStep step, const schema::Received* order) {
    switch (step) {
        case ParticipantStep::ready:
            return prepare_snapshot(order->as<SnapPrepare>());
        case ParticipantStep::gated:
            return each_part(&Impl::shut);
        case ParticipantStep::ungated:
            return each_part(&Impl::reopen);
        case ParticipantStep::resumed:
            return each_part(&Impl::part_with_server);
        case ParticipantStep::written:
            return each_part(&Impl::write);
        case ParticipantStep::ended:
            return end_snapshot(order->as<SnapEnd>());
        case ParticipantStep::aborted:
            copies_.stop();
            for (auto& [rank, s] : slots_)
                if (s.snap.participates) note_newest(rank, order->seq());
            return each_part(&Impl::bring_home);
        case ParticipantStep::checked:
            return prepare_restart(order->as<RestartPrepare>());
        case ParticipantStep::held:
            return each_part(&Impl::import_slot);
        case ParticipantStep::restarted:
            return each_part(&Impl::go_on);
        case ParticipantStep::halted:
            return recover_stop(order->as<RecoverStop>());
        case ParticipantStep::started:
            return recover_start(order->as<RecoverStart>());
        default:
            return;
    }
}

void NodeAgent::Impl::each_part(void (Impl::*step)(RankSlot&)) {
    for (auto& [rank, s] : slots_) {
        if (s.snap.participates) (this->*step)(s);
    }
}

// Where a rank stands with regard to a step: has it answered, and is it past it?
bool NodeAgent::Impl::answered(const RankSlot& s, ParticipantStep step) const {
    const bool back = s.at_rest();
    switch (step) {
        case ParticipantStep::ready:
            return s.snap.work == W::ready;
        case ParticipantStep::gated:
            return s.quiesce == Q::gated;
        case ParticipantStep::ungated:
            return s.quiesce != Q::gating && s.quiesce != Q::gated && s.quiesce != Q::opening;
        case ParticipantStep::resumed:
            return (back || s.quiesce == Q::frozen) &&
                   (s.snap.work == W::writing || s.snap.work == W::written);
        case ParticipantStep::written:
            return s.snap.work == W::written;
        case ParticipantStep::aborted:
            // One that cannot act has been told: it does nothing else before.
            return back && (s.snap.work == W::idle || !s.still.empty());
        case ParticipantStep::checked:
            return s.transfer == Transfer::ready;
        case ParticipantStep::held:
            return s.transfer == Transfer::held;
        case ParticipantStep::restarted:
            return back;
        default:
            return true;
    }
}

LocalAnswer NodeAgent::Impl::look(ParticipantStep step) {
    LocalAnswer local;
    if (step == ParticipantStep::halted || step == ParticipantStep::started) {
        local.complete = recovery_.step == step;
        if (local.complete && !recovery_.done)
            local.answer.add_failed({}, own_name(), {}, recovery_.done.error().message());
        return local;
    }
    local.complete = step != ParticipantStep::ready || snapshot_.folder_ready;
    local.answer.own_folders = snapshot_.own_folder ? 1 : 0;
    local.answer.own_seconds = snapshot_.own_second ? 1 : 0;
    if (step == ParticipantStep::checked && !all_restart_slots()) local.complete = false;
    if (!snapshot_.why.empty() && step != ParticipantStep::aborted) {
        local.answer.add_failed(snapshot_.first_rank, own_name(), Stage::folder, snapshot_.why);
    }
    for (auto& [rank, s] : slots_) {
        if (!s.snap.participates) continue;
        ++local.answer.ranks;
        // What went wrong is what the abort is about; only a rank that is lost matters to it.
        const bool lost = step == ParticipantStep::aborted && s.snap.stage == Stage::attach;
        if (!s.snap.why.empty() && (step != ParticipantStep::aborted || lost)) {
            local.answer.add_failed(rank, own_name(), s.snap.stage, s.snap.why);
        } else if (!s.busy.empty() && step <= ParticipantStep::gated) {
            local.answer.add_busy(rank, s.busy);
        } else if (!answered(s, step)) {
            local.complete = false;
        }
    }
    if (local.complete) add_rows(step, local.answer);
    return local;
}

void NodeAgent::Impl::add_rows(ParticipantStep step, StepAnswer& answer) {
    const bool locations = step == ParticipantStep::resumed || step == ParticipantStep::restarted ||
                           step == ParticipantStep::aborted;
    for (auto& [rank, s] : slots_) {
        if (!s.snap.participates) continue;
        if (locations && s.snap.location) answer.locations.push_back(*s.snap.location);
        if (step == ParticipantStep::resumed) {
            answer.pause_us = std::max(answer.pause_us, s.snap.pause_us);
        }
        if (step != ParticipantStep::written || !s.snap.row) continue;
        answer.bytes += s.snap.row->bytes;
        answer.written.push_back(*s.snap.row);
    }
}

void NodeAgent::Impl::progress(uint64_t& bytes, uint64_t& total) const {
    for (const auto& [rank, s] : slots_) {
        if (!s.snap.participates) continue;
        bytes += s.snap.bytes;
        total += s.snap.total;
    }
}

void NodeAgent::Impl::step_answered(ParticipantStep step) {
    if (step != ParticipantStep::aborted && step != ParticipantStep::restarted) return;
    for (auto& [rank, s] : slots_) {
        s.snap.participates = s.snap.restart = false;
        s.sharing = {};
    }
    if (step == ParticipantStep::restarted) recovering_ = false;
    if (step == ParticipantStep::aborted) discard_own_folder();
}

// The first reason stays.
void NodeAgent::Impl::snapshot_failed(RankSlot& s, Stage stage, const std::string& why) {
    if (!s.snap.why.empty()) return;
    s.snap.stage = stage;
    s.snap.why = why.empty() ? "no reason given" : why;
    log::info("rank {}: {}: {}", s.rank, name_of(stage), s.snap.why);
}

// --- prepare ---

void NodeAgent::Impl::prepare_snapshot(const SnapPrepare& order) {
    const uint64_t seq = order.seq;
    if (snapshot_.seq != seq) {
        settle_last(order.last);
        snapshot_ = {};
        snapshot_.seq = seq;
        snapshot_.order = order;
        for (auto& [rank, s] : slots_) {
            s.snap.participates = false;
        }
        bool first = true;
        for (const RankInfo& info : adapter_.ranks()) {
            const bool asked = order.ranks.empty() ||
                               std::ranges::find(order.ranks, info.rank) != order.ranks.end();
            if (info.node != adapter_.self() || !asked) continue;
            if (std::exchange(first, false)) snapshot_.first_rank = info.rank;
            join_snapshot(slot(info.rank));
        }
        if (!first) return make_own_folder();
        snapshot_.folder_ready = true;
    }
    if (snapshot_.folder_ready) each_part(&Impl::ask_to_prepare);
}

// The end of the one before may not have reached this node. `complete` is the last whole one.
void NodeAgent::Impl::settle_last(uint64_t complete) {
    if (snapshot_.seq != 0 && snapshot_.seq == complete) end_snapshot({});
    each_part(&Impl::bring_home);
    discard_own_folder();
}

void NodeAgent::Impl::join_snapshot(RankSlot& s) {
    if (!s.at_rest()) {
        snapshot_.why = fmt::format("rank {} is not back from an earlier attempt", s.rank);
        return;
    }
    const W work = s.snap.work;
    s.snap = {};
    s.sharing = {};
    s.snap.participates = true;
    s.snap.work = work == W::cancelling ? work : W::idle;
    s.seq = snapshot_.seq;
    s.failure_told = s.seen_still = false;
    s.busy.clear();
    s.still.clear();
    note_newest(s.rank, s.seq);
    look_at_ranks_later();
}

// A folder that is there already is the coordinator's, on a shared file system; else it is this
// node's own.
namespace {

// Whether it was made here.
Result<bool> make_missing(const std::string& folder, const std::string& name,
                          const std::string& life) {
    GHOST_TRY(open_snapshot_folder(folder));
    const auto there = open_own_folder(folder + "/" + partial_name(name, life));
    if (there.ok()) return false;
    if (there.error().code != Code::not_found) return there.error();
    GHOST_TRY(create_partial(folder, name, life));
    return true;
}

}  // namespace

void NodeAgent::Impl::make_own_folder() {
    struct Made {
        bool own = false, own_second = false;
        std::string why;
    };
    auto make = [folder = snapshot_.order.folder, name = snapshot_.order.name,
                 second = snapshot_.order.second, life = adapter_.life()] {
        Made out;
        auto made = make_missing(folder, name, life);
        if (!made.ok()) return Made{false, false, made.error().message()};
        out.own = *made;
        if (second.empty()) return out;
        made = make_missing(second, name, life);
        if (!made.ok())
            out.why = made.error().message();
        else
            out.own_second = *made;
        return out;
    };
    background_.run<Made>(make, [this, seq = snapshot_.seq](Made made) {
        if (snapshot_.seq != seq) return;
        snapshot_.own_folder = made.own;
        snapshot_.own_second = made.own_second;
        if (!made.why.empty()) snapshot_.why = made.why;
        snapshot_.folder_ready = true;
        if (participant_.step() != ParticipantStep::ready)
            return discard_own_folder();  // aborted meanwhile
        if (snapshot_.why.empty()) each_part(&Impl::ask_to_prepare);
        participant_.poke();
    });
}

// They go where the ghosts of this node's own ranks are, which may have none.
void NodeAgent::Impl::take_copies(NodeId from, const CopyOffer& offer) {
    if (snapshot_.seq != offer.seq) return copies_.take(from, offer);
    background_.run<Result<bool>>(
        [folder = offer.folder, name = snapshot_.order.name, life = adapter_.life()] {
            return make_missing(folder, name, life);
        },
        [this, from, offer](const Result<bool>& made) {
            if (snapshot_.seq != offer.seq) return;
            if (!made) log::warning("{}", made.error().message());
            snapshot_.own_folder = snapshot_.own_folder || (made && *made);
            if (participant_.step() == ParticipantStep::aborted) return discard_own_folder();
            copies_.take(from, offer);
        });
}

void NodeAgent::Impl::ask_to_prepare(RankSlot& s) {
    s.busy.clear();
    const bool idle = s.snap.work == W::idle || s.snap.work == W::cancelling;
    if (!s.snap.why.empty() || !idle) return;
    if (s.ended) return snapshot_failed(s, Stage::rank, has_ended(s.rank));
    if (!s.unmovable.empty()) return snapshot_failed(s, Stage::wrapper, s.unmovable);
    if (const auto still = standstill(s)) return snapshot_failed(s, Stage::standstill, still->why);
    if (const std::string why = why_tied(s); !why.empty()) {
        return snapshot_failed(s, Stage::check, fmt::format("rank {}: {}", s.rank, why));
    }
    if (!s.agent || !s.wrapper) {
        s.busy = "the rank is in MPI_Init";
        return;
    }
    const SnapPrepare& order = snapshot_.order;
    const std::string partial = "/" + partial_name(order.name, adapter_.life());
    if (!change(s, W::preparing)) return;
    if (!passes(s, fault::Point::node_snap_prepares, Stage::prepare, s.wrapper)) return;
    s.sharing.seen = seen_memory(s);
    s.wrapper->tell(SnapPrepareRank{.seq = s.seq,
                                    .folder = order.folder + partial,
                                    .second = order.second.empty() ? "" : order.second + partial,
                                    .file = rank_file(s.rank, order.compress),
                                    .name = order.name,
                                    .agent = s.thread,
                                    .incremental = order.incremental,
                                    .compress = order.compress,
                                    .rate = order.rate,
                                    .carried = order.carried,
                                    .then = order.then,
                                    .sharers = slots_.size(),
                                    .sign = order.sign,
                                    .shared = s.sharing.seen});
}

// --- the cut ---

void NodeAgent::Impl::shut(RankSlot& s) {
    if (s.snap.why.empty() && s.at_rest()) close_gate(s);
}

void NodeAgent::Impl::reopen(RankSlot& s) {
    if (s.quiesce == Q::gating || s.quiesce == Q::gated) open_gate(s);
}

void NodeAgent::Impl::part_with_server(RankSlot& s) {
    if (!s.snap.why.empty()) return;
    if (s.quiesce != Q::gated || !leave_server(s))
        snapshot_failed(s, Stage::freeze, "the rank cannot leave its PMIx server now");
}

// The ranks of this node and of those below are back: before, writing would take processors from
// what is still on the way.
void NodeAgent::Impl::write(RankSlot& s) {
    if (!s.wrapper || s.snap.work != W::writing) return;
    if (passes(s, fault::Point::node_snap_writes, Stage::write, s.wrapper))
        s.wrapper->tell(SnapWrite{s.seq});
}

// The rank is quiet: its tree may be frozen.
void NodeAgent::Impl::freeze(RankSlot& s) {
    if (!s.wrapper || s.snap.work != W::ready) {
        snapshot_failed(s, Stage::wrapper, fmt::format("rank {} has no wrapper", s.rank));
        return participant_.poke();
    }
    SnapFreeze order{s.seq, s.thread, {}, {}};
    if (auto why = add_sharers(s, order.unit, order.saves); !why.empty()) {
        snapshot_failed(s, Stage::check, why);
        return participant_.poke();
    }
    if (passes(s, fault::Point::node_snap_freezes, Stage::freeze, s.wrapper) &&
        change(s, W::freezing))
        s.wrapper->tell(order);
}

// The wrapper has let the tree run and signalled the rank.
void NodeAgent::Impl::woken(RankSlot& s) {
    if (s.quiesce != Q::quiet && s.quiesce != Q::frozen) return;
    if (change(s, Q::resuming)) take_early(s);
}

void NodeAgent::Impl::take_early(RankSlot& s) {
    if (!s.snap.early) return;
    const auto m = std::exchange(s.snap.early_hello, std::nullopt);
    hello_rank(std::exchange(s.snap.early, nullptr), *m);
}

void NodeAgent::Impl::keep_early(RankSlot& s, std::shared_ptr<ControlConnection> connection,
                                 const kernet::RankHello& m) {
    if (s.snap.early) s.snap.early->close();
    s.snap.early = std::move(connection);
    s.snap.early_hello = m;
    const ControlConnection* which = s.snap.early.get();
    s.snap.early->handle(nullptr, [this, rank = s.rank, which] {
        RankSlot* slot = find(rank);
        if (slot != nullptr && slot->snap.early.get() == which) slot->snap.early.reset();
    });
}

// --- what the wrapper says ---

void NodeAgent::Impl::transfer_progressed(RankSlot& s, const TransferProgress& m) {
    s.snap.bytes = m.bytes;
    s.snap.total = m.total;
    participant_.progressed();
}

void NodeAgent::Impl::snapshot_answer(RankSlot& s, const schema::Received& m) {
    const W work = s.snap.work;
    if (m.is<TransferProgress>()) return transfer_progressed(s, m.as<TransferProgress>());
    if (m.is<SnapCancelled>()) {
        if (work == W::cancelling) (void)change(s, W::idle);
        if (s.quiesce == Q::quiet) woken(s);
    } else if (m.is<Failed>()) {
        on_failed(s, m.as<Failed>());
    } else if (m.is<SnapReady>() && work == W::preparing) {
        s.sharing.parts = m.as<SnapReady>().shared;
        (void)change(s, W::ready);
    } else if (m.is<Still>() && work == W::freezing) {
        on_still(s);
    } else if (m.is<SnapCaptured>()) {
        on_captured(s, m.as<SnapCaptured>());
    } else if (m.is<Written>() && work == W::writing) {
        on_written(s, m.as<Written>());
    } else {
        return log::debug("{} of the wrapper of rank {} does not fit {}", m.name(), s.rank,
                          snap_works.name(work));
    }
    participant_.poke();
}

void NodeAgent::Impl::on_failed(RankSlot& s, const Failed& m) {
    snapshot_failed(s, m.stage, m.why);
    if (s.snap.work != W::cancelling && s.snap.work != W::idle) (void)change(s, W::failed);
    if (s.quiesce == Q::quiet) woken(s);
}

void NodeAgent::Impl::on_written(RankSlot& s, const Written& m) {
    if (!change(s, W::written)) return;
    s.snap.row = m;
    s.snap.row->rank = s.rank;
    s.snap.row->node = own_name();
    s.snap.row->pause_us = s.snap.pause_us;
}

void NodeAgent::Impl::on_captured(RankSlot& s, const SnapCaptured& m) {
    s.snap.pause_us = m.pause_us;
    const bool off = s.snap.work == W::cancelling;
    if (s.snap.work == W::freezing) (void)change(s, W::writing);
    if (s.quiesce != Q::quiet) return;
    if (snapshot_.order.then == Then::go_on) return woken(s);
    if (change(s, Q::frozen) && off) resume(s);
}

// After a snapshot or a restart; the locations go up the tree with the step.
void NodeAgent::Impl::on_attached_again(RankSlot& s, const kernet::Location& given,
                                        const std::string& wrong) {
    if (!wrong.empty()) {
        s.snap.why.clear();  // what came first matters less
        snapshot_failed(s, Stage::attach, wrong);
    } else {
        // A rank listens where it did, if it can: then nobody needs to be told.
        kernet::Location location = settled_location(s, given);
        const kernet::Location* known = locations_.find(s.rank);
        if (known == nullptr || *known != location) s.snap.location = std::move(location);
    }
    participant_.poke();
}

// --- the end ---

namespace {

// Only what is a snapshot's name leads nowhere else.
std::vector<std::string> names_in(std::vector<std::string> list) {
    std::erase_if(list, [](const std::string& name) { return !parse_snapshot_name(name); });
    return list;
}

void remove_all(const std::string& folder, const std::vector<std::string>& names) {
    for (const std::string& name : names)
        if (auto gone = remove_snapshot(folder, name); !gone.ok())
            log::warning("{}", gone.error().message());
}

void complete_in(const std::string& folder, const std::string& name, const std::string& life,
                 const std::vector<std::string>& old) {
    if (auto done = commit_snapshot(folder, name, life); !done.ok()) {
        return log::error("snapshot {} is not complete on this node: {}", name,
                          done.error().message());
    }
    remove_all(folder, old);
}

}  // namespace

void NodeAgent::Impl::end_snapshot(const SnapEnd& order) {
    (void)fault::pass(fault::Point::node_snap_ends);
    for (auto& [rank, s] : slots_) {
        if (!s.snap.participates) continue;
        if (s.wrapper) s.wrapper->tell(SnapEndRank{s.seq, true});
        if (s.snap.work != W::idle) (void)change(s, W::idle);
        // Frozen it still does: it goes on by snap_abort, or ends with its job.
        s.snap.participates = s.quiesce == Q::frozen;
    }
    const auto complete = [&](bool& own, const std::string& folder,
                              const std::vector<std::string>& remove) {
        if (!std::exchange(own, false)) return;
        background_.run([folder, name = snapshot_.order.name, life = adapter_.life(),
                         old = names_in(remove)] { complete_in(folder, name, life, old); });
    };
    // What a node's memory has may be of when it had ranks, or copies of them.
    if (!snapshot_.own_folder && snapshot_.order.folder.starts_with(memory_snapshots() + "."))
        background_.run([folder = snapshot_.order.folder, old = names_in(order.remove)] {
            remove_all(folder, old);
        });
    complete(snapshot_.own_folder, snapshot_.order.folder, order.remove);
    complete(snapshot_.own_second, snapshot_.order.second, order.remove_seconds);
}

// The snapshot is off: what has been done to this rank is undone by where it is.
void NodeAgent::Impl::bring_home(RankSlot& s) {
    s.busy.clear();
    if (s.ended) return;
    s.snap.off = true;
    reopen(s);
    // `closing`: its server has dropped it, it must close first; see all_closed(). A wrapper that
    // is at it finishes; one that has just adopted knows nothing.
    const bool at_it = s.snap.work == W::freezing || s.snap.work == W::cancelling;
    if (s.quiesce == Q::frozen || (s.quiesce == Q::quiet && !at_it)) resume(s);
    if (s.snap.work == W::idle || s.snap.work == W::cancelling) return;
    if (!change(s, s.wrapper ? W::cancelling : W::idle)) return;
    if (s.wrapper) s.wrapper->tell(SnapCancel{s.seq});
}

void NodeAgent::Impl::discard_own_folder() {
    const auto discard = [&](bool& own, const std::string& folder) {
        if (!std::exchange(own, false)) return;
        background_.run([folder, name = snapshot_.order.name, life = adapter_.life()] {
            if (auto gone = discard_partial(folder, name, life); !gone.ok()) {
                log::warning("{}", gone.error().message());
            }
        });
    };
    discard(snapshot_.own_folder, snapshot_.order.folder);
    discard(snapshot_.own_second, snapshot_.order.second);
}

}  // namespace ghost::plugin
