// Takes the skeleton of a tree with criu, straight into a ghost stream.
#pragma once

#include <string>
#include <sys/types.h>
#include <vector>

#include "base/result.hpp"
#include "ghost-core/format/writer.hpp"
#include "ghost-core/memory/pages.hpp"
#include "ghost-core/process/criu.hpp"

namespace ghost::core {

struct DumpRequest {
    pid_t root = 0;
    std::vector<std::string> externals;  // criu keys
    CriuSettings criu;
    bool nested = true;  // the root is the init of a PID name space; else a job of some session
};

struct DumpResult {
    std::vector<TaskPages> pages;  // what the skeleton leaves to us
    uint64_t skeleton_bytes = 0;
};

// On success every task of the tree is stopped; the skeleton has been written, without its end
// mark. On failure every task runs on. Blocks.
Result<DumpResult> dump_tree(const DumpRequest& request, GhostWriter& writer);

}  // namespace ghost::core
