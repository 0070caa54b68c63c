// SPDX-License-Identifier: BSD-3-Clause
#include <algorithm>
#include <cerrno>
#include <condition_variable>
#include <cstring>
#include <ctime>
#include <fcntl.h>
#include <fmt/format.h>
#include <linux/userfaultfd.h>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/clock.hpp"
#include "base/fault.hpp"
#include "base/fd.hpp"
#include "base/json_text.hpp"
#include "base/log.hpp"
#include "ghost-core/engine/live.hpp"
#include "ghost-core/engine/live_link.hpp"
#include "ghost-core/memory/fault_keeper.hpp"
#include "ghost-core/memory/page_set.hpp"
#include "ghost-core/memory/post_copy.hpp"
#include "ghost-core/criu/ptrace_session.hpp"
#include "ghost-core/criu/kernel_state.hpp"
#include "ghost-core/criu/restore.hpp"
#include "ghost-core/criu/realtime_priority.hpp"

namespace ghost::core {
namespace {

constexpr int clock_samples = 5;  // as live_export tells
constexpr int64_t hold_limit_us = 2000000;
constexpr size_t pieces_at_once = 512;     // process_vm_writev(2) takes 1024
constexpr uint64_t small_bytes = 1 << 16;  // less is zeroed faster by writing than by a call
constexpr uint64_t page_bytes = 4096;
constexpr uint64_t deferred_step = 256 << 10;  // asked for at once, at most; live_export limits it
constexpr uint64_t map_flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE;

// For a message.
std::string first_unlike(const std::vector<OwnMapping>& here,
                         const std::vector<OwnMapping>& there) {
    const auto text = [](const std::vector<OwnMapping>& list, size_t at) {
        if (at >= list.size()) return std::string("none");
        return fmt::format("{:x}-{:x} access {} kind {}", list[at].start, list[at].end,
                           list[at].access, list[at].kind);
    };
    size_t at = 0;
    while (at < here.size() && at < there.size() && here[at] == there[at]) at++;
    return fmt::format("{} here, {} there", text(here, at), text(there, at));
}

// One process of the held tree.
struct Copy {
    const PtraceSession::Process* process = nullptr;
    Fd memory;  // /proc/PID/mem
    OwnMappings maps;
    std::vector<OpenFile> files;
    std::vector<ThreadState> threads;  // as they are to go on
    PageRuns deferred;                 // pages that follow
    std::vector<OpenFile> new_files;
};

// The pages that the source's tree has and ours has not. The link is theirs once it is open.
class DeferredPages : public PageProvider {
  public:
    explicit DeferredPages(LiveLink& link) : link_(link) {}
    void add(int inner_pid, const PageRuns& pages) { pages_[inner_pid] = pages; }
    const std::map<int, PageRuns>& all() const { return pages_; }
    // Until one of these whoever wants a page waits.
    void open() { become(Link::open); }
    void close() { become(Link::closed); }

    PageRuns pages(int inner_pid) override {
        const auto found = pages_.find(inner_pid);
        return found == pages_.end() ? PageRuns() : found->second;
    }
    Status read(int inner_pid, const PageRun& run, char* to) override {
        for (uint64_t done = 0; done < run.bytes; done += deferred_step)
            GHOST_TRY(fetch(inner_pid,
                            {run.start + done, std::min<uint64_t>(run.bytes - done, deferred_step)},
                            to + done));
        return {};
    }

  private:
    enum class Link { others, open, closed };
    void become(Link state) {
        const std::lock_guard lock(mutex_);
        state_ = state;
        changed_.notify_all();
    }
    Status fetch(int inner_pid, PageRun run, char* to) {
        std::unique_lock lock(mutex_);
        changed_.wait(lock, [this] { return state_ != Link::others; });
        if (state_ == Link::closed)
            return make_error(Code::refused, "bring all pages", {}, "it was given up");
        GHOST_TRY(link_.send(LiveMessageType::want, inner_pid, 1, 0, {{&run, sizeof run}}));
        auto answer = link_.expect(LiveMessageType::deferred);
        if (!answer) return answer.error();
        auto which = answer->list<PageRun>();
        if (!which || which->size() != 1 || !(which->front() == run) ||
            answer->payload.size() != sizeof run + run.bytes)
            return answer->damaged();
        std::memcpy(to, answer->payload.data() + sizeof run, run.bytes);
        return {};
    }

