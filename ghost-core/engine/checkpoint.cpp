// SPDX-License-Identifier: BSD-3-Clause
#include "ghost-core/engine/checkpoint.hpp"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <future>
#include <iterator>
#include <mutex>
#include <optional>
#include <pthread.h>
#include <thread>
#include <utility>

#include "base/clock.hpp"
#include "base/log.hpp"
#include "base/scheduling.hpp"
#include "ghost-core/format/host.hpp"
#include "ghost-core/format/writer.hpp"
#include "ghost-core/engine/page_writer.hpp"
#include "ghost-core/engine/tree_facts.hpp"
#include "ghost-core/memory/arena.hpp"
#include "ghost-core/memory/memory_copy.hpp"
#include "ghost-core/criu/dump.hpp"
#include "ghost-core/criu/stopped_tree.hpp"
#include "ghost-core/criu/realtime_priority.hpp"

namespace ghost::core {
namespace {

// While the tree may be stopped and is waited for: so much more time is between two rounds than
// they take, up to a limit; and as much as it takes until there is something to copy, up to
// another.
constexpr int64_t rest_parts = 4;
constexpr int64_t longest_rest_us = 50'000;
constexpr double rest_bytes = 1 << 20;  // 0.3 ms of the stop
constexpr int64_t longest_wait_us = 100'000;

std::vector<ProcessName> processes_of(const std::vector<Task>& tasks) {
    std::vector<ProcessName> out;
    for (const auto& task : tasks)
        if (task.state != 'Z' && task.state != 'X') out.push_back({task.inner, task.pid});
    return out;
}

Result<std::vector<ProcessName>> processes_of(pid_t root) {
    auto tasks = list_tree(root);
    if (!tasks) return tasks.error();
    return processes_of(*tasks);
}

// A dump that waits for its checkpoint. What it calls is put in when that has begun.
struct ReadyDump {
    struct Hooks {
        std::function<Status()> before_stop, on_stopped, before_release;
        std::function<Result<PageRuns>(pid_t)> guards;
    };
    DumpRequest request;
    std::shared_ptr<Hooks> hooks;
    TreeDump dump;

    static Result<ReadyDump> prepare(const CheckpointRequest& wanted) {
        auto hooks = std::make_shared<Hooks>();
        DumpRequest what;
        what.root = wanted.root;
        what.externals = wanted.externals;
        what.criu = wanted.criu;
        what.short_stop = true;
        what.leave_running = !wanted.leave_stopped;
        what.before_stop = [hooks] { return hooks->before_stop ? hooks->before_stop() : Status(); };
        what.on_stopped = [hooks] { return hooks->on_stopped(); };
        what.before_release = [hooks] { return hooks->before_release(); };
        what.guards = [hooks](pid_t pid) { return hooks->guards(pid); };
        auto dump = TreeDump::prepare(what);
        if (!dump) return dump.error();
        return ReadyDump{std::move(what), std::move(hooks), std::move(*dump)};
    }
    bool fits(const CheckpointRequest& wanted) const {
        return request.root == wanted.root && request.externals == wanted.externals &&
               request.criu.program == wanted.criu.program &&
               request.criu.work_dir == wanted.criu.work_dir &&
               request.criu.limit_s == wanted.criu.limit_s &&
               request.leave_running != wanted.leave_stopped;
    }
};

}  // namespace

struct Checkpointer::State {
    Workers workers;
    Arena arena;
    MemoryCopy copy{arena, workers};
    pid_t root = 0;                   // of the tree that is tracked; 0: none
    std::optional<ParentRef> parent;  // its last ghost
    int64_t parent_us = 0;            // when that was written (monotonic)
    pid_t gives_back = 0;             // of the tree that did so before it was copied; 0: none
    std::optional<ReadyDump> ready;
    std::unique_ptr<HugePages> huge_pages;  // null: none, or tracking goes on

    void forget() {
        ready.reset();
        copy.release();
        root = 0;
        parent.reset();
    }
    // No tracking follows: what that has taken out of huge pages is put back.
    void end_tracking() {
        forget();
        huge_pages = std::make_unique<HugePages>();
        copy.name_huge(*huge_pages);
        huge_pages->start();
    }
};

namespace {

// One checkpoint. The object's own thread is the caller's; rounds have one beside it.
class Checkpoint {
  public:
    Checkpoint(const CheckpointRequest& request, MemoryCopy& copy, Workers& workers,
               std::optional<ParentRef> parent, int64_t parent_us, std::optional<ReadyDump> ready)
        : request_(request),
          copy_(copy),
          workers_(workers),
          parent_(std::move(parent)),
          dump_(std::move(ready)),
          rule_(request.rounds) {
        if (parent_) rule_.goes_on_after(std::max<int64_t>(monotonic_us() - parent_us, 1));
    }

