// SPDX-License-Identifier: BSD-3-Clause
// Copies of this process that go on in its program; programs are started by child.hpp. System calls
// only, so that what is linked statically has it too.
#pragma once

#include <csignal>
#include <cstdint>
#include <linux/sched.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

namespace ghost {

struct ForkOptions {
    uint64_t namespaces = 0;         // CLONE_NEW…: new ones for the child
    const pid_t* numbers = nullptr;  // wanted ones, the innermost name space's first (clone(2))
    size_t number_count = 0;
};

// As fork(2): 0 in the child, -1 and errno. With options the C library does not know of it: then a
// child of a process with threads may make system calls only.
inline pid_t fork_process(const ForkOptions& options = {}) {
    if (options.namespaces == 0 && options.number_count == 0) return ::fork();
    clone_args args{};
    args.flags = options.namespaces;
    args.exit_signal = SIGCHLD;
    args.set_tid = reinterpret_cast<uintptr_t>(options.numbers);
    args.set_tid_size = options.number_count;
    return static_cast<pid_t>(::syscall(SYS_clone3, &args, sizeof args));
}

// In a child: it gets `signal` when its parent's thread that made it ends (PR_SET_PDEATHSIG).
// False: `parent` has ended before.
inline bool die_with(pid_t parent, int signal) {
    ::prctl(PR_SET_PDEATHSIG, signal);
    return ::getppid() == parent;
}

}  // namespace ghost