    LiveLink& link_;
    std::mutex mutex_;
    std::condition_variable changed_;
    Link state_ = Link::others;
    std::map<int, PageRuns> pages_;  // by inner pid; before the first read()
};

class Target {
  public:
    Target(const LiveImportRequest& request, Resource& link) : request_(request), link_(link) {}
    ~Target() { drop(); }
    Target(const Target&) = delete;
    Target& operator=(const Target&) = delete;

    Result<LiveImport> run();
    Result<HeldTree> run_held();

  private:
    enum class Next { go_on, anew, done, held };

    Status until(Next end);
    Status ask_clocks();
    Status hold();
    Status make(GhostPart& part);
    bool comes_anew(Status& status);
    Error given_up(const std::string& why) const;
    Status grasp();
    Result<Next> serve();
    Status apply(const LiveLink::Message& message);
    Status mappings(Copy& copy, const LiveLink::Message& message);
    Status look_again(Copy& copy);
    Status change(Copy& copy, const std::vector<OwnMapping>& wanted);
    Status pages(Copy& copy, const LiveLink::Message& message);
    Status zero(Copy& copy, const LiveLink::Message& message);
    Status state(Copy& copy, const LiveLink::Message& message);
    Status synced();
    Status settle();
    Status settle_files(Copy& copy);
    Status release();
    Status leave();
    Status make_room(Copy& copy);
    Status fill_deferred();
    void let_clocks_pass() const;
    void write_runs(Copy& copy, const PageRun* runs, size_t count, const char* contents);
    void write_by_force(Copy& copy, const PageRun& run, const char* contents);
    Status call(Copy& copy, const char* what, long number, uint64_t a, uint64_t b, uint64_t c = 0,
                uint64_t d = 0, uint64_t e = 0, uint64_t f = 0);
    void drop();

