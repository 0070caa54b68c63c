// SPDX-License-Identifier: BSD-3-Clause
// The inside of a node: what its first process does. Also the files of a lab's folder, which only
// this process and ssh read.
#include <arpa/inet.h>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <filesystem>
#include <fmt/format.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <utility>
#include <vector>

#include "base/child.hpp"
#include "base/clock.hpp"
#include "base/await.hpp"
#include "base/file.hpp"
#include "tools/lab/network.hpp"
#include "tools/lab/node.hpp"
#include "tools/lab/user.hpp"

namespace ghost::tools::lab {
namespace {

constexpr const char* marker = "/run/ghost-lab-node";
constexpr int64_t sshd_limit_us = 15'000'000;

Status mount_at(const char* type, const std::string& target, const char* options) {
    unsigned long flags = MS_NOSUID | MS_NODEV;
    if (::mount(type, target.c_str(), type, flags, options) != 0) {
        return sys_error(fmt::format("mount {} at", type), target);
    }
    return {};
}

bool is_below(const std::string& path, const std::string& folder) {
    return path.compare(0, folder.size() + 1, folder + "/") == 0;
}

bool is_hidden(const std::string& path) {
    for (const char* folder : own_folders) {
        if (is_below(path, folder)) return true;
    }
    return false;
}

// A folder of the machine held as a mount of its own while the node's tmpfs goes over it.
struct Share {
    std::string path;
    Fd tree;
};

Result<std::vector<Share>> take_shares(const LabState& lab) {
    std::vector<Share> out;
    for (const std::string& path : lab.shares) {
        if (!is_hidden(path)) continue;  // the machine's, shared anyway
        Fd tree(::open_tree(AT_FDCWD, path.c_str(),
                            OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_RECURSIVE));
        if (!tree.valid()) return sys_error("share the folder", path);
        out.push_back({path, std::move(tree)});
    }
    return out;
}

Status put_shares(const std::vector<Share>& shares) {
    for (const Share& share : shares) {
        std::error_code ec;
        std::filesystem::create_directories(share.path, ec);
        if (::move_mount(share.tree.get(), "", AT_FDCWD, share.path.c_str(),
                         MOVE_MOUNT_F_EMPTY_PATH) != 0) {
            return sys_error("show the shared folder", share.path);
        }
    }
    return {};
}

Status make_file_systems(const LabState& lab) {
    if (::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) {
        return sys_error("make mounts private at", "/");
    }
    // Copies of the names of other labs' network namespaces would keep those alive.
    ::umount2("/run/netns", MNT_DETACH);
    auto shares = take_shares(lab);
    GHOST_TRY(shares);
    GHOST_TRY(mount_at("proc", "/proc", nullptr));
    for (const char* folder : own_folders) {
        bool run = std::string(folder) == "/run";
        GHOST_TRY(mount_at("tmpfs", folder, run ? "mode=755" : "mode=1777"));
    }
    GHOST_TRY(put_shares(*shares));
    std::string hosts = lab_folder(lab.name) + "/hosts";
    if (::mount(hosts.c_str(), "/etc/hosts", nullptr, MS_BIND, nullptr) != 0) {
        return sys_error("mount the lab's hosts file at", "/etc/hosts");
    }
    ::mkdir("/run/sshd", 0755);
    ::mkdir("/run/lock", 01777);
    return {};
}

Result<pid_t> start_sshd(const LabState& lab) {
    std::string config = lab_folder(lab.name) + "/sshd_config";
    auto sshd = Child::start({.argv = {"/usr/sbin/sshd", "-D", "-e", "-f", config},
                              .stdio = {inherited, inherited, inherited},
                              .place = ChildRequest::Place::here,
                              .signals = ChildRequest::Signals::kept});
    if (!sshd) return sshd.error();
    return sshd->release();
}

// sshd says its version to whoever connects, once it is ready.
bool sshd_answers(const std::string& address) {
    Fd fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_in sa{};
    sa.sin_family = AF_INET;
    sa.sin_port = htons(22);
    ::inet_pton(AF_INET, address.c_str(), &sa.sin_addr);
    if (::connect(fd.get(), reinterpret_cast<sockaddr*>(&sa), sizeof sa) != 0) return false;
    char text[4] = {};
    return await_readable(fd.get(), 5000) && ::read(fd.get(), text, 4) == 4 &&
           std::string(text, 4) == "SSH-";
}

Status wait_for_sshd(pid_t sshd, const std::string& address) {
    int64_t limit = monotonic_us() + sshd_limit_us;
    while (!sshd_answers(address)) {
        if (::waitpid(sshd, nullptr, WNOHANG) == sshd) return make_error(Code::io, "run sshd");
        if (monotonic_us() > limit) return make_error(Code::timeout, "wait for sshd at", address);
        ::usleep(5000);
    }
    return {};
}

Result<pid_t> bring_up(const std::string& lab_name, const std::string& node_name) {
    auto lab = load_state(lab_name);
    GHOST_TRY(lab);
    const NodeState* node = lab->find(node_name);
    if (node == nullptr) return no_such_node(*lab, node_name);
    if (::sethostname(node_name.c_str(), node_name.size()) != 0) {
        return sys_error("set host name", node_name);
    }
    GHOST_TRY(make_file_systems(*lab));
    GHOST_TRY(write_file(marker, lab_name + " " + node_name + "\n", 0644));
    auto sshd = start_sshd(*lab);
    GHOST_TRY(sshd);
    GHOST_TRY(wait_for_sshd(*sshd, node->address()));
    return *sshd;
}

std::string hosts_text(const LabState& lab) {
    std::string text = "127.0.0.1 localhost\n";
    for (const NodeState& node : lab.nodes) text += node.address() + " " + node.name() + "\n";
    return text;
}

// What a command run over ssh begins with. bash reads the user's ~/.bashrc for those, at the first
// level of shells only (bash(1), INVOCATION): nothing there is needed on a node, and what it starts
// can take longer than mpirun itself. Libraries are where whoever brings the lab up finds them.
std::vector<std::pair<std::string, std::string>> login_environment(const std::string& lab) {
    auto out = node_environment(lab);
    out.emplace_back("SHLVL", "1");
    const char* libraries = std::getenv("LD_LIBRARY_PATH");
    if (libraries != nullptr && std::strpbrk(libraries, "\"\\\n") == nullptr)
        out.emplace_back("LD_LIBRARY_PATH", libraries);
    return out;
}

std::string sshd_config(const LabState& lab) {
    std::string folder = lab_folder(lab.name);
    std::string set_env;
    for (const auto& [name, value] : login_environment(lab.name)) {
        set_env += fmt::format(" \"{}={}\"", name, value);
    }
    return fmt::format(
        "# Written by `ghost lab up`.\n"
        "HostKey {0}/host_key\nAuthorizedKeysFile {0}/user_key.pub {1}/%u\nPidFile none\n"
        "StrictModes no\nUsePAM no\nPermitRootLogin prohibit-password\n"
        "PasswordAuthentication no\nKbdInteractiveAuthentication no\nUseDNS no\n"
        "PrintMotd no\nPrintLastLog no\nMaxStartups 200\nMaxSessions 200\nLogLevel ERROR\n"
        "SetEnv{2}\n",
        folder, keys_folder(lab.name), set_env);
}

}  // namespace

Status make_key(const std::string& path) {
    struct stat st {};
    if (::stat(path.c_str(), &st) == 0 && ::stat((path + ".pub").c_str(), &st) == 0) return {};
    ::unlink(path.c_str());
    GHOST_TRY(run_checked(
        {"ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "ghost lab", "-f", path}));
    return {};
}

std::string ssh_config(const SshClient& client) {
    return fmt::format(
        "# Written by `ghost lab`.\n"
        "Host *\n  User {}\n  IdentityFile {}\n  IdentitiesOnly yes\n"
        "  UserKnownHostsFile {}\n  GlobalKnownHostsFile /dev/null\n"
        "  StrictHostKeyChecking yes\n  BatchMode yes\n  ConnectTimeout 5\n  LogLevel ERROR\n"
        "  AddressFamily inet\n",
        client.name, client.key, client.known_hosts);
}

bool on_a_node() {
    return ::access(marker, F_OK) == 0;
}

Status write_lab_files(const LabState& lab) {
    std::string folder = lab_folder(lab.name);
    GHOST_TRY(make_key(folder + "/host_key"));
    GHOST_TRY(make_key(folder + "/user_key"));
    auto host_key = read_file(folder + "/host_key.pub");
    GHOST_TRY(host_key);
    GHOST_TRY(write_file(folder + "/known_hosts", "gn*,10.77.0.* " + *host_key, 0600));
    GHOST_TRY(write_file(folder + "/sshd_config", sshd_config(lab), 0600));
    GHOST_TRY(write_file(
        ssh_config_path(lab.name),
        ssh_config(
            {.name = "root", .key = folder + "/user_key", .known_hosts = folder + "/known_hosts"}),
        0600));
    // In place, not by rename: the nodes have this very file mounted.
    std::string path = folder + "/hosts", text = hosts_text(lab);
    Fd fd(::open(path.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0644));
    if (!fd.valid() || ::fchmod(fd.get(), 0644) != 0 || ::ftruncate(fd.get(), 0) != 0 ||
        ::write(fd.get(), text.data(), text.size()) != static_cast<ssize_t>(text.size())) {
        return sys_error("write", path);
    }
    return {};
}

int node_main(const std::string& lab, const std::string& node, int ready_fd, int commit_fd) {
    if (::getpid() != 1) {
        fmt::print(stderr, "ghost: `lab node` is started by `ghost lab up` only\n");
        return 2;
    }
    Fd ready(ready_fd), commit(commit_fd);
    ::fcntl(ready_fd, F_SETFD, FD_CLOEXEC);
    ::fcntl(commit_fd, F_SETFD, FD_CLOEXEC);
    ::umask(022);
    if (::chdir("/") != 0) return 1;
    auto sshd = bring_up(lab, node);
    if (!sshd.ok()) {
        fmt::print(stderr, "{}\n", sshd.error().message());
        return 1;
    }
    char byte = 0;
    if (::write(ready_fd, "r", 1) != 1 || ::read(commit_fd, &byte, 1) != 1) return 1;
    ::prctl(PR_SET_PDEATHSIG, 0);
    ready.reset();  // what commit() waits for
    commit.reset();
    // A node without its sshd is of no use: it ends, and `ghost lab up` starts it anew.
    for (;;) {
        pid_t pid = ::waitpid(-1, nullptr, 0);
        if (pid == *sshd) return 1;
        if (pid < 0 && errno != EINTR) return 1;
    }
}

}  // namespace ghost::tools::lab
