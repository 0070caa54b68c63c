// SPDX-License-Identifier: BSD-3-Clause
// `ghost restart` of a whole MPI job: this process becomes the mpirun that takes it up again.
#pragma once

#include <string>
#include <vector>

namespace ghost::tools {

struct JobRestart {
    std::string snapshot;              // its folder, or the folder of snapshots
    std::vector<std::string> options;  // for mpirun
    bool replace = false;              // end the job first if it still runs
    bool keep_longer = false;          // keep a copy of files that are cut back
    bool json = false;
};

// Returns only after a refusal, with the exit status; nothing has been started then.
int restart_job(const JobRestart& args);

}  // namespace ghost::tools
