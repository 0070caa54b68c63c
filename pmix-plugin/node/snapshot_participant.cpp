// SPDX-License-Identifier: BSD-3-Clause
#include "pmix-plugin/node/snapshot_participant.hpp"

#include <algorithm>
#include <utility>

#include "base/state_machine.hpp"

namespace ghost::plugin {
namespace {

// `without` is sorted. The daemon at a place: every missing one before it moves it on by one.
NodeId daemon_at(uint64_t place, const std::vector<NodeId>& without) {
    for (NodeId missing : without) {
        if (missing > place) break;
        ++place;
    }
    return static_cast<NodeId>(place);
}

}  // namespace

DaemonTree::DaemonTree(NodeId count, std::vector<NodeId> without, NodeId self) {
    std::ranges::sort(without);
    without.erase(std::unique(without.begin(), without.end()), without.end());
    std::erase_if(without, [count](NodeId id) { return id >= count; });
    auto before = std::ranges::lower_bound(without, self);
    member_ = self < count && (before == without.end() || *before != self);
    if (!member_) return;
    place_ = self - static_cast<NodeId>(before - without.begin());
    parent_ = place_ == 0 ? self : daemon_at((place_ - 1) / width, without);
    const uint64_t live = count - without.size();
    for (uint64_t i = 1; i <= width; ++i) {
        const uint64_t child = uint64_t{place_} * width + i;
        if (child < live) children_.push_back(daemon_at(child, without));
    }
}

namespace {

using P = ParticipantStep;

constexpr NodeId coordinator = 0;
constexpr int64_t progress_us = 500'000;
// A daemon that hears of a refusal waits for so long for the words of the others, those with
// daemons below twice as long: most refuse for the same reason, and all are to be named.
constexpr int64_t hearing_us = 300'000;

using D = DaemonMessage;

struct Row {
    P state;
    const char* name;
    uint32_t next;
    std::optional<D> order = {};  // what starts it
};

// A step may be repeated with a higher try, and everything be called off; where a part rests the
// next attempt's first step follows, whose seq is higher: that is looked at apart.
constexpr StateTable steps(std::to_array<Row>({
    {P::idle, name(P::idle), to({P::ready, P::checked, P::aborted, P::halted})},
    {P::ready, name(P::ready), to({P::ready, P::here, P::aborted}), D::snap_prepare},
    {P::here, name(P::here), to({P::here, P::gated, P::aborted}), D::snap_ping},
    {P::gated, name(P::gated), to({P::ungated, P::resumed, P::aborted}), D::snap_gate},
    {P::ungated, name(P::ungated), to({P::gated, P::aborted}), D::snap_ungate},
    {P::resumed, name(P::resumed), to({P::written, P::aborted}), D::snap_close},
    {P::written, name(P::written), to({P::ended, P::aborted})},
    {P::ended, name(P::ended), to({P::ready, P::aborted}), D::snap_end},
    {P::aborted, name(P::aborted), to({P::ready, P::aborted}), D::snap_abort},
    {P::checked, name(P::checked), to({P::held, P::aborted}), D::restart_prepare},
    {P::held, name(P::held), to({P::restarted, P::aborted}), D::restart_import},
    {P::restarted, name(P::restarted), to({P::ready, P::aborted}), D::restart_go},
    {P::halted, name(P::halted), to({P::started}), D::recover_stop},
    {P::started, name(P::started), to({P::checked}), D::recover_start},
}));

std::optional<P> ordered_by(DaemonMessage type) {
    for (const Row& row : steps) {
        if (row.order == type) return row.state;
    }
    return std::nullopt;
}

// What begins with it says among whom it is; nothing else may begin.
bool makes_tree(P step) {
    return step == P::ready || step == P::checked || step == P::aborted || step == P::halted;
}

// A restart lists all that is missing; a snapshot ends with what is known first.
bool ends_early(P step) {
    return step != P::checked && step != P::held && step != P::aborted;
}

}  // namespace

bool SnapshotParticipant::message(NodeId from, const schema::Received& m) {
    if (m.is<StepUp>()) {
        if (from != messenger_.self()) answer_from_below(from, m.as<StepUp>());
        return true;
    }
    if (m.is<StepProgress>()) {
        if (from != messenger_.self()) progress_from_below(from, m.as<StepProgress>());
        return true;
    }
    auto step = ordered_by(m.type<DaemonMessage>());
    if (!step) return false;
    if (from == coordinator) order(*step, m);
    return true;
}

SnapshotParticipant::Attempt SnapshotParticipant::attempt_of(const schema::Received& m) {
    if (m.is<SnapPrepare>())
        return {m.seq(), m.as<SnapPrepare>().attempt, m.as<SnapPrepare>().tree};
    if (m.is<StepOrder>()) return {m.seq(), m.as<StepOrder>().attempt, m.as<StepOrder>().tree};
    if (m.is<RestartPrepare>()) return {m.seq(), 0, m.as<RestartPrepare>().tree};
    if (m.is<RecoverStop>()) return {m.seq(), 0, m.as<RecoverStop>().tree};
    return {m.seq(), 0, {}};
}

// Is the order the next one, and not late or said twice?
bool SnapshotParticipant::fits(ParticipantStep step, uint64_t seq, uint64_t attempt) const {
    if (seq < seq_) return false;
    if (seq > seq_) return makes_tree(step) && seq != 0;
    const bool resting = step_ == P::ended || step_ == P::aborted || step_ == P::restarted;
    if (step == step_) return step != P::ended && attempt > try_;
    return steps.allows(step_, step) && !(resting && step == P::ready) &&
           !(step_ == P::ended && step == P::aborted);
}

void SnapshotParticipant::order(ParticipantStep step, const schema::Received& m) {
    Attempt attempt = attempt_of(m);
    if (!fits(step, attempt.seq, attempt.number)) {
        return log::info("order for step {} of attempt {} does not fit step {} of {}: dropped",
                         name(step), attempt.seq, name(step_), seq_);
    }
    seq_ = attempt.seq;
    if (makes_tree(step))
        tree_ =
            DaemonTree(attempt.tree.daemons, std::move(attempt.tree.without), messenger_.self());
    if (!tree_.member()) return log::warning("this node is left out of attempt {}", seq_);
    std::erase_if(below_, [this](const auto& entry) { return std::get<0>(entry.first) < seq_; });
    begin(step, attempt.number, &m);
}

void SnapshotParticipant::begin(ParticipantStep step, uint64_t attempt, const schema::Received* m) {
    log::debug("attempt {}: step {} -> {} (try {})", seq_, name(step_), name(step), attempt);
    step_ = step;
    try_ = attempt;
    answered_ = step == P::ended;
    end_hearing();
    progress_.clear();
    looking_ = true;  // what begins must not be looked at before it has begun everywhere
    ranks_.begin_step(step, m);
    looking_ = false;
    poke();
}

void SnapshotParticipant::progress_from_below(NodeId from, const StepProgress& m) {
    if (m.seq != seq_) return;
    progress_[from] = {m.bytes, m.total};
    progressed();
}

void SnapshotParticipant::answer_from_below(NodeId from, const StepUp& up) {
    if (up.seq < seq_) return;
    below_[{up.seq, up.step, up.attempt}].try_emplace(from, up.answer);
    if (up.seq == seq_) poke();
}

void SnapshotParticipant::poke() {
    if (step_ == P::idle || answered_ || looking_) return;
    LocalAnswer local = ranks_.look(step_);
    const auto& below = below_[{seq_, step_, try_}];
    bool complete = local.complete;
    bool failed = local.answer.failed_ranks > 0;
    for (NodeId child : tree_.children()) {
        auto it = below.find(child);
        complete = complete && it != below.end();
        failed = failed || (it != below.end() && it->second.failed_ranks > 0);
    }
    if (!complete && !(failed && ends_early(step_))) return;
    if (!complete && step_ == P::ready && !heard_) return hear_others();
    StepAnswer all = std::move(local.answer);
    for (NodeId child : tree_.children()) {
        auto it = below.find(child);
        if (it != below.end()) all.merge(it->second);
    }
    answer(std::move(all));
}

// Nobody is kept waiting: the ranks run.
void SnapshotParticipant::hear_others() {
    if (hearing_timer_) return;
    hearing_timer_ = loop_.after(tree_.children().empty() ? hearing_us : 2 * hearing_us, [this] {
        hearing_timer_.reset();
        heard_ = true;
        poke();
    });
}

void SnapshotParticipant::end_hearing() {
    if (hearing_timer_) loop_.cancel(*hearing_timer_);
    hearing_timer_.reset();
    heard_ = false;
}

void SnapshotParticipant::answer(StepAnswer all) {
    end_hearing();
    answered_ = true;
    const bool failed = all.failed_ranks > 0;
    below_.erase({seq_, step_, try_});
    const bool goes_on = step_ == P::resumed && !failed;
    messenger_.tell(tree_.root() ? coordinator : tree_.parent(),
                    StepUp{seq_, step_, try_, std::move(all)});
    ranks_.step_answered(step_);
    if (goes_on) begin(P::written, 0, nullptr);
}

// At most one message in half a second, however many ranks and daemons there are below.
void SnapshotParticipant::progressed() {
    if (progress_timer_ || answered_ || step_ == P::idle) return;
    progress_timer_ = loop_.after(progress_us, [this] {
        progress_timer_.reset();
        tell_progress();
    });
}

void SnapshotParticipant::tell_progress() {
    if (answered_ || step_ == P::idle) return;
    uint64_t bytes = 0, total = 0;
    ranks_.progress(bytes, total);
    for (const auto& [node, of] : progress_) {
        bytes += of.first;
        total += of.second;
    }
    messenger_.tell(tree_.root() ? coordinator : tree_.parent(), StepProgress{seq_, bytes, total});
}

void SnapshotParticipant::stop() {
    if (progress_timer_) loop_.cancel(*progress_timer_);
    progress_timer_.reset();
    end_hearing();
    step_ = P::idle;
}

}  // namespace ghost::plugin
