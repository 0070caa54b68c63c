// SPDX-License-Identifier: BSD-3-Clause
// How CRIU is called: settings common to export and import.
#pragma once

#include <string>

#include "base/child.hpp"
#include "base/result.hpp"

namespace ghost::core {

struct CriuSettings {
    std::string program;   // path of criu, or a name looked up in PATH
    std::string work_dir;  // existing folder of the caller on tmpfs, mode 0700; used for sockets
                           // and logs of one export or import at a time; left empty except for
                           // criu.log of the last failure
    int limit_s = 20;      // after that criu is killed and the step fails (Code::timeout)
};

// Runs criu once so that its kernel-feature cache exists and its pages are in memory. Cheap (a few
// ms) when that has been done since boot. unsupported: criu is missing, older than 4.1, or refused
// by this kernel; refused: its cache may be another user's, or it is a build that believes
// anybody's. Needs root or a user name space (base/user_space.hpp).
Status warm_up(const CriuSettings& settings);
// Does so unless criu has left word that it knows this kernel.
Status warm_up_once(const CriuSettings& settings);

// Facts about the criu program at hand.
inline constexpr const char* criu_log = "criu.log";

// Full path of a program; unsupported if there is none.
Result<std::string> find_program(const std::string& program);

// A command line of criu (its verb second) becomes that of an ordinary user, who has been through
// enter_own_user_space(); root's stays as it is.
void as_this_user(ChildRequest& criu);

// Whether this build can leave lazy pages out of a dump without a page server (the change in
// packaging/criu/patches), told by the name of its switch in the file.
bool knows_lazy_holes(const std::string& program);

// Whether it can be started ahead of need and asks us at the points of the dump (likewise).
bool knows_control(const std::string& program);

// Whether it opens what is below /proc of a process of the tree by that one's own number, and finds
// other names of files (likewise).
bool knows_other_names(const std::string& program);

// Whether it takes trees along whose /proc is that of their PID name space (likewise). A program as
// in CriuSettings.
bool knows_own_proc(const std::string& program);

// criu, which was to do that, has ended with this status: why, from its criu.log in this folder, in
// our words (of files those of file_differences()). What it says itself is for the log: who reads
// the error has not written it.
Error criu_gave_up(const std::string& tried, int status, const std::string& folder);

// The error lines of criu.log in this folder, shortened; empty if there are none.
std::string last_log_error(const std::string& folder);

}  // namespace ghost::core
