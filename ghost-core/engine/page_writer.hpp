// SPDX-License-Identifier: BSD-3-Clause
// The pages of a copy on their way into a ghost, zeros told apart and checksums made by several
// threads. Private to ghost-core/engine.
#pragma once

#include "base/result.hpp"
#include "ghost-core/format/writer.hpp"
#include "ghost-core/engine/migration.hpp"
#include "ghost-core/memory/memory_copy.hpp"
#include "ghost-core/memory/pages.hpp"

namespace ghost::core {

struct PageWriting {
    const MemoryCopy* copy = nullptr;
    std::vector<TaskPages> wanted;  // what the skeleton leaves to us
    bool differences = false;       // the ghost is incremental: says what is there and what is zero
    Progress progress;
};

// How much memory the pages chunks will be made from.
uint64_t bytes_to_write(const PageWriting& what);

// Writes present, zero and pages chunks. internal: the skeleton names a process that was not
// copied.
Status write_pages(const PageWriting& what, GhostWriter& writer, Workers& workers);

}  // namespace ghost::core
