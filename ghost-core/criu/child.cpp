// SPDX-License-Identifier: BSD-3-Clause
#include "ghost-core/criu/child.hpp"

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <spawn.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "base/clock.hpp"

namespace ghost::core {
namespace {

constexpr int first_descriptor = 3;
// Copies are made above this, so that no dup2 in the child overwrites one that is still needed.
constexpr int safe_descriptor = 512;

struct SpawnParts {
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    SpawnParts() {
        posix_spawn_file_actions_init(&actions);
        posix_spawnattr_init(&attributes);
    }
    ~SpawnParts() {
        posix_spawn_file_actions_destroy(&actions);
        posix_spawnattr_destroy(&attributes);
    }
    SpawnParts(const SpawnParts&) = delete;
    SpawnParts& operator=(const SpawnParts&) = delete;
};

void set_attributes(posix_spawnattr_t& attributes) {
    sigset_t none, all;
    sigemptyset(&none);
    sigfillset(&all);
    posix_spawnattr_setsigmask(&attributes, &none);
    posix_spawnattr_setsigdefault(&attributes, &all);
    posix_spawnattr_setpgroup(&attributes, 0);
    posix_spawnattr_setflags(
        &attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETPGROUP);
}

Result<std::vector<Fd>> lift(const std::vector<int>& descriptors) {
    std::vector<Fd> out;
    for (const int fd : descriptors) {
        out.emplace_back(fcntl(fd, F_DUPFD_CLOEXEC, safe_descriptor));
        if (!out.back()) return sys_error("copy descriptor", std::to_string(fd));
    }
    return out;
}

void set_actions(posix_spawn_file_actions_t& actions, const ChildRequest& request,
                 const std::vector<Fd>& lifted) {
    posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDWR, 0);
    posix_spawn_file_actions_adddup2(&actions, 0, 1);
    posix_spawn_file_actions_adddup2(&actions, 0, 2);
    for (size_t i = 0; i < lifted.size(); i++)
        posix_spawn_file_actions_adddup2(&actions, lifted[i].get(),
                                         first_descriptor + static_cast<int>(i));
    posix_spawn_file_actions_addclosefrom_np(&actions,
                                             first_descriptor + static_cast<int>(lifted.size()));
    posix_spawn_file_actions_addchdir_np(&actions, request.folder.c_str());
}

}  // namespace

Result<Child> Child::start(const ChildRequest& request) {
    auto lifted = lift(request.descriptors);
    if (!lifted) return lifted.error();
    SpawnParts parts;
    set_attributes(parts.attributes);
    set_actions(parts.actions, request, *lifted);
    std::vector<char*> argv, environment;
    for (const auto& word : request.argv) argv.push_back(const_cast<char*>(word.c_str()));
    argv.push_back(nullptr);
    for (char** at = environ; *at != nullptr; at++) environment.push_back(*at);
    for (const auto& entry : request.environment)
        environment.push_back(const_cast<char*>(entry.c_str()));
    environment.push_back(nullptr);
    pid_t pid = 0;
    if (const int rc = posix_spawnp(&pid, argv[0], &parts.actions, &parts.attributes, argv.data(),
                                    environment.data()))
        return sys_error_of(rc, "start", request.argv[0],
                            rc == ENOENT ? Code::unsupported : Code::io);
    Fd pidfd(static_cast<int>(syscall(SYS_pidfd_open, pid, 0)));
    Child child(pid, std::move(pidfd));
    if (!child.pidfd_) return sys_error("watch", request.argv[0]);
    return child;
}

Child::Child(Child&& other) noexcept
    : pid_(std::exchange(other.pid_, 0)),
      pidfd_(std::move(other.pidfd_)),
      status_(other.status_),
      ended_(std::exchange(other.ended_, true)) {}

Child::~Child() {
    if (!ended_) kill();
}

// Processes that a killed one has started would go on, and keep its pipes open. They are in its
// group, and as long as it is not reaped nobody else can be.
void Child::end_family() const {
    siginfo_t info{};
    if (waitid(P_PID, static_cast<id_t>(pid_), &info, WEXITED | WNOHANG | WNOWAIT) == 0 &&
        info.si_pid == pid_ && info.si_code != CLD_EXITED)
        ::kill(-pid_, SIGKILL);
}

bool Child::wait(int64_t deadline_us) {
    while (!ended_) {
        const int64_t left = std::max<int64_t>(deadline_us - monotonic_us(), 0);
        pollfd ready{pidfd_.get(), POLLIN, 0};
        const int64_t ms = left == 0 ? 0 : std::min<int64_t>(left / 1000 + 1, 60000);
        const int rc = poll(&ready, 1, static_cast<int>(ms));
        if (rc > 0) end_family();
        if (rc > 0 && waitpid(pid_, &status_, WNOHANG) == pid_) ended_ = true;
        if (rc > 0 && !ended_ && errno == ECHILD) {  // somebody else reaped it
            status_ = 0xff00;
            ended_ = true;
        }
        if (!ended_ && monotonic_us() >= deadline_us) return false;
    }
    return true;
}

void Child::kill() {
    if (ended_ || pid_ <= 0) return;
    ::kill(-pid_, SIGKILL);
    while (waitpid(pid_, &status_, 0) < 0 && errno == EINTR) {
    }
    ended_ = true;
}

bool Child::succeeded() const {
    return ended_ && WIFEXITED(status_) && WEXITSTATUS(status_) == 0;
}

std::string describe_status(int status) {
    if (WIFSIGNALED(status))
        return fmt::format("signal {} ({})", WTERMSIG(status), strsignal(WTERMSIG(status)));
    return fmt::format("exit status {}", WEXITSTATUS(status));
}

}  // namespace ghost::core
