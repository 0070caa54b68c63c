// SPDX-License-Identifier: BSD-3-Clause
#include "pmix-plugin/wrapper/guard.hpp"

#include <cerrno>
#include <csignal>
#include <cstring>
#include <fcntl.h>
#include <filesystem>
#include <fmt/format.h>
#include <fstream>
#include <linux/close_range.h>
#include <poll.h>
#include <set>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include <utility>
#include <vector>

namespace ghost::plugin {
namespace {

struct Packet {
    char what = 0;  // 'w' watch, 'a' arm, 'f' folder, 'q' quit
    int64_t number = 0;
    char text[240] = {};
};

Fd open_pidfd(pid_t pid) {
    return Fd(static_cast<int>(syscall(SYS_pidfd_open, pid, 0)));
}

bool process_ended(const Fd& pidfd) {
    pollfd p{pidfd.get(), POLLIN, 0};
    return pidfd.valid() && poll(&p, 1, 0) == 1;
}

// The program is the init's oldest child (proc(5), task/TID/children).
pid_t program_of(pid_t root) {
    std::ifstream file(fmt::format("/proc/{}/task/{}/children", root, root));
    pid_t pid = 0;
    return file >> pid ? pid : 0;
}

[[noreturn]] void be_sentinel(pid_t group) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    prctl(PR_SET_NAME, "ghost-sentinel");
    if (setpgid(0, group) != 0) _exit(1);
    for (;;) pause();
}

// Processes criu is still making or taking apart when the wrapper dies: criu works in `folder`,
// what it makes starts there or is traced by it (proc(5), cwd and status). Each is killed.
void kill_workers_of(const std::string& folder) {
    std::set<pid_t> criu;
    std::vector<pid_t> all;
    std::error_code ignored;
    for (const auto& entry : std::filesystem::directory_iterator("/proc", ignored)) {
        pid_t pid = std::atoi(entry.path().filename().c_str());
        if (pid <= 0 || pid == getpid()) continue;
        all.push_back(pid);
        std::string cwd = std::filesystem::read_symlink(entry.path() / "cwd", ignored).string();
        if (cwd == folder || cwd.starts_with(folder + "/")) criu.insert(pid);
    }
    for (pid_t pid : all) {
        std::ifstream status(fmt::format("/proc/{}/status", pid));
        for (std::string line; std::getline(status, line);) {
            bool names_other = line.starts_with("TracerPid:") || line.starts_with("PPid:");
            if (names_other && criu.contains(std::atoi(line.c_str() + line.find(':') + 1))) {
                kill(pid, SIGKILL);
            }
        }
    }
    for (pid_t pid : criu) kill(pid, SIGKILL);
}

// The guard's own process.
class Watch {
  public:
    Watch(int connection, pid_t wrapper_group, Fd daemon)
        : connection_(connection), daemon_(std::move(daemon)) {
        prctl(PR_SET_NAME, "ghost-guard");
        setpgid(0, 0);
        sigset_t set;
        sigemptyset(&set);
        sigaddset(&set, SIGCHLD);
        signals_.reset(signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK));
        sentinel_ = fork();
        if (sentinel_ == 0) be_sentinel(wrapper_group);
    }

    void run() {
        for (;;) {
            pollfd p[2] = {{connection_, POLLIN, 0}, {signals_.get(), POLLIN, 0}};
            if (poll(p, 2, -1) < 0) continue;
            if (p[1].revents != 0) look_at_sentinel();
            if (p[0].revents != 0 && !take_packet()) break;
        }
        if (sentinel_ > 0) {
            kill(sentinel_, SIGKILL);
            waitpid(sentinel_, nullptr, 0);
        }
        stay_with_root();
    }