    Result<CheckpointStats> run(Resource& out) {
        const int64_t begin = monotonic_us();
        // Where the ghost is to be in memory, pages are put there at once.
        const Leave leave{copy_};
        GHOST_TRY(get_ready(out.space()));
        GHOST_TRY(freeze());
        const int64_t resumed = monotonic_us();
        stats_.copy_us = resumed - begin - stats_.pause_us;
        if (request_.captured) request_.captured(stats_);
        GHOST_TRY(copy_deferred());
        // Beside the writing: it takes a quarter of the time of copying everything.
        std::jthread release;
        if (!request_.keep_tracking)
            release = std::jthread([this] { copy_.release(); });
        else if (copy_.is_deferred())
            release = std::jthread([this] { copy_.end_deferring(); });
        if (auto written = write(out); !written.ok()) {
            if (request_.leave_stopped)
                if (auto runs = resume_tree(request_.root); !runs.ok())
                    log::warning("after a failed checkpoint: {}", runs.error().message());
            return written.error();
        }
        stats_.write_us = monotonic_us() - resumed;
        if (release.joinable()) release.join();
        stats_.total_us = monotonic_us() - begin;
        return stats_;
    }

  private:
    struct Leave {
        MemoryCopy& copy;
        ~Leave() { copy.leave(); }
    };

    // criu gets ready while the first round goes on.
    Status get_ready(Space* into) {
        auto processes = processes_of(request_.root);
        if (!processes) return processes.error();
        if (!dump_) {
            auto dump = ReadyDump::prepare(request_);
            if (!dump) return dump.error();
            dump_.emplace(std::move(*dump));
        }
        *dump_->hooks = {[this] { return before_stop(); }, [this] { return stopped(); },
                         [this] { return still_stopped(); },
                         [this](pid_t pid) { return guards_of(pid); }};
        looked_ = std::async(std::launch::async,
                             [this] { return facts_.look(request_.root, Ghosts::are_kept); });
        head_.parent = parent_;
        copy_.watch(request_.copying);
        copy_.begin(parent_.has_value(), into);
        GHOST_TRY(copy_.track(*processes));
        for (const auto& [inner, process] : copy_.processes())
            if (process.untracked)
                log::info("checkpoint: process {} is copied while it is frozen: {}", inner,
                          process.untracked->message());
        // Everything, or what was written since the parent.
        const int64_t begin = monotonic_us();
        GHOST_TRY(round());
        stats_.first_us = monotonic_us() - begin;
        return copy_.prepare();
    }

    Status round() {
        const int64_t begin = monotonic_us(), before = std::exchange(round_at_, begin);
        auto round = copy_.round();
        if (!round) return round.error();
        if (before != 0)
            rate_ = static_cast<double>(round->bytes) * 1e6 /
                    static_cast<double>(std::max<int64_t>(begin - before, 1));
        stats_.rounds++;
        stats_.round_bytes += round->bytes;
        round_us_ = round->us;
        verdict_ = rule_.after_round(round->bytes, round->us);
        return {};
    }

    // Rounds until the tree may be frozen, and then until somebody wants it to.
    Status rounds_until_wanted() {
        while (!wanted_) {
            if (verdict_ != StoppingRule::Verdict::go_on) {
                if (!settled_) GHOST_TRY(put_off());
                if (copy_.is_deferred()) return {};
                settle();
                rest();
            }
            if (wanted_) break;
            GHOST_TRY(round());
        }
        return {};
    }

    // Leaves it all until the tree runs again, if it is better so.
    Status put_off() {
        if (request_.leave_stopped || rule_.estimated_downtime_us() <= request_.defer_above_us)
            return {};
        auto deferred = copy_.defer();
        if (deferred.ok() || copy_.is_deferred()) return deferred;
        stats_.not_deferred = deferred.error().message();
        log::info("checkpoint: the tree writes fast and will be frozen longer: {}",
                  stats_.not_deferred);
        return {};
    }

    Status copy_deferred() {
        if (!copy_.is_deferred()) return {};
        const int64_t begin = monotonic_us();
        GHOST_TRY(copy_.complete());
        const auto done = copy_.deferred();
        stats_.deferred_bytes = done.bytes;
        stats_.faulted_bytes = done.faulted;
        stats_.deferred_us = monotonic_us() - begin;
        log::debug(
            "checkpoint: {} bytes copied deferred in {} us, {} because they were to be written",
            done.bytes, stats_.deferred_us, done.faulted);
        return {};
    }

