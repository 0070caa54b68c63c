// SPDX-License-Identifier: BSD-3-Clause
// What a skeleton says of the processes in it, for `ghost inspect`.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.hpp"

namespace ghost::tools {

struct SkeletonProcess {
    int pid = 0, parent = 0, threads = 0;
    std::string name;  // comm
};

// Collects the image files that matter from the chunks of a skeleton.
class SkeletonFiles {
  public:
    void open(int file, std::string_view name);
    void data(int file, std::string_view bytes);
    // Processes, parents before children; what cannot be understood, or is too much to be kept, is
    // left out.
    std::vector<SkeletonProcess> processes() const;
    // {name, bytes} of every file.
    const std::map<std::string, uint64_t>& sizes() const { return sizes_; }

  private:
    std::map<int, std::string> names_;
    std::map<std::string, uint64_t> sizes_;
    std::map<std::string, std::string> contents_;  // of pstree.img and core-*.img
    size_t kept_ = 0;                              // bytes of them
};

// Reads the skeleton of a ghost in a file from chunk header to chunk header, without the pages.
// `first`: offset of its first chunk (Contents::sections).
Status read_skeleton(int fd, uint64_t first, SkeletonFiles& out);

}  // namespace ghost::tools
