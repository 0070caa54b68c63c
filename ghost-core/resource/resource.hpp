// What backs a ghost: a sequence of bytes that an export writes and an import reads.
//
// The interface is that of "Ghost Process" (Vallée et al.), section 3.2.2: a class id that means
// the same on every node, init, read, write, finalize. Mechanisms plug in the resource they need:
// migration the network, a checkpoint a file, a duplication memory.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/result.hpp"

namespace ghost::core {

// Valid cluster wide; never reuse a number. User resources start at 1000.
enum class ResourceClass : uint32_t { memory = 1, file = 2, network = 3, faulty = 4, user = 1000 };

// One direction at a time: either written by one export or read by one import. Used by one thread
// at a time. Parameters (path, peer) are given when an implementation is made.
class Resource {
  public:
    virtual ~Resource() = default;

    virtual ResourceClass class_id() const = 0;
    // Makes it ready; called once, before anything else.
    virtual Status init() = 0;
    // Takes all `size` bytes or fails.
    virtual Status write(const void* data, size_t size) = 0;
    // Gives 1..size bytes, or 0 at the end. Blocks until there is something.
    virtual Result<size_t> read(void* data, size_t size) = 0;
    // After the last write: everything is where it belongs (flushed, named, handed to the peer's
    // kernel). After an error or without finalize nothing incomplete may look complete.
    virtual Status finalize() = 0;

    // Fills all of `size` bytes; the end in between is Code::corrupt with the missing count.
    Status read_all(void* data, size_t size);
};

}  // namespace ghost::core
