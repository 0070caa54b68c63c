// SPDX-License-Identifier: BSD-3-Clause
#include "tools/remote.hpp"

#include <cstdlib>
#include <fcntl.h>
#include <filesystem>
#include <fmt/format.h>
#include <sstream>
#include <sys/wait.h>

#include "base/addresses.hpp"
#include "base/child.hpp"
#include "tools/paths.hpp"

namespace ghost::tools {

bool is_here(const std::string& node) {
    return node == "localhost" || node == host_name();
}

Result<std::vector<std::string>> remote_words(const std::string& node, const std::string& command) {
    // It may come from a manifest, and an option of ssh can be a program that is run.
    if (node.empty() || node[0] == '-')
        return make_error(Code::invalid, "use as the name of a node", '"' + node + '"');
    const char* agent = std::getenv("GHOST_RSH");
    if (agent == nullptr) agent = std::getenv("OMPI_MCA_plm_rsh_agent");
    std::istringstream words(agent != nullptr && *agent != '\0' ? agent : "ssh");
    std::vector<std::string> out;
    for (std::string word; words >> word;) out.push_back(word);
    if (!out.empty() && std::filesystem::path(out.front()).filename() == "ssh")
        out.emplace_back("--");
    out.push_back(node);
    out.push_back(command);
    return out;
}

namespace {

constexpr int not_own = 77;

// Opened first and then looked at, as base/own_file.hpp does; the name alone says that it is no
// pipe.
std::string give_own(const std::string& path) {
    return fmt::format(
        "test -f {0} && exec < {0} && test -n "
        "\"$(find -H /dev/fd/0 -prune -type f -user \"$(id -u)\" ! -perm /022)\" || exit {1}; cat",
        shell_quote(path), not_own);
}

}  // namespace

Status fetch_file(const std::string& node, const std::string& path, const std::string& to) {
    const auto words = remote_words(node, give_own(path));
    if (!words) return words.error();
    const Fd file(::open(to.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
    if (!file) return sys_error("make", to);
    auto child = Child::start({.argv = *words,
                               .stdio = {null_device, file.get(), inherited},
                               .place = ChildRequest::Place::here,
                               .signals = ChildRequest::Signals::kept});
    if (!child) return child.error();
    child->wait(Child::no_limit);
    if (WIFEXITED(child->status()) && WEXITSTATUS(child->status()) == not_own)
        return make_error(Code::refused, "fetch from node " + node + ":", path,
                          "it is not there, it belongs to another user, or others may write to it");
    if (!child->succeeded()) return make_error(Code::io, "fetch from node " + node + ":", path);
    if (::fsync(file.get()) != 0) return sys_error("sync", to);
    return {};
}

}  // namespace ghost::tools
