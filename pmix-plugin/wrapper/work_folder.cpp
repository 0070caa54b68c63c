#include "pmix-plugin/wrapper/work_folder.hpp"

#include <cerrno>
#include <filesystem>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

namespace ghost::plugin {

Status WorkFolder::make(const std::string& name, Guard& guard) {
    remove();
    std::string parent = fmt::format("/dev/shm/ghost-{}", geteuid());
    if (::mkdir(parent.c_str(), 0700) != 0 && errno != EEXIST) {
        return sys_error("make folder", parent);
    }
    struct stat st {};
    if (::lstat(parent.c_str(), &st) != 0 || !S_ISDIR(st.st_mode) || st.st_uid != geteuid() ||
        (st.st_mode & 077) != 0) {
        return make_error(Code::refused, "use a folder that is not private:", parent);
    }
    std::string path = parent + "/" + name;
    std::error_code ignored;
    std::filesystem::remove_all(path, ignored);
    if (::mkdir(path.c_str(), 0700) != 0) return sys_error("make folder", path);
    path_ = path;
    guard_ = &guard;
    guard.folder(path);
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
