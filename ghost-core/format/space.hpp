// SPDX-License-Identifier: BSD-3-Clause
// Memory for contents that are made long before the bytes that precede them in a ghost.
#pragma once

#include <cstdint>

#include "base/result.hpp"

namespace ghost::core {

// One thread at a time; what was taken may be written by any.
class Space {
  public:
    virtual ~Space() = default;

    struct Piece {
        char* at = nullptr;
        uint64_t bytes = 0;
    };
    // 1..bytes bytes one behind the other, beginning at the bound of a page; what was taken last
    // usually ends where this begins. It stays where it is.
    virtual Result<Piece> take(uint64_t bytes) = 0;
    // Makes sure that the next `bytes` that are taken have been touched before.
    virtual Status warm(uint64_t bytes) = 0;
    // Everything taken is free again, and warm.
    virtual void reset() = 0;
};

}  // namespace ghost::core
