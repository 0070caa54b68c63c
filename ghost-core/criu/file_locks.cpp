// SPDX-License-Identifier: BSD-3-Clause
#include "ghost-core/criu/file_locks.hpp"

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <fcntl.h>
#include <fmt/format.h>
#include <fstream>
#include <sstream>
#include <string_view>
#include <sys/file.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/clock.hpp"
#include "base/proc.hpp"
#include "ghost-core/criu/criu_images.hpp"
#include "ghost-core/criu/tree.hpp"
#include "ghost-core/memory/injection.hpp"
#include "ghost-core/memory/scratch.hpp"

namespace ghost::core {
namespace {

constexpr int64_t stop_limit_us = 200'000;  // for a thread that calls are to be made in
constexpr useconds_t next_try_us = 1000;

struct KindName {
    std::string_view name;
    FileLock::Kind kind;
};
constexpr KindName kinds[] = {{"POSIX", FileLock::Kind::process},
                              {"FLOCK", FileLock::Kind::whole},
                              {"OFDLCK", FileLock::Kind::open_file}};

bool is_taken(long answer) {
    return answer == -EAGAIN || answer == -EACCES;
}

bool contains(const std::vector<FileLock>& locks, int process) {
    return std::ranges::find(locks, process, &FileLock::process) != locks.end();
}

}  // namespace

// A process of the tree, held.
class TreeLocks::Thread {
  public:
    Thread(HeldThread& thread, const Scratch& scratch) : thread_(thread), scratch_(scratch) {}

    // The kernel's answer. `type`: F_RDLCK, F_WRLCK, F_UNLCK.
    Result<long> set(const FileLock& lock, short type) const {
        const auto descriptor = static_cast<uint64_t>(lock.descriptor);
        if (lock.kind == FileLock::Kind::whole) {
            const int how = type == F_RDLCK ? LOCK_SH : type == F_WRLCK ? LOCK_EX : LOCK_UN;
            return thread_.call(SYS_flock, descriptor, static_cast<uint64_t>(how | LOCK_NB));
        }
        const struct flock what {
            .l_type = type, .l_whence = SEEK_SET, .l_start = lock.start, .l_len = lock.bytes,
            .l_pid = 0
        };
        if (!scratch_.write(&what, sizeof what)) return sys_error("lock", path(lock));
        const int how = lock.kind == FileLock::Kind::open_file ? F_OFD_SETLK : F_SETLK;
        return thread_.call(SYS_fcntl, descriptor, static_cast<uint64_t>(how), scratch_.at());
    }

    std::string path(const FileLock& lock) const {
        return link_of(fmt::format("/proc/{}/fd/{}", thread_.pid(), lock.descriptor));
    }

    Error refused(const FileLock& lock, const char* why) const {
        return because(Code::refused, fmt::format("{}: {}", path(lock), why));
    }
    // Of the kernel's answer.
    Status judge(const FileLock& lock, const Result<long>& answer) const {
        if (!answer) return answer.error();
        if (is_taken(*answer)) return refused(lock, "somebody else has locked it");
        if (*answer >= 0) return {};
        return sys_error_of(static_cast<int>(-*answer), "lock", path(lock));
    }

  private:
    HeldThread& thread_;
    const Scratch& scratch_;
};

// "lock: 1: FLOCK  ADVISORY  WRITE 4711 fd:01:815 0 EOF", with "->" for one who waits.
std::vector<FileLock> locks_of(pid_t pid, int descriptor) {
    std::vector<FileLock> out;
    std::ifstream in(fmt::format("/proc/{}/fdinfo/{}", pid, descriptor));
    for (std::string line; std::getline(in, line);) {
        std::istringstream words(line);
        std::string head, number, kind, how, mode, owner, file, end;
        FileLock lock;
        lock.descriptor = descriptor;
        words >> head >> number >> kind >> how >> mode >> owner >> file >> lock.start >> end;
        const auto* const known = std::ranges::find(kinds, kind, &KindName::name);
        if (head != "lock:" || known == std::end(kinds)) continue;
        lock.kind = known->kind;
        lock.exclusive = mode == "WRITE";
        if (end != "EOF") lock.bytes = std::strtoll(end.c_str(), nullptr, 10) + 1 - lock.start;
        out.push_back(lock);
    }
    return out;
}

bool has_exclusive(const std::vector<FileLock>& locks) {
    return std::ranges::any_of(locks, &FileLock::exclusive);
}

Status TreeLocks::each(
    const std::function<Status(const Thread& thread, const FileLock& lock)>& call) const {
    if (locks_.empty()) return {};
    auto tasks = list_tree(root_);
    if (!tasks) return tasks.error();
    for (const auto& task : *tasks) {
        if (!contains(locks_, task.inner)) continue;
        GHOST_TRY(inject(task.pid, stop_limit_us, [&](HeldThread& held) -> Status {
            const auto scratch = Scratch::make(held);
            if (!scratch) return scratch.error();
            const Thread thread(held, *scratch);
            for (const auto& lock : locks_)
                if (lock.process == task.inner) GHOST_TRY(call(thread, lock));
            return {};
        }));
    }
    return {};
}

Status TreeLocks::take(int64_t limit_us) {
    for (const int64_t limit = monotonic_us() + limit_us;; usleep(next_try_us)) {
        const Status taken = each([](const Thread& thread, const FileLock& lock) {
            return thread.judge(lock, thread.set(lock, lock.exclusive ? F_WRLCK : F_RDLCK));
        });
        if (taken.ok() || taken.error().code != Code::refused || monotonic_us() > limit)
            return taken;
    }
}

Status TreeLocks::lower() {
    return each([](const Thread& thread, const FileLock& lock) -> Status {
        if (!lock.exclusive) return {};
        auto answer = thread.set(lock, F_RDLCK);
        if (answer && *answer == -EBADF) answer = thread.set(lock, F_UNLCK);
        return thread.judge(lock, answer);
    });
}

Status TreeLocks::drop() {
    return each([](const Thread& thread, const FileLock& lock) {
        return lock.exclusive ? thread.judge(lock, thread.set(lock, F_UNLCK)) : Status();
    });
}

Status TreeLocks::are_seen() {
    return each([](const Thread& thread, const FileLock& lock) -> Status {
        if (!lock.exclusive || thread.path(lock).ends_with(removed_mark)) return {};
        auto answer = thread.set(lock, F_RDLCK);
        if (answer && *answer == -EBADF) answer = thread.set(lock, F_WRLCK);
        if (answer && is_taken(*answer)) return {};
        GHOST_TRY(thread.judge(lock, answer));
        if (auto back = thread.set(lock, F_UNLCK); !back) return back.error();
        return thread.refused(lock, not_seen);
    });
}

Status TreeLocks::share() {
    return each([](const Thread& thread, const FileLock& lock) {
        const auto answer = thread.set(lock, F_RDLCK);
        return answer && *answer == -EBADF ? Status() : thread.judge(lock, answer);
    });
}

}  // namespace ghost::core