  private:
    // The runtime ends a job by SIGTERM and a second later SIGKILL; a wrapper that got no processor
    // in between has armed nothing. Its daemon ends next, and without it nobody adopts the tree.
    void stay_with_root() {
        if (!orphaned_ || !root_fd_.valid() || !daemon_.valid()) return;
        while (!process_ended(root_fd_) && !process_ended(daemon_)) {
            pollfd p[2] = {{root_fd_.get(), POLLIN, 0}, {daemon_.get(), POLLIN, 0}};
            poll(p, 2, -1);
        }
        kill_root();
    }

    void kill_root() {
        if (root_fd_.valid()) syscall(SYS_pidfd_send_signal, root_fd_.get(), SIGKILL, nullptr, 0);
    }

    void look_at_sentinel() {
        signalfd_siginfo info{};
        while (read(signals_.get(), &info, sizeof info) > 0) continue;
        int status = 0;
        while (sentinel_ > 0 && waitpid(sentinel_, &status, WNOHANG | WUNTRACED) > 0) {
            if (!WIFSTOPPED(status)) {
                sentinel_ = 0;
                return;
            }
            pid_t program = root_ > 0 ? program_of(root_) : 0;
            if (program > 0) kill(-program, SIGSTOP);
        }
    }

    // False: the wrapper is no more.
    bool take_packet() {
        Packet packet;
        ssize_t n = recv(connection_, &packet, sizeof packet, 0);
        if (n < 0 && errno == EINTR) return true;
        if (n != sizeof packet) {
            wrapper_died();
            return false;
        }
        if (packet.what == 'a') armed_ = packet.number != 0;
        if (packet.what == 'f') folder_ = packet.text;
        if (packet.what == 'w') {
            root_ = static_cast<pid_t>(packet.number);
            root_fd_ = root_ > 0 ? open_pidfd(root_) : Fd();
        }
        return packet.what != 'q';
    }

    void wrapper_died() {
        orphaned_ = true;
        if (armed_ || process_ended(daemon_)) kill_root();
        if (folder_.empty()) return;
        if (armed_) kill_workers_of(folder_);
        std::error_code ignored;
        std::filesystem::remove_all(folder_, ignored);
    }

    int connection_;
    Fd daemon_, signals_, root_fd_;
    pid_t sentinel_ = 0, root_ = 0;
    bool armed_ = false;
    bool orphaned_ = false;  // the wrapper has died
    std::string folder_;
};

// Nothing of the wrapper may stay open here: the runtime waits for the end of a rank's output.
[[noreturn]] void be_guard(int connection, pid_t wrapper_group, pid_t daemon) {
    dup2(connection, 3);
    syscall(SYS_close_range, 4u, ~0u, 0u);
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    for (int i = 0; i < 3; ++i) dup2(null, i);
    Watch(3, wrapper_group, open_pidfd(daemon)).run();
    _exit(0);
}

}  // namespace

Result<Guard> Guard::start() {
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0) {
        return sys_error("make a socket pair for the guard");
    }
    Fd ours(ends[0]), theirs(ends[1]);
    pid_t group = getpgrp(), daemon = getppid();
    pid_t pid = fork();
    if (pid < 0) return sys_error("start the guard");
    if (pid == 0) be_guard(theirs.get(), group, daemon);
    Guard out;
    out.fd_ = std::move(ours);
    out.pid_ = pid;
    return out;
}

void Guard::tell(char what, int64_t number, const std::string& text) const {
    if (!fd_.valid()) return;
    Packet packet;
    packet.what = what;
    packet.number = number;
    text.copy(packet.text, sizeof packet.text - 1);
    while (send(fd_.get(), &packet, sizeof packet, MSG_NOSIGNAL) < 0 && errno == EINTR) continue;
}

void Guard::watch(pid_t root) {
    tell('w', root, {});
}
void Guard::arm(bool on) {
    tell('a', on ? 1 : 0, {});
}
void Guard::folder(const std::string& path) {
    tell('f', 0, path);
}

void Guard::stop() {
    if (!fd_.valid()) return;
    tell('q', 0, {});
    fd_.reset();
    while (waitpid(pid_, nullptr, 0) < 0 && errno == EINTR) continue;
}

}  // namespace ghost::plugin