    const LiveImportRequest& request_;
    LiveLink link_;
    ClockShift shift_;
    int64_t lag_ns_ = 0;        // what the held tree's clocks are behind that
    int64_t frozen_at_us_ = 0;  // when the source's was heard to be frozen
    HeldTree held_;
    std::optional<PtraceSession> session_;
    std::map<int, Copy> copies_;
    std::vector<FailedRun> failed_;
    bool begins_anew_ = false;     // the ghost that was being made has no rest
    bool source_gave_up_ = false;  // and nothing comes in its place
    bool may_be_deferred_ = false;
    std::optional<FaultKeeper> keeper_;
    // Of pages that follow, from settle() on.
    std::unique_ptr<DeferredPages> deferred_;
    std::unique_ptr<PostCopy> post_copy_;
    Next end_ = Next::done;  // what is waited for
    bool last_ = false;      // what comes now is the last state, and has to fit
    std::optional<RealtimePriority> realtime_;
    std::optional<Error> misfit_;
    ReleaseTimes times_;
    LiveImport out_;
};

// The tree's clocks have to go on at the source's pace: its clock now, by the quickest answer, and
// rather too late than too early: they must not run back.
Status Target::ask_clocks() {
    int64_t best = INT64_MAX;
    for (int i = 0; i < clock_samples; i++) {
        const int64_t monotonic = now_ns(CLOCK_MONOTONIC), boottime = now_ns(CLOCK_BOOTTIME);
        GHOST_TRY(link_.send(LiveMessageType::ask_clock));
        auto answer = link_.expect(LiveMessageType::clock);
        if (!answer) return answer.error();
        const int64_t trip = now_ns(CLOCK_MONOTONIC) - monotonic;
        auto sample = answer->list<ClockSample>();
        if (!sample || sample->size() != 1) return answer->damaged();
        may_be_deferred_ = answer->head.number != 0;
        if (may_be_deferred_ && i == 0) GHOST_TRY(check_pages_may_follow());
        if (trip >= best) continue;
        best = trip;
        // Its answer was given between 0 and `trip` after ours was read.
        shift_.monotonic_ns = sample->front().monotonic_ns - monotonic;
        shift_.boottime_ns = sample->front().boottime_ns - boottime;
    }
    return {};
}

Status Target::hold() {
    GhostPart part(link_);
    Status made = make(part);
    begins_anew_ = part.begins_anew();
    source_gave_up_ = part.given_up().has_value();
    return source_gave_up_ ? given_up(*part.given_up()) : made;
}

Status Target::make(GhostPart& part) {
    const int64_t begin = monotonic_us();
    auto importer = Importer::open(part);
    if (!importer) return importer.error();
    std::vector<InheritFd> inherit;
    if (request_.inherit) {
        auto ends = request_.inherit(importer->known());
        if (!ends) return ends.error();
        inherit = std::move(*ends);
    }
    if (request_.inherit_by_all) {
        auto ends = request_.inherit_by_all(importer->metadata());
        if (!ends) return ends.error();
        inherit = std::move(*ends);
    }
    importer->set_clocks(shift_.monotonic_ns, shift_.boottime_ns);
    importer->take_time();
    importer->tell_root(request_.tells_root);
    importer->tell_steps(request_.gets_on);
    if (may_be_deferred_) importer->keep_userfaults();
    auto held = importer->hold(request_.criu, inherit, request_.progress);
    if (!held) return held.error();
    held_ = *held;
    if (out_.held_us == 0) out_.held_us = monotonic_us() - begin;
    out_.bytes += held_.bytes;
    at_point("target: made");
    return grasp();
}

// From now on the tree ends with this thread.
Status Target::grasp() {
    const auto offsets = tree_offsets(held_.root);
    lag_ns_ = std::max(shift_.monotonic_ns - offsets.monotonic_ns,
                       shift_.boottime_ns - offsets.boottime_ns);
    // It keeps its raised priority (stopped_tree.hpp) until it goes: it has to answer our calls at
    // once.
    auto session =
        PtraceSession::take(held_.root, PtraceSession::numbers(held_.root), hold_limit_us);
    if (!session) return session.error();
    session_.emplace(std::move(*session));
    GHOST_TRY(session_->end_with_us());
    GHOST_TRY(session_->unstop());
    if (may_be_deferred_) {
        auto keeper = FaultKeeper::start(held_.root);
        if (!keeper) return keeper.error();
        keeper_.emplace(std::move(*keeper));
    }
    for (const auto& process : session_->processes()) {
        auto& copy = copies_[process.inner];
        copy.process = &process;
        copy.memory.reset(
            open(fmt::format("/proc/{}/mem", process.pid).c_str(), O_RDWR | O_CLOEXEC));
        if (!copy.memory) return sys_error("open memory of process", std::to_string(process.pid));
        auto maps = own_mappings(process.pid);
        if (!maps) return maps.error();
        copy.maps = std::move(*maps);
        auto files = open_files(process.pid);
        if (!files) return files.error();
        copy.files = std::move(*files);
    }
    return {};
}

void Target::drop() {
    copies_.clear();
    if (held_.root != 0) calm_tree(held_.root);
    if (session_) session_->kill_tree();
    session_.reset();
    destroy_tree(held_);
    if (deferred_) deferred_->close();
    post_copy_.reset();
    deferred_.reset();
    keeper_.reset();
    failed_.clear();
    last_ = false;
    misfit_.reset();
}

Status Target::call(Copy& copy, const char* what, long number, uint64_t a, uint64_t b, uint64_t c,
                    uint64_t d, uint64_t e, uint64_t f) {
    auto answer = session_->call(*copy.process, number, a, b, c, d, e, f);
    if (!answer) return answer.error();
    if (*answer < 0 && *answer > -4096)
        return sys_error_of(static_cast<int>(-*answer), fmt::format("{} at {:#x}", what, a));
    return {};
}

// Makes the process's own mappings those wanted.
Status Target::change(Copy& copy, const std::vector<OwnMapping>& wanted) {
    const auto now = copy.maps.list;
    std::vector<uint64_t> ends;
    for (const auto* list : {&now, &wanted})
        for (const auto& map : *list) ends.insert(ends.end(), {map.start, map.end});
    std::sort(ends.begin(), ends.end());
    ends.erase(std::unique(ends.begin(), ends.end()), ends.end());
    enum class Do { unmap, map, protect, grow };
    struct Step {
        Do what;
        uint64_t start, end, access;
    };
    std::vector<Step> steps;
    const auto add = [&steps](Do what, uint64_t start, uint64_t end, uint64_t access) {
        if (!steps.empty() && steps.back().what == what && steps.back().end == start &&
            steps.back().access == access)
            steps.back().end = end;
        else
            steps.push_back({what, start, end, access});
    };
    size_t i = 0, k = 0;
    for (size_t at = 0; at + 1 < ends.size(); at++) {
        const uint64_t start = ends[at], end = ends[at + 1];
        while (i < wanted.size() && wanted[i].end <= start) i++;
        while (k < now.size() && now[k].end <= start) k++;
        const auto* to = i < wanted.size() && wanted[i].start <= start ? &wanted[i] : nullptr;
        const auto* from = k < now.size() && now[k].start <= start ? &now[k] : nullptr;
        if (to == nullptr && from != nullptr) add(Do::unmap, start, end, 0);
        if (to != nullptr && from == nullptr)
            add(to->kind == own_stack ? Do::grow : Do::map, start, end, to->access);
        if (to != nullptr && from != nullptr && to->access != from->access)
            add(Do::protect, start, end, to->access);
    }
    if (steps.empty()) return {};
    for (const auto& step : steps) {
        const uint64_t bytes = step.end - step.start;
        if (step.what == Do::unmap) GHOST_TRY(call(copy, "unmap", SYS_munmap, step.start, bytes));
    }
    for (const auto& step : steps) {
        const uint64_t bytes = step.end - step.start;
        if (step.what == Do::map)
            GHOST_TRY(call(copy, "map", SYS_mmap, step.start, bytes, step.access, map_flags,
                           ~uint64_t{0}, 0));
        if (step.what == Do::protect)
            GHOST_TRY(call(copy, "protect", SYS_mprotect, step.start, bytes, step.access));
        // The kernel lets a stack grow when something is written there.
        if (step.what == Do::grow)
            GHOST_TRY(call(copy, "grow stack", SYS_clock_gettime, CLOCK_REALTIME, step.start));
    }
    return {};
}

Status Target::look_again(Copy& copy) {
    auto maps = own_mappings(copy.process->pid);
    if (!maps) return maps.error();
    copy.maps = std::move(*maps);
    return {};
}

Status Target::mappings(Copy& copy, const LiveLink::Message& message) {
    auto wanted = message.list<OwnMapping>();
    if (!wanted) return wanted.error();
    for (const auto& map : *wanted)
        if (map.start >= map.end || map.start % page_bytes != 0 || map.end % page_bytes != 0 ||
            map.access > 7)
            return message.damaged();
    const uint64_t heap = message.head.number;
    if (heap != 0 && heap != copy.maps.heap_end) {
        auto moved = call(copy, "move break", SYS_brk, heap, 0);
        GHOST_TRY(look_again(copy));
        GHOST_TRY(moved);
    }
    if (copy.maps.list != *wanted) {
        auto changed = change(copy, *wanted);
        GHOST_TRY(look_again(copy));
        if (!changed.ok()) return changed;
    }
    if (last_ && copy.maps.list != *wanted && !misfit_)
        misfit_ = because(Code::internal, "mappings cannot be made the same: " +
                                              first_unlike(copy.maps.list, *wanted));
    return {};
}

void Target::write_by_force(Copy& copy, const PageRun& run, const char* contents) {
    for (uint64_t done = 0; done < run.bytes;) {
        const auto wrote = pwrite(copy.memory.get(), contents + done, run.bytes - done,
                                  static_cast<off_t>(run.start + done));
        if (wrote > 0) {
            done += static_cast<uint64_t>(wrote);
            continue;
        }
        const uint64_t page = std::min(run.bytes - done, page_bytes);
        failed_.push_back({copy.process->inner, {run.start + done, page}});
        done += page;
    }
}

void Target::write_runs(Copy& copy, const PageRun* runs, size_t count, const char* contents) {
    std::array<iovec, pieces_at_once> places;
    for (size_t at = 0; at < count;) {
        const size_t part = std::min(count - at, pieces_at_once);
        uint64_t bytes = 0;
        for (size_t i = 0; i < part; i++) {
            places[i] = {reinterpret_cast<void*>(runs[at + i].start), runs[at + i].bytes};
            bytes += runs[at + i].bytes;
        }
        const iovec from{const_cast<char*>(contents), bytes};
        auto wrote = process_vm_writev(copy.process->pid, &from, 1, places.data(), part, 0);
        uint64_t left = wrote > 0 ? static_cast<uint64_t>(wrote) : 0;  // of what is done
        for (size_t i = 0; i < part; i++) {
            const auto& run = runs[at + i];
            const uint64_t done = std::min(left, run.bytes);
            left -= done;
            // what the process itself may not write, or has no place
            if (done < run.bytes)
                write_by_force(copy, {run.start + done, run.bytes - done}, contents + done);
            contents += run.bytes;
        }
        at += part;
    }
}

Status Target::pages(Copy& copy, const LiveLink::Message& message) {
    auto runs = message.list<PageRun>();
    if (!runs) return runs.error();
    uint64_t bytes = runs->size() * sizeof(PageRun);
    for (const auto& run : *runs) {
        if (run.bytes > message_limit) return message.damaged();
        bytes += run.bytes;
    }
    if (bytes != message.payload.size()) return message.damaged();
    write_runs(copy, runs->data(), runs->size(),
               message.payload.data() + runs->size() * sizeof(PageRun));
    out_.bytes += bytes;
    return {};
}

// Only where there is memory: what is not mapped reads as nothing anyway.
Status Target::zero(Copy& copy, const LiveLink::Message& message) {
    auto runs = message.list<PageRun>();
    if (!runs) return runs.error();
    static const std::vector<char> zeros(small_bytes);
    const size_t failed = failed_.size();
    make_set(*runs);
    for (const auto& run : intersect(*runs, copy.maps.areas())) {
        if (run.bytes < small_bytes)
            write_by_force(copy, run, zeros.data());
        else
            GHOST_TRY(call(copy, "empty", SYS_madvise, run.start, run.bytes, MADV_DONTNEED));
    }
    failed_.resize(std::min(failed_.size(), failed));
    return {};
}

Status Target::state(Copy& copy, const LiveLink::Message& message) {
    std::string_view rest;
    auto threads = unpack_threads(message, rest);
    if (!threads) return threads.error();
    if (message.head.number > rest.size() / sizeof(OpenFile)) return message.damaged();
    copy.threads = std::move(*threads);
    copy.new_files.resize(message.head.number);
    std::memcpy(copy.new_files.data(), rest.data(), message.head.number * sizeof(OpenFile));
    return {};
}

Status Target::synced() {
    last_ = false;
    misfit_.reset();
    auto status = link_.send(LiveMessageType::synced, 0, failed_.size(), 0,
                             {{failed_.data(), failed_.size() * sizeof(FailedRun)}});
    failed_.clear();
    return status;
}

Status Target::settle_files(Copy& copy) {
    if (copy.files.size() != copy.new_files.size())
        return because(Code::internal, "descriptors differ");
    for (size_t i = 0; i < copy.files.size(); i++) {
        const auto &old = copy.files[i], &now = copy.new_files[i];
        if (old.number != now.number) return because(Code::internal, "descriptors differ");
        const auto number = static_cast<uint64_t>(now.number);
        if (now.seekable != 0 && old.offset != now.offset)
            GHOST_TRY(call(copy, "seek", SYS_lseek, number, now.offset, SEEK_SET));
        if (((old.flags ^ now.flags) & ~uint32_t{O_CLOEXEC}) != 0)
            GHOST_TRY(call(copy, "set flags", SYS_fcntl, number, F_SETFL, now.flags));
    }
    copy.files = copy.new_files;
    return {};
}

// The pages that follow are missing from now on: who touches one waits for it. Nothing of them may
// be touched before somebody answers.
Status Target::make_room(Copy& copy) {
    if (copy.deferred.empty()) return {};
    const auto found = held_.userfaults->find(copy.process->inner);
    if (found == held_.userfaults->end())
        return make_error(Code::unsupported, "bring pages later", {},
                          "a process has no userfaultfd");
    for (const auto& run : copy.deferred)
        GHOST_TRY(call(copy, "empty", SYS_madvise, run.start, run.bytes, MADV_DONTNEED));
    for (const auto& map : copy.maps.list) {
        const PageRuns area = {{map.start, map.end - map.start}};
        if (intersect(area, copy.deferred).empty()) continue;
        uffdio_register request{};
        request.range = {map.start, map.end - map.start};
        request.mode = UFFDIO_REGISTER_MODE_MISSING;
        if (ioctl(found->second.get(), UFFDIO_REGISTER, &request) != 0)
            return sys_error(fmt::format("leave memory at {:#x} missing", map.start));
    }
    if (!deferred_) deferred_ = std::make_unique<DeferredPages>(link_);
    deferred_->add(copy.process->inner, copy.deferred);
    return {};
}

// Everything has come: the threads get their state, and are ready to go.
Status Target::settle() {
    if (misfit_) return *misfit_;
    if (!failed_.empty())
        return because(Code::internal,
                       fmt::format("page {:#x} has no place", failed_.front().run.start));
    for (auto& [inner, copy] : copies_) {
        GHOST_TRY(settle_files(copy));
        GHOST_TRY(make_room(copy));
        if (copy.threads.size() != copy.process->threads.size())
            return because(Code::internal, "threads differ");
        for (const auto& thread : copy.process->threads) {
            const auto state =
                std::find_if(copy.threads.begin(), copy.threads.end(),
                             [&](const ThreadState& one) { return one.inner_tid == thread.inner; });
            if (state == copy.threads.end()) return because(Code::internal, "threads differ");
            GHOST_TRY(session_->set_state(thread, *state));
        }
    }
    // Of memory that is still missing none is needed for that (Source::used_at_once).
    if (end_ == Next::done) session_->take_up_waits(held_.placement->threads);
    if (!deferred_) return {};
    post_copy_ = std::make_unique<PostCopy>(*deferred_);
    for (const auto& [inner, pages] : deferred_->all())
        post_copy_->add(inner, std::move((*held_.userfaults)[inner]));
    return post_copy_->watched_by(*keeper_);
}

Status Target::apply(const LiveLink::Message& message) {
    const auto found = copies_.find(message.head.inner_pid);
    if (found == copies_.end()) return message.damaged();
    auto& copy = found->second;
    const int64_t begin = monotonic_us();
    Status status;
    switch (message.type()) {
        case LiveMessageType::mappings:
            status = mappings(copy, message);
            times_.mappings += monotonic_us() - begin;
            break;
        case LiveMessageType::pages:
            status = pages(copy, message);
            times_.pages += monotonic_us() - begin;
            break;
        case LiveMessageType::zero:
            status = zero(copy, message);
            times_.pages += monotonic_us() - begin;
            break;
        default:
            status = state(copy, message);
            break;
    }
    // What does not fit while the source runs may be because it runs.
    if (!status.ok() && !last_ && status.error().code == Code::io) {
        log::debug("live: {}", status.error().message());
        return {};
    }
    if (!status.ok() && last_ && status.error().code == Code::io) {
        if (!misfit_) misfit_ = status.error();
        return {};
    }
    return status;
}

// criu sets the clocks by what it reads, and on a busy machine it may have read late; that cannot
// be changed any more. They must not run back, so the tree is frozen a little longer.
void Target::let_clocks_pass() const {
    const int64_t missing = lag_ns_ / 1000 - (monotonic_us() - frozen_at_us_);
    if (missing <= 0) return;
    log::debug("live: clocks are {} us behind", missing);
    usleep(static_cast<useconds_t>(std::min<int64_t>(missing, 999999)));
}

// The decision has been made: it runs here.
Status Target::release() {
    at_point("target: committed");
    if (request_.release) GHOST_TRY(request_.release());
    at_point("target: recorded");
    let_clocks_pass();
    const int64_t begin = monotonic_us();
    session_->leave_stopped([this](const PtraceSession::Process& process) {
        return was_stopped(process.inner, held_.placement->threads);
    });
    times_.release = monotonic_us() - begin;
    out_.root = std::exchange(held_.root, 0);
    out_.huge = std::exchange(held_.huge, nullptr);
    if (auto tasks = list_tree(out_.root)) {
        give_settings(*tasks, held_.placement->settings);
        place(*tasks, *held_.placement);
    }
    session_.reset();
    copies_.clear();
    at_point("target: released");
    // The source's affair from here on: it finds out by the caller's record otherwise.
    if (auto told = link_.send(LiveMessageType::released, 0, 1, 0, {{&times_, sizeof times_}});
        !told.ok())
        log::warning("live: the tree runs, the source could not be told: {}",
                     told.error().message());
    return deferred_ ? fill_deferred() : Status();
}

// As Importer::hold() leaves one: stopped, and nobody's.
Status Target::leave() {
    let_clocks_pass();
    session_->leave_stopped();
    session_.reset();
    copies_.clear();
    return {};
}

// The tree runs; what it lacks is brought. If that fails it is ended: it could only stay frozen.
Status Target::fill_deferred() {
    at_point("target: pages follow");
    deferred_->open();
    post_copy_->all_there();
    auto status = post_copy_->wait();
    if (!status.ok()) {
        held_.root = out_.root;
        return make_error(status.error().code, "bring all pages", {},
                          "the tree has been ended: " + status.error().message());
    }
    const auto stats = post_copy_->stats();
    out_.bytes += stats.demand_bytes + stats.background_bytes;
    at_point("target: complete");
    DeferredStats said{stats.faults, stats.demand_bytes, stats.longest_us};
    if (auto told = link_.send(LiveMessageType::complete, 0, 1, 0, {{&said, sizeof said}});
        !told.ok())
        log::warning("live: the tree is whole, the source could not be told: {}",
                     told.error().message());
    return {};
}

// The source's tree runs while a round is taken in, and so may others here: only waiting, so that
// the last stop is noticed at once, and the last stop itself go before them.
Result<Target::Next> Target::serve() {
    if (!realtime_) realtime_.emplace();
    auto message = link_.receive();
    if (!message) return message.error();
    if (!last_ && message->type() != LiveMessageType::last) realtime_.reset();
    switch (message->type()) {
        case LiveMessageType::mappings:
        case LiveMessageType::pages:
        case LiveMessageType::zero:
        case LiveMessageType::state:
            GHOST_TRY(apply(*message));
            return Next::go_on;
        case LiveMessageType::missing: {
            const auto found = copies_.find(message->head.inner_pid);
            auto runs = message->list<PageRun>();
            if (found == copies_.end() || !runs || !last_ || !may_be_deferred_)
                return message->damaged();
            found->second.deferred.insert(found->second.deferred.end(), runs->begin(), runs->end());
            return Next::go_on;
        }
        case LiveMessageType::placement: {
            auto placement = decode_placement(message->payload);
            if (!placement) return message->damaged();
            held_.placement = std::make_shared<TreePlacement>(std::move(*placement));
            return Next::go_on;
        }
        case LiveMessageType::sync:
            GHOST_TRY(
                fault::pass(fault::Point::pages_received_round, [this] { link_.interrupt(); }));
            GHOST_TRY(synced());
            return Next::go_on;
        case LiveMessageType::last:
            last_ = true;
            frozen_at_us_ = monotonic_us();
            times_ = {};
            for (auto& [inner, copy] : copies_) copy.deferred.clear();
            return Next::go_on;
        case LiveMessageType::settled: {
            const int64_t begin = monotonic_us();
            GHOST_TRY(
                fault::pass(fault::Point::pages_received_last, [this] { link_.interrupt(); }));
            GHOST_TRY(settle());
            times_.state += monotonic_us() - begin;
            if (end_ == Next::held) GHOST_TRY(leave());
            at_point("target: ready");
            GHOST_TRY(link_.send(LiveMessageType::ready));
            return end_ == Next::held ? Next::held : Next::go_on;
        }
        case LiveMessageType::metadata:
            if (!request_.last_metadata) return Next::go_on;
            GHOST_TRY(request_.last_metadata(parse_json(message->payload)));
            return Next::go_on;
        case LiveMessageType::commit:
            GHOST_TRY(release());
            return Next::done;
        case LiveMessageType::anew:
            return Next::anew;
        case LiveMessageType::give_up:
            return given_up(message->payload);
        default:
            return message->damaged();
    }
}

// The source, told why its skeleton does not come to life here, may take another one: that it has
// of a tree that has removed what it had meanwhile.
bool Target::comes_anew(Status& status) {
    if (!link_.send_text(LiveMessageType::refused, status.error().message()).ok()) return false;
    for (;;) {
        auto next = link_.receive();
        if (!next) return false;
        const bool rest =
            next->type() == LiveMessageType::ghost || next->type() == LiveMessageType::ghost_end;
        if (rest) continue;
        if (next->type() == LiveMessageType::give_up && end_ == Next::held)
            status = given_up(next->payload);
        return next->type() == LiveMessageType::anew;
    }
}

// Whoever holds for somebody else is told why the source does, and may try in another way.
Error Target::given_up(const std::string& why) const {
    if (end_ == Next::held) return because(Code::busy, why);
    return because(Code::refused, "the source gives up: " + why);
}

// On an error nothing is left, and the source knows.
Status Target::until(Next end) {
    end_ = end;
    Status status = ask_clocks();
    while (status.ok()) {
        status = hold();
        if (!status.ok() && !source_gave_up_ && (begins_anew_ || comes_anew(status))) {
            drop();
            status = {};
            continue;
        }
        if (status.ok()) status = link_.send(LiveMessageType::held);
        if (!status.ok()) break;
        at_point("target: held");
        Next next = Next::go_on;
        while (status.ok() && next == Next::go_on) {
            auto served = serve();
            if (served)
                next = *served;
            else
                status = served.error();
        }
        realtime_.reset();
        if (status.ok() && next == end) return {};
        drop();
    }
    drop();
    link_.send_text(LiveMessageType::refused, status.error().message()).ok();
    return status;
}

Result<LiveImport> Target::run() {
    GHOST_TRY(until(Next::done));
    if (out_.huge) out_.huge->start();
    return out_;
}

Result<HeldTree> Target::run_held() {
    GHOST_TRY(until(Next::held));
    HeldTree out = std::exchange(held_, {});
    out.bytes = out_.bytes;
    return out;
}

}  // namespace

Result<LiveImport> live_import(const LiveImportRequest& request, Resource& link) {
    return Target(request, link).run();
}

Result<HeldTree> live_hold(const LiveImportRequest& request, Resource& link) {
    return Target(request, link).run_held();
}

}  // namespace ghost::core
