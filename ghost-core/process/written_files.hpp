// Regular files that a tree has open for writing: how long they are when its ghost is made, and how
// they become so long again before the ghost goes on.
#pragma once

#include <cstdint>
#include <string>
#include <sys/types.h>
#include <vector>

#include "base/result.hpp"

namespace ghost::core {

struct WrittenFile {
    std::string path;  // absolute, as the tree sees it; any bytes but 0
    uint64_t size = 0;
    uint64_t device = 0, inode = 0;
};

// Each file once, by its path. Files without a path any more are left out: a ghost carries them
// itself. Right only while the tree stands. not_found: the tree is gone.
Result<std::vector<WrittenFile>> written_files(pid_t root);

// Whether cut_back() would work, with its errors; nothing is changed.
Status may_cut_back(const std::string& path, uint64_t size);

// Makes the file `size` bytes long again if it has grown since; its contents before that stay. If
// `kept` is not empty and the file is longer, all of it is copied to this path first (with the same
// mode; synced; what has that name already stays, and counts as the copy). Several callers may do
// this for one file at once. not_found: there is no such file; refused: it is no regular file any
// more, or shorter than that: what the tree has written is missing from it.
Status cut_back(const std::string& path, uint64_t size, const std::string& kept = {});

}  // namespace ghost::core
