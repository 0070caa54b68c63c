// SPDX-License-Identifier: BSD-3-Clause
#include "ghost-core/memory/copy_before_write.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <fmt/format.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/scheduling.hpp"
#include "ghost-core/format/host.hpp"
#include "ghost-core/memory/remote_read.hpp"

namespace ghost::core {
namespace {

// What is copied and let through at once. One fault costs some 10 us, copying so much another 15.
constexpr uint64_t window_bytes = 64 << 10;
constexpr size_t windows_at_once = 16;     // by copy_rest()
constexpr uint64_t piece_bytes = 8 << 20;  // protected in one go: who maps memory waits
constexpr useconds_t busy_us = 20;         // between two tries while the memory map changes

Error given_back(pid_t pid) {
    return make_error(Code::busy, "copy memory of process", std::to_string(pid),
                      "it was given back before");
}

}  // namespace

CopyBeforeWrite::CopyBeforeWrite()
    : bell_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)), thread_([this] { serve(); }) {
    // The processes wait for it.
    const sched_param lowest = lowest_of(SCHED_RR);
    pthread_setschedparam(thread_.native_handle(), SCHED_RR, &lowest);
}

CopyBeforeWrite::~CopyBeforeWrite() {
    give_up();
    for (const auto& process : processes_)
        for (const auto& area : process->areas)
            for (const auto& piece : process->scan->populated(area, piece_bytes))
                while (unprotect(*process, piece) == Answer::later) usleep(busy_us);
    stopping_ = true;
    wake();
    thread_.join();
}

void CopyBeforeWrite::wake() const {
    const uint64_t one = 1;
    if (write(bell_.get(), &one, sizeof one) < 0) return;  // full: it is awake
}

CopyBeforeWrite::Process* CopyBeforeWrite::find(int inner_pid) const {
    for (const auto& process : processes_)
        if (process->inner == inner_pid) return process.get();
    return nullptr;
}

Status CopyBeforeWrite::arm(int inner_pid, pid_t pid, Fd userfault, Workers& workers,
                            PageChanges& there) {
    uffdio_api api{};
    api.api = UFFD_API;
    api.features = UFFD_FEATURE_PAGEFAULT_FLAG_WP | UFFD_FEATURE_EVENT_REMAP;
    if (ioctl(userfault.get(), UFFDIO_API, &api) != 0)
        return sys_error("protect memory of process", std::to_string(pid));
    auto areas = private_memory(pid);
    if (!areas) return areas.error();
    auto scan = PageScan::open(pid, PageScan::Protection::notifying);
    if (!scan) return scan.error();
    auto made = std::make_unique<Process>();
    auto& process = *made;
    process.inner = inner_pid;
    process.pid = pid;
    process.userfault = std::move(userfault);
    process.scan = std::move(*scan);
    PageRuns pieces;
    for (const auto& area : *areas) {
        uffdio_register place{};
        place.range = {area.start, area.bytes};
        place.mode = UFFDIO_REGISTER_MODE_WP;
        // Not: it has changed meanwhile, and is looked at when the process is frozen.
        if (ioctl(process.userfault.get(), UFFDIO_REGISTER, &place) != 0) continue;
        process.areas.push_back(area);
        const auto parts = process.scan->populated(area, piece_bytes);
        pieces.insert(pieces.end(), parts.begin(), parts.end());
    }
    make_set(process.areas);
    {
        std::lock_guard lock(mutex_);
        processes_.push_back(std::move(made));
    }
    wake();
    std::mutex mutex;
    return workers.each(pieces.size(), [&](size_t i) -> Status {
        protect(inner_pid, pieces[i]);
        std::vector<PageScan::Found> found;
        GHOST_TRY(process.scan->present(pieces[i], found));
        std::lock_guard lock(mutex);
        add_found(found, there);
        return {};
    });
}

bool CopyBeforeWrite::protect(int inner_pid, const PageRun& part) const {
    uffdio_writeprotect request{};
    request.range = {part.start, part.bytes};
    request.mode = UFFDIO_WRITEPROTECT_MODE_WP;
    const int userfault = find(inner_pid)->userfault.get();
    while (ioctl(userfault, UFFDIO_WRITEPROTECT, &request) != 0) {
        if (errno != EAGAIN) return false;
        usleep(busy_us);
    }
    return true;
}

CopyBeforeWrite::Answer CopyBeforeWrite::unprotect(const Process& process, const PageRun& run) {
    uffdio_writeprotect request{};
    request.range = {run.start, run.bytes};
    if (ioctl(process.userfault.get(), UFFDIO_WRITEPROTECT, &request) == 0) return Answer::done;
    if (errno == EAGAIN) return Answer::later;
    // Whoever waits there is to find out for himself.
    uffdio_range range{run.start, run.bytes};
    ioctl(process.userfault.get(), UFFDIO_WAKE, &range);
    return Answer::gone;
}

