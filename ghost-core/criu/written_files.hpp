// SPDX-License-Identifier: BSD-3-Clause
// Regular files that a tree has open for writing, or mapped shared so that it can write: how long
// they are when its ghost is made and what is in small ones, and how they become so again before
// the ghost goes on.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <sys/types.h>
#include <vector>

#include "base/result.hpp"

namespace ghost::core {

// All it takes to make a file again.
struct FileContents {
    std::string bytes;
    uint32_t mode = 0;  // permissions, 07777
    uint32_t owner = 0, group = 0;

    // XXH3-64 of all that, 16 hex digits.
    std::string hash() const;
    bool operator==(const FileContents&) const = default;
};

struct WrittenFile {
    std::string path;  // absolute, as the tree sees it; any bytes but 0
    uint64_t size = 0;
    uint64_t device = 0, inode = 0;
    // When it was changed last by the file's own clock (st_ctime, the server's where it is shared),
    // and when this was read, by this node's: of several trees that have it open, what the one with
    // the greatest pair says is the newest.
    int64_t changed_ns = 0, taken_us = 0;
    std::optional<FileContents> contents;
    std::string hash;         // contents_hash() of all of it, if there are no `contents`
    int64_t modified_ns = 0;  // st_mtime, where it tells more (tells_by_time()); else 0
};

// Which files' contents are read: small ones, the smallest first, so that a tree that is frozen for
// it does not notice.
struct ContentsLimit {
    uint64_t each = 0;    // bytes; larger ones have none
    uint64_t all = 0;     // bytes in whole pages, one for each file at least
    uint64_t hashed = 0;  // as many others get a hash
};

// Each file once, by its path. Files without a path any more are left out: a ghost carries them
// itself. Right only while the tree is frozen; what others write into a file meanwhile may be in
// its contents in part. not_found: the tree is gone.
Result<std::vector<WrittenFile>> written_files(pid_t root, const ContentsLimit& limit = {});

// The first so many bytes of a file.
struct FileBegin {
    uint64_t size = 0;
    std::string hash;         // contents_hash()
    int64_t modified_ns = 0;  // of a file with no more than these; 0: not known
};

// Whether cut_back() would work, with its errors, and the file still begins so; nothing is changed.
Status may_cut_back(const std::string& path, uint64_t size,
                    const std::optional<FileBegin>& begin = {});

// Makes the file `size` bytes long again if it has grown since; its contents before that stay. If
// `kept` is not empty and the file is longer, all of it is copied to this path first (with the same
// mode; synced; what has that name already stays, and counts as the copy). Several callers may do
// this for one file at once. `modified_ns`: what a file that is cut says of its last write
// afterwards; 0: that it was now. not_found: there is no such file; refused: it is no regular file
// any more, or shorter than that: what the tree has written is missing from it.
Status cut_back(const std::string& path, uint64_t size, const std::string& kept = {},
                int64_t modified_ns = 0);

// Whether put_back() would work, with its errors; nothing is changed. Without `mode` it is not
// looked at whether that could be given to the file.
Status may_put_back(const std::string& path, std::optional<uint32_t> mode = {});

// Makes the file what `contents` says, if it is not: written in place, or made again if it has been
// removed. `kept` as for cut_back(), for every file that is changed. Synced. Broken off anywhere
// and begun again it comes to the same; several callers may do it at once for one file with the
// same contents. (PATH.ghost-part is there meanwhile if the file is not; nobody else's may be.)
// not_found: its folder has gone; refused: it is no regular file any more.
Status put_back(const std::string& path, const FileContents& contents,
                const std::string& kept = {});

}  // namespace ghost::core
