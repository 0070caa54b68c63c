// SPDX-License-Identifier: BSD-3-Clause
#include "tools/ghostd/loans.hpp"

#include <cerrno>
#include <csignal>
#include <cstring>
#include <fcntl.h>
#include <fmt/format.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/nsfs.h>
#include <sched.h>
#include <set>
#include <string_view>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/descriptor_message.hpp"
#include "base/fork.hpp"
#include "base/proc.hpp"

namespace ghost::lending {
namespace {

constexpr unsigned limit_s = 2;
// What users look like that have no number where ghostd runs (user_namespaces(7)).
constexpr uid_t unmapped = 65534;

// A verdict other than lent, or the loan.
struct Outcome {
    Verdict verdict = Verdict::lent;
    int error = 0;
    Fd loan;
};

Outcome failed(int error = errno) {
    return {Verdict::failed, error, Fd()};
}

// User name spaces that the user owns and that have a process. What he only holds a descriptor of,
// the kernel counts (user.max_user_namespaces).
size_t spaces_of(uid_t user) {
    std::set<ino_t> seen;
    size_t count = 0;
    for (const pid_t pid : numbers_in("/proc")) {
        const std::string path = fmt::format("/proc/{}/ns/user", pid);
        struct stat there {};
        if (::stat(path.c_str(), &there) != 0 || !seen.insert(there.st_ino).second) continue;
        const Fd space(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
        uid_t owner = 0;
        if (space && ::ioctl(space.get(), NS_GET_OWNER_UID, &owner) == 0 && owner == user) count++;
    }
    return count;
}

// In a child: becomes the user, but for the one capability that makes a user name space where users
// may not. From then on it has none outside of that. 0, or an errno.
int make_space(const ucred& who) {
    __user_cap_header_struct head{_LINUX_CAPABILITY_VERSION_3, 0};
    __user_cap_data_struct only[2]{};
    only[0].effective = only[0].permitted = 1U << CAP_SYS_ADMIN;
    const bool made = ::prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0) == 0 && ::setgroups(0, nullptr) == 0 &&
                      ::setresgid(who.gid, who.gid, who.gid) == 0 &&
                      ::setresuid(who.uid, who.uid, who.uid) == 0 &&
                      ::syscall(SYS_capset, &head, only) == 0 && ::unshare(CLONE_NEWUSER) == 0;
    return made ? 0 : errno;
}

// Of the child's: a file below /proc. The child is not reaped yet, so that it is no other process.
bool write_of(pid_t child, std::string_view name, std::string_view text) {
    const Fd file(::open(fmt::format("/proc/{}/{}", child, name).c_str(), O_WRONLY | O_CLOEXEC));
    return file &&
           ::write(file.get(), text.data(), text.size()) == static_cast<ssize_t>(text.size());
}

// Who has a space is in it with his own number and group and no others, as in one he makes himself;
// that setgroups(2) is denied keeps him from leaving a group that is shut out somewhere.
Outcome map_space(pid_t child, const ucred& who) {
    if (!write_of(child, "setgroups", "deny") ||
        !write_of(child, "uid_map", fmt::format("{0} {0} 1", who.uid)) ||
        !write_of(child, "gid_map", fmt::format("{0} {0} 1", who.gid)))
        return failed();
    const std::string path = fmt::format("/proc/{}/ns/user", child);
    Fd space(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    uid_t owner = 0;
    if (!space || ::ioctl(space.get(), NS_GET_OWNER_UID, &owner) != 0) return failed();
    if (owner != who.uid) return failed(EPERM);
    return {Verdict::lent, 0, std::move(space)};
}

Outcome lend_space(const ucred& who, const Terms& terms) {
    if (spaces_of(who.uid) >= terms.spaces) return {Verdict::too_many, 0, Fd()};
    int up[2], down[2];
    if (::pipe2(up, O_CLOEXEC) != 0) return failed();
    const Fd made(up[0]);
    Fd says_made(up[1]);
    if (::pipe2(down, O_CLOEXEC) != 0) return failed();
    Fd waits(down[0]), lets_go(down[1]);
    const pid_t child = fork_process();
    if (child < 0) return failed();
    if (child == 0) {
        lets_go.reset();
        const int error = make_space(who);
        char none = 0;
        // until we let it go, or have ended
        if (::write(says_made.get(), &error, sizeof error) == sizeof error && error == 0)
            (void)!::read(waits.get(), &none, 1);
        ::_exit(0);
    }
    says_made.reset();
    waits.reset();
    int error = EIO;
    if (::read(made.get(), &error, sizeof error) != sizeof error) error = EIO;
    Outcome out = error == 0 ? map_space(child, who) : failed(error);
    lets_go.reset();
    ::waitpid(child, nullptr, 0);
    return out;
}

Outcome lend_userfaultfd() {
    Fd device(::open("/dev/userfaultfd", O_RDWR | O_CLOEXEC));
    if (!device) return failed();
    return {Verdict::lent, 0, std::move(device)};
}

Outcome lend(Loan what, const ucred& who, const Terms& terms) {
    if (what == Loan::nothing) return {};
    if ((terms.lends & loan_bit(what)) == 0) return {Verdict::not_lent, 0, Fd()};
    if (who.uid == 0 || who.uid == unmapped || who.gid == unmapped)
        return {Verdict::not_to_you, 0, Fd()};
    return what == Loan::space ? lend_space(who, terms) : lend_userfaultfd();
}

// Descriptors that come with it the kernel closes, as there is no place for them.
Result<Loan> receive(int connection) {
    char bytes[sizeof(LoanRequest) + 1];
    iovec into{bytes, sizeof bytes};
    msghdr message{};
    message.msg_iov = &into;
    message.msg_iovlen = 1;
    const ssize_t size = ::recvmsg(connection, &message, 0);
    if (size < 0 || (message.msg_flags & (MSG_CTRUNC | MSG_TRUNC)) != 0)
        return make_error(Code::invalid, "understand a request");
    return read_loan_request(bytes, static_cast<size_t>(size));
}

}  // namespace

uint32_t loans_named(const std::string& list) {
    uint32_t out = 0;
    for (size_t at = 0; at <= list.size();) {
        const size_t end = std::min(list.find(',', at), list.size());
        const auto name = std::string_view(list).substr(at, end - at);
        if (name == "space")
            out |= loan_bit(Loan::space);
        else if (name == "userfaultfd")
            out |= loan_bit(Loan::userfaultfd);
        else
            return 0;
        at = end + 1;
    }
    return out;
}

void answer(int connection, const LoanAnswer& said, const Fd& loan) {
    // who has gone does not hear it
    (void)!send_with_descriptor(connection, &said, sizeof said, loan.get(), MSG_DONTWAIT);
}

void serve(int connection, const ucred& who, const Terms& terms) {
    sigset_t all;
    sigfillset(&all);
    sigprocmask(SIG_UNBLOCK, &all, nullptr);
    ::alarm(limit_s);
    const auto what = receive(connection);
    const Outcome out = what ? lend(*what, who, terms) : Outcome{Verdict::not_understood, 0, Fd()};
    if (out.loan)
        fmt::print(stderr, "ghostd: lent {} to user {}, process {}\n",
                   *what == Loan::space ? "a name space" : "/dev/userfaultfd", who.uid, who.pid);
    answer(connection, loan_answer(out.verdict, terms.lends, out.error), out.loan);
}

}  // namespace ghost::lending
