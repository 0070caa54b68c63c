// SPDX-License-Identifier: BSD-3-Clause
#include "tools/lab/node.hpp"

#include <array>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <fcntl.h>
#include <fmt/format.h>
#include <sched.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/child.hpp"
#include "base/file.hpp"
#include "base/paths.hpp"
#include "base/await.hpp"
#include "tools/lab/network.hpp"
#include "tools/paths.hpp"

namespace ghost::tools::lab {
namespace {

// Until the commit pipe is read, the death of `up` must end it.
Result<ProcessId> start_init(const std::string& lab, const std::string& node, const Fd& net,
                             const std::array<int, 2>& pipes, const std::string& log_path) {
    const Fd log(::open(log_path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
    if (!log.valid()) return sys_error("create", log_path);
    ChildRequest request;
    request.program = own_program();
    request.argv = {"ghost", "lab", "node", lab, node, "3", "4"};
    request.environment = {"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"};
    request.own_environment = false;
    request.stdio = {null_device, log.get(), log.get()};
    request.descriptors = {pipes[0], pipes[1]};
    request.place = ChildRequest::Place::own_session;
    request.signals = ChildRequest::Signals::unblocked;
    request.namespaces = CLONE_NEWPID | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWNS;
    request.network = net.get();
    request.death_signal = SIGKILL;
    auto init = Child::start(request);
    if (!init) return init.error();
    return identify(init->release());
}

Result<std::pair<Fd, Fd>> make_pipe() {
    int ends[2];
    if (::pipe2(ends, O_CLOEXEC) != 0) return sys_error("create a pipe");
    return std::pair{Fd(ends[0]), Fd(ends[1])};
}

}  // namespace

Result<StartingNode> StartingNode::start(const LabState& lab, const NodeState& node) {
    std::string name = node.name();
    Fd net(::open(namespace_path(lab.name, name).c_str(), O_RDONLY | O_CLOEXEC));
    if (!net.valid()) return sys_error("open network namespace of", name);
    auto ready = make_pipe(), commit = make_pipe();
    GHOST_TRY(ready);
    GHOST_TRY(commit);
    StartingNode out;
    out.log_ = lab_folder(lab.name) + "/log-" + name;
    auto id = start_init(lab.name, name, net, {ready->second.get(), commit->first.get()}, out.log_);
    GHOST_TRY(id);
    out.init_ = *id;
    out.ready_ = std::move(ready->first);
    out.commit_ = std::move(commit->second);
    return out;
}

Status StartingNode::wait_ready(int timeout_ms) {
    char byte = 0;
    const bool in_time = await_readable(ready_.get(), timeout_ms);
    if (in_time && ::read(ready_.get(), &byte, 1) == 1) return {};
    auto said = read_file(log_);
    std::string why = said.ok() && !said->empty() ? *said : "it said nothing";
    return make_error(in_time ? Code::io : Code::timeout, "start a node", {}, why);
}

Status StartingNode::commit() {
    if (::write(commit_.get(), "c", 1) != 1) return sys_error("commit a node");
    commit_.reset();
    // Its end of the ready pipe closes once our death no longer ends it: not a moment earlier may
    // `up` be done.
    char byte = 0;
    if (await_readable(ready_.get(), 10'000) && ::read(ready_.get(), &byte, 1) == 0) return {};
    return make_error(Code::timeout, "commit a node");
}

std::string ssh_config_path(const std::string& lab) {
    return lab_folder(lab) + "/ssh_config";
}

std::vector<std::pair<std::string, std::string>> node_environment(const std::string& lab) {
    const std::string network = "10.77.0.0/24";
    std::vector<std::pair<std::string, std::string>> out{
        {"GHOST_LAB", lab},
        // Nodes have no user but root.
        {"OMPI_ALLOW_RUN_AS_ROOT", "1"},
        {"OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1"},
        {"OMPI_MCA_plm_rsh_agent", "ssh -F " + ssh_config_path(lab)},
        // All nodes share the machine's few cores.
        {"OMPI_MCA_hwloc_base_binding_policy", "none"},
        {"OMPI_MCA_rmaps_base_oversubscribe", "1"},
        {"OMPI_MCA_oob_tcp_if_include", network},
        {"OMPI_MCA_btl_tcp_if_include", network},
    };
    for (auto& pair : ghost_environment(find_paths())) out.push_back(std::move(pair));
    return out;
}

}  // namespace ghost::tools::lab
