// SPDX-License-Identifier: BSD-3-Clause
// The files a rank had open for writing, as its ghost's metadata and `snap_written` list them.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/control_socket.hpp"
#include "ghost-core/criu/written_files.hpp"
#include "pmix-plugin/protocol/parts.hpp"

namespace ghost::plugin {

// For the metadata: [{path | path_hex, size}], with {mode, owner, group, contents} of those whose
// contents are known; `contents` in base64.
Json files_for_ghost(const std::vector<core::WrittenFile>& files);

// For `snap_written`. Ends before they take more than `limit` bytes there; `all` says whether it
// did not.
std::vector<SeenFile> files_for_manifest(const std::vector<core::WrittenFile>& files, size_t limit,
                                         bool& all);

struct ListedFile {
    std::string path;
    uint64_t size = 0;
    std::optional<core::FileContents> contents;
};

// What files_for_ghost() has put into these metadata.
std::vector<ListedFile> files_in(const Json& metadata);

}  // namespace ghost::plugin
