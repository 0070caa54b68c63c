// SPDX-License-Identifier: BSD-3-Clause
// `ghost checkpoint` of a whole MPI job: asks its coordinator and shows what it does.
#pragma once

#include <string>

#include "tools/job_client.hpp"

namespace ghost::tools {

// `to`: a folder, "memory", "" for the job's own; `then` as on the command line. Returns the exit
// status.
int checkpoint_job(const Job& job, const std::string& to, const std::string& then, bool json);

}  // namespace ghost::tools
