// SPDX-License-Identifier: BSD-3-Clause
#include "pmix-plugin/runtime/orte41/children.hpp"

#include <csignal>
#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "pmix-plugin/runtime/orte41/orte_headers.hpp"

extern char** environ;

namespace ghost::plugin::orte41 {

namespace {

// For the callbacks ORTE still makes after the end.
Children*& present() {
    static Children* the_children = nullptr;
    return the_children;
}

// argv or envp for exec, built before the fork: afterwards nothing may allocate.
std::vector<char*> pointers(std::vector<std::string>& strings) {
    std::vector<char*> raw;
    for (auto& text : strings) raw.push_back(text.data());
    raw.push_back(nullptr);
    return raw;
}

std::vector<std::string> merged_environment(
    const std::vector<std::pair<std::string, std::string>>& changes) {
    std::vector<std::string> merged;
    for (char** entry = environ; *entry; ++entry) {
        const std::string text = *entry;
        bool replaced = false;
        for (const auto& [name, value] : changes)
            replaced = replaced || text.compare(0, name.size() + 1, name + "=") == 0;
        if (!replaced) merged.push_back(text);
    }
    for (const auto& [name, value] : changes) merged.push_back(name + "=" + value);
    return merged;
}

// Out of the way of descriptors 0 to 3, which the child fills.
Result<Fd> high_copy(int fd) {
    Fd copy(fcntl(fd, F_DUPFD_CLOEXEC, 10));
    if (!copy) return sys_error("copy a descriptor for a wrapper");
    return copy;
}

[[noreturn]] void become(const Fd (&fds)[4], char* const* argv, char* const* envp) {
    setpgid(0, 0);  // ORTE signals the group of what it launched
    for (int i = 0; i < 4; ++i) dup2(fds[i].get(), i);
    syscall(SYS_close_range, 4U, ~0U, 0U);
    for (int signal = 1; signal < NSIG; ++signal) std::signal(signal, SIG_DFL);
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, nullptr);
    execvpe(argv[0], argv, envp);
    _exit(127);
}

}  // namespace

Children::Children() {
    present() = this;
    // The tree of a wrapper that dies becomes this daemon's child, not init's: its end can be had.
    prctl(PR_SET_CHILD_SUBREAPER, 1);
}

Children::~Children() {
    present() = nullptr;
}

Result<RuntimeAdapter::Spawned> Children::start(const Start& start, Ended ended) {
    auto pair = control_pair();
    if (!pair) return pair.error();
    Fd fds[4];
    for (int i = 0; i < 4; ++i) {
        auto copy = high_copy(i < 3 ? start.stdio[i] : pair->second.fd());
        if (!copy) return copy.error();
        fds[i] = std::move(*copy);
    }
    auto words = start.argv;
    auto variables = merged_environment(start.environment);
    const auto argv = pointers(words);
    const auto envp = pointers(variables);
    const pid_t pid = fork();
    if (pid < 0) return sys_error("start", start.argv.front());
    if (pid == 0) become(fds, argv.data(), envp.data());
    setpgid(pid, pid);  // whoever comes first
    watch(pid, std::move(ended));
    RuntimeAdapter::Spawned spawned;
    spawned.pid = pid;
    spawned.control = std::move(pair->first);
    return spawned;
}

void Children::watch(pid_t pid, Ended ended) {
    const bool known = watched_.contains(pid);
    watched_[pid] = std::move(ended);
    if (known) return;
    orte_proc_t* placeholder = OBJ_NEW(orte_proc_t);
    placeholder->pid = pid;
    ORTE_FLAG_SET(placeholder, ORTE_PROC_FLAG_ALIVE);
    orte_wait_cb(placeholder, reaped, orte_event_base, nullptr);  // keeps its own reference
    OBJ_RELEASE(placeholder);
}

void Children::forget(pid_t pid) {
    const auto found = watched_.find(pid);
    if (found != watched_.end()) found->second = nullptr;
}

void Children::reaped(int, short, void* data) noexcept {
    auto* tracker = static_cast<orte_wait_tracker_t*>(data);
    const pid_t pid = tracker->child->pid;
    const int status = tracker->child->exit_code;  // ORTE stores the wait status there
    OBJ_RELEASE(tracker);
    if (!present()) return;
    const auto found = present()->watched_.find(pid);
    if (found == present()->watched_.end()) return;
    const Ended ended = std::move(found->second);
    present()->watched_.erase(found);
    if (ended) ended(status);
}

}  // namespace ghost::plugin::orte41
