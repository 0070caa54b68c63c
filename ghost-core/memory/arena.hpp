// Memory for page contents that is used again and again: copying into fresh memory costs several
// times as much.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/result.hpp"

namespace ghost::core {

// Huge pages where the kernel has them. One thread at a time; what was taken may be written by any.
class Arena {
  public:
    Arena() = default;
    Arena(Arena&& other) noexcept;
    Arena& operator=(Arena&& other) noexcept;
    ~Arena();

    struct Piece {
        char* at = nullptr;
        uint64_t bytes = 0;
    };
    // 1..bytes bytes one behind the other; what was taken last usually ends where this begins.
    Result<Piece> take(uint64_t bytes);
    // Makes sure that the next `bytes` that are taken have been touched before.
    Status warm(uint64_t bytes);
    // Everything taken is free again, and warm.
    void reset();
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
