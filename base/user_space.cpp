// SPDX-License-Identifier: BSD-3-Clause
#include "base/user_space.hpp"

#include <algorithm>
#include <fcntl.h>
#include <fmt/format.h>
#include <linux/capability.h>
#include <sched.h>
#include <string>
#include <string_view>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fd.hpp"
#include "base/file.hpp"
#include "base/fork.hpp"
#include "base/lender.hpp"

namespace ghost {
namespace {

bool entered = false;
std::vector<gid_t> groups_before;  // entering

// For name spaces and their numbers, for memory of processes that cannot be dumped by others, and
// for clocks. No more: with CAP_NET_ADMIN criu takes connections for its own to repair, with
// CAP_SETUID it wants to be root.
constexpr int needed[] = {CAP_SYS_ADMIN, CAP_SYS_PTRACE, CAP_CHECKPOINT_RESTORE, CAP_SYS_TIME};

// What users look like that have no number in a user name space (user_namespaces(7)).
constexpr uid_t unmapped = 65534;

std::vector<gid_t> groups_now() {
    std::vector<gid_t> out(static_cast<size_t>(std::max(::getgroups(0, nullptr), 0)));
    out.resize(
        static_cast<size_t>(std::max(::getgroups(static_cast<int>(out.size()), out.data()), 0)));
    std::ranges::sort(out);
    const bool known = std::ranges::find(out, gid_t{unmapped}) == out.end();
    return known ? out : std::vector<gid_t>();
}

// Strangers would look like this user.
Error is_nobody() {
    return make_error(Code::unsupported, "make a user name space", {}, "the user is nobody");
}

Status write_to(const char* path, std::string_view text) {
    const Fd file(::open(path, O_WRONLY | O_CLOEXEC));
    if (!file || ::write(file.get(), text.data(), text.size()) != static_cast<ssize_t>(text.size()))
        return sys_error("make a user name space:", path, Code::unsupported);
    return {};
}

Status keep_for_programs() {
    __user_cap_header_struct head{_LINUX_CAPABILITY_VERSION_3, 0};
    __user_cap_data_struct data[2]{};
    if (::syscall(SYS_capget, &head, data) != 0) return sys_error("read capabilities");
    for (auto& part : data) part.inheritable = part.permitted;
    if (::syscall(SYS_capset, &head, data) != 0) return sys_error("inherit capabilities");
    for (const int capability : needed) {
        if (::prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, capability, 0, 0) != 0)
            return sys_error("hand capabilities on", {}, Code::unsupported);
    }
    entered = true;
    return {};
}

// Under AppArmor's restriction a new one is made, but is of no use, and cannot be left again.
bool may_be_useless() {
    const auto text = read_file("/proc/sys/kernel/apparmor_restrict_unprivileged_userns");
    return text && text->starts_with('1');
}

// One that ghostd has made for this user: he owns it, with the same map.
Status enter_lent_space() {
    const uid_t user = ::geteuid();
    const auto space = borrow(Loan::space);
    if (!space) return space.error();
    if (::setns(space->get(), CLONE_NEWUSER) != 0)
        return sys_error("enter a user name space of ghostd");
    if (::geteuid() != user)
        return make_error(Code::internal, "enter a user name space of ghostd", {},
                          "it is another user's");
    return {};
}

Error cannot_make(int sys, std::string why = {}) {
    Error out = make_error(Code::unsupported, "make a user name space", {}, std::move(why));
    out.sys = sys;
    return out;
}

}  // namespace

Status enter_own_user_space() {
    const uid_t user = ::geteuid();
    const gid_t group = ::getegid();
    if (user == 0) return {};
    if (user == unmapped) return is_nobody();
    groups_before = groups_now();
    if (may_be_useless() && enter_lent_space()) return keep_for_programs();
    if (::unshare(CLONE_NEWUSER) != 0) {
        const int sys = errno;
        // other reasons are ghostd's too
        if (sys != EPERM) return cannot_make(sys);
        const Status lent = enter_lent_space();
        if (lent) return keep_for_programs();
        return cannot_make(sys, lent.error().code == Code::not_found
                                    ? "users may not, and no ghostd(8) runs here that lends them"
                                    : "users may not, and " + lent.error().message());
    }
    GHOST_TRY(write_to("/proc/self/setgroups", "deny"));
    GHOST_TRY(write_to("/proc/self/uid_map", fmt::format("{0} {0} 1", user)));
    GHOST_TRY(write_to("/proc/self/gid_map", fmt::format("{0} {0} 1", group)));
    return keep_for_programs();
}

Status can_enter_own_user_space() {
    if (::geteuid() == 0) return {};
    if (::geteuid() == unmapped) return is_nobody();
    int status = 0, ends[2];
    if (::pipe2(ends, O_CLOEXEC) != 0) return sys_error("make a pipe");
    const Fd from_child(ends[0]);
    Fd to_us(ends[1]);
    const pid_t child = fork_process();
    if (child == 0) {
        const Status entered = enter_own_user_space();
        if (entered) ::_exit(0);
        // (longer ones do not come whole)
        const std::string& why = entered.error().why;
        const bool told = ::write(to_us.get(), why.data(), std::min<size_t>(why.size(), 500)) >= 0;
        ::_exit(std::max(entered.error().sys, told ? 1 : EPIPE));
    }
    to_us.reset();
    if (child < 0 || ::waitpid(child, &status, 0) != child) return sys_error("start a process");
    if (status == 0) return {};
    char why[500];
    const ssize_t size = ::read(from_child.get(), why, sizeof why);
    return cannot_make(WEXITSTATUS(status), {why, static_cast<size_t>(std::max<ssize_t>(size, 0))});
}

Status enter_user_space_of(pid_t pid) {
    if (::geteuid() == 0) return {};
    groups_before = groups_now();
    const std::string path = fmt::format("/proc/{}/ns/user", pid);
    struct stat ours {
    }, its{};
    if (::stat("/proc/self/ns/user", &ours) == 0 && ::stat(path.c_str(), &its) == 0 &&
        ours.st_ino == its.st_ino && ours.st_dev == its.st_dev)
        return entered ? Status()
                       : make_error(Code::unsupported, "enter the user name space of",
                                    fmt::format("process {}", pid), "it has none of its own");
    const Fd space(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    if (!space || ::setns(space.get(), CLONE_NEWUSER) != 0)
        return sys_error("enter the user name space of", fmt::format("process {}", pid));
    return keep_for_programs();
}

bool has_user_space() {
    return entered || ::geteuid() == 0;
}

std::vector<gid_t> user_groups() {
    if (::geteuid() == 0) return {};
    return entered ? groups_before : groups_now();
}

void drop_ambient_capabilities() {
    ::prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
}

}  // namespace ghost
