#include "pmix-plugin/wrapper/work_folder.hpp"

#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

namespace ghost::plugin {
namespace {

constexpr int tries = 100;

// What wrappers have left that were killed together with their guards.
void remove_orphans(const std::string& parent) {
    std::error_code ignored;
    for (const auto& entry : std::filesystem::directory_iterator(parent, ignored)) {
        const std::string name = entry.path().filename();
        const pid_t pid = std::atoi(name.c_str() + name.rfind('.') + 1);
        if (pid > 0 && ::kill(pid, 0) != 0 && errno == ESRCH)
            std::filesystem::remove_all(entry.path(), ignored);
    }
}

}  // namespace

Status WorkFolder::make(const std::string& name, Guard& guard) {
    remove();
    // Whoever leaves removes the parent, too, if it is empty: that may be now.
    Status made = try_to_make(name);
    for (int i = 0; i < tries && !made && made.error().sys == ENOENT; ++i) made = try_to_make(name);
    if (!made) return made;
    guard_ = &guard;
    guard.folder(path_);
    return {};
}

Status WorkFolder::try_to_make(const std::string& name) {
    std::string parent = fmt::format("/dev/shm/ghost-{}", geteuid());
    if (::mkdir(parent.c_str(), 0700) != 0 && errno != EEXIST) {
        return sys_error("make folder", parent);
    }
    struct stat st {};
    if (::lstat(parent.c_str(), &st) != 0) return sys_error("make folder", parent);
    if (!S_ISDIR(st.st_mode) || st.st_uid != geteuid() || (st.st_mode & 077) != 0) {
        return make_error(Code::refused, "use a folder that is not private:", parent);
    }
    // Numbers begin anew when a job is restarted, and the guard of one that was killed may still be
    // at its folder of the same name.
    remove_orphans(parent);
    std::string path = fmt::format("{}/{}.{}", parent, name, getpid());
    std::error_code ignored;
    std::filesystem::remove_all(path, ignored);
    if (::mkdir(path.c_str(), 0700) != 0) return sys_error("make folder", path);
    path_ = path;
    return {};
}

void WorkFolder::remove() {
    if (path_.empty()) return;
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
    std::filesystem::remove(std::filesystem::path(path_).parent_path(), ignored);  // if empty
    guard_->folder({});
    path_.clear();
}

}  // namespace ghost::plugin
