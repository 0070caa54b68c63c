// SPDX-License-Identifier: BSD-3-Clause
#include "pmix-plugin/wrapper/snapshotter.hpp"

#include <fmt/format.h>
#include <unistd.h>
#include <utility>

#include "base/log.hpp"
#include "ghost-core/engine/node_memory.hpp"
#include "ghost-core/engine/migration.hpp"
#include "ghost-core/criu/tree.hpp"
#include "pmix-plugin/wrapper/tree_parts.hpp"

namespace ghost::plugin {

using S = SnapState;

Snapshotter::Snapshotter(TreeParts parts) : parts_(std::move(parts)) {}

Snapshotter::~Snapshotter() {
    break_off();
    if (worker_.busy()) worker_.finish();
}

bool Snapshotter::change(S to) {
    const auto who = [this] { return fmt::format("snapshot {}", seq_); };
    if (!snap_states.change(state_, to, log::Level::debug, who)) {
        parts_.fail(seq_, Stage::snapshot,
                    fmt::format("a bug: no way from {} to {}", snap_states.name(state_),
                                snap_states.name(to)));
        return false;
    }
    if (to == S::freezing)
        realtime_.emplace();
    else if (to != S::calling_off)
        realtime_.reset();
    return true;
}

bool Snapshotter::handle(const schema::Received& message) {
    const ToWrapper type = message.type<ToWrapper>();
    if (type == ToWrapper::resume) return resume(message.as<Resume>());
    if (type == ToWrapper::share && state_ != S::freezing) return false;
    const bool late = message.seq() < seq_;
    switch (type) {
        case ToWrapper::snap_prepare:
            if (!late) prepare(message.as<SnapPrepareRank>());
            break;
        case ToWrapper::snap_freeze:
            if (!late) freeze(message.as<SnapFreeze>());
            break;
        case ToWrapper::share:
            if (!late) job_->share();
            break;
        case ToWrapper::snap_write:
            if (!late) write();
            break;
        case ToWrapper::snap_cancel:
            if (!late) cancel(message.seq());
            break;
        case ToWrapper::snap_end:
            if (!late) end(message.as<SnapEndRank>().keep);
            break;
        default:
            return false;
    }
    if (late)
        log::info("{} of snapshot {} is late, this is {}", message.name(), message.seq(), seq_);
    return true;
}

void Snapshotter::prepare(const SnapPrepareRank& asked) {
    if (!snap_states.allows(state_, S::preparing))
        return parts_.fail(asked.seq, Stage::prepare,
                           "another snapshot of this rank is not finished");
    seq_ = asked.seq;
    auto made =
        folder_.make(fmt::format("{}-{}-{}", parts_.who.job, parts_.who.rank, seq_), &parts_.guard);
    if (!made) return parts_.fail(seq_, Stage::prepare, made.error().message());
    SnapshotOrder order{asked, chain_, nullptr};
    // one that is based on something that is not signed would not be either
    if (!asked.sign) chain_key_.reset();
    if (asked.sign) {
        if (chain_.empty() || !chain_key_) order.incremental = false;
        if (!order.incremental) {
            auto key = SigningKey::fresh();
            if (!key) return parts_.fail(seq_, Stage::prepare, key.error().message());
            chain_key_ = std::move(*key);
        }
        order.key = chain_key_;
    }
    job_ = std::make_unique<SnapshotJob>(
        std::move(order),
        SnapshotJob::Tree{parts_.who, parts_.root, parts_.stdio.keys(), folder_.path(),
                          [this](RankStdio& stdio) { parts_.stdio.note_output(stdio); }},
        checkpointer_);
    if (!change(S::preparing)) return;
    worker_.start([this] {
        return job_->run([this](Outgoing said) { worker_.say(std::move(said)); },
                         [this](uint64_t bytes, uint64_t total) {
                             worker_.note(bytes, total);
                             worker_.gets_on();
                         });
    });
}

void Snapshotter::freeze(const SnapFreeze& order) {
    if (!snap_states.allows(state_, S::freezing) || order.seq != seq_)
        return parts_.fail(order.seq, Stage::freeze, "this snapshot was not prepared");
    if (!change(S::freezing)) return;
    carried_ = true;
    job_->freeze(parts_.stdio.carry(), order);
}

void Snapshotter::write() {
    if (state_ == S::writing) job_->write();
}

void Snapshotter::worker_done() {
    const bool ended = worker_.ended();  // first: what it says before that is heard
    while (auto message = worker_.heard()) said(*message);
    if (worker_.busy() && ended) finished(worker_.finish());
}

void Snapshotter::said(const Outgoing& message) {
    const bool captured = std::holds_alternative<SnapCaptured>(message);
    if (captured) {
        uncarry();
        stopped_ = job_->order().stays();
    }
    if (state_ == S::calling_off) return;
    if (std::holds_alternative<Still>(message)) return parts_.tell(message);
    if (change(captured ? S::writing : S::ready)) parts_.tell(message);
}

// The worker has ended.
void Snapshotter::finished(const Outgoing& answer) {
    uncarry();
    if (state_ == S::clearing) return all_off();
    folder_.remove();
    const auto* written = std::get_if<Written>(&answer);
    if (written == nullptr) stopped_ = false;  // it runs again
    if (resume_) let_run(std::exchange(resume_, std::nullopt)->agent);
    if (state_ == S::calling_off) return finished_off(written != nullptr);
    if (written != nullptr) return finished_well(*written);
    chain_.clear();
    if (change(S::idle)) parts_.tell(answer);
}

void Snapshotter::finished_well(const Written& answer) {
    const auto& order = job_->order();
    next_chain_ = answer.chain;
    next_chain_.insert(next_chain_.begin(), order.name + "/" + order.file);
    if (change(S::written)) parts_.tell(answer);
}

void Snapshotter::finished_off(bool written) {
    if (written) return tidy(Tidy::all_and_file);
    chain_.clear();
    all_off();
}

void Snapshotter::all_off() {
    if (change(S::idle) && std::exchange(answer_cancel_, false)) parts_.tell(SnapCancelled{seq_});
}

// It takes its time, and the rank's output must flow meanwhile.
void Snapshotter::tidy(Tidy what) {
    if (!change(S::clearing)) return;
    if (what != Tidy::memory) chain_.clear();
    worker_.start([this, what, paths = job_->order().paths()] {
        if (what == Tidy::all_and_file)
            for (const std::string& path : paths) ::unlink(path.c_str());
        if (what == Tidy::memory)
            checkpointer_.trim();
        else
            checkpointer_.clear();
        return Outgoing();
    });
}

void Snapshotter::cancel(uint64_t seq) {
    answer_cancel_ = true;
    seq_ = seq;
    switch (state_) {
        case S::idle:
            job_.reset();
            checkpointer_.end_tracking();
            answer_cancel_ = false;
            return parts_.tell(SnapCancelled{seq_});
        case S::written:
            return tidy(Tidy::all_and_file);
        case S::calling_off:
        case S::clearing:
            return;
        default:
            return break_off();
    }
}

void Snapshotter::end(bool keep) {
    if (state_ != S::written) {
        log::warning("snapshot {}: snap_end, and nothing was written", seq_);
        return;
    }
    if (!keep) return tidy(Tidy::all);
    chain_ = std::move(next_chain_);
    if (core::memory_is_scarce()) return tidy(Tidy::memory);
    change(S::idle);
}

void Snapshotter::break_off() {
    if (snap_states.allows(state_, S::calling_off) && change(S::calling_off)) job_->call_off();
}

// True: it is or will be done here. Whether the tree is frozen or runs, and for whom, must be
// known.
bool Snapshotter::resume(const Resume& word) {
    if (!worker_.busy() || state_ == S::clearing || !job_->told_to_freeze()) {
        stopped_ = false;
        return false;
    }
    // One that does not stay frozen the worker lets run, and signals the agent by itself.
    if (job_->order().stays()) {
        resume_ = word;
        job_->call_off();
    }
    return true;
}

void Snapshotter::let_run(const std::optional<AgentThread>& agent) {
    stopped_ = false;
    if (auto runs = core::resume_tree(parts_.root); !runs.ok())
        log::error("{}", runs.error().message());
    if (job_->woken()) return;
    if (auto woken = wake_agent(parts_.root, agent); !woken.ok())
        log::warning("{}", woken.error().message());
}

void Snapshotter::uncarry() {
    if (std::exchange(carried_, false)) parts_.stdio.uncarry();
}

void Snapshotter::step() {
    uint64_t bytes = 0, total = 0;
    if (state_ == S::ready) return;  // it goes on copying, but nobody waits for that
    if (worker_.busy() && worker_.progress(bytes, total))
        parts_.tell(TransferProgress{seq_, parts_.who.rank, bytes, total});
}

}  // namespace ghost::plugin
