// SPDX-License-Identifier: BSD-3-Clause
// Processes of ours below mpirun or a daemon. ORTE reaps every child with waitpid(-1), so each one
// must be made known to it, and nobody else may wait.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "pmix-plugin/runtime/interface/runtime_adapter.hpp"

namespace ghost::plugin::orte41 {

using Ended = std::function<void(int status)>;  // wait status

// ORTE's main thread only.
class Children {
  public:
    Children();
    ~Children();
    Children(const Children&) = delete;
    Children& operator=(const Children&) = delete;

    struct Start {
        std::vector<std::string> argv;
        std::vector<std::pair<std::string, std::string>> environment;  // beside this process's own
        int stdio[3] = {-1, -1, -1};  // the caller's; the child gets copies
    };
    // Executes argv in its own process group, with a control socket as descriptor 3 and nothing
    // else open.
    Result<RuntimeAdapter::Spawned> start(const Start& start, Ended ended);
    // Ended is called once when this child of ours (or orphan that became ours) has been reaped.
    void watch(pid_t pid, Ended ended);
    // Not called any more for this process.
    void forget(pid_t pid);

  private:
    static void reaped(int fd, short flags, void* tracker) noexcept;

    std::map<pid_t, Ended> watched_;
};

}  // namespace ghost::plugin::orte41
