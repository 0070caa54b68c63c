// SPDX-License-Identifier: BSD-3-Clause
#include "ghost-core/supervisor/guard.hpp"

#include <cerrno>
#include <csignal>
#include <cstring>
#include <fcntl.h>
#include <filesystem>
#include <fmt/format.h>
#include <linux/close_range.h>
#include <map>
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

#include "base/fork.hpp"
#include "base/pidfd.hpp"
#include "base/proc.hpp"
#include "ghost-core/criu/nested.hpp"
#include "ghost-core/criu/tree.hpp"

namespace ghost::core {
namespace {

struct Packet {
    char what = 0;  // 'w' watch, 'd' duty, 'f' folder, 'q' quit
    int64_t number = 0;
    char text[240] = {};
};

bool process_ended(const Fd& pidfd) {
    return pidfd.valid() && await_pidfd(pidfd.get(), 0);
}

[[noreturn]] void be_sentinel(pid_t group) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    prctl(PR_SET_NAME, "ghost-sentinel");
    if (setpgid(0, group) != 0) _exit(1);
    for (;;) pause();
}

constexpr int end_limit_ms = 10'000;

struct Seen {
    pid_t parent = 0, tracer = 0;
};

// Processes criu is still making or taking apart: criu works in `folder`, what it makes starts
// there, or is traced by it or below it or below `root` (proc(5), cwd and status).
std::set<pid_t> workers_of(const std::string& folder, pid_t root) {
    std::set<pid_t> out;
    std::map<pid_t, Seen> all;
    for (const pid_t pid : numbers_in("/proc")) {
        const auto status = read_status(fmt::format("/proc/{}", pid));
        if (!status || pid == getpid() || status->state == 'Z' || status->state == 'X') continue;
        all[pid] = {parent_of(pid), status->tracer};
        const auto cwd = link_of(fmt::format("/proc/{}/cwd", pid));
        if (pid == root || cwd == folder || cwd.starts_with(folder + "/")) out.insert(pid);
    }
    for (size_t before = 0; before != out.size();) {
        before = out.size();
        for (const auto& [pid, seen] : all)
            if (out.contains(seen.parent) || out.contains(seen.tracer)) out.insert(pid);
    }
    return out;
}

// False: there was none.
bool kill_workers_of(const std::string& folder, pid_t root) {
    std::vector<Fd> killed;
    for (const pid_t pid : workers_of(folder, root)) {
        killed.push_back(open_pidfd(pid));
        if (killed.back().valid()) signal_pidfd(killed.back().get(), SIGKILL);
    }
    for (const auto& one : killed)
        if (one.valid() && !await_pidfd(one.get(), end_limit_ms)) return false;
    return !killed.empty();
}

// The guard's own process.
class Watch {
  public:
    Watch(int connection, pid_t parent_group, Fd above, Guard::Config config)
        : connection_(connection), above_(std::move(above)), config_(std::move(config)) {
        prctl(PR_SET_NAME, "ghost-guard");
        setpgid(0, 0);
        watch(config_.root);
        sigset_t set;
        sigemptyset(&set);
        sigaddset(&set, SIGCHLD);
        signals_.reset(signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK));
        if (!config_.stops) return;
        sentinel_ = fork_process();
        if (sentinel_ == 0) be_sentinel(parent_group);
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
    void watch(pid_t root) {
        config_.root = root;
        root_fd_ = root > 0 ? open_pidfd(root) : Fd();
    }

    // A runtime ends a job by SIGTERM and a second later SIGKILL; a parent that got no processor in
    // between has said nothing of it. Its own ends next, and without that nobody adopts the tree.
    void stay_with_root() {
        const bool adopted = orphaned_ && config_.duty == Guard::Duty::leave;
        if (!adopted || !root_fd_.valid() || !above_.valid()) return;
        while (!process_ended(root_fd_) && !process_ended(above_)) {
            pollfd p[2] = {{root_fd_.get(), POLLIN, 0}, {above_.get(), POLLIN, 0}};
            poll(p, 2, -1);
        }
        kill_root();
    }

    // Until none is left: criu may have forked one while the others were looked for.
    void end_workers() const {
        if (config_.folder.empty()) return;
        const pid_t root = root_fd_.valid() && !process_ended(root_fd_) ? config_.root : 0;
        while (kill_workers_of(config_.folder, root)) continue;
    }

    void kill_root() {
        if (root_fd_.valid()) signal_pidfd(root_fd_.get(), SIGKILL);
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
            // one that would be ended with the parent is only being made
            const bool runs = config_.root > 0 && config_.duty != Guard::Duty::kill;
            pid_t program = runs ? program_of(config_.root) : 0;
            if (program > 0) kill(-program, SIGSTOP);
        }
    }

    // False: the parent is no more, or all is well.
    bool take_packet() {
        Packet packet;
        ssize_t n = recv(connection_, &packet, sizeof packet, 0);
        if (n < 0 && errno == EINTR) return true;
        if (n != sizeof packet) {
            parent_died();
            return false;
        }
        if (packet.what == 'd') config_.duty = static_cast<Guard::Duty>(packet.number);
        if (packet.what == 'f') config_.folder = packet.text;
        if (packet.what == 'w') watch(static_cast<pid_t>(packet.number));
        return packet.what != 'q';
    }

    void parent_died() {
        orphaned_ = true;
        const bool ends = config_.duty == Guard::Duty::kill;
        if (ends) end_workers();
        if (ends || (config_.duty == Guard::Duty::leave && process_ended(above_))) kill_root();
        if (config_.duty == Guard::Duty::resume && config_.root > 0)
            (void)resume_tree(config_.root);  // nobody is there to hear why not
        if (config_.folder.empty()) return;
        std::error_code ignored;
        std::filesystem::remove_all(config_.folder, ignored);
    }

    int connection_;
    Fd above_;  // pidfd of the parent's parent
    Guard::Config config_;
    Fd signals_, root_fd_;
    pid_t sentinel_ = 0;
    bool orphaned_ = false;  // the parent has died
};

// Nothing of the parent may stay open here: others wait for the end of a rank's output.
[[noreturn]] void be_guard(int connection, pid_t parent_group, pid_t above,
                           const Guard::Config& config) {
    sigset_t all;
    sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all, nullptr);
    dup2(connection, 3);
    syscall(SYS_close_range, 4u, ~0u, 0u);
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    for (int i = 0; i < 3; ++i) dup2(null, i);
    Watch(3, parent_group, open_pidfd(above), config).run();
    _exit(0);
}

}  // namespace

Guard& Guard::operator=(Guard&& other) noexcept {
    stop();
    fd_ = std::move(other.fd_);
    pid_ = other.pid_;
    return *this;
}

Result<Guard> Guard::start(const Config& config) {
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0) {
        return sys_error("make a socket pair for the guard");
    }
    Fd ours(ends[0]), theirs(ends[1]);
    const pid_t group = getpgrp(), above = getppid();
    pid_t pid = fork_process();
    if (pid < 0) return sys_error("start the guard");
    if (pid == 0) be_guard(theirs.get(), group, above, config);
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
void Guard::set_duty(Duty duty) {
    tell('d', static_cast<int64_t>(duty), {});
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

}  // namespace ghost::core
