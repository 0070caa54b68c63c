// SPDX-License-Identifier: BSD-3-Clause
#include "ghost-core/memory/post_copy.hpp"

#include <algorithm>
#include <cerrno>
#include <fmt/format.h>
#include <linux/userfaultfd.h>
#include <optional>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <unistd.h>
#include <utility>

#include "base/clock.hpp"
#include "ghost-core/format/host.hpp"

namespace ghost::core {
namespace {

constexpr uint64_t background_piece = 256 << 10;
// Brought with a page that is asked for: more while the process goes on where it was.
constexpr uint64_t least_window = 32 << 10, most_window = 256 << 10;
constexpr int tick_ms = 100;
// While a process is in a call that changes its memory (until its event has been read and it has
// gone on) nothing can be put there.
constexpr useconds_t changing_us = 50;

}  // namespace

MissingPages::MissingPages(const PageRuns& pages) {
    for (const auto& run : pages) pieces_[run.start] = {run.start, run.bytes, run.start};
}

MissingPages::Piece MissingPages::find(uint64_t start, uint64_t bytes) const {
    auto at = pieces_.upper_bound(start);
    if (at != pieces_.begin()) {
        const auto& before = std::prev(at)->second;
        if (before.start + before.bytes > start) --at;
    }
    if (at == pieces_.end() || at->second.start >= start + bytes) return {};
    const auto& piece = at->second;
    const uint64_t from = std::max(piece.start, start);
    const uint64_t until = std::min(piece.start + piece.bytes, start + bytes);
    return {from, until - from, piece.original + (from - piece.start)};
}

MissingPages::Piece MissingPages::next(uint64_t start, uint64_t most) const {
    if (pieces_.empty()) return {};
    auto piece = find(start, UINT64_MAX - start);
    if (piece.bytes == 0) piece = pieces_.begin()->second;
    piece.bytes = std::min(piece.bytes, most);
    return piece;
}

void MissingPages::remove(uint64_t start, uint64_t bytes) {
    for (auto gone = find(start, bytes); gone.bytes > 0; gone = find(start, bytes)) {
        const auto at = std::prev(pieces_.upper_bound(gone.start));
        const Piece whole = at->second;
        pieces_.erase(at);
        if (whole.start < gone.start)
            pieces_[whole.start] = {whole.start, gone.start - whole.start, whole.original};
        const uint64_t end = gone.start + gone.bytes, all = whole.start + whole.bytes;
        if (end < all) pieces_[end] = {end, all - end, whole.original + (end - whole.start)};
    }
}

void MissingPages::move(uint64_t from, uint64_t to, uint64_t bytes) {
    std::vector<Piece> moved;
    for (auto piece = find(from, bytes); piece.bytes > 0; piece = find(from, bytes)) {
        remove(piece.start, piece.bytes);
        piece.start = piece.start - from + to;
        moved.push_back(piece);
    }
    remove(to, bytes);
    for (const auto& piece : moved) pieces_[piece.start] = piece;
}

uint64_t MissingPages::bytes() const {
    uint64_t sum = 0;
    for (const auto& [start, piece] : pieces_) sum += piece.bytes;
    return sum;
}

// The lock is what makes removed memory stay empty: with it an event of the kernel is read and what
// it means is noted, and with it a page is put after a look whether it is still missing. The
// process waits in its system call until the event is read.
struct PostCopy::Process {
    int inner_pid = 0;
    Fd userfault;
    std::mutex mutex;
    MissingPages missing;
    uint64_t last_fault = 0, window = least_window;  // of the serving thread
    // Faults that could not be answered, also its: who waits for them is not woken, or would ask
    // again at once, and faults are read before events (userfaultfd(2)).
    std::vector<uint64_t> unanswered;
    std::atomic<uint64_t> cursor = 0;  // where the background goes on
};

PostCopy::PostCopy(PageProvider& provider)
    : provider_(provider), wake_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {}

PostCopy::~PostCopy() {
    stop();
    if (server_.joinable()) server_.join();
    if (filler_.joinable()) filler_.join();
}

void PostCopy::add(int inner_pid, Fd userfault) {
    auto process = std::make_shared<Process>();
    process->inner_pid = inner_pid;
    process->userfault = std::move(userfault);
    process->missing = MissingPages(provider_.pages(inner_pid));
    {
        std::lock_guard lock(mutex_);
        processes_.push_back(std::move(process));
        if (!server_.joinable()) server_ = std::thread([this] { serve(); });
    }
    eventfd_write(wake_.get(), 1);
}

Status PostCopy::watched_by(FaultKeeper& keeper) {
    for (const auto& process : processes()) GHOST_TRY(keeper.keep(process->userfault.get()));
    keeper_ = &keeper;
    return {};
}

void PostCopy::all_there() {
    std::lock_guard lock(mutex_);
    all_there_ = true;
    if (!filler_.joinable()) filler_ = std::thread([this] { fill(); });
}

std::vector<PostCopy::ProcessPointer> PostCopy::processes() {
    std::lock_guard lock(mutex_);
    return processes_;
}

void PostCopy::fail(Error error) {
    std::lock_guard lock(mutex_);
    if (!failure_ && !complete_) failure_ = std::move(error);
    changed_.notify_all();
}

void PostCopy::stop() {
    if (!stopping_.exchange(true))
        fail(make_error(Code::refused, "bring all pages", {}, "it was given up"));
    eventfd_write(wake_.get(), 1);
}

Status PostCopy::wait() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return complete_ || failure_; });
    if (failure_) return *failure_;
    return {};
}

