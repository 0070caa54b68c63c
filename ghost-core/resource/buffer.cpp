#include "ghost-core/resource/buffer.hpp"

#include <algorithm>
#include <cstring>
#include <sys/mman.h>
#include <sys/stat.h>
#include <thread>
#include <unistd.h>
#include <vector>

namespace ghost::core {
namespace {

constexpr uint64_t huge = 2 << 20;
constexpr uint64_t first_capacity = 64 << 20;

uint64_t round_up(uint64_t bytes) {
    return (bytes + huge - 1) / huge * huge;
}

// Improvements only: a kernel without huge pages is slower, and right.
void advise(char* base, uint64_t bytes) {
    madvise(base, bytes, MADV_HUGEPAGE);
    madvise(base, bytes, MADV_DONTFORK);
}

}  // namespace

MemoryBuffer::~MemoryBuffer() {
    if (base_ != nullptr) munmap(base_, capacity_);
}

Result<std::unique_ptr<MemoryBuffer>> MemoryBuffer::adopt(Fd memfd) {
    struct stat info {};
    if (fstat(memfd.get(), &info) != 0) return sys_error("look at shared memory");
    auto buffer = std::make_unique<MemoryBuffer>(Kind::shared);
    buffer->memfd_ = std::move(memfd);
    const auto bytes = static_cast<uint64_t>(info.st_size);
    if (bytes > 0) {
        GHOST_TRY(buffer->map(bytes));
        buffer->size_ = bytes;
    }
    return buffer;
}

Status MemoryBuffer::map(uint64_t bytes) {
    if (kind_ == Kind::shared && !memfd_) {
        memfd_ = Fd(memfd_create("ghost", MFD_CLOEXEC));
        if (!memfd_) return sys_error("create shared memory for a ghost");
    }
    if (kind_ == Kind::shared) {
        struct stat info {};
        if (fstat(memfd_.get(), &info) != 0) return sys_error("look at shared memory");
        if (static_cast<uint64_t>(info.st_size) < bytes &&
            ftruncate(memfd_.get(), static_cast<off_t>(bytes)) != 0)
            return sys_error("enlarge shared memory for a ghost");
    }
    const int flags = kind_ == Kind::shared ? MAP_SHARED : MAP_PRIVATE | MAP_ANONYMOUS;
    void* base = base_ == nullptr ? mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                                         flags | MAP_NORESERVE, memfd_.get(), 0)
                                  : mremap(base_, capacity_, bytes, MREMAP_MAYMOVE);
    if (base == MAP_FAILED) return sys_error("get memory for a ghost");
    base_ = static_cast<char*>(base);
    capacity_ = bytes;
    advise(base_, capacity_);
    return {};
}

Status MemoryBuffer::reserve(uint64_t bytes) {
    if (bytes <= capacity_) return {};
    return map(round_up(bytes));
}

Status MemoryBuffer::populate(uint64_t bytes, unsigned threads) {
    GHOST_TRY(reserve(bytes));
    const uint64_t share = round_up(bytes / std::max(threads, 1U) + 1);
    std::vector<std::thread> helpers;
    const auto touch = [&](uint64_t from) {
        const uint64_t count = std::min(share, capacity_ - from);
        madvise(base_ + from, count, MADV_POPULATE_WRITE);  // what fails here is met at first use
    };
    for (uint64_t from = share; from < bytes; from += share) helpers.emplace_back(touch, from);
    if (bytes > 0) touch(0);
    for (auto& helper : helpers) helper.join();
    return {};
}

Result<char*> MemoryBuffer::extend(size_t size) {
    if (size_ + size > capacity_)
        GHOST_TRY(reserve(std::max({size_ + size, 2 * capacity_, first_capacity})));
    char* const at = base_ + size_;
    size_ += size;
    return at;
}

Status MemoryBuffer::append(const void* data, size_t size) {
    if (size == 0) return {};
    auto at = extend(size);
    if (!at) return at.error();
    std::memcpy(*at, data, size);
    return {};
}

Status MemoryBuffer::set_size(uint64_t bytes) {
    if (bytes > capacity_) return make_error(Code::invalid, "set size of a ghost's memory");
    size_ = bytes;
    return {};
}

AlignedMemory::~AlignedMemory() {
    if (base_ != nullptr) munmap(base_, mapped_);
}

Status AlignedMemory::allocate(size_t bytes) {
    const size_t mapped = round_up(bytes) + huge;
    void* base = mmap(nullptr, mapped, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (base == MAP_FAILED) return sys_error("get memory for buffers");
    base_ = static_cast<char*>(base);
    mapped_ = mapped;
    start_ = reinterpret_cast<char*>(round_up(reinterpret_cast<uintptr_t>(base_)));
    advise(base_, mapped_);
    return {};
}

}  // namespace ghost::core
