// SPDX-License-Identifier: BSD-3-Clause
#include "base/file.hpp"
#include "tools/node_checks.hpp"

#include <cerrno>
#include <csignal>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <linux/capability.h>
#include <linux/magic.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fd.hpp"
#include "base/fork.hpp"
#include "base/lender.hpp"
#include "base/scheduling.hpp"
#include "base/user_space.hpp"
#include "ghost-core/memory/page_scan.hpp"
#include "tools/process.hpp"

namespace ghost::tools {
namespace {

Finding refused() {
    return {false, std::strerror(errno)};
}
Finding works() {
    return {true, "works"};
}

// Exit status of a child, 255 for another end.
int status_of(pid_t pid) {
    int status = 0;
    while (::waitpid(pid, &status, 0) < 0) {
        if (errno != EINTR) return 255;
    }
    return WIFEXITED(status) ? WEXITSTATUS(status) : 255;
}

// Runs `inside` as the first process of a PID namespace; its exit status is an errno.
Finding in_pid_namespace(int (*inside)()) {
    pid_t pid = fork_process({.namespaces = CLONE_NEWPID});
    if (pid < 0) return refused();
    if (pid == 0) ::_exit(inside());
    int error = status_of(pid);
    return error == 0 ? works() : Finding{false, std::strerror(error)};
}

int number_in(const char* path, int otherwise) {
    auto text = read_file(path);
    return text.ok() ? std::atoi(text->c_str()) : otherwise;
}

// What root would have to do for users, by what stands in their way.
std::string repair_user_space() {
    if (number_in("/proc/sys/user/max_user_namespaces", 1) == 0)
        return "as root: sysctl -w user.max_user_namespaces=10000";
    if (number_in("/proc/sys/kernel/unprivileged_userns_clone", 1) == 0)
        return "as root: sysctl -w kernel.unprivileged_userns_clone=1; or, so that Ghost alone "
               "has it: systemctl enable --now ghostd.socket (ghostd(8))";
    if (number_in("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", 0) == 1)
        return "as root, in /etc/apparmor.d/ghost, and then apparmor_parser -r of it: abi "
               "<abi/4.0>, include <tunables/global> profile ghost "
               "/**/{ghost,ghost-wrapper} flags=(unconfined) { userns, }; or systemctl enable "
               "--now "
               "ghostd.socket (ghostd(8))";
    return "log in as a user with a number of his own, outside of a confined container; or as "
           "root: systemctl enable --now ghostd.socket (ghostd(8))";
}

}  // namespace

Finding look_capabilities(const Paths&) {
    if (!has_user_space()) {
        const Status why = can_enter_own_user_space();
        return {false, why ? "no user name space" : why.error().message(), repair_user_space()};
    }
    // What criu and the page engine use (criu(8), process_vm_readv(2), pid_namespaces(7)).
    constexpr std::pair<int, const char*> wanted[] = {
        {CAP_SYS_ADMIN, "sys_admin"},
        {CAP_SYS_PTRACE, "sys_ptrace"},
        {CAP_NET_ADMIN, "net_admin"},
        {CAP_CHECKPOINT_RESTORE, "checkpoint_restore"}};
    auto text = read_file("/proc/self/status");
    size_t at = text.ok() ? text->find("CapEff:") : std::string::npos;
    if (at == std::string::npos) return {false, "unknown"};
    uint64_t held = std::strtoull(text->c_str() + at + 7, nullptr, 16);
    std::vector<std::string> missing;
    for (const auto& [bit, name] : wanted) {
        if ((held >> bit & 1) == 0) missing.push_back(name);
    }
    if (missing.empty()) return {true, ::geteuid() == 0 ? "root" : "a user name space"};
    return {false, fmt::format("missing: {}", fmt::join(missing, ", "))};
}

Finding look_lender(const Paths&) {
    if (::geteuid() == 0) return {true, "not for root"};
    const auto lent = what_is_lent();
    if (!lent && lent.error().code == Code::not_found)
        return {true, "not here; only needed where users may make no user name spaces"};
    if (!lent) return {false, lent.error().message(), "as root: systemctl restart ghostd.socket"};
    std::vector<std::string> names;
    if ((*lent & loan_bit(Loan::space)) != 0) names.push_back("user name spaces");
    if ((*lent & loan_bit(Loan::userfaultfd)) != 0) names.push_back("/dev/userfaultfd");
    return {true, fmt::format("lends {}", fmt::join(names, ", "))};
}

Finding look_pid_namespaces(const Paths&) {
    return in_pid_namespace([] { return 0; });
}

Finding look_set_tid(const Paths&) {
    return in_pid_namespace([] {
        constexpr pid_t wanted = 1001;
        pid_t pid = fork_process({.numbers = &wanted, .number_count = 1});
        if (pid < 0) return errno;
        if (pid == 0) ::_exit(::getpid() == wanted ? 0 : 1);
        return status_of(pid) == 0 ? 0 : EINVAL;
    });
}

Finding look_userfaultfd(const Paths&) {
    // For faults in user mode only, a user may have one (Linux 5.11).
    const int of_users = ::geteuid() == 0 ? 0 : 1;
    Fd fd(static_cast<int>(::syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | of_users)));
    return fd.valid() ? works() : refused();
}

