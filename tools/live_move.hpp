// SPDX-License-Identifier: BSD-3-Clause
// A live migration of a process outside of MPI: both ends, as `ghost dup --then kill --mode live`,
// `lazy` and `hybrid` use them.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "ghost-core/engine/live.hpp"
#include "tools/plain.hpp"

namespace ghost::tools {

// live, lazy (post-copy), hybrid; nothing for other words.
std::optional<core::PageOrder> page_order_named(const std::string& mode);

// Moves the tree that `pid` means over the connection `out` (not yet init()ed), with progress. An
// error: it runs on, nothing was decided. Else the outcome says what became of it.
Result<core::LiveExport> send_live(pid_t pid, core::Resource& out, core::PageOrder order);

// What came, as it runs here.
struct LiveReceived {
    core::PlainTree tree;
    std::unique_ptr<StdioEnds> stdio;
    std::shared_ptr<core::HugePages> huge;  // are made again while this is kept
};
// The other end. Returns when it runs and has all its pages; on failure nothing is left.
Result<LiveReceived> receive_live(core::Resource& in);

}  // namespace ghost::tools
