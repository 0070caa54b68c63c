// SPDX-License-Identifier: BSD-3-Clause
#include "ghost-core/supervisor/work_folder.hpp"

#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fmt/format.h>
#include <new>
#include <sys/stat.h>
#include <unistd.h>

#include "ghost-core/criu/placement.hpp"

namespace ghost::core {
namespace {

constexpr const char* shared = "/dev/shm";

// Numbers of processes mean something only in the name space they are of, and containers may share
// the folder.
std::string owner(pid_t pid) {
    struct stat space {};
    const bool known = ::stat("/proc/self/ns/pid", &space) == 0;
    return fmt::format(".{}.{}-", known ? space.st_ino : 0, pid);
}

// What others have left that were killed together with their guards.
void remove_orphans(const std::string& mine) {
    std::error_code ignored;
    for (const auto& entry : std::filesystem::directory_iterator(shared, ignored)) {
        const std::string name = entry.path().filename();
        struct stat info {};
        if (!name.starts_with(mine) || ::lstat(entry.path().c_str(), &info) != 0 ||
            info.st_uid != geteuid())
            continue;
        const pid_t pid = std::atoi(name.c_str() + name.rfind('.') + 1);
        const bool known = name.find(owner(pid)) != std::string::npos;
        if (known && pid > 0 && ::kill(pid, 0) != 0 && errno == ESRCH)
            std::filesystem::remove_all(entry.path(), ignored);
    }
}

}  // namespace

Status WorkFolder::make(const std::string& name, Guard* guard) {
    remove();
    const std::string mine = fmt::format("ghost-{}-", geteuid());
    remove_orphans(mine);
    remove_stale_notes();
    // A name nobody can have taken, and never that of the folder of one that was killed: numbers
    // begin anew when a job is restarted, and its guard may still be at it.
    std::string path = fmt::format("{}/{}{}{}XXXXXX", shared, mine, name, owner(getpid()));
    if (::mkdtemp(path.data()) == nullptr) return sys_error("make folder", path);
    path_ = std::move(path);
    guard_ = guard;
    if (guard_ != nullptr) guard_->folder(path_);
    return {};
}

void WorkFolder::remove() {
    if (path_.empty()) return;
    try {
        std::error_code ignored;
        std::filesystem::remove_all(path_, ignored);
    } catch (const std::bad_alloc&) {
        // Called by the destructor too. The next one that is made removes it, as an orphan's.
    }
    if (guard_ != nullptr) guard_->folder({});
    path_.clear();
}

}  // namespace ghost::core
