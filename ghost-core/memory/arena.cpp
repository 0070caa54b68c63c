// SPDX-License-Identifier: BSD-3-Clause
#include "ghost-core/memory/arena.hpp"

#include <algorithm>
#include <sys/mman.h>
#include <utility>

namespace ghost::core {
namespace {
constexpr uint64_t huge = 2 << 20;
}

Arena::Arena(Arena&& other) noexcept
    : blocks_(std::exchange(other.blocks_, {})),
      taken_(std::exchange(other.taken_, 0)),
      warm_to_(std::exchange(other.warm_to_, 0)) {}

Arena& Arena::operator=(Arena&& other) noexcept {
    std::swap(blocks_, other.blocks_);
    std::swap(taken_, other.taken_);
    std::swap(warm_to_, other.warm_to_);
    return *this;
}

Arena::~Arena() {
    clear();
}

void Arena::clear() {
    for (char* block : blocks_) munmap(block, block_bytes);
    blocks_.clear();
    taken_ = warm_to_ = 0;
}

void Arena::reset() {
    warm_to_ = std::max(warm_to_, taken_);
    taken_ = 0;
}

void Arena::offer() {
    const uint64_t used = std::max(warm_to_, taken_);
    for (uint64_t at = 0; at < used; at += block_bytes)
        madvise(blocks_[at / block_bytes], std::min(block_bytes, used - at), MADV_FREE);
    taken_ = warm_to_ = 0;
}

// A block of its own lies on the bound of a huge page.
Status Arena::grow() {
    void* base = mmap(nullptr, block_bytes + huge, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (base == MAP_FAILED) return sys_error("allocate memory for pages");
    const auto begin = reinterpret_cast<uintptr_t>(base);
    const auto block = (begin + huge - 1) / huge * huge;
    if (block > begin) munmap(base, block - begin);
    munmap(reinterpret_cast<void*>(block + block_bytes), begin + huge - block);
    auto* const at = reinterpret_cast<char*>(block);
    madvise(at, block_bytes, MADV_HUGEPAGE);  // an improvement only
    madvise(at, block_bytes, MADV_DONTFORK);  // criu is started from here
    blocks_.push_back(at);
    return {};
}

Result<Arena::Piece> Arena::take(uint64_t bytes) {
    if (taken_ == held()) GHOST_TRY(grow());
    const uint64_t inside = taken_ % block_bytes;
    const Piece piece{blocks_[taken_ / block_bytes] + inside,
                      std::min(bytes, block_bytes - inside)};
    taken_ += piece.bytes;
    return piece;
}

Status Arena::warm(uint64_t bytes) {
    while (held() < taken_ + bytes) GHOST_TRY(grow());
    while (warm_to_ < taken_ + bytes) {
        const uint64_t at = std::max(warm_to_, taken_) / huge * huge;
        if (madvise(blocks_[at / block_bytes] + at % block_bytes, huge, MADV_POPULATE_WRITE) != 0)
            return sys_error("allocate memory for pages");
        warm_to_ = at + huge;
    }
    return {};
}

}  // namespace ghost::core
