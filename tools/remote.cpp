// SPDX-License-Identifier: BSD-3-Clause
#include "tools/remote.hpp"

#include <array>
#include <climits>
#include <cstdlib>
#include <fcntl.h>
#include <spawn.h>
#include <sstream>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fd.hpp"
#include "tools/paths.hpp"

namespace ghost::tools {

bool is_here(const std::string& node) {
    std::array<char, HOST_NAME_MAX + 1> name{};
    ::gethostname(name.data(), name.size() - 1);
    return node == "localhost" || node == name.data();
}

std::vector<std::string> remote_words(const std::string& node, const std::string& command) {
    const char* agent = std::getenv("GHOST_RSH");
    if (agent == nullptr) agent = std::getenv("OMPI_MCA_plm_rsh_agent");
    std::istringstream words(agent != nullptr && *agent != '\0' ? agent : "ssh");
    std::vector<std::string> out;
    for (std::string word; words >> word;) out.push_back(word);
    out.push_back(node);
    out.push_back(command);
    return out;
}

Status fetch_file(const std::string& node, const std::string& path, const std::string& to) {
    const Fd file(::open(to.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
    if (!file) return sys_error("make", to);
    auto words = remote_words(node, "cat " + shell_quote(path));
    std::vector<char*> argv;
    for (auto& word : words) argv.push_back(word.data());
    argv.push_back(nullptr);
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_adddup2(&actions, file.get(), 1);
    pid_t child = 0;
    const int failed = ::posix_spawnp(&child, argv[0], &actions, nullptr, argv.data(), environ);
    posix_spawn_file_actions_destroy(&actions);
    if (failed != 0) return sys_error_of(failed, "run", words.front());
    int status = 0;
    while (::waitpid(child, &status, 0) < 0 && errno == EINTR) continue;
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
        return make_error(Code::io, "fetch from node " + node + ":", path);
    if (::fsync(file.get()) != 0) return sys_error("sync", to);
    return {};
}

}  // namespace ghost::tools
