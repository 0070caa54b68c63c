// SPDX-License-Identifier: BSD-3-Clause
// criu's work folder of one move: on tmpfs, private, gone with its owner.
#pragma once

#include <string>

#include "base/result.hpp"
#include "pmix-plugin/wrapper/guard.hpp"

namespace ghost::plugin {

// Removed by the destructor, or by the guard if this process is killed before, or by the next one
// if the guard was killed, too.
class WorkFolder {
  public:
    WorkFolder() = default;
    ~WorkFolder() { remove(); }
    WorkFolder(const WorkFolder&) = delete;
    WorkFolder& operator=(const WorkFolder&) = delete;

    // /dev/shm/ghost-<uid>-<name>.<pid>-<random>; mode 0700. `guard` must outlive this.
    Status make(const std::string& name, Guard& guard);
    void remove();
    const std::string& path() const { return path_; }

  private:
    std::string path_;
    Guard* guard_ = nullptr;
};

}  // namespace ghost::plugin
