// SPDX-License-Identifier: BSD-3-Clause
#include "ghost-core/resource/buffer.hpp"

#include <algorithm>
#include <cerrno>
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
constexpr uint64_t page = 4096;  // a multiple of it, where they are larger, is not needed

uint64_t round_up(uint64_t bytes) {
    return (bytes + huge - 1) / huge * huge;
}

uint64_t all_memory() {
    const long pages = sysconf(_SC_PHYS_PAGES), size = sysconf(_SC_PAGESIZE);
    return pages > 0 && size > 0 ? static_cast<uint64_t>(pages) * static_cast<uint64_t>(size)
                                 : uint64_t{1} << 36;
}

// Improvements only: a kernel without huge pages is slower, and right.
void advise(char* base, uint64_t bytes) {
    madvise(base, bytes, MADV_HUGEPAGE);
    madvise(base, bytes, MADV_DONTFORK);
}

}  // namespace

MemoryBuffer::~MemoryBuffer() {
    if (base_ != nullptr) munmap(base_, std::max(capacity_, reserved_));
}

Result<std::unique_ptr<MemoryBuffer>> MemoryBuffer::adopt(Fd memfd) {
    struct stat info {};
    if (fstat(memfd.get(), &info) != 0) return sys_error("look at shared memory");
    auto buffer = std::make_unique<MemoryBuffer>(Kind::shared);
    buffer->memfd_ = std::move(memfd);
    const auto bytes = static_cast<uint64_t>(info.st_size);
    if (bytes > 0) {
        GHOST_TRY(buffer->map(bytes));
        GHOST_TRY(buffer->set_size(bytes));
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
    const int flags =
        (kind_ == Kind::shared ? MAP_SHARED : MAP_PRIVATE | MAP_ANONYMOUS) | MAP_NORESERVE;
    void* base = nullptr;
    if (reserved_ > 0) {
        if (bytes > reserved_) return sys_error_of(ENOMEM, "get memory for a ghost");
        const auto offset = kind_ == Kind::shared ? static_cast<off_t>(capacity_) : 0;
        if (mmap(base_ + capacity_, bytes - capacity_, PROT_READ | PROT_WRITE, flags | MAP_FIXED,
                 memfd_.get(), offset) == MAP_FAILED)
            return sys_error("get memory for a ghost");
        base = base_;
    } else if (base_ == nullptr) {
        base = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, flags, memfd_.get(), 0);
    } else {
        base = mremap(base_, capacity_, bytes, MREMAP_MAYMOVE);
    }
    if (base == MAP_FAILED) return sys_error("get memory for a ghost");
    base_ = static_cast<char*>(base);
    capacity_ = bytes;
    advise(base_, capacity_);
    return {};
}

bool MemoryBuffer::settle() {
    if (reserved_ > 0) return true;
    const uint64_t wanted = std::max(round_up(2 * all_memory()), round_up(capacity_));
    void* place =
        mmap(nullptr, wanted + huge, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (place == MAP_FAILED) return false;
    const auto begin = reinterpret_cast<uintptr_t>(place);
    const auto base = round_up(begin);
    if (base > begin) munmap(place, base - begin);
    munmap(reinterpret_cast<void*>(base + wanted), begin + huge - base);
    auto* const at = reinterpret_cast<char*>(base);
    if (capacity_ > 0 &&
        mremap(base_, capacity_, capacity_, MREMAP_MAYMOVE | MREMAP_FIXED, at) == MAP_FAILED) {
        munmap(at, wanted);
        return false;
    }
    base_ = at;
    reserved_ = wanted;
    return true;
}

Status MemoryBuffer::reserve(uint64_t bytes) {
    if (bytes <= capacity_) return {};
    return map(round_up(bytes));
}

// Room for so many bytes in all, and for more, as more will follow.
Status MemoryBuffer::grow(uint64_t bytes) {
    if (bytes <= capacity_) return {};
    const uint64_t more = std::max(2 * capacity_, first_capacity);
    return reserve(std::max(bytes, reserved_ > 0 ? std::min(more, reserved_) : more));
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

void MemoryBuffer::clear() {
    size_ = used_ = 0;
    extents_.clear();
}

void MemoryBuffer::note(uint64_t offset, uint64_t bytes) {
    if (bytes == 0) return;
    size_ += bytes;
    if (!extents_.empty() && extents_.back().offset + extents_.back().bytes == offset)
        extents_.back().bytes += bytes;
    else
        extents_.push_back({offset, bytes});
}

Result<char*> MemoryBuffer::extend(size_t size) {
    GHOST_TRY(grow(used_ + size));
    char* const at = base_ + used_;
    note(used_, size);
    used_ += size;
    return at;
}

Status MemoryBuffer::append(const void* data, size_t size) {
    if (size == 0) return {};
    auto at = extend(size);
    if (!at) return at.error();
    std::memcpy(*at, data, size);
    return {};
}

Result<Space::Piece> MemoryBuffer::take(uint64_t bytes) {
    const uint64_t at = (used_ + page - 1) / page * page;
    GHOST_TRY(grow(at + bytes));
    used_ = at + bytes;
    return Piece{base_ + at, bytes};
}

Status MemoryBuffer::warm(uint64_t bytes) {
    GHOST_TRY(grow(used_ + bytes));
    const uint64_t from = used_ / page * page, to = used_ + bytes;
    if (madvise(base_ + from, to - from, MADV_POPULATE_WRITE) != 0)
        return sys_error("get memory for a ghost");
    return {};
}

bool MemoryBuffer::holds(const void* data) const {
    const auto* at = static_cast<const char*>(data);
    return reserved_ > 0 && at >= base_ && at < base_ + used_;
}

void MemoryBuffer::refer(const void* data, size_t size) {
    note(static_cast<uint64_t>(static_cast<const char*>(data) - base_), size);
}

Result<MemoryBuffer::Layout> MemoryBuffer::layout() {
    if (extents_.empty() || (extents_.size() == 1 && extents_.front().offset == 0)) return Layout{};
    const uint64_t at = (used_ + page - 1) / page * page;
    const uint64_t bytes = extents_.size() * sizeof(Extent);
    GHOST_TRY(grow(at + bytes));
    std::memcpy(base_ + at, extents_.data(), bytes);
    return Layout{at, extents_.size()};
}

Status MemoryBuffer::set_layout(const Layout& layout, uint64_t bytes) {
    if (layout.count == 0) return set_size(bytes);
    if (layout.at > capacity_ || layout.count > (capacity_ - layout.at) / sizeof(Extent))
        return make_error(Code::corrupt, "read the layout of a ghost's memory");
    clear();
    for (uint64_t i = 0; i < layout.count; i++) {
        Extent extent;
        std::memcpy(&extent, base_ + layout.at + i * sizeof extent, sizeof extent);
        if (extent.bytes == 0 || extent.offset > capacity_ ||
            extent.bytes > capacity_ - extent.offset)
            return make_error(Code::corrupt, "read the layout of a ghost's memory");
        note(extent.offset, extent.bytes);
    }
    used_ = capacity_;
    if (size_ != bytes)
        return make_error(Code::corrupt, "read the layout of a ghost's memory", {},
                          "its size is wrong");
    return {};
}

Status MemoryBuffer::set_size(uint64_t bytes) {
    if (bytes > capacity_) return make_error(Code::invalid, "set size of a ghost's memory");
    clear();
    note(0, bytes);
    used_ = bytes;
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
