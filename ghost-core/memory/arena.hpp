// SPDX-License-Identifier: BSD-3-Clause
// Memory for page contents that is used again and again: copying into fresh memory costs several
// times as much.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/result.hpp"
#include "ghost-core/format/bytes.hpp"

namespace ghost::core {

// Huge pages where the kernel has them. One thread at a time; what was taken may be written by any.
class Arena : public Space {
  public:
    Arena() = default;
    Arena(Arena&& other) noexcept;
    Arena& operator=(Arena&& other) noexcept;
    ~Arena() override;

    Result<Piece> take(uint64_t bytes) override;
    Status warm(uint64_t bytes) override;
    void reset() override;
    // Everything taken is free again, its contents are lost, and the system takes the memory where
    // it is short of it before it is taken again (madvise(2), MADV_FREE).
    void offer();
    // Gives all memory back to the system.
    void clear();

    uint64_t taken() const { return taken_; }
    uint64_t held() const { return blocks_.size() * block_bytes; }

  private:
    static constexpr uint64_t block_bytes = 64 << 20;
    Status grow();

    std::vector<char*> blocks_;
    uint64_t taken_ = 0;  // from the begin of the first block on
    uint64_t warm_to_ = 0;
};

}  // namespace ghost::core