void CopyBeforeWrite::hold() {
    std::lock_guard lock(mutex_);
    mode_ = Mode::holding;
}

bool CopyBeforeWrite::is_armed(int inner_pid, const PageRun& area) const {
    std::lock_guard lock(mutex_);
    const auto* process = find(inner_pid);
    const std::array one{area};
    return process != nullptr && subtract(one, process->areas).empty() &&
           intersect(one, process->doubts).empty();
}

void CopyBeforeWrite::save(int inner_pid, PageRuns contents, const PageRuns& areas,
                           const PageStore& store) {
    std::lock_guard lock(mutex_);
    auto& process = *find(inner_pid);
    process.store = &store;
    auto area = areas.begin();
    for (const auto& run : contents)
        for (uint64_t at = run.start; at < run.end();) {
            while (area->end() <= at) ++area;
            const uint64_t begin = at / window_bytes * window_bytes;
            const uint64_t end = std::min(begin + window_bytes, area->end());
            if (process.windows.empty() || process.windows.back().end() < end)
                process.windows.push_back(
                    {std::max(begin, area->start), end - std::max(begin, area->start)});
            at = end;
        }
    process.states = std::make_unique<std::atomic<State>[]>(process.windows.size());
    bytes_ += bytes_of(contents);
    process.contents = std::move(contents);
}

void CopyBeforeWrite::go() {
    std::lock_guard lock(mutex_);
    mode_ = Mode::saving;
    for (const auto& one : std::exchange(waiting_, {})) fault(one);
}

void CopyBeforeWrite::give_up() {
    std::lock_guard lock(mutex_);
    mode_ = Mode::open;
    for (const auto& one : std::exchange(waiting_, {})) let_through(one);
}

// With the mutex.
void CopyBeforeWrite::fail(const Error& error) {
    if (!failure_) failure_ = error;
    failed_ = true;
    mode_ = Mode::open;
}

void CopyBeforeWrite::serve() {
    pthread_setname_np(pthread_self(), "ghost-save");
    while (!stopping_) {
        std::vector<pollfd> places{{bell_.get(), POLLIN, 0}};
        bool soon = false;
        {
            std::lock_guard lock(mutex_);
            for (const auto& process : processes_)
                places.push_back({process->userfault.get(), POLLIN, 0});
            soon = !again_.empty();
        }
        if (poll(places.data(), places.size(), soon ? 1 : -1) < 0 && errno != EINTR) return;
        uint64_t rings = 0;
        if (read(bell_.get(), &rings, sizeof rings) < 0) rings = 0;
        std::lock_guard lock(mutex_);
        for (const auto& one : std::exchange(again_, {})) fault(one);
        for (const auto& process : processes_) read_events(*process);
    }
}

void CopyBeforeWrite::read_events(Process& process) {
    std::array<uffd_msg, 16> events;
    ssize_t got = 0;
    while ((got = read(process.userfault.get(), events.data(), sizeof events)) > 0)
        for (size_t i = 0; i < static_cast<size_t>(got) / sizeof(uffd_msg); i++) {
            const auto& event = events[i];
            if (event.event == UFFD_EVENT_PAGEFAULT) {
                const uint64_t page = event.arg.pagefault.address & ~uint64_t{this_page_size() - 1};
                fault({&process, page, {}});
            } else if (event.event == UFFD_EVENT_REMAP) {
                const auto& move = event.arg.remap;
                moved(process, {move.from, move.len}, {move.to, move.len});
            }
        }
}

// With the mutex, as what follows.
void CopyBeforeWrite::fault(const Fault& fault) {
    switch (mode_) {
        case Mode::open:
            return let_through(fault);
        case Mode::holding:
            return waiting_.push_back(fault);
        case Mode::saving:
            return save_first(fault);
    }
}

void CopyBeforeWrite::let_through(const Fault& fault) {
    const auto& process = *fault.process;
    PageRun run{fault.page, this_page_size()};
    if (mode_ == Mode::open) {
        const uint64_t begin = fault.page / window_bytes * window_bytes;
        const auto around = cut(process.areas, begin, begin + window_bytes);
        for (const auto& part : around)
            if (part.start <= fault.page && fault.page < part.end()) run = part;
    }
    if (unprotect(process, run) == Answer::later) again_.push_back(fault);
}

