// SPDX-License-Identifier: BSD-3-Clause
// What processes end with.
#pragma once

#include <sys/wait.h>

namespace ghost {

// A wait status (wait(2)) as a shell tells it: the exit status, or 128 and the signal's number.
inline int exit_status_of(int wait_status) {
    return WIFSIGNALED(wait_status) ? 128 + WTERMSIG(wait_status) : WEXITSTATUS(wait_status);
}

// What a rank ends with that has lost its PMIx server for good, in stock Open MPI and by its agent.
inline constexpr int lost_server_status = 195;

}  // namespace ghost
