// SPDX-License-Identifier: BSD-3-Clause
#include "ghost-core/memory/userfault.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <fmt/format.h>
#include <linux/userfaultfd.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "ghost-core/format/host.hpp"

namespace ghost::core {

Status check_pages_may_follow() {
    const Fd userfault(static_cast<int>(::syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK)));
    uffdio_api api{};
    api.api = UFFD_API;
    api.features = UFFD_FEATURE_EVENT_FORK;
    if (userfault && ioctl(userfault.get(), UFFDIO_API, &api) == 0) return {};
    return make_error(
        Code::refused, "let a process run here before all of its memory has come", {},
        fmt::format("the kernel gives user {} no userfaultfd for that: {}; without --mode lazy and "
                    "--mode hybrid it can move",
                    ::geteuid(), std::strerror(errno)));
}

void FaultFiller::add(int inner_pid, Fd userfault) {
    std::lock_guard lock(mutex_);
    processes_[inner_pid].userfault = std::move(userfault);
}

std::vector<std::pair<int, int>> FaultFiller::descriptors() {
    std::lock_guard lock(mutex_);
    std::vector<std::pair<int, int>> out;
    for (const auto& [pid, process] : processes_)
        if (process.userfault) out.emplace_back(pid, process.userfault.get());
    return out;
}

Status FaultFiller::handle(int inner_pid) {
    std::lock_guard lock(mutex_);
    auto& process = processes_[inner_pid];
    const uint64_t mask = ~uint64_t{this_page_size() - 1};
    uffd_msg message{};
    while (read(process.userfault.get(), &message, sizeof message) == sizeof message) {
        switch (message.event) {
            case UFFD_EVENT_PAGEFAULT: {
                const uint64_t page = message.arg.pagefault.address & mask;
                if (complete_)
                    GHOST_TRY(zero(process, page));
                else
                    process.faults.insert(page);
                break;
            }
            case UFFD_EVENT_REMOVE:
            case UFFD_EVENT_UNMAP:
                process.removed.push_back(
                    {message.arg.remove.start, message.arg.remove.end - message.arg.remove.start});
                break;
            case UFFD_EVENT_FORK:
                ::close(static_cast<int>(message.arg.fork.ufd));
                return make_error(Code::internal, "restore memory of process",
                                  std::to_string(inner_pid), "it forked while it was held");
            default:
                return make_error(Code::internal, "restore memory of process",
                                  std::to_string(inner_pid),
                                  "it moved its memory while it was held");
        }
    }
    return {};
}

Result<uint64_t> FaultFiller::put(int inner_pid, std::span<const PageRun> runs,
                                  const char* contents, uint64_t done) {
    Process* process = nullptr;
    const bool final = all_there_;
    {
        std::lock_guard lock(mutex_);
        const auto found = processes_.find(inner_pid);
        if (found != processes_.end()) process = &found->second;
    }
    if (process == nullptr && final)
        return make_error(Code::corrupt, "restore memory of a process that is not there",
                          std::to_string(inner_pid));
    if (process == nullptr) return done;
    uint64_t before = 0;  // bytes of the runs before this one
    for (const auto& run : runs) {
        const uint64_t skip = done > before ? std::min(done - before, run.bytes) : 0;
        before += run.bytes;
        if (skip == run.bytes) continue;
        auto copied = copy(*process, run.start + skip, contents + done, run.bytes - skip);
        if (!copied) return copied.error();
        done += *copied;
        filled_ += *copied;
        if (*copied == run.bytes - skip) continue;
        if (final)
            return make_error(Code::internal,
                              fmt::format("restore page {:#x}", run.start + skip + *copied), {},
                              fmt::format("it has no place in process {}", inner_pid));
        break;
    }
    return done;
}

// Returns the bytes copied; fewer than asked for if there is no place for more. The kernel takes a
// piece only if it lies in one mapping, which the process has registered with its userfaultfd; CRIU
// registers late in the restore, some time after it has sent us the descriptor. UFFDIO_COPY may
// also stop because a page is there already (a fault was answered) or the memory map is busy.
Result<uint64_t> FaultFiller::copy(Process& process, uint64_t to, const char* from,
                                   uint64_t bytes) {
    const uint64_t page = this_page_size();
    uint64_t done = 0, piece = bytes;
    while (done < bytes) {
        if (stopped_) return make_error(Code::refused, "restore memory", {}, "given up");
        uffdio_copy request{};
        request.dst = to + done;
        request.src = reinterpret_cast<uint64_t>(from + done);
        request.len = std::min(piece, bytes - done);
        if (ioctl(process.userfault.get(), UFFDIO_COPY, &request) == 0) {
            done += request.len;
            piece = bytes;
        } else if (request.copy > 0) {
            done += static_cast<uint64_t>(request.copy);
        } else if (errno == EAGAIN) {
            sched_yield();
        } else if (errno == EEXIST) {
            done += page;
        } else if (errno != ENOENT) {
            return sys_error(fmt::format("restore page {:#x}", to + done));
        } else if (request.len > page) {
            piece =
                std::max<uint64_t>(page, request.len / 2 / page * page);  // up to the mapping's end
        } else if (was_removed(process, to + done)) {
            done += page;
        } else {
            break;
        }
    }
    return done;
}

Status FaultFiller::zero(Process& process, uint64_t page) {
    for (;;) {
        uffdio_zeropage request{};
        request.range = {page, this_page_size()};
        if (ioctl(process.userfault.get(), UFFDIO_ZEROPAGE, &request) == 0) return {};
        if (errno == EAGAIN) continue;
        if (errno == EEXIST) {
            uffdio_range range{page, this_page_size()};
            ioctl(process.userfault.get(), UFFDIO_WAKE, &range);
            return {};
        }
        if (errno == ENOENT) return {};  // unmapped meanwhile: the kernel answers the reader
        return sys_error(fmt::format("restore zero page {:#x}", page));
    }
}

bool FaultFiller::was_removed(const Process& process, uint64_t page) {
    std::lock_guard lock(mutex_);
    return std::any_of(process.removed.begin(), process.removed.end(), [&](const PageRun& gone) {
        return page >= gone.start && page < gone.start + gone.bytes;
    });
}

Status FaultFiller::complete() {
    std::lock_guard lock(mutex_);
    complete_ = true;
    for (auto& [pid, process] : processes_) {
        if (!process.userfault) continue;
        for (const auto page : process.faults) GHOST_TRY(zero(process, page));
        process.faults.clear();
    }
    return {};
}

void FaultFiller::all_there() {
    all_there_ = true;
}

void FaultFiller::stop() {
    stopped_ = true;
}

void FaultFiller::release() {
    std::lock_guard lock(mutex_);
    processes_.clear();
}

std::map<int, Fd> FaultFiller::hand_over(const std::map<int, PageRuns>& areas) {
    std::map<int, Fd> out;
    std::lock_guard lock(mutex_);
    for (auto& [inner, process] : processes_) {
        const auto found = areas.find(inner);
        if (found == areas.end() || !process.userfault) continue;
        const bool free =
            std::all_of(found->second.begin(), found->second.end(), [&](const PageRun& area) {
                uffdio_range range{area.start, area.bytes};
                return ioctl(process.userfault.get(), UFFDIO_UNREGISTER, &range) == 0;
            });
        if (free) out[inner] = std::move(process.userfault);
    }
    processes_.clear();
    return out;
}

}  // namespace ghost::core