void CopyBeforeWrite::save_first(const Fault& fault) {
    auto& process = *fault.process;
    size_t at = 0;
    if (fault.window) {
        at = *fault.window;
    } else {
        const auto after = std::upper_bound(
            process.windows.begin(), process.windows.end(), fault.page,
            [](uint64_t page, const PageRun& window) { return page < window.start; });
        const bool found = after != process.windows.begin() && fault.page < std::prev(after)->end();
        if (!found) return let_through(fault);  // nothing worth saving there
        at = static_cast<size_t>(std::prev(after) - process.windows.begin());
        auto state = State::kept;
        if (!process.states[at].compare_exchange_strong(state, State::busy)) {
            // Being copied, whoever does it wakes the one who waits.
            if (state == State::copied) let_through(fault);
            return;
        }
        if (auto done = copy(process, {at}); !done.ok()) {
            fail(done.error());
            return let_through(fault);
        }
        faulted_ +=
            bytes_of(cut(process.contents, process.windows[at].start, process.windows[at].end()));
    }
    if (unprotect(process, process.windows[at]) == Answer::later)
        again_.push_back({&process, fault.page, at});
    else
        process.states[at] = State::copied;  // also if it has gone since
}

void CopyBeforeWrite::moved(Process& process, const PageRun& from, const PageRun& to) {
    process.doubts = unite(process.doubts, PageRuns{from});
    process.doubts = unite(process.doubts, PageRuns{to});
    if (mode_ != Mode::saving) return;
    for (size_t i = 0; i < process.windows.size(); i++) {
        const auto& window = process.windows[i];
        const auto touches = [&](const PageRun& run) {
            return run.start < window.end() && window.start < run.end();
        };
        if ((!touches(from) && !touches(to)) || process.states[i] == State::copied) continue;
        return fail(given_back(process.pid));
    }
}

// All of these are ours alone. Pages that have gone, or that others have taken the place of, are
// not protected any more: nobody else protects.
Status CopyBeforeWrite::copy(const Process& process, const std::vector<size_t>& windows) const {
    std::vector<PagePiece> pieces;
    PageRuns contents;
    for (const size_t i : windows) {
        const auto part = cut(process.contents, process.windows[i].start, process.windows[i].end());
        process.store->locate(part, pieces);
        for (const auto& run : part) append(contents, run.start, run.end());
    }
    if (pieces.empty()) return {};
    if (!read_pages(process.pid, pieces, Vanished::is_error).ok()) return given_back(process.pid);
    PageRuns unprotected;
    const PageRun all{contents.front().start, contents.back().end() - contents.front().start};
    auto scanned = process.scan->maybe_written(all, unprotected);
    if (!scanned) return scanned.error();
    if (!intersect(contents, unprotected).empty()) return given_back(process.pid);
    return {};
}

// After they were copied: what has gone by now was there. Those that lie one behind the other at
// once. False: somebody else has failed.
bool CopyBeforeWrite::unprotect_all(const Process& process,
                                    const std::vector<size_t>& windows) const {
    PageRuns runs;
    for (const size_t i : windows) append(runs, process.windows[i].start, process.windows[i].end());
    for (const auto& run : runs)
        while (unprotect(process, run) == Answer::later) {
            if (failed_) return false;
            usleep(busy_us);
        }
    return true;
}

Status CopyBeforeWrite::copy_batch(Process& process, size_t first, size_t last,
                                   const std::function<bool(uint64_t bytes)>& watch) {
    std::vector<size_t> ours;
    uint64_t bytes = 0;
    for (size_t i = first; i < last; i++) {
        auto state = State::kept;
        if (!process.states[i].compare_exchange_strong(state, State::busy)) continue;
        ours.push_back(i);
        bytes +=
            bytes_of(cut(process.contents, process.windows[i].start, process.windows[i].end()));
    }
    if (failed_ || ours.empty()) return {};
    GHOST_TRY(copy(process, ours));
    if (!unprotect_all(process, ours)) return {};
    {
        std::lock_guard lock(mutex_);
        for (const size_t i : ours) process.states[i] = State::copied;
    }
    if (watch && !watch(bytes))
        return make_error(Code::refused, "copy memory", {}, "it was called off");
    return {};
}

Status CopyBeforeWrite::copy_rest(Workers& workers,
                                  const std::function<bool(uint64_t bytes)>& watch) {
    struct Batch {
        Process* process = nullptr;
        size_t first = 0, last = 0;
    };
    std::vector<Batch> batches;
    for (const auto& process : processes_)
        for (size_t i = 0; i < process->windows.size(); i += windows_at_once)
            batches.push_back(
                {process.get(), i, std::min(i + windows_at_once, process->windows.size())});
    auto status = workers.each(batches.size(), [&](size_t i) {
        auto done = copy_batch(*batches[i].process, batches[i].first, batches[i].last, watch);
        if (done.ok()) return done;
        std::lock_guard lock(mutex_);
        fail(done.error());
        return done;
    });
    // The last ones may be with the thread that answers.
    for (const auto& process : processes_)
        for (size_t i = 0; i < process->windows.size() && !failed_; i++)
            while (process->states[i] != State::copied && !failed_) usleep(busy_us);
    // What failed first: after that nothing is protected, and what the others miss is not the
    // tree's doing.
    std::lock_guard lock(mutex_);
    if (failure_) return *failure_;
    return status;
}

}  // namespace ghost::core