    void settle() {
        {
            std::lock_guard lock(wanted_mutex_);
            settled_ = true;
        }
        wanted_changed_.notify_all();
    }

    void do_rounds() {
        rounds_status_ = rounds_until_wanted();
        settle();
    }

    void wait_until_settled() {
        std::unique_lock lock(wanted_mutex_);
        wanted_changed_.wait(lock, [this] { return settled_; });
    }

    void rest() {
        auto us = std::max(request_.rest_us, std::min(rest_parts * round_us_, longest_rest_us));
        if (rate_ >= 0) {
            const auto quiet = static_cast<int64_t>(
                std::min<double>(rest_bytes / std::max(rate_, 1.0) * 1e6, longest_wait_us));
            us = std::max(us, quiet);
        }
        std::unique_lock lock(wanted_mutex_);
        wanted_changed_.wait_for(lock, std::chrono::microseconds(us),
                                 [this] { return bool(wanted_); });
    }

    // The round that goes on is the last, and ought to be through before the tree is frozen: among
    // neighbours that spin it would wait for a processor, and the tree for it.
    void end_rounds() {
        {
            std::lock_guard lock(wanted_mutex_);
            wanted_ = true;
        }
        wanted_changed_.notify_all();
        if (!rounds_.joinable()) return;
        const sched_param lowest = lowest_of(SCHED_RR);
        pthread_setschedparam(rounds_.native_handle(), SCHED_RR, &lowest);
        workers_.raise_priority();
    }

    // The thread of the rounds ends before the last differences are read.
    void join() {
        end_rounds();
        if (!rounds_.joinable()) return;
        rounds_.join();
        workers_.lower_priority();
    }

    Status before_stop() {
        wait_until_settled();
        Status order = request_.wait_to_freeze ? request_.wait_to_freeze() : Status();
        end_rounds();
        return order;
    }

    Status stopped() {
        const int64_t begin = monotonic_us();
        GHOST_TRY(facts_.stopped());
        join();
        stats_.join_us = monotonic_us() - begin;
        GHOST_TRY(rounds_status_);
        const StoppedTree& tree = dump_->dump.stopped_tree();
        auto last = copy_.finish(processes_of(tree.tasks()), *realtime_,
                                 [&tree](pid_t pid) { return tree.maps(pid); });
        if (!last) return last.error();
        stats_.last_bytes = last->bytes;
        stats_.scan_us = last->scan_us;
        stats_.memory_us = monotonic_us() - begin;
        return {};
    }

    Result<PageRuns> guards_of(pid_t pid) const {
        for (const auto& [inner, process] : copy_.processes())
            if (process.pid == pid) return process.guards;
        return make_error(Code::internal, "find guard pages of process", std::to_string(pid));
    }

    Status still_stopped() { return request_.while_stopped ? request_.while_stopped() : Status(); }

    Status freeze() {
        rounds_ = std::thread([this] { do_rounds(); });  // criu has its last look meanwhile
        auto done = [&] {
            const RealtimePriority urgent;
            realtime_.emplace();
            return dump_->dump.run(skeleton_);
        }();
        join();
        realtime_.reset();
        if (!done) return done.error();
        const DumpTimes& t = done->times;
        log::debug(
            "checkpoint: frozen {} us: stop {}, seize {}, skeleton {}, hooks {}, release {}, "
            "resume {}; memory {} in it, of that join {}, scan {}",
            t.frozen, t.stop, t.seize, t.skeleton, t.hooks, t.release, t.resume, stats_.memory_us,
            stats_.join_us, stats_.scan_us);
        stats_.dirty_rate = rule_.dirty_rate();
        stats_.pause_us = done->times.frozen;
        stats_.skeleton_us = done->times.skeleton;
        stats_.ahead_us = done->times.ahead;
        stats_.skeleton_bytes = done->skeleton_bytes;
        wanted_pages_ = std::move(done->pages);
        return {};
    }

    Status write_skeleton(GhostWriter& writer) {
        int number = 0;
        if (request_.final_files)
            std::ranges::move(request_.final_files(), std::back_inserter(skeleton_));
        for (const auto& [name, content] : skeleton_)
            GHOST_TRY(writer.skeleton_file(number++, name, content));
        const auto huge = copy_.huge();
        return huge.empty() ? Status()
                            : writer.skeleton_file(number, huge_memory_file, encode(huge));
    }

