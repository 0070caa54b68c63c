// SPDX-License-Identifier: BSD-3-Clause
#include "ghost-core/memory/buffers.hpp"

#include <sys/mman.h>
#include <utility>

#include "ghost-core/format/format.hpp"

namespace ghost::core {
namespace {
constexpr size_t huge = 2 << 20;
}

size_t BufferPool::buffer_size() {
    return chunk_limit;
}

Result<char*> BufferPool::map(size_t bytes) {
    void* base = mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (base == MAP_FAILED) return sys_error("allocate page buffers");
    madvise(base, bytes, MADV_HUGEPAGE);  // an improvement only
    madvise(base, bytes, MADV_DONTFORK);  // criu is started from here
    return static_cast<char*>(base);
}

Result<BufferPool> BufferPool::make(size_t count) {
    const size_t bytes = (count * buffer_size() + huge - 1) / huge * huge + huge;
    auto base = map(bytes);
    if (!base) return base.error();
    BufferPool pool;
    pool.mappings_.push_back({*base, bytes});
    const auto start = (reinterpret_cast<uintptr_t>(*base) + huge - 1) / huge * huge;
    for (size_t i = count; i-- > 0;)
        pool.free_.push_back(reinterpret_cast<char*>(start) + i * buffer_size());
    return pool;
}

BufferPool::BufferPool(BufferPool&& other) noexcept
    : mappings_(std::move(other.mappings_)), free_(std::move(other.free_)), closed_(other.closed_) {
    other.mappings_.clear();
}

BufferPool::~BufferPool() {
    for (const auto& mapping : mappings_) munmap(mapping.base, mapping.bytes);
}

void BufferPool::populate(const std::function<bool()>& enough) {
    const auto all = mappings_.front();
    const auto start = (reinterpret_cast<uintptr_t>(all.base) + huge - 1) / huge * huge;
    const auto end = reinterpret_cast<uintptr_t>(all.base) + all.bytes - huge;
    for (auto at = start; at < end && !enough(); at += huge)
        if (madvise(reinterpret_cast<void*>(at), huge, MADV_POPULATE_WRITE) != 0) return;
}

Status BufferPool::grow() {
    auto base = map(buffer_size());
    if (!base) return base.error();
    {
        std::lock_guard lock(mutex_);
        mappings_.push_back({*base, buffer_size()});
    }
    give(*base);
    return {};
}

char* BufferPool::take() {
    std::unique_lock lock(mutex_);
    ready_.wait(lock, [&] { return closed_ || !free_.empty(); });
    if (closed_) return nullptr;
    char* buffer = free_.back();
    free_.pop_back();
    return buffer;
}

void BufferPool::give(char* buffer) {
    std::lock_guard lock(mutex_);
    free_.push_back(buffer);
    ready_.notify_one();
}

void BufferPool::close() {
    std::lock_guard lock(mutex_);
    closed_ = true;
    ready_.notify_all();
}

}  // namespace ghost::core
