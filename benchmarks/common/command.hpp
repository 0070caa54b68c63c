// SPDX-License-Identifier: BSD-3-Clause
// Running a program and following what it prints, line by line.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <sys/types.h>
#include <vector>

#include "base/fd.hpp"
#include "base/result.hpp"

namespace ghost::bench {

// A started program. Its standard output and error arrive as lines; it leads a process group of its
// own, which is ended (SIGTERM, two seconds later SIGKILL) if the object dies first. One thread.
class Command {
  public:
    // Standard input is /dev/null. Names without a slash are looked up in PATH.
    static Result<Command> start(const std::vector<std::string>& argv);
    Command(Command&& other) noexcept;
    Command& operator=(Command&&) = delete;
    ~Command();

    // Calls `line` for every line printed until it returns false or the program has closed its
    // output; Code::timeout at `deadline_us` (monotonic_us()). Returns true if output has ended.
    Result<bool> follow(const std::function<bool(const std::string&)>& line, int64_t deadline_us);
    // Waits for its end: the exit status, 128 + signal if a signal ended it.
    Result<int> wait(int64_t deadline_us);

  private:
    Command(pid_t pid, Fd output) : pid_(pid), output_(std::move(output)) {}

    pid_t pid_ = -1;  // -1: has been waited for
    Fd output_;
    std::string rest_;  // what came after the last end of line
};

// What a finished program left: exit status and everything it printed.
struct Ended {
    int status = 0;
    std::string output;
};

// Starts a program and waits for it; Code::timeout after `limit_s`, and it is ended.
Result<Ended> run(const std::vector<std::string>& argv, int limit_s);

}  // namespace ghost::bench
