// SPDX-License-Identifier: BSD-3-Clause
// Where the bytes of a ghost go to and come from; resources implement these.
#pragma once

#include <cstddef>
#include <cstdint>
#include <sys/uio.h>

#include "base/result.hpp"

namespace ghost::core {

// Memory for contents that are made long before the bytes that precede them in a ghost.
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

class ByteSink {
  public:
    virtual ~ByteSink() = default;
    // Takes all `size` bytes or fails.
    virtual Status write(const void* data, size_t size) = 0;
    // Takes all pieces in order. The pieces' table is scratch space for the callee.
    virtual Status write_gather(iovec* pieces, size_t count);
    // Room for the next `size` bytes, to be filled by the caller, by any threads, before it calls
    // anything else here. Null: there is none, they have to be written.
    virtual Result<char*> room(size_t size);
    // Where contents can be put before it is their turn: to write them is to name them then,
    // nothing is copied. Null: it has none. Valid as long as the sink; what was taken is given back
    // by the sink's own ways, not by reset().
    virtual Space* space() { return nullptr; }
    // Whether bytes at this address would be named rather than copied.
    virtual bool holds(const void* /*data*/) const { return false; }
};

class ByteSource {
  public:
    virtual ~ByteSource() = default;
    // Gives 1..size bytes, or 0 at the end. Blocks until there is something.
    virtual Result<size_t> read(void* data, size_t size) = 0;
    // The next `size` bytes where they are, passed over as if they had been read; they stay there
    // as long as the source is neither written nor destroyed. Null: they are not in one piece in
    // memory, and have to be read.
    virtual const char* in_place(size_t /*size*/) { return nullptr; }
    // Fills all of `size` bytes; the end in between is Code::corrupt with the missing count.
    Status read_all(void* data, size_t size);
};

}  // namespace ghost::core