PostCopy::Stats PostCopy::stats() const {
    return {faults_, demand_bytes_, background_bytes_, longest_us_};
}

// The thread that answers faults.
void PostCopy::serve() {
    while (!stopping_) {
        const auto all = processes();
        std::vector<pollfd> polls = {{wake_.get(), POLLIN, 0}};
        for (const auto& process : all) polls.push_back({process->userfault.get(), POLLIN, 0});
        const bool again = std::any_of(all.begin(), all.end(), [](const ProcessPointer& process) {
            return !process->unanswered.empty();
        });
        if (again) usleep(changing_us);
        if (poll(polls.data(), polls.size(), again ? 0 : tick_ms) < 0 && errno != EINTR)
            return fail(sys_error("wait for faults"));
        eventfd_t value = 0;
        if (polls[0].revents != 0) eventfd_read(wake_.get(), &value);
        for (size_t i = 0; i < all.size(); i++)
            if ((polls[i + 1].revents & POLLIN) != 0 || !all[i]->unanswered.empty())
                if (auto status = hear(all[i]); !status.ok()) return fail(status.error());
        std::lock_guard lock(mutex_);
        if (!complete_) continue;
        processes_.clear();  // closes the userfaultfds: what is missing now is zero
        if (auto* keeper = keeper_.load(); keeper != nullptr) keeper->let_go();
        return;
    }
}

Status PostCopy::hear(const ProcessPointer& process) {
    GHOST_TRY(hear_all(process));
    for (const auto page : std::exchange(process->unanswered, {})) GHOST_TRY(answer(process, page));
    return {};
}

Status PostCopy::hear_all(const ProcessPointer& process) {
    for (;;) {
        uffd_msg message{};
        {
            std::lock_guard lock(process->mutex);
            if (read(process->userfault.get(), &message, sizeof message) != sizeof message)
                return {};
            if (message.event == UFFD_EVENT_REMOVE || message.event == UFFD_EVENT_UNMAP)
                process->missing.remove(message.arg.remove.start,
                                        message.arg.remove.end - message.arg.remove.start);
            if (message.event == UFFD_EVENT_REMAP)
                process->missing.move(message.arg.remap.from, message.arg.remap.to,
                                      message.arg.remap.len);
            if (message.event == UFFD_EVENT_FORK) {
                auto child = std::make_shared<Process>();
                child->inner_pid = process->inner_pid;  // the provider knows it by this
                child->userfault.reset(static_cast<int>(message.arg.fork.ufd));
                child->missing = process->missing;
                if (auto* keeper = keeper_.load(); keeper != nullptr)
                    GHOST_TRY(keeper->keep(child->userfault.get()));
                // Before anybody can see that nothing is missing in its parent: see fill().
                std::lock_guard all(mutex_);
                processes_.push_back(std::move(child));
            }
        }
        if (message.event == UFFD_EVENT_PAGEFAULT)
            GHOST_TRY(answer(process, message.arg.pagefault.address));
    }
}

Status PostCopy::answer(const ProcessPointer& process, uint64_t address) {
    const int64_t begin = monotonic_us();
    const uint64_t page = address & ~uint64_t{this_page_size() - 1};
    const bool goes_on = page - process->last_fault <= 2 * process->window;
    process->window = goes_on ? std::min(2 * process->window, most_window) : least_window;
    process->last_fault = page;
    // While criu still makes the mappings, those around may not be there yet.
    const uint64_t window = all_there_ ? process->window : this_page_size();
    MissingPages::Piece asked, around;
    {
        std::lock_guard lock(process->mutex);
        asked = process->missing.find(page, this_page_size());
        around = process->missing.find(page, window);
        if (asked.bytes == 0) return put_zero(*process, page);
    }
    std::vector<char> buffer(around.bytes);
    auto done = bring(*process, around, buffer.data(), Changing::is_left);
    if (!done) return done.error();
    demand_bytes_ += *done;
    process->cursor = around.start + around.bytes;
    if (*done == 0) {
        process->unanswered.push_back(page);  // an event has to be read first
        return {};
    }
    faults_++;
    longest_us_ = std::max<int64_t>(longest_us_, monotonic_us() - begin);
    return {};
}

