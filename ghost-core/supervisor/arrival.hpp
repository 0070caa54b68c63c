// SPDX-License-Identifier: BSD-3-Clause
// The target's end of a live migration of a tree outside of MPI.
#pragma once

#include <functional>
#include <memory>

#include "base/result.hpp"
#include "ghost-core/engine/live.hpp"
#include "ghost-core/engine/plain.hpp"
#include "ghost-core/supervisor/stdio_ends.hpp"

namespace ghost::core {

struct LiveArrivalRequest {
    std::string criu;  // the program
    StdioEnds::Relays relays = StdioEnds::Relays::allowed;
    std::function<Status()> release;  // as LiveImportRequest's
    Progress progress;
};

// What came, as it runs here.
struct LiveArrival {
    PlainTree tree;
    std::unique_ptr<StdioEnds> stdio;
    LiveImport import;  // huge pages are made again while this is kept
};

// `in` has been init()ed. Returns when it runs and has all its pages; on failure nothing is left.
Result<LiveArrival> receive_live(const LiveArrivalRequest& request, Resource& in);

}  // namespace ghost::core
