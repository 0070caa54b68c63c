// SPDX-License-Identifier: BSD-3-Clause
// A process that copies ghosts of a folder of snapshots to another node, or takes them there: one
// connection, like that of a move, then it ends. Nothing has its name before all of it is there and
// its checksum is right. Whoever has started it may kill it at any time (docs/PROTOCOL.md,
// "Copies").
#pragma once

#include "base/control_socket.hpp"

namespace ghost::plugin {

// Takes orders on `control` and carries them out; the process's status.
int copy_ghosts(ControlSocket control);

}  // namespace ghost::plugin
