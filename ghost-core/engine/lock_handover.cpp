// SPDX-License-Identifier: BSD-3-Clause
#include "ghost-core/engine/lock_handover.hpp"

#include <cerrno>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>

#include "base/fd.hpp"
#include "base/proc.hpp"
#include "ghost-core/criu/tree.hpp"
#include "ghost-core/engine/live_link.hpp"

namespace ghost::core {
namespace {

// A target that is called off ends its tree; a process that is killed gives back its locks when
// its memory has been freed.
constexpr int64_t back_limit_us = 5'000'000, end_limit_us = 2'000'000;

Status receive(LiveLink& link, TreeLocks& locks) {
    GHOST_TRY(locks.are_seen());
    GHOST_TRY(link.send(LiveMessageType::held));
    GHOST_TRY(link.expect(LiveMessageType::lowered));
    GHOST_TRY(locks.share());
    GHOST_TRY(link.send(LiveMessageType::shared));
    GHOST_TRY(link.expect(LiveMessageType::dropped));
    return locks.take(0);
}

// Whether somebody has it: nobody here has any.
bool is_seen(int fd, const FileLock& lock) {
    if (lock.kind == FileLock::Kind::whole)
        return ::flock(fd, LOCK_SH | LOCK_NB) != 0 && errno == EWOULDBLOCK;
    struct flock what {
        .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = lock.start, .l_len = lock.bytes,
        .l_pid = 0
    };
    return ::fcntl(fd, F_OFD_GETLK, &what) == 0 && what.l_type != F_UNLCK;
}

Fd open_any(const std::string& path) {
    Fd out(::open(path.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC));
    if (!out) out.reset(::open(path.c_str(), O_WRONLY | O_NONBLOCK | O_CLOEXEC));
    return out;
}

}  // namespace

Result<std::vector<NeededLock>> exclusive_locks_of(pid_t root) {
    auto tasks = list_tree(root);
    if (!tasks) return tasks.error();
    std::vector<NeededLock> out;
    for (const auto& task : *tasks) {
        const auto folder = fmt::format("/proc/{}/fd", task.pid);
        for (const int number : numbers_in(folder)) {
            const auto path = link_of(fmt::format("{}/{}", folder, number));
            if (!path.starts_with("/") || path.ends_with(removed_mark)) continue;
            for (const auto& lock : locks_of(task.pid, number))
                if (lock.exclusive)
                    out.push_back({path, static_cast<int32_t>(lock.kind), lock.start, lock.bytes});
        }
    }
    return out;
}

std::vector<std::string> unseen_locks(const std::vector<NeededLock>& locks) {
    std::vector<std::string> out;
    for (const auto& one : locks) {
        FileLock lock;
        lock.kind = static_cast<FileLock::Kind>(one.kind);
        lock.start = one.start;
        lock.bytes = one.bytes;
        const Fd file = open_any(one.path);  // one that is missing is named with the files
        if (file && !is_seen(file.get(), lock)) out.push_back(one.path);
    }
    return out;
}

Status give_locks(Resource& target, TreeLocks& locks) {
    LiveLink link(target);
    GHOST_TRY(link.expect(LiveMessageType::held));
    GHOST_TRY(locks.lower());
    GHOST_TRY(link.send(LiveMessageType::lowered));
    GHOST_TRY(link.expect(LiveMessageType::shared));
    GHOST_TRY(locks.drop());
    GHOST_TRY(link.send(LiveMessageType::dropped));
    GHOST_TRY(link.expect(LiveMessageType::taken));
    return {};
}

Status receive_locks(Resource& source, TreeLocks& locks) {
    LiveLink link(source);
    const Status received = receive(link, locks);
    if (received.ok()) return link.send(LiveMessageType::taken);
    GHOST_TRY(locks.drop());
    (void)link.send_text(LiveMessageType::refused, received.error().message());
    return received;
}

Status take_back(pid_t root, const std::vector<FileLock>& locks) {
    const Status back = TreeLocks(root, locks).take(back_limit_us);
    if (back.ok()) return back;
    return because(back.error().code, "it goes on without its lock: " + back.error().message());
}

Status take_kept(TreeLocks& locks) {
    return locks.take(end_limit_us);
}

}  // namespace ghost::core