// Returns how many bytes from its begin on are settled.
Result<uint64_t> PostCopy::bring(Process& process, const MissingPages::Piece& piece, char* buffer,
                                 Changing changing) {
    GHOST_TRY(provider_.read(process.inner_pid, {piece.original, piece.bytes}, buffer));
    uint64_t at = 0;
    while (at < piece.bytes) {
        // What has gone meanwhile is left out; so a piece may have fallen into several.
        std::unique_lock lock(process.mutex);
        const auto now = process.missing.find(piece.start + at, piece.bytes - at);
        if (now.bytes == 0 || now.original != piece.original + (now.start - piece.start))
            return piece.bytes;
        const uint64_t before = now.start - piece.start;
        auto done = put(process, now, buffer + before);
        if (!done) return done.error();
        process.missing.remove(now.start, *done);
        at = before + *done;
        if (*done == now.bytes) continue;
        if (changing == Changing::is_left || stopping_) break;
        lock.unlock();
        usleep(changing_us);
    }
    return at;
}

// With the lock held. Returns how much is done; EAGAIN means that an event waits to be read, for
// which the lock is needed.
Result<uint64_t> PostCopy::put(Process& process, const MissingPages::Piece& piece,
                               const char* content) {
    const uint64_t page = this_page_size();
    uint64_t done = 0;
    for (uint64_t length = piece.bytes; done < piece.bytes;) {
        uffdio_copy request{};
        request.dst = piece.start + done;
        request.src = reinterpret_cast<uint64_t>(content + done);
        request.len = std::min(length, piece.bytes - done);
        if (ioctl(process.userfault.get(), UFFDIO_COPY, &request) == 0) {
            done += request.len;
            length = piece.bytes;
        } else if (request.copy > 0) {
            done += static_cast<uint64_t>(request.copy);
        } else if (errno == EAGAIN) {
            break;
        } else if (errno == EEXIST) {
            uffdio_range range{request.dst, page};
            ioctl(process.userfault.get(), UFFDIO_WAKE, &range);
            done += page;
        } else if (errno == ESRCH) {
            return piece.bytes;  // it has ended
        } else if (errno != ENOENT) {
            return sys_error(fmt::format("put page {:#x}", request.dst));
        } else if (request.len > page) {
            length =
                std::max<uint64_t>(page, request.len / 2 / page * page);  // up to the mapping's end
        } else if (!all_there_) {
            break;
        } else {
            done += page;  // no longer mapped
        }
    }
    return done;
}

Status PostCopy::put_zero(Process& process, uint64_t page) {
    uffdio_zeropage request{};
    request.range = {page, this_page_size()};
    while (ioctl(process.userfault.get(), UFFDIO_ZEROPAGE, &request) != 0) {
        if (errno == EAGAIN) {
            process.unanswered.push_back(page);
            return {};
        }
        if (errno == EEXIST) ioctl(process.userfault.get(), UFFDIO_WAKE, &request.range);
        if (errno == EEXIST || errno == ENOENT || errno == ESRCH) return {};
        return sys_error(fmt::format("put zero page {:#x}", page));
    }
    return {};
}

// The thread of the background.
void PostCopy::fill() {
    std::vector<char> buffer(background_piece);
    while (!stopping_) {
        bool any = false;
        const auto all = processes();
        for (const auto& process : all) {
            MissingPages::Piece piece;
            {
                std::lock_guard lock(process->mutex);
                piece = process->missing.next(process->cursor, background_piece);
            }
            if (piece.bytes == 0) continue;
            any = true;
            auto done = bring(*process, piece, buffer.data(), Changing::is_waited_for);
            if (!done) return fail(done.error());
            background_bytes_ += *done;
            process->cursor = piece.start + *done;
        }
        if (any) continue;
        std::lock_guard lock(mutex_);
        if (processes_.size() != all.size()) continue;  // a child has come, and may miss pages
        complete_ = !failure_;
        changed_.notify_all();
        eventfd_write(wake_.get(), 1);
        return;
    }
}

}  // namespace ghost::core
