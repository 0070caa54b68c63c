// SPDX-License-Identifier: BSD-3-Clause
// How CRIU is called: settings common to export and import.
#pragma once

#include <string>

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
// anybody's. Needs root.
Status warm_up(const CriuSettings& settings);
// Does so unless criu has left word that it knows this kernel.
Status warm_up_once(const CriuSettings& settings);

}  // namespace ghost::core
