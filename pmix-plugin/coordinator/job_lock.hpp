// SPDX-License-Identifier: BSD-3-Clause
// The word that this mpirun has the job: the lock beside its snapshots, kept until mpirun ends.
#pragma once

#include <map>
#include <mutex>
#include <string>

#include "base/fd.hpp"
#include "pmix-plugin/snapshots/folder.hpp"

namespace ghost::plugin {

// Any thread.
class JobLock {
  public:
    // Takes the lock in a folder of snapshots (its real path), unless it is held already. busy: the
    // job runs under another mpirun, which is named.
    Status take(const std::string& folder, const std::string& job) {
        std::lock_guard guard(mutex_);
        Fd& held = held_[folder];
        if (held) return {};
        auto fd = lock_job(folder, job, name_of_this("mpirun"));
        GHOST_TRY(fd);
        held = std::move(*fd);
        return {};
    }

    void give_up() {
        std::lock_guard guard(mutex_);
        held_.clear();
    }

  private:
    std::mutex mutex_;
    std::map<std::string, Fd> held_;
};

}  // namespace ghost::plugin
