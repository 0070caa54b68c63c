// SPDX-License-Identifier: BSD-3-Clause
// A chain of incremental ghosts as one full ghost, in one pass over each and with no more memory
// than a list of addresses.
#pragma once

#include <functional>
#include <memory>
#include <span>

#include "ghost-core/format/bytes.hpp"
#include "ghost-core/format/reader.hpp"

namespace ghost::core {

// A ghost whose head has been read.
struct OpenGhost {
    std::unique_ptr<ByteSource> in;
    std::unique_ptr<GhostReader> reader;
    GhostHead head;

    // Reads the head of what `in` gives.
    static Result<OpenGhost> open(std::unique_ptr<ByteSource> in);
};

// Writes the ghost that chain[0] is with its ancestors chain[1], …, the last of which is full, to
// `out` (which is not finalized). `progress` is told the bytes read so far of all; may be empty.
// corrupt, refused (a parent that is not the one its child names), unsupported, and what the
// sources and the sink say. The end is written only after everything that was needed has been found
// to be right.
Status merge_ghosts(std::span<OpenGhost> chain, ByteSink& out,
                    const std::function<void(uint64_t)>& progress = {});

}  // namespace ghost::core
