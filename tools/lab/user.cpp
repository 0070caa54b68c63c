// SPDX-License-Identifier: BSD-3-Clause
#include "tools/lab/user.hpp"

#include <fmt/format.h>
#include <pwd.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.hpp"
#include "tools/lab/node.hpp"

namespace ghost::tools::lab {
namespace {

// What a folder above the user's is open for: to go through.
Status make_passage(const std::string& path) {
    if (::mkdir(path.c_str(), 0711) != 0 && errno != EEXIST) return sys_error("create", path);
    if (::chmod(path.c_str(), 0711) != 0) return sys_error("open to users", path);
    return {};
}

Status give(const std::string& path, const passwd& user) {
    if (::chown(path.c_str(), user.pw_uid, user.pw_gid) != 0)
        return sys_error("give to the user", path);
    return {};
}

Status write_for(const passwd& user, const std::string& path, const std::string& text) {
    GHOST_TRY(write_file(path, text, 0600));
    return give(path, user);
}

Status make_files(const LabState& lab, const passwd& user, const std::string& folder) {
    const std::string key = folder + "/key";
    GHOST_TRY(make_key(key));
    const auto open_key = read_file(key + ".pub");
    GHOST_TRY(open_key);
    const auto hosts = read_file(lab_folder(lab.name) + "/known_hosts");
    GHOST_TRY(hosts);
    GHOST_TRY(
        write_file(fmt::format("{}/{}", keys_folder(lab.name), user.pw_name), *open_key, 0644));
    GHOST_TRY(write_for(user, folder + "/known_hosts", *hosts));
    GHOST_TRY(write_for(
        user, folder + "/ssh_config",
        ssh_config({.name = user.pw_name, .key = key, .known_hosts = folder + "/known_hosts"})));
    GHOST_TRY(give(key, user));
    return give(folder, user);
}

}  // namespace

std::string keys_folder(const std::string& lab) {
    return lab_folder(lab) + "/keys";
}

Result<LabUser> prepare_user(const LabState& lab, const std::string& name) {
    const passwd* user = ::getpwnam(name.c_str());
    if (user == nullptr)
        return make_error(Code::not_found, "find a user of this machine named", name);
    const std::string users = lab_folder(lab.name) + "/users", folder = users + "/" + name;
    for (const auto& passage : {lab_folder(lab.name), users, keys_folder(lab.name)})
        GHOST_TRY(make_passage(passage));
    LabUser out{name, user->pw_gid, user->pw_dir, folder + "/ssh_config"};
    const auto held = lock_folder(folder);  // several of his commands may be the first
    GHOST_TRY(held);
    if (::access(out.ssh_config.c_str(), F_OK) != 0) GHOST_TRY(make_files(lab, *user, folder));
    return out;
}

std::vector<std::string> as_user(const LabUser& user, const std::vector<std::string>& command) {
    std::vector<std::string> out{
        "setpriv",       "--reuid", user.name, "--regid", std::to_string(user.group),
        "--init-groups", "--"};
    out.insert(out.end(), command.begin(), command.end());
    return out;
}

std::vector<std::pair<std::string, std::string>> environment_of(const LabUser& user) {
    return {{"USER", user.name},
            {"LOGNAME", user.name},
            {"HOME", user.home},
            {"OMPI_MCA_plm_rsh_agent", "ssh -F " + user.ssh_config}};
}

}  // namespace ghost::tools::lab