    Status write(Resource& out) {
        GhostWriter writer(out);
        auto metadata = request_.metadata;
        if (request_.final_metadata) metadata.update(request_.final_metadata());
        GHOST_TRY(looked_.get());
        const auto facts = facts_.by(skeleton_);
        head_.host = facts.host();
        put_needs(facts.needs, metadata);
        head_.metadata = metadata.dump(-1, ' ', false, Json::error_handler_t::replace);
        GHOST_TRY(writer.head(head_));
        GHOST_TRY(write_skeleton(writer));
        const PageWriting pages{&copy_, std::move(wanted_pages_), parent_.has_value(),
                                request_.progress};
        const uint64_t total = bytes_to_write(pages);
        if (request_.progress) request_.progress(0, total);
        GHOST_TRY(writer.skeleton_end(total));
        GHOST_TRY(write_pages(pages, writer, workers_));
        GHOST_TRY(writer.end());
        GHOST_TRY(out.finalize());
        stats_.page_bytes = writer.contents().page_bytes;
        stats_.zero_bytes = writer.contents().zero_bytes;
        stats_.as_parent = writer.as_parent(request_.name);
        return {};
    }

    const CheckpointRequest& request_;
    MemoryCopy& copy_;
    Workers& workers_;
    std::optional<Workers> realtime_;
    const std::optional<ParentRef> parent_;
    std::optional<ReadyDump> dump_;
    StoppingRule rule_;
    int64_t round_us_ = 0;  // of the last one
    int64_t round_at_ = 0;  // when it began; 0: there was none
    double rate_ = -1;      // bytes per second written between the last two; -1: not known yet
    StoppingRule::Verdict verdict_ = StoppingRule::Verdict::go_on;
    GhostHead head_;
    SkeletonFacts facts_;
    std::future<Status> looked_;
    std::thread rounds_;
    std::mutex wanted_mutex_;
    std::condition_variable wanted_changed_;
    std::atomic<bool> wanted_ = false;
    bool settled_ = false;  // the rest is small enough, or does not get smaller
    Status rounds_status_;
    SkeletonFiles skeleton_;
    std::vector<TaskPages> wanted_pages_;
    CheckpointStats stats_;
};

}  // namespace

Checkpointer::Checkpointer() : state_(std::make_unique<State>()) {}

Checkpointer::~Checkpointer() {
    stop_tracking();
}

Result<CheckpointStats> Checkpointer::run(const CheckpointRequest& request, Resource& out) {
    if (request.incremental && !may_be_incremental(request.root))
        return make_error(Code::invalid, "make an incremental checkpoint of tree",
                          std::to_string(request.root), "there was none before");
    state_->huge_pages.reset();
    auto ready = std::exchange(state_->ready, std::nullopt);
    if (ready && !ready->fits(request)) ready.reset();
    if (state_->root != request.root || !request.incremental) state_->forget();
    state_->root = request.root;
    // The tree may need between two checkpoints what the copy of its memory took.
    struct Offered {
        Arena& arena;
        ~Offered() { arena.offer(); }
    } offered{state_->arena};
    auto parent = request.incremental ? state_->parent : std::nullopt;
    auto once = [&](const CheckpointRequest& what) {
        return Checkpoint(what, state_->copy, state_->workers, parent, state_->parent_us,
                          std::exchange(ready, std::nullopt))
            .run(out);
    };
    auto whole = request;
    whole.defer_above_us = CheckpointRequest::never;
    auto stats = once(state_->gives_back == request.root ? whole : request);
    if (!stats && state_->copy.is_deferred() && stats.error().code == Code::busy) {
        state_->gives_back = request.root;
        log::info("checkpoint: {}; it is made the other way", stats.error().message());
        const bool told = request.wait_to_freeze || request.while_stopped || request.captured;
        if (!told) stats = once(whole);
    }
    if (!stats || !request.keep_tracking) {
        state_->end_tracking();
        return stats;
    }
    state_->parent = stats->as_parent;
    state_->parent_us = monotonic_us();
    if (!request.stay_ready || request.leave_stopped) return stats;
    // Without it the next one takes longer, nothing else.
    if (auto next = ReadyDump::prepare(request); next.ok()) state_->ready.emplace(std::move(*next));
    return stats;
}

bool Checkpointer::may_be_incremental(pid_t root) const {
    return root == state_->root && state_->parent.has_value();
}

void Checkpointer::stop_tracking() {
    state_->forget();
}

HugeMemory Checkpointer::huge() const {
    return state_->copy.huge();
}

void Checkpointer::end_tracking() {
    if (state_->root != 0) state_->end_tracking();
}

void Checkpointer::wait_huge_pages() {
    if (state_->huge_pages) state_->huge_pages->wait();
}

void Checkpointer::trim() {
    state_->copy.begin(true);
    state_->arena.clear();
}

void Checkpointer::clear() {
    stop_tracking();
    state_->copy.begin(false);
    state_->arena.clear();
}

uint64_t Checkpointer::held() const {
    return state_->arena.held();
}

}  // namespace ghost::core
