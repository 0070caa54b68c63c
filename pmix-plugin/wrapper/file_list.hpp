// SPDX-License-Identifier: BSD-3-Clause
// The files a rank had open for writing, as its ghost's metadata and `snap_written` list them.
#pragma once

#include <string>
#include <vector>

#include "ghost-core/criu/written_files.hpp"
#include "pmix-plugin/protocol/parts.hpp"
#include "pmix-plugin/wrapper/rank_metadata.hpp"

namespace ghost::plugin {

// For the metadata.
std::vector<ListedFile> files_for_ghost(const std::vector<core::WrittenFile>& files);

// For `snap_written`. Ends before they take more than `limit` bytes there; `all` says whether it
// did not.
std::vector<SeenFile> files_for_manifest(const std::vector<core::WrittenFile>& files, size_t limit,
                                         bool& all);

std::string path_of(const ListedFile& file);
// Of one that has any.
core::FileContents contents_of(const ListedFile& file);

}  // namespace ghost::plugin
