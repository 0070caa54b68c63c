// SPDX-License-Identifier: BSD-3-Clause
// What a job has beside its snapshots (docs/SNAPSHOT_FORMAT.md): the lock that says which mpirun
// has the job. Its event log is event_log.hpp's.
#pragma once

#include <map>
#include <mutex>
#include <string>

#include "base/fd.hpp"
#include "pmix-plugin/snapshots/folder.hpp"

namespace ghost::plugin {

// The word that this mpirun has the job: the lock beside its snapshots, kept until mpirun ends.
// Any thread.
class JobLock {
  public:
    // Takes the lock in a folder of snapshots (its real path), unless it is held already. busy: the
    // job runs under another mpirun, which is named.
    Status take(const std::string& folder, const std::string& job, const std::string& life) {
        std::lock_guard guard(mutex_);
        Fd& held = held_[folder];
        const std::string who = name_of_this("mpirun");
        if (holds_job(held, folder, job, who, life)) return {};
        held.reset();  // a restart takes it before its life is known
        auto fd = lock_job(folder, job, who, life);
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
