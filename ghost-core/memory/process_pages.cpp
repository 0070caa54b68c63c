#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <fmt/format.h>

#include "base/fd.hpp"
#include "ghost-core/format/host.hpp"
#include "ghost-core/memory/pages.hpp"

namespace ghost::core {
namespace {

// Runs of one batch: their table takes room in the chunk, and process_vm_readv takes 1024 pieces.
constexpr size_t runs_limit = 256;
constexpr uint64_t content_limit = chunk_limit - runs_limit * sizeof(PageRun);

// Pages the owner itself may not read (PROT_NONE): only /proc/PID/mem gives those.
Status read_by_force(pid_t pid, uint64_t start, char* to, uint64_t bytes) {
    Fd mem(open(fmt::format("/proc/{}/mem", pid).c_str(), O_RDONLY | O_CLOEXEC));
    if (!mem) return sys_error("open memory of process", std::to_string(pid));
    while (bytes > 0) {
        const auto got = pread(mem.get(), to, bytes, static_cast<off_t>(start));
        if (got <= 0)
            return sys_error(fmt::format("read page {:#x} of process", start), std::to_string(pid));
        start += static_cast<uint64_t>(got);
        to += got;
        bytes -= static_cast<uint64_t>(got);
    }
    return {};
}

// Reads all runs, one after the other, to `to`.
Status read_runs(pid_t pid, std::span<const PageRun> runs, char* to) {
    std::vector<iovec> remote;
    uint64_t left = 0;
    for (const auto& run : runs) {
        remote.push_back({reinterpret_cast<void*>(run.start), run.bytes});
        left += run.bytes;
    }
    size_t first = 0;
    while (left > 0) {
        const iovec local{to, left};
        auto got =
            process_vm_readv(pid, &local, 1, remote.data() + first, remote.size() - first, 0);
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) {
            if (got < 0 && errno != EFAULT)
                return sys_error("read memory of process", std::to_string(pid));
            got = static_cast<ssize_t>(std::min<uint64_t>(remote[first].iov_len, this_page_size()));
            GHOST_TRY(read_by_force(pid, reinterpret_cast<uint64_t>(remote[first].iov_base), to,
                                    static_cast<uint64_t>(got)));
        }
        to += got;
        left -= static_cast<uint64_t>(got);
        auto done = static_cast<uint64_t>(got);
        while (done > 0) {
            auto& piece = remote[first];
            const auto part = std::min<uint64_t>(done, piece.iov_len);
            piece.iov_base = static_cast<char*>(piece.iov_base) + part;
            piece.iov_len -= part;
            done -= part;
            if (piece.iov_len == 0) first++;
        }
    }
    return {};
}

void add_page(PageBatch& batch, uint64_t start, char* content, uint64_t page) {
    if (!batch.runs.empty() && batch.runs.back().start + batch.runs.back().bytes == start)
        batch.runs.back().bytes += page;
    else
        batch.runs.push_back({start, page});
    auto& pieces = batch.contents;
    if (!pieces.empty() &&
        static_cast<char*>(pieces.back().iov_base) + pieces.back().iov_len == content)
        pieces.back().iov_len += page;
    else
        pieces.push_back({content, page});
    batch.bytes += page;
}

// Notes the pages of what was read, leaving out those that hold only zeros.
void sort_out(PageBatch& batch, std::span<const PageRun> read) {
    const uint64_t page = this_page_size();
    char* content = batch.buffer;
    for (const auto& run : read)
        for (uint64_t at = 0; at < run.bytes; at += page, content += page) {
            if (is_zero_page(content, page))
                batch.zero_bytes += page;
            else
                add_page(batch, run.start + at, content, page);
        }
}

}  // namespace

bool is_zero_page(const char* page, size_t size) {
    uint64_t first = 0;
    std::memcpy(&first, page, sizeof first);
    return first == 0 && std::memcmp(page, page + sizeof first, size - sizeof first) == 0;
}

uint64_t TaskPages::bytes() const {
    uint64_t sum = 0;
    for (const auto& range : ranges) sum += range.bytes;
    return sum;
}

uint64_t ProcessPages::total() const {
    uint64_t sum = 0;
    for (const auto& task : tasks_) sum += task.bytes();
    return sum;
}

Result<bool> ProcessPages::next(PageBatch& batch) {
    batch.runs.clear();
    batch.contents.clear();
    batch.bytes = batch.zero_bytes = 0;
    while (task_ < tasks_.size() && range_ == tasks_[task_].ranges.size()) {
        task_++;
        range_ = 0;
    }
    if (task_ == tasks_.size()) return false;
    const auto& task = tasks_[task_];
    batch.inner_pid = task.inner_pid;
    std::vector<PageRun> read;
    uint64_t bytes = 0, pages_left = runs_limit;
    // Zeros between may split what is read into as many runs as pages; the limit counts pages.
    const uint64_t page = this_page_size();
    while (range_ < task.ranges.size() && bytes < content_limit && pages_left > 0) {
        const auto& range = task.ranges[range_];
        const auto part = std::min(
            {range.bytes - offset_, (content_limit - bytes) / page * page, pages_left * page});
        if (part == 0) break;
        read.push_back({range.start + offset_, part});
        bytes += part;
        pages_left -= part / page;
        offset_ += part;
        if (offset_ == range.bytes) {
            range_++;
            offset_ = 0;
        }
    }
    GHOST_TRY(read_runs(task.pid, read, batch.buffer));
    sort_out(batch, read);
    return true;
}

}  // namespace ghost::core
