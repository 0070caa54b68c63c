// SPDX-License-Identifier: BSD-3-Clause
// Where event logs of jobs are: in one folder of the user's, a file for each job that runs or has
// ended, named by when it began, so that their names' order is theirs in time:
// 20250131T235959Z-JOB-PID.events. The part of a long job's that is before the last few MiB is
// beside it, with ".old" behind its name; what was before that is gone.
//
// mpirun holds a lock (flock(2)) on its job's log for as long as it lives. No state: any thread.
// Everything here may block on the disk.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <sys/types.h>
#include <vector>

#include "base/fd.hpp"
#include "base/result.hpp"

namespace ghost::plugin {

// What `ghost_events` means: "none" is an empty text, "auto" (and nothing) the folder of the user's
// state ($XDG_STATE_HOME/ghost, or ~/.local/state/ghost), which need not be there yet; else a
// folder, absolute. refused: $HOME is not this user's.
Result<std::string> events_folder(const std::optional<std::string>& setting);

struct EventsFile {
    std::string path;
    std::string began;  // 20250131T235959Z
    std::string job;
    pid_t pid = 0;  // mpirun's
};

// The first part of the name of a file that begins now.
std::string began_now();
// Of a job that begins now.
std::string new_events_file(const std::string& folder, const std::string& job, pid_t pid);
// By the name; nothing: it is none.
std::optional<EventsFile> parse_events_file(const std::string& path);
std::string older_part(const std::string& path);

// Opens it for appending, locked; makes it (0600) and its folder (0700) if they are not there.
Result<Fd> open_events_file(const std::string& path);
// Removes the oldest logs but `keep`, never one whose mpirun lives.
void remove_old_events(const std::string& folder, size_t keep);

// The newest first. not_found: no such folder; refused: it is not this user's.
Result<std::vector<EventsFile>> list_events_files(const std::string& folder);

struct EventsText {
    std::string text;
    bool running = false;  // mpirun has it
    bool cut = false;      // longer than what is read
};
// Of the user's own job, the older part first.
Result<EventsText> read_own_log(const std::string& path);
// What somebody has given to the user.
Result<EventsText> read_any_log(const std::string& path);

}  // namespace ghost::plugin
