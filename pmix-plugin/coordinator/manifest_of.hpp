// SPDX-License-Identifier: BSD-3-Clause
// The manifest of a snapshot all of whose ghosts are written.
#pragma once

#include <cstdint>
#include <string>

#include "pmix-plugin/coordinator/operations/snapshot.hpp"
#include "pmix-plugin/snapshots/manifest.hpp"

namespace ghost::plugin {

// From the rows of step `written` and the runtime's facts (docs/SNAPSHOT_FORMAT.md). `epoch` is the
// placement's that was saved. Fields a wrapper or the runtime left out have their empty value.
Manifest manifest_of(const SnapshotRun& run, const std::string& job, uint64_t epoch);

}  // namespace ghost::plugin
