// SPDX-License-Identifier: BSD-3-Clause
// The process beside a daemon of a job that recovers: it ends the daemon, and with it the ranks of
// this node, when the daemon itself cannot and mpirun is about to start these ranks elsewhere
// (docs/PROTOCOL.md, "A recovery").
//
// - The daemon is stopped (SIGSTOP, a debugger): nobody would look whether mpirun answers.
// - mpirun's node answers nothing. The keeper has a connection of its own to mpirun for that, on
//   which it sends a byte at every look: the kernel there acknowledges it, however busy mpirun is.
//
// It counts looks, not time: after a pause of the whole machine everything is as it was before.
#pragma once

#include <netinet/in.h>
#include <sys/types.h>

#include "base/fd.hpp"
#include "base/loop.hpp"
#include "base/result.hpp"

namespace ghost::plugin {

// The lease: whether mpirun's node has answered lately. One thread.
class Lease {
  public:
    // `mpirun`: where it listens; its answers may take `limit_us`, in which there are `looks`.
    Lease(const sockaddr_storage& mpirun, int64_t limit_us, int looks)
        : mpirun_(mpirun), limit_us_(limit_us), looks_(looks) {}

    // To be called at every look. Over: nothing was answered for that long, though there was an
    // answer before.
    bool is_over();

  private:
    bool answers();
    bool connects();

    sockaddr_storage mpirun_;
    int64_t limit_us_;
    int looks_;
    Fd connection_;
    bool connected_ = false, was_answered_ = false;
    int unanswered_ = 0;  // looks in a row
};

class Keeper {
  public:
    // The daemon is this process's parent. It may be stopped, or mpirun silent, for `limit_us`.
    Keeper(pid_t daemon, const sockaddr_storage& mpirun, int64_t limit_us);

    // Returns when the daemon has ended, by the keeper or by itself.
    Status run();

  private:
    static constexpr int looks = 20;

    void look();
    void end_daemon(const char* why);

    pid_t daemon_;
    int64_t limit_us_;
    Fd pidfd_;
    Lease lease_;
    int stopped_ = 0;  // looks in a row
    Loop loop_;
};

}  // namespace ghost::plugin
