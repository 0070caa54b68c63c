// SPDX-License-Identifier: BSD-3-Clause
// What a ghost in a file is, read in a moment: its head and its end, nothing between.
#pragma once

#include <vector>

#include "base/result.hpp"
#include "ghost-core/format/format.hpp"

namespace ghost::core {

struct GhostSummary {
    GhostHead head;
    Contents contents;
    std::vector<ProcessSummary> processes;
    uint64_t bytes = 0;  // of the whole ghost

    // How an incremental ghost names this one as its parent.
    ParentRef as_parent(std::string_view name) const;
};

// `fd` can be read at any place (a file, a memfd) and stays where it is. The checksums of what is
// read are checked, those between are not: that is what GhostReader is for. corrupt: no ghost, not
// complete, or damaged in these places; unsupported as GhostReader::head().
Result<GhostSummary> read_summary(int fd);

}  // namespace ghost::core
