// SPDX-License-Identifier: BSD-3-Clause
// A live migration of a process outside of MPI: both ends, as `ghost dup --then kill --mode live`,
// `lazy` and `hybrid` use them.
#pragma once

#include <optional>
#include <string>

#include "ghost-core/engine/live.hpp"
#include "ghost-core/supervisor/arrival.hpp"

namespace ghost::tools {

// live, lazy (post-copy), hybrid; nothing for other words.
std::optional<core::PageOrder> page_order_named(const std::string& mode);

// Moves the tree that `pid` means over the connection `out` (not yet init()ed), with progress. An
// error: it runs on, nothing was decided. Else the outcome says what became of it.
Result<core::LiveExport> send_live(pid_t pid, core::Resource& out, core::PageOrder order);

// The other end.
Result<core::LiveArrival> receive_live(core::Resource& in);

}  // namespace ghost::tools
