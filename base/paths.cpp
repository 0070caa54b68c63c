// SPDX-License-Identifier: BSD-3-Clause
#include "base/paths.hpp"

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <sys/stat.h>
#include <unistd.h>

namespace ghost {
namespace {

bool is_program(const std::string& path) {
    struct stat info {};
    return ::stat(path.c_str(), &info) == 0 && S_ISREG(info.st_mode) &&
           ::access(path.c_str(), X_OK) == 0;
}

}  // namespace

std::optional<std::string> environment_variable(const std::string& name) {
    const char* value = std::getenv(name.c_str());
    if (value == nullptr) return std::nullopt;
    return value;
}

std::string own_program() {
    std::error_code ignored;
    return std::filesystem::read_symlink("/proc/self/exe", ignored).string();
}

std::string search_path() {
    const char* path = std::getenv("PATH");
    return path != nullptr && *path != '\0' ? path : "/usr/local/bin:/usr/bin:/bin";
}

std::string find_in_path(const std::string& name, std::string_view path) {
    if (name.find('/') != std::string::npos) return is_program(name) ? name : "";
    for (size_t at = 0; at <= path.size();) {
        const size_t end = std::min(path.find(':', at), path.size());
        const auto folder = path.substr(at, end - at);
        std::string file = std::string(folder.empty() ? "." : folder) + "/" + name;
        if (is_program(file)) return file;
        at = end + 1;
    }
    return {};
}

}  // namespace ghost
