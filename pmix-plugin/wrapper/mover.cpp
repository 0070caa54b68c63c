// SPDX-License-Identifier: BSD-3-Clause
#include "pmix-plugin/wrapper/mover.hpp"

#include <csignal>
#include <fmt/format.h>
#include <limits>
#include <utility>

#include "base/fault.hpp"
#include "base/log.hpp"
#include "base/scheduling.hpp"
#include "base/schema_json.hpp"
#include "ghost-core/engine/lock_handover.hpp"
#include "ghost-core/engine/node_memory.hpp"
#include "ghost-core/engine/preflight.hpp"
#include "pmix-plugin/wrapper/tree_parts.hpp"

namespace ghost::plugin {
namespace {

using S = MoveState;
using P = fault::Point;

// Nothing is sent between connect and export, while the rank's gate is tried again and again.
constexpr int silence_ms = 60'000;

}  // namespace

Mover::Mover(TreeParts parts, std::function<core::HugeMemory()> before)
    : parts_(std::move(parts)), before_(std::move(before)) {}

bool Mover::change(S to) {
    const auto who = [this] { return fmt::format("move {}", seq_); };
    if (!move_states.change(state_, to, log::Level::debug, who)) {
        parts_.fail(seq_, Stage::moving,
                    fmt::format("a bug: no way from {} to {}", move_states.name(state_),
                                move_states.name(to)));
        return false;
    }
    if (to == S::idle || to == S::gone)
        realtime_.reset();
    else if (!realtime_)
        realtime_.emplace();
    return true;
}

bool Mover::handle(const schema::Received& message) {
    const bool off = message.is<Cancel>() || message.is<Resume>();
    const bool runs = message.is<Export>() || message.is<Share>() || message.is<Wake>();
    if (!off && !runs && !message.is<Connect>() && !message.is<Die>()) return false;
    if (message.seq() < seq_) {
        log::info("{} of move {} is late, this is {}", message.name(), message.seq(), seq_);
        return true;
    }
    if (off) call_off(message);
    if (message.is<Connect>()) connect(message.as<Connect>());
    if (message.is<Export>()) start_export(message.as<Export>());
    if (message.is<Share>() && sharers_) sharers_->share();
    if (message.is<Wake>()) wake(message.as<Wake>().agent);
    if (message.is<Die>()) die(message.seq());
    return true;
}

void Mover::drop_connection() {
    target_.reset();
    ahead_.reset();
    folder_.remove();
}

void Mover::connect(const Connect& where) {
    if (worker_.busy()) {  // with a move that was called off
        waiting_ = where;
        return break_off();
    }
    seq_ = where.seq;
    if (state_ == S::connected) {
        drop_connection();
        if (!change(S::idle)) return;
    }
    if (!may(S::connecting))
        return parts_.fail(seq_, Stage::connect, "another move of this rank is not finished");
    if (auto made = folder_.make(fmt::format("{}-{}-{}", parts_.who.job, parts_.who.rank, seq_),
                                 &parts_.guard);
        !made) {
        return parts_.fail(seq_, Stage::connect, made.error().message());
    }
    if (!change(S::connecting)) return;
    live_ = false;
    turns_.reset();
    worker_.start([this, where, request = request()]() mutable -> Outgoing {
        const auto failed = [&](const Error& error) {
            return parts_.who.failed(where.seq, Stage::connect, error.message());
        };
        const Status worth = where.live ? weigh(where) : Status();
        if (!worth && !where.live_from)
            return parts_.who.failed(where.seq, Stage::live, worth.error().message());
        const bool live = where.live && worth;
        if (before_) huge_ = before_();
        if (Status fine = look_at_shared(where.shared); !fine) {
            if (fine.error().code != Code::refused) return failed(fine.error());
            return parts_.who.failed(where.seq, Stage::check, fine.error().message());
        }
        request.externals = sharing_.with_keys(std::move(request.externals));
        core::NetworkOptions options;
        options.operation_ms = silence_ms;
        auto target = core::NetworkResource::connect(where.host, where.port, where.token,
                                                     parts_.who.proof(where.secret), options);
        if (!target) return failed(target.error());
        Status warm = core::warm_up(request.criu);
        if (!warm) return failed(warm.error());
        if (Status fine = ask(**target, request, live); !fine) {
            if (fine.error().code != Code::refused) return failed(fine.error());
            return parts_.who.failed(where.seq, Stage::target, fine.error().why);
        }
        if (Status fine = fault::pass(P::wrapper_connects, [&] { (*target)->interrupt(); }); !fine)
            return failed(fine.error());
        target_ = std::move(*target);  // the loop looks at these after finish()
        if (live) return export_live(where, request);
        auto ahead = core::prepare_export(request);
        if (!ahead) return failed(ahead.error());
        ahead_.emplace(std::move(*ahead));
        externals_ = request.externals;
        return Connected{.seq = where.seq,
                         .rank = parts_.who.rank,
                         .shared = sharing_.parts,
                         .not_live = worth ? std::string() : worth.error().message()};
    });
}

// On the worker, while the rank runs: what it shares with other ranks moves with them, or not.
Status Mover::look_at_shared(const std::vector<SharedPart>& seen) {
    auto sharing = sharing_of(parts_.root, parts_.who, seen);
    GHOST_TRY(sharing);
    GHOST_TRY(refused_for(sharing->refusals));
    sharing_ = std::move(*sharing);
    seen_ = seen;
    return {};
}

// On the worker, while the rank runs: what is only known where it goes. A file that it has open for
// a moment is none that it needs there.
Status Mover::ask(core::NetworkResource& target, const core::ExportRequest& request, bool live) {
    for (core::Looks looks(request.root, core::Ghosts::move, true);;) {
        GHOST_TRY(looks.look());
        told_ = looks.lasting();
        worker_.uses(target.fd());
        Status answer = core::ask_target(target, told_, live);
        worker_.uses(-1);
        if (answer.ok() || answer.error().code != Code::refused || !looks.may_look()) return answer;
    }
}

core::ExportRequest Mover::request() const {
    core::ExportRequest out;
    out.root = parts_.root;
    out.externals = parts_.stdio.keys();
    out.criu = {parts_.who.criu, folder_.path()};
    return out;
}

void Mover::start_export(const Export& order) {
    if (!may(S::exporting) || order.seq != seq_)
        return parts_.fail(order.seq, Stage::exporting,
                           "this move has no connection to its target");
    if (!change(S::exporting)) return;
    if (live_) {
        carried_ = true;
        return turns_.begin(parts_.stdio.carry());
    }
    auto request = this->request();
    request.externals = sharing_.with_keys(std::move(request.externals));
    if (request.externals != externals_) ahead_.reset();
    RankMetadata metadata = parts_.who.metadata(seq_);
    metadata.stdio = parts_.stdio.carry();
    request.huge = huge_;
    request.progress = [this](uint64_t bytes, uint64_t total) { worker_.note(bytes, total); };
    request.gets_on = [this] { worker_.gets_on(); };
    carried_ = true;
    sharers_.emplace();
    worker_.start([this, order, metadata, request = std::move(request)]() mutable {
        return export_tree(order, std::move(metadata), std::move(request));
    });
}

// On the worker, while the rank is quiet: whether it can go as it is now.
Status Mover::check(const core::ExportRequest& request) {
    auto sharing = check_rank(request.root, parts_.who, request.externals, seen_, true);
    GHOST_TRY(sharing);
    return sharing_.confirm(*sharing);
}

Outgoing Mover::export_tree(const Export& order, RankMetadata metadata,
                            core::ExportRequest request) {
    const Identity& who = parts_.who;
    if (Status fine = fault::pass(P::wrapper_exports, [this] { target_->interrupt(); }); !fine)
        return who.failed(order.seq, Stage::exporting, fine.error().message());
    if (Status fine = check(request); !fine)
        return who.failed(order.seq, Stage::check, fine.error().message());
    request.ghosts = core::Ghosts::move;
    request.facts = told_;
    request.is_told = true;
    metadata.shared = sharing_.metadata(order.unit);
    request.metadata = schema::to_json(metadata);
    request.final_metadata = [&] { return final_metadata(*metadata.stdio); };
    request.while_stopped = [&]() -> Result<core::SkeletonFiles> {
        if (order.unit.empty()) return core::SkeletonFiles();
        worker_.say(Still{order.seq});
        if (!sharers_->wait()) return because(Code::refused, "the move was called off");
        return sharing_.contents(order.saves);
    };
    worker_.uses(target_->fd());
    auto stats = core::export_tree(request, *target_, std::exchange(ahead_, std::nullopt));
    worker_.uses(-1);
    if (!stats) return who.failed(order.seq, Stage::exporting, stats.error().message());
    given_ = std::move(stats->given);
    if (Status fine = exported(); !fine)
        return who.failed(order.seq, Stage::exporting, fine.error().message());
    return Exported{.seq = order.seq,
                    .rank = who.rank,
                    .bytes = stats->page_bytes + stats->skeleton_bytes,
                    .rounds = 1,
                    .zero_bytes = stats->zero_bytes,
                    .frozen_us = stats->frozen_us,
                    .skeleton_us = stats->skeleton_us,
                    .pages_us = stats->pages_us};
}

// On the worker, while the rank is stopped: what it has written up to then.
Json Mover::final_metadata(RankStdio stdio) const {
    parts_.stdio.note_output(stdio);
    return schema::to_json(RankMetadata{.stdio = std::move(stdio)});
}

// On the worker: whether it can be live here, and is worth it. Of a small one a single stop is as
// quick as two (note 033).
Status Mover::weigh(const Connect& where) {
    const uint64_t least = where.live_from.value_or(0);
    memory_ = core::memory_of_tree(parts_.root);
    if (memory_ >= least) return core::check_live_here({parts_.who.criu, folder_.path()});
    return because(Code::refused,
                   fmt::format("it has {:.1f} MiB of memory, and is live from {:.1f} MiB on "
                               "(ghost_migrate_live_from)",
                               static_cast<double>(memory_) / (1 << 20),
                               static_cast<double>(least) / (1 << 20)));
}

// On the worker. The rank computes and communicates but for two quiets, one for the skeleton and
// one for the last differences.
Outgoing Mover::export_live(const Connect& where, const core::ExportRequest& plain) {
    schedule_ordinarily();
    const Identity& who = parts_.who;
    std::optional<Error> unfit;
    core::LiveExportRequest request;
    request.root = plain.root;
    request.externals = plain.externals;
    request.criu = plain.criu;
    request.huge = huge_;
    request.metadata = schema::to_json(who.metadata(where.seq));
    request.final_metadata = [this] { return final_metadata(turns_.stdio()); };
    request.leave_stopped = true;
    // By auto what rounds cannot bring down is sent in the last stop: by stop all of it would be.
    if (where.live_from) request.longest_us = std::numeric_limits<int64_t>::max();
    request.quiet = [&](int64_t wait_us) -> Result<bool> {
        const auto wish = turns_.wish();
        if (wish == LiveTurns::Wish::connected)
            worker_.say(Connected{where.seq, who.rank, sharing_.parts, memory_});
        if (wish == LiveTurns::Wish::converged) worker_.say(Converged{where.seq, who.rank});
        auto quiet = turns_.wait(wait_us);
        if (!quiet || !*quiet) return quiet;
        if (Status fine = check(plain); !fine) {
            unfit = fine.error();
            return *unfit;
        }
        auto locks = core::exclusive_locks_of(plain.root);
        if (!locks) return locks.error();
        if (!locks->empty())
            return because(Code::unsupported, "it has an exclusive lock of a file",
                           locks->front().path);
        return true;
    };
    request.go_on = [&] {
        turns_.end();
        worker_.say(Sketched{where.seq});
    };
    request.progress = [this](uint64_t bytes, uint64_t total) { worker_.note(bytes, total); };
    request.gets_on = [this] { worker_.gets_on(); };
    worker_.uses(target_->fd());
    auto sent = core::live_export(request, *target_);
    worker_.uses(-1);
    tracking_ = std::move(sent.tracking);
    if (sent.outcome == core::LiveOutcome::exported)
        if (Status fine = exported(); !fine)
            return who.failed(where.seq, Stage::exporting, fine.error().message());
    if (unfit) return who.failed(where.seq, Stage::check, unfit->message());
    if (sent.outcome != core::LiveOutcome::exported) return live_failed(where.seq, *sent.error);
    return Exported{.seq = where.seq,
                    .rank = who.rank,
                    .bytes = sent.stats.bytes,
                    .rounds = static_cast<uint64_t>(sent.stats.rounds) + 1,
                    .frozen_us = sent.stats.stop,
                    .skeleton_us = sent.stats.skeleton_stop};
}

// On the worker: everything has gone over, the rank is stopped.
Status Mover::exported() const {
    GHOST_TRY(fault::pass(P::init_exported, fault::Process{parts_.root}));
    return fault::pass(P::wrapper_exported);
}

// By stop and copy it may be possible.
Outgoing Mover::live_failed(uint64_t seq, const Error& error) const {
    const bool stops_do =
        error.code == Code::unsupported || error.code == Code::busy || error.code == Code::refused;
    return parts_.who.failed(seq, stops_do ? Stage::live : Stage::exporting, error.message());
}

void Mover::worker_done() {
    const bool ended = worker_.ended();  // first: what it says before that is heard
    while (auto message = worker_.heard()) heard(*message);
    if (!worker_.busy() || !ended) return;
    finished(worker_.finish());
    if (waiting_) connect(*std::exchange(waiting_, std::nullopt));
}

void Mover::heard(const Outgoing& said) {
    if (std::holds_alternative<Connected>(said)) {
        if (state_ != S::connecting || !change(S::connected)) return;
        live_ = true;  // of one by stop it is the last word
    } else if (std::holds_alternative<Sketched>(said)) {
        if (state_ != S::exporting || !change(S::copying)) return;
        if (std::exchange(carried_, false)) parts_.stdio.uncarry();
    } else if (state_ != S::exporting && state_ != S::copying) {
        return;
    }
    parts_.tell(said);
}

void Mover::finished(const Outgoing& answer) {
    if (std::holds_alternative<std::monostate>(answer)) return;
    const bool off = state_ == S::calling_off;
    const bool connected = std::holds_alternative<Connected>(answer) && !off;
    if (!connected) drop_connection();
    if (off) {
        if (change(S::idle)) resume(*std::exchange(last_order_, std::nullopt));
        return;
    }
    const bool exported = std::holds_alternative<Exported>(answer);
    if (!change(connected ? S::connected : exported ? S::exported : S::idle)) return;
    parts_.tell(answer);
    // A failed export leaves the tree running; its agent waits for `resume` all the same.
    if (state_ == S::idle && std::exchange(carried_, false)) parts_.stdio.uncarry();
}

void Mover::call_off(const schema::Received& order) {
    if (worker_.busy() && worker_.ended()) worker_done();  // what it has found is why, maybe
    if (worker_.busy()) {
        if (!change(S::calling_off)) return;
        last_order_ = order;
        return break_off();
    }
    if (!may(S::idle)) return;  // decided
    drop_connection();
    if (change(S::idle)) resume(order);
}

// Also right for a tree that another wrapper left half exported, and for one that runs.
void Mover::resume(const schema::Received& order) {
    if (!order.is<Resume>()) return;  // cancelled: the tree was not touched
    (void)fault::pass(P::wrapper_resumes);
    if (const auto given = std::exchange(given_, {}); !given.empty())
        if (Status back = core::take_back(parts_.root, given); !back)
            log::error("rank {}: {}", parts_.who.rank, back.error().message());
    if (Status done = core::resume_tree(parts_.root); !done) {
        log::error("{}", done.error().message());
    }
    if (std::exchange(carried_, false)) parts_.stdio.uncarry();
    wake(order.as<Resume>().agent);
    if (tracking_)  // takes its time
        worker_.start([tracking = std::exchange(tracking_, nullptr)]() -> Outgoing {
            tracking->stay();
            return {};
        });
}

void Mover::wake(const std::optional<AgentThread>& agent) {
    Status woken = wake_agent(parts_.root, agent);
    if (!woken) log::warning("{}", woken.error().message());
}

void Mover::die(uint64_t seq) {
    if (!may(S::leaving)) return parts_.fail(seq_, Stage::ending, "the rank is not exported");
    (void)fault::pass(P::wrapper_leaves);
    seq_ = seq;
    change(S::leaving);
}

// The tree is stopped, so what is not readable now was never written.
void Mover::step() {
    uint64_t bytes = 0, total = 0;
    if (worker_.busy() && worker_.progress(bytes, total)) {
        parts_.tell(TransferProgress{seq_, parts_.who.rank, bytes, total});
    }
    if (state_ != S::leaving || !parts_.stdio.drained()) return;
    if (Status killed = core::kill_tree(parts_.root); !killed) {
        log::warning("{}", killed.error().message());
    }
    // Said before the memory is freed, which takes its time: the tree can do nothing any more.
    if (!change(S::gone)) return;
    parts_.tell(parts_.stdio.output_given());
    parts_.tell(Gone{seq_});
    tracking_.reset();
}

void Mover::break_off() {
    if (!worker_.busy()) return;
    worker_.interrupt();
    if (sharers_) sharers_->call_off();
    turns_.call_off();
}

}  // namespace ghost::plugin
