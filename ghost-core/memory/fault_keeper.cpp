// SPDX-License-Identifier: BSD-3-Clause
#include "ghost-core/memory/fault_keeper.hpp"

#include <array>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include <utility>

#include "base/descriptor_message.hpp"
#include "base/fork.hpp"
#include "base/pidfd.hpp"

namespace ghost::core {
namespace {

constexpr char over = 'o', another = 'a';

// The keeping process. It was forked from one with threads: system calls only.
[[noreturn]] void keep_all(int line, int tree) {
    setsid();  // a Ctrl-C is not for it
    sigset_t all;
    sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all, nullptr);
    const int low = line < tree ? line : tree, high = line < tree ? tree : line;
    if (low > 0) syscall(SYS_close_range, 0U, static_cast<unsigned>(low - 1), 0U);
    if (high > low + 1)
        syscall(SYS_close_range, static_cast<unsigned>(low + 1), static_cast<unsigned>(high - 1),
                0U);
    syscall(SYS_close_range, static_cast<unsigned>(high + 1), ~0U, 0U);
    for (;;) {
        char word = 0;
        auto message = receive_with_descriptor(line, &word, 1);
        (void)message.fd.release();  // it is kept as long as this process lives
        const auto got = message.size;
        if (got == 1 && word == another) {
            if (write(line, &word, 1) != 1) continue;  // its end is noticed next
            continue;
        }
        if (got != 1) {
            signal_pidfd(tree, SIGKILL);
            await_pidfd(tree, -1);
        }
        _exit(0);
    }
}

}  // namespace

Result<FaultKeeper> FaultKeeper::start(pid_t root) {
    const Fd tree = open_pidfd(root);
    if (!tree) return sys_error("watch process", std::to_string(root));
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0)
        return sys_error("start the keeper of missing pages");
    Fd ours(ends[0]), its(ends[1]);
    const pid_t pid = fork_process();
    if (pid < 0) return sys_error("start the keeper of missing pages");
    if (pid == 0) keep_all(its.get(), tree.get());
    return FaultKeeper(pid, std::move(ours));
}

FaultKeeper::FaultKeeper(FaultKeeper&& other) noexcept
    : pid_(std::exchange(other.pid_, 0)), line_(std::move(other.line_)) {}

FaultKeeper::~FaultKeeper() {
    if (pid_ == 0) return;
    let_go();
    while (waitpid(pid_, nullptr, 0) < 0 && errno == EINTR) {
    }
}

void FaultKeeper::let_go() const {
    send(line_.get(), &over, 1, MSG_NOSIGNAL);  // it may have ended by now
}

Status FaultKeeper::keep(int userfault) const {
    char word = another;
    // One that lies in the socket of a process that has ended is closed: so its word is awaited.
    if (send_with_descriptor(line_.get(), &word, 1, userfault) != 1 ||
        recv(line_.get(), &word, 1, 0) != 1)
        return sys_error("have missing pages kept");
    return {};
}

}  // namespace ghost::core
