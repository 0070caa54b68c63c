// SPDX-License-Identifier: BSD-3-Clause
// criu's work folder of one export or import: on tmpfs, private, gone with its owner.
#pragma once

#include <string>
#include <utility>

#include "base/result.hpp"
#include "ghost-core/supervisor/guard.hpp"

namespace ghost::core {

// Removed by the destructor, or by the guard if this process is killed before, or by the next one
// that is made if the guard was killed, too, or there is none.
class WorkFolder {
  public:
    WorkFolder() = default;
    WorkFolder(WorkFolder&& other) noexcept
        : path_(std::exchange(other.path_, {})), guard_(other.guard_) {}
    WorkFolder& operator=(WorkFolder&&) = delete;
    ~WorkFolder() { remove(); }

    // /dev/shm/ghost-<uid>-<name>.<PID name space>.<pid>-<random>; mode 0700. `guard`, if there is
    // one, must outlive this.
    Status make(const std::string& name, Guard* guard = nullptr);
    void remove();
    const std::string& path() const { return path_; }

  private:
    std::string path_;
    Guard* guard_ = nullptr;
};

}  // namespace ghost::core
