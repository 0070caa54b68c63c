// SPDX-License-Identifier: BSD-3-Clause
#include "ghost-core/criu/nested.hpp"

#include <algorithm>
#include <csignal>
#include <cstdlib>
#include <fmt/format.h>
#include <fstream>
#include <random>
#include <sched.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/child.hpp"
#include "base/clock.hpp"
#include "base/proc.hpp"
#include "ghost-core/criu/criu.hpp"
#include "ghost-core/criu/init_protocol.hpp"

namespace ghost::core {
namespace {

constexpr int64_t start_limit_us = 5'000'000;
constexpr useconds_t look_us = 200;

std::string program_file(pid_t pid) {
    return link_of(fmt::format("/proc/{}/exe", pid));
}

// The init ended with `status`; what did the program end with? A zombie still has its name.
int program_status(pid_t root, int status) {
    std::ifstream file(fmt::format("/proc/{}/comm", root));
    std::string name;
    std::getline(file, name);
    const std::string mark = init_died_of;
    if (WIFEXITED(status) && name.starts_with(mark)) return std::atoi(name.c_str() + mark.size());
    return status;
}

}  // namespace

Result<pid_t> spawn_nested(const NestedProgram& program, const SignalState& signals) {
    if (access(program.init.c_str(), X_OK) != 0)
        return sys_error("start a process of its own name space with", program.init,
                         Code::unsupported);
    const bool own_proc = knows_own_proc(program.criu);
    ChildRequest request;
    request.program = program.init;
    request.argv = {"ghost-init", program.number, fmt::format("{:x}", signals.mask),
                    signals.chld_ignored ? "1" : "0", own_proc ? "1" : "0"};
    for (char* const* p = program.argv; *p != nullptr; ++p) request.argv.emplace_back(*p);
    request.environment = program.environment;
    request.stdio = program.stdio;
    request.closes_others = program.only_stdio;
    request.place = ChildRequest::Place::here;
    request.signals = ChildRequest::Signals::blocked;
    request.namespaces =
        CLONE_NEWPID | (own_proc ? CLONE_NEWNS : 0U) | (program.own_ipc ? CLONE_NEWIPC : 0U);
    auto child = Child::start(request);
    if (!child) return child.error();
    return child->release();
}

pid_t wait_for_program(pid_t root) {
    pid_t program = 0;
    for (const int64_t limit = monotonic_us() + start_limit_us; monotonic_us() < limit;) {
        const std::string init = program_file(root);
        program = program_of(root);
        const bool begun = program != 0 && program_file(program) != init;
        if (begun || init.empty()) break;
        usleep(look_us);
    }
    return program;
}

std::string init_beside(const std::string& program) {
    const auto folder = program.rfind('/');
    return folder == std::string::npos ? "" : program.substr(0, folder + 1) + "ghost-init";
}

int reap_nested(pid_t root) {
    siginfo_t info{};
    waitid(P_PID, static_cast<id_t>(root), &info, WEXITED | WNOWAIT);
    const int seen =
        info.si_code == CLD_EXITED ? (info.si_status & 0xff) << 8 : info.si_status & 0x7f;
    const int status = program_status(root, seen);
    waitpid(root, nullptr, 0);
    return status;
}

pid_t program_of(pid_t root) {
    const auto children = children_of(root);
    return children.empty() ? 0 : children.front();
}

bool has_own_proc(pid_t root) {
    const auto are_same = [root](const char* ours, const char* its) {
        struct stat a {
        }, b{};
        return stat(ours, &a) == 0 &&
               stat(fmt::format("/proc/{}/{}", root, its).c_str(), &b) == 0 &&
               a.st_dev == b.st_dev && a.st_ino == b.st_ino;
    };
    return !are_same("/proc/self/ns/mnt", "ns/mnt") && !are_same("/proc/self/ns/pid", "ns/pid") &&
           are_same("/", "root");
}

std::string random_number() {
    // Below 2000 daemons and kernel threads have theirs; the default of pid_max is in any case free
    // to use (proc(5), /proc/sys/kernel/pid_max).
    constexpr int lowest = 2000, otherwise = 32768;
    int limit = otherwise;
    std::ifstream("/proc/sys/kernel/pid_max") >> limit;
    std::random_device random;
    std::uniform_int_distribution<int> any(lowest, std::max(limit, otherwise) - 1);
    int number = any(random);
    for (int i = 0; i < 100 && kill(number, 0) == 0; i++) number = any(random);
    return fmt::format("{0}:{0}", number);
}

}  // namespace ghost::core