Finding look_process_vm_readv(const Paths&) {
    static const char text[] = "ghost";
    pid_t pid = fork_process();
    if (pid < 0) return refused();
    if (pid == 0) {
        ::pause();
        ::_exit(0);
    }
    char copy[sizeof text] = {};
    iovec here{copy, sizeof copy}, there{const_cast<char*>(text), sizeof text};
    ssize_t n = ::process_vm_readv(pid, &here, 1, &there, 1, 0);
    Finding finding = n == sizeof text && std::strcmp(copy, text) == 0 ? works() : refused();
    ::kill(pid, SIGKILL);
    status_of(pid);
    return finding;
}

Finding look_memfd(const Paths&) {
    Fd fd(::memfd_create("ghost", MFD_CLOEXEC));
    return fd.valid() ? works() : refused();
}

Finding look_pagemap_scan(const Paths&) {
    if (core::PageScan::way_here() == core::PageScan::Way::scan) return works();
    return {
        false,
        "comes with Linux 6.7: without it programs and ranks stand while all of their memory is "
        "copied, for each snapshot too, and do not move live"};
}

// By priority: criu and what copies are to have a processor while a process is stopped.
Finding look_realtime(const Paths&) {
    const pid_t pid = fork_process();
    if (pid < 0) return refused();
    if (pid == 0) {
        const sched_param lowest = lowest_of(SCHED_RR);
        ::_exit(::sched_setscheduler(0, SCHED_RR, &lowest) == 0 ? 0 : errno);
    }
    const int error = status_of(pid);
    if (error == 0) return works();
    const std::string state =
        fmt::format("{}: on busy processors moves and snapshots take longer", std::strerror(error));
    if (::geteuid() == 0) return {false, state};
    return {false, state,
            "as root: echo '* - rtprio 1' > /etc/security/limits.d/ghost.conf; then log in anew"};
}

Finding look_all_faults(const Paths&) {
    constexpr unsigned long make_one = _IO(0xAA, 0x00);  // USERFAULTFD_IOC_NEW, Linux 6.1
    Fd fd(static_cast<int>(::syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK)));
    if (fd.valid()) return works();
    const Fd device(::open("/dev/userfaultfd", O_RDWR | O_CLOEXEC));
    fd.reset(device.valid() ? ::ioctl(device.get(), make_one, O_CLOEXEC | O_NONBLOCK) : -1);
    if (fd.valid()) return {true, "works, by /dev/userfaultfd"};
    const int why = errno;
    if (const auto lent = what_is_lent(); lent && (*lent & loan_bit(Loan::userfaultfd)) != 0)
        return {true, "works, by ghostd"};
    return {false,
            fmt::format("{}: programs that write fast are stopped longer to be saved",
                        std::strerror(why)),
            "as root: groupadd -f ghost; usermod -aG ghost USER; echo 'KERNEL==\"userfaultfd\", "
            "GROUP=\"ghost\", MODE=\"0660\"' > /etc/udev/rules.d/60-ghost.rules; udevadm control "
            "--reload; udevadm trigger --name-match=userfaultfd; then log in anew"};
}

Finding look_shm(const Paths&) {
    struct statfs fs {};
    if (::statfs("/dev/shm", &fs) != 0) return refused();
    if (fs.f_type == TMPFS_MAGIC) return {true, "tmpfs"};
    return {false, "not a tmpfs"};
}

}  // namespace ghost::tools
