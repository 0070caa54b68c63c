// SPDX-License-Identifier: BSD-3-Clause
// One criu call: a child process with chosen descriptors, a time limit and a sure end.
#pragma once

#include <cstdint>
#include <string>
#include <sys/types.h>
#include <vector>

#include "base/fd.hpp"
#include "base/result.hpp"

namespace ghost::core {

struct ChildRequest {
    std::vector<std::string> argv;         // argv[0] is looked up in PATH if it has no slash
    std::string folder;                    // working directory
    std::vector<std::string> environment;  // "NAME=value", added to this process's own
    // The child gets these as descriptors 3, 4, …; all others are closed in it.
    std::vector<int> descriptors;
};

// Owner of one child; destroying it kills and reaps it. One thread, the one that started it.
class Child {
  public:
    // Standard input and output are /dev/null; own process group; no signal blocked or ignored.
    static Result<Child> start(const ChildRequest& request);
    Child(Child&& other) noexcept;
    Child& operator=(Child&&) = delete;
    ~Child();

    int fd() const { return pidfd_.get(); }  // readable once it has ended
    pid_t pid() const { return pid_; }
    bool ended() const { return ended_; }
    // Waits until `deadline_us` (monotonic); false if it has not ended by then.
    bool wait(int64_t deadline_us);
    // SIGKILL, to what it has started too, and waits for the end.
    void kill();
    // After the end: exit status as of waitpid(2).
    int status() const { return status_; }
    bool succeeded() const;

  private:
    void end_family() const;
    Child(pid_t pid, Fd pidfd) : pid_(pid), pidfd_(std::move(pidfd)) {}

    pid_t pid_ = 0;
    Fd pidfd_;
    int status_ = 0;
    bool ended_ = false;
};

// "exit status 1", "signal 9 (Killed)"
std::string describe_status(int status);

}  // namespace ghost::core
