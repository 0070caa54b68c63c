// SPDX-License-Identifier: BSD-3-Clause
// What backs a ghost: a sequence of bytes that an export writes and an import reads.
//
// The interface is that of "Ghost Process" (Vallée et al.), section 3.2.2: a class id that means
// the same on every node, init, read, write, finalize. Mechanisms plug in the resource they need:
// migration the network, a checkpoint a file, a duplication memory. Resources can be composed:
// compress, encrypt, stripe and tee are resources over resources.
#pragma once

#include <cstdint>

#include "base/result.hpp"
#include "ghost-core/format/bytes.hpp"

namespace ghost::core {

// Valid cluster wide; never reuse a number. User resources start at 1000.
enum class ResourceClass : uint32_t {
    memory = 1,
    file = 2,
    network = 3,
    faulty = 4,
    compress = 5,
    encrypt = 6,
    stripe = 7,
    tee = 8,
    sign = 9,
    user = 1000
};

enum class Use { write, read };

// One direction at a time: either written by one export or read by one import. Used by one thread
// at a time. Parameters (path, peer) are given when an implementation is made.
class Resource : public ByteSink, public ByteSource {
  public:
    virtual ResourceClass class_id() const = 0;
    // Makes it ready; called once by the owner before the export or import.
    virtual Status init() = 0;
    // After the last write: everything is where it belongs (flushed, named, handed to the kernel of
    // the peer). Without finalize an incomplete ghost never looks complete.
    virtual Status finalize() = 0;
    // Makes a read or write that waits in another thread fail soon, and all later ones. The only
    // call that may come from another thread. Resources that never wait need nothing.
    virtual void interrupt() {}
};

}  // namespace ghost::core
