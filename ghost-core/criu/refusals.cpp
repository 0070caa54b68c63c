// SPDX-License-Identifier: BSD-3-Clause
#include "ghost-core/criu/refusals.hpp"

#include <algorithm>
#include <iterator>
#include <string_view>

namespace ghost::core {
namespace {

constexpr ReasonTexts reasons[] = {
    {Reason::private_huge_pages, "it is private memory in huge pages of hugetlbfs",
     "use transparent ones (madvise(2), MADV_HUGEPAGE)"},
    {Reason::eventfd_semaphore, "an eventfd that is a semaphore would be none afterwards",
     "close it, or use a pipe or sem_init(3)"},
    {Reason::unknown_object, "there is no way to take such an object out of the kernel",
     "close it first"},
    {Reason::block_device, "it is a block device", "close it first"},
    {Reason::device, "it is a device of this node", "close it first"},
    {Reason::own_terminal,
     "it is a terminal that the process has made (a pty), and such are not carried",
     "let what uses it end first"},
    {Reason::outer_terminal, "it is a terminal of processes outside",
     "start the program without one"},
    {Reason::outer_end, "its other end is outside", "close it first"},
    {Reason::service, "its other end is {0}, a service of this node", "{1}"},
    {Reason::outer_process, "it is of process {0}, which is outside the tree", "close it first"},
    {Reason::ended_process, "it is of process {0}, which has ended", "close it first"},
    {Reason::other_thread, "it is of a thread other than the first of process {0}",
     "close it first"},
    {Reason::other_proc, "it is of another /proc than the tree's own",
     "close it, and open what /proc has of it"},
    {Reason::other_mounts, "it was opened in another mount name space",
     "close it, and open it where the program is"},
    {Reason::message_queue,
     "it is a POSIX message queue (mq_open), which cannot be taken out of the kernel",
     "close it first (System V queues move)"},
    {Reason::secret_memory,
     "it is secret memory (memfd_secret), which the kernel shows nobody else",
     "close and unmap it first"},
    {Reason::renamed, "its name has been removed, and its other name is not in the same folder",
     "close it, or give it a name in its folder"},
    {Reason::no_descriptor,
     "an import needs {0} free numbers above it, and this node's hard limit of open files is {1}",
     "raise that, or use a lower number"},
    {Reason::exclusive_lock, "it holds an exclusive lock, which two processes cannot hold at once",
     "ask again when it has given it up"},
    {Reason::node_object, "it belongs to the node",
     "remove it first (ipcrm -{0} {1}), or let each rank have its own (--mca ghost_own_ipc 1)"},
    {Reason::shared_memory, "it is memory shared with {0}", "free or unmap it first"},
    {Reason::old_criu, "the criu of this node cannot open it anew", "`ghost doctor` says more"},
    {Reason::outer_space, "it has a {0} name space of its own",
     "containers are not taken, run ghost inside of it"},
    {Reason::inner_space, "it is in a PID name space of its own below",
     "let it end first, or run ghost inside of it"},
    {Reason::other_user, "it is another user's, and this node's root lacks CAP_SYS_RESOURCE",
     "give root that capability"},
    {Reason::user_connection, "only root can take a TCP connection along",
     "close it first, or use Unix sockets within a rank"},
    {Reason::user_filter, "only root can read a seccomp filter", "run the program without it"},
    {Reason::user_watch, "only root is told what it watches, and no name of that was found",
     "close it first, or watch what lies in the program's folder"},
    {Reason::user_marks, "only root can take a fanotify group along", "use inotify(7)"},
    {Reason::user_mapping,
     "its name has been removed or is another file's now, and only root can open it",
     "unmap it, or start the program anew (a library that was replaced)"},
    {Reason::user_unreadable, "its mode lets this user run it and not read it",
     "have it made readable (chmod +r)"},
    {Reason::user_shared_memory, "it is memory shared with {0}, and only root can open it",
     "free or unmap it first"},
    {Reason::user_undumpable, "it lets nobody but root look at it (PR_SET_DUMPABLE)",
     "ask again when it allows that"},
    {Reason::user_memfd, "it is another user's memory without a name (memfd)",
     "close it first, or copy it into one of its own"},
};

constexpr bool are_complete() {
    if (std::size(reasons) != static_cast<size_t>(Reason::end_)) return false;
    for (size_t i = 0; i < std::size(reasons); ++i)
        if (reasons[i].reason != static_cast<Reason>(i) ||
            std::string_view(reasons[i].why).empty() || std::string_view(reasons[i].cure).empty())
            return false;
    return true;
}
static_assert(are_complete(), "each reason has a row, in order, with what to do");

}  // namespace

const ReasonTexts& texts_of(Reason reason) {
    return reasons[static_cast<size_t>(reason)];
}

void Refusal::fill(Reason reason, fmt::format_args details) {
    const auto& texts = texts_of(reason);
    text_ = fmt::vformat(texts.why, details) + "; " + fmt::vformat(texts.cure, details);
}

std::string Refusal::of(const std::string& object) const {
    return object + " cannot move: " + text_;
}

std::string Refusal::of(const std::string& who, pid_t inner, const std::string& program,
                        const std::string& object) const {
    return of(fmt::format("{}process {} ({}): {}", who.empty() ? "" : who + "'s ", inner, program,
                          object));
}

}  // namespace ghost::core
