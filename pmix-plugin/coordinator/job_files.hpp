// SPDX-License-Identifier: BSD-3-Clause
// What a job has beside its snapshots (docs/SNAPSHOT_FORMAT.md): its event log, one line of
// JOB.events for everything that happens to it, and the lock that says which mpirun has the job.
#pragma once

#include <deque>
#include <map>
#include <mutex>
#include <string>

#include "base/fd.hpp"
#include "pmix-plugin/runtime/interface/background.hpp"
#include "pmix-plugin/runtime/interface/job_view.hpp"
#include "pmix-plugin/snapshots/folder.hpp"

namespace ghost::plugin {

// Loop thread only; owned by the coordinator. Lines are kept in memory until open(): a job that is
// never saved leaves no file.
class Events {
  public:
    Events(const JobView& job, Background& background) : job_(job), background_(background) {}

    // From now on lines go to that folder of snapshots, which exists; the first call counts.
    void open(const std::string& folder);
    // Adds {"time", "event": what} and the fields of `more`.
    void add(const char* what, const Json& more = Json::object());

  private:
    void write(Json line);

    const JobView& job_;
    Background& background_;
    std::string folder_;
    std::deque<Json> waiting_;
};

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
