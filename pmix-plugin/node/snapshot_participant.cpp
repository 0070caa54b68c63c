#include "pmix-plugin/node/snapshot_participant.hpp"

#include <algorithm>
#include <array>
#include <utility>

#include "base/log.hpp"

namespace ghost::plugin {
namespace {

using P = ParticipantStep;

constexpr NodeId coordinator = 0;
constexpr int64_t progress_us = 500'000;

struct Row {
    P step;
    const char* name;
    const char* order;      // what starts it
    std::array<P, 3> next;  // besides `aborted`; unused places repeat the last one
};

// A step may be repeated with a higher try. An attempt that has ended is followed by the next
// attempt's first step, whose seq is higher: that is checked apart.
constexpr std::array<Row, 12> table{{
    {P::idle, "idle", "", {P::ready, P::checked, P::checked}},
    {P::ready, "ready", "snap_prepare", {P::ready, P::here, P::here}},
    {P::here, "here", "snap_ping", {P::here, P::gated, P::gated}},
    {P::gated, "gated", "snap_gate", {P::ungated, P::resumed, P::resumed}},
    {P::ungated, "ungated", "snap_ungate", {P::gated, P::gated, P::gated}},
    {P::resumed, "resumed", "snap_close", {P::written, P::written, P::written}},
    {P::written, "written", "", {P::ended, P::ended, P::ended}},
    {P::ended, "ended", "snap_end", {P::ready, P::ready, P::ready}},
    {P::aborted, "aborted", "snap_abort", {P::ready, P::ready, P::ready}},
    {P::checked, "checked", "restart_prepare", {P::held, P::held, P::held}},
    {P::held, "held", "restart_import", {P::restarted, P::restarted, P::restarted}},
    {P::restarted, "restarted", "restart_go", {P::ready, P::ready, P::ready}},
}};

const Row& row(P step) {
    return table[static_cast<size_t>(step)];
}

std::optional<P> step_named(const std::string& name) {
    for (const Row& r : table) {
        if (name == r.name) return r.step;
    }
    return std::nullopt;
}

std::optional<P> ordered_by(const std::string& type) {
    for (const Row& r : table) {
        if (*r.order != 0 && type == r.order) return r.step;
    }
    return std::nullopt;
}

// A restart lists all that is missing; a snapshot ends with the first thing.
bool ends_early(P step) {
    return step != P::checked && step != P::held && step != P::aborted;
}

}  // namespace

const char* name(ParticipantStep step) {
    return row(step).name;
}

bool may_follow(ParticipantStep from, ParticipantStep to) {
    return to == P::aborted || std::ranges::find(row(from).next, to) != row(from).next.end();
}

bool SnapshotParticipant::message(NodeId from, const Json& m) {
    const std::string type = text(m, "t");
    if (type == "snap_up" || type == "snap_progress") {
        if (from != adapter_.self()) from_below(from, m);
        return true;
    }
    auto step = ordered_by(type);
    if (!step) return false;
    if (from == coordinator) order(*step, m);
    return true;
}

// Is the order the next one, and not late or said twice?
bool SnapshotParticipant::fits(ParticipantStep step, uint64_t seq, uint64_t attempt) const {
    if (seq < seq_) return false;
    const bool first = step == P::ready || step == P::checked || step == P::aborted;
    if (seq > seq_) return first && seq != 0;
    const bool resting = step_ == P::ended || step_ == P::aborted || step_ == P::restarted;
    if (step == step_) return step != P::ended && attempt > try_;
    return may_follow(step_, step) && !(resting && step == P::ready) &&
           !(step_ == P::ended && step == P::aborted);
}

void SnapshotParticipant::order(ParticipantStep step, const Json& m) {
    const uint64_t seq = number(m, "seq"), attempt = number(m, "try");
    if (!fits(step, seq, attempt)) {
        return log::info("order for step {} of attempt {} does not fit step {} of {}: dropped",
                         name(step), seq, name(step_), seq_);
    }
    seq_ = seq;
    if (step == P::ready || step == P::checked || step == P::aborted) take_tree(m);
    if (!tree_.member()) return log::warning("this node is left out of attempt {}", seq);
    std::erase_if(below_, [seq](const auto& entry) { return std::get<0>(entry.first) < seq; });
    begin(step, attempt, m);
}

void SnapshotParticipant::take_tree(const Json& m) {
    std::vector<NodeId> without;
    const Json* list = field(m, "without");
    if (list != nullptr && list->is_array()) {
        for (const Json& id : *list) {
            if (id.is_number_unsigned()) without.push_back(id.get<NodeId>());
        }
    }
    tree_ =
        DaemonTree(static_cast<NodeId>(number(m, "daemons")), std::move(without), adapter_.self());
}

void SnapshotParticipant::begin(ParticipantStep step, uint64_t attempt, const Json& m) {
    log::debug("attempt {}: step {} -> {} (try {})", seq_, name(step_), name(step), attempt);
    step_ = step;
    try_ = attempt;
    answered_ = step == P::ended;
    progress_.clear();
    looking_ = true;  // what begins must not be looked at before it has begun everywhere
    ranks_.begin_step(step, m);
    looking_ = false;
    poke();
}

void SnapshotParticipant::from_below(NodeId from, const Json& m) {
    const uint64_t seq = number(m, "seq");
    if (text(m, "t") == "snap_progress") {
        if (seq != seq_) return;
        progress_[from] = {number(m, "bytes"), number(m, "total")};
        return progressed();
    }
    auto step = step_named(text(m, "step"));
    if (!step || seq < seq_) return;
    below_[{seq, *step, number(m, "try")}].try_emplace(from, StepAnswer::read(m));
    if (seq == seq_) poke();
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
    StepAnswer all = std::move(local.answer);
    for (NodeId child : tree_.children()) {
        auto it = below.find(child);
        if (it != below.end()) all.merge(it->second);
    }
    answer(std::move(all));
}

void SnapshotParticipant::answer(StepAnswer all) {
    answered_ = true;
    const bool failed = all.failed_ranks > 0;
    Json m = {{"t", "snap_up"}, {"seq", seq_}, {"step", name(step_)}, {"try", try_}};
    std::move(all).write(m);
    below_.erase({seq_, step_, try_});
    const bool goes_on = step_ == P::resumed && !failed;
    adapter_.send(tree_.root() ? coordinator : tree_.parent(), m);
    ranks_.step_answered(step_);
    if (goes_on) begin(P::written, 0, Json());
}

// At most one message in half a second, however many ranks and daemons there are below.
void SnapshotParticipant::progressed() {
    if (progress_timer_ || answered_ || step_ == P::idle) return;
    progress_timer_ = adapter_.after(progress_us, [this] {
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
    adapter_.send(tree_.root() ? coordinator : tree_.parent(),
                  {{"t", "snap_progress"}, {"seq", seq_}, {"bytes", bytes}, {"total", total}});
}

void SnapshotParticipant::stop() {
    if (progress_timer_) adapter_.cancel(*progress_timer_);
    progress_timer_.reset();
    step_ = P::idle;
}

}  // namespace ghost::plugin
