// SPDX-License-Identifier: BSD-3-Clause
// Other processes: running a helper program, and naming a process so that a reused pid is never
// taken for it (pid and start time, pidfd_open(2)). Any thread.
#pragma once

#include <cstdint>
#include <string>
#include <sys/types.h>
#include <vector>

#include "base/fd.hpp"
#include "base/result.hpp"

namespace ghost::tools {

// A process of this boot: the pid alone may have been reused.
struct ProcessId {
    pid_t pid = 0;
    uint64_t start = 0;  // clock ticks after boot, field 22 of /proc/PID/stat (proc(5))

    bool operator==(const ProcessId&) const = default;
};

// What a program left: its wait status and what it wrote to standard output and error together.
struct ProgramEnd {
    int status = 0;
    std::string output;
};

// Runs a program found in PATH to its end with `input` on standard input.
Result<ProgramEnd> run_program(const std::vector<std::string>& argv, const std::string& input = {});
// The same, and another end than exit 0 is an Error carrying the output.
Result<std::string> run_checked(const std::vector<std::string>& argv,
                                const std::string& input = {});

// The name of a running process; not_found if there is none (a zombie is none).
Result<ProcessId> identify(pid_t pid);
bool is_alive(const ProcessId& id);
// A pidfd of exactly this process; not_found if it is gone or its pid belongs to another one.
Result<Fd> open_process(const ProcessId& id);
// SIGKILL and wait until it has ended, at most timeout_ms. Success if it was gone already.
Status kill_process(const ProcessId& id, int timeout_ms);

}  // namespace ghost::tools
