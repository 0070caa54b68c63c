// SPDX-License-Identifier: BSD-3-Clause
// The one way to start a program: chosen descriptors and nothing else open, a place among the
// processes, a sure end. For example, what `cat` prints of `text`:
//
//   auto child = Child::start({.argv = {"cat"}, .stdio = {text.get(), out.get(), inherited}});
//   if (!child) return child.error();
//   child->wait(Child::no_limit);
//   if (!child->succeeded()) …
//
// A copy of this process that goes on in its own program is made by fork.hpp.
#pragma once

#include <array>
#include <cstdint>
#include <limits>
#include <string>
#include <sys/types.h>
#include <vector>

#include "base/fd.hpp"
#include "base/result.hpp"

namespace ghost {

// In place of a descriptor: this process's own; /dev/null.
constexpr int inherited = -1, null_device = -2;

struct ChildRequest {
    enum class Place {
        own_group,    // leads a process group; Child::kill() ends all of it
        own_session,  // leads a session
        here          // is in this process's group: a terminal's keys reach it
    };
    enum class Signals {
        fresh,      // none blocked or ignored
        unblocked,  // none blocked; ignored are those that are here
        kept,       // as they are here
        blocked     // all blocked; ignored are those that are here, but never SIGCHLD
    };

    std::vector<std::string> argv = {};  // argv[0] is looked up in PATH if it has no slash
    std::string program = {};            // executed in argv[0]'s place, if not empty
    std::string folder = {};             // working folder; empty: this one
    // "NAME=value", in place of this process's own of the name
    std::vector<std::string> environment = {};
    bool own_environment = true;  // false: `environment` is all it gets
    std::array<int, 3> stdio = {null_device, null_device, null_device};
    std::vector<int> descriptors = {};  // it gets these as 3, 4, …
    bool closes_others = true;          // false: it inherits what is not close-on-exec
    Place place = Place::own_group;
    Signals signals = Signals::fresh;
    uint64_t namespaces = 0;  // CLONE_NEW…: new ones
    int network = inherited;  // of a network name space that it enters
    int death_signal = 0;     // sent to it when the thread that started it ends
    bool no_groups = false;   // it gives up the supplementary groups it has here, if it may
};

// Owner of one child; destroying it kills and reaps it. One thread, the one that started it.
// Nothing is copied for it, however much memory this process has (clone(2), CLONE_VM and
// CLONE_VFORK).
class Child {
  public:
    static constexpr int64_t no_limit = std::numeric_limits<int64_t>::max();

    // Returns once the program is executed. unsupported: there is no such program, or no right to
    // make name spaces.
    static Result<Child> start(const ChildRequest& request);
    // The same, but a child of nobody (of init, or of the next subreaper above): it may outlive us.
    static Status start_orphan(const ChildRequest& request);
    Child(Child&& other) noexcept;
    Child& operator=(Child&&) = delete;
    ~Child();

    int fd() const { return pidfd_.get(); }  // readable once it has ended
    pid_t pid() const { return pid_; }
    bool ended() const { return ended_; }
    // Waits until `deadline_us` (monotonic); false if it has not ended by then.
    bool wait(int64_t deadline_us);
    // SIGKILL, to its process group too, and waits for the end.
    void kill();
    // After the end: exit status as of waitpid(2).
    int status() const { return status_; }
    bool succeeded() const;
    // From here on the caller sees to the end of this process.
    pid_t release();

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

}  // namespace ghost
