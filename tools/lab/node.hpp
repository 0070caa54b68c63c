// SPDX-License-Identifier: BSD-3-Clause
// A running node: the first process of its PID namespace, which makes the node's own file systems,
// runs its sshd, and takes everything on the node with it when it ends.
#pragma once

#include <string>
#include <sys/types.h>
#include <utility>
#include <vector>

#include "base/fd.hpp"
#include "base/result.hpp"
#include "tools/lab/state.hpp"

namespace ghost::tools::lab {

// A node that is coming up. Unless it is committed, it ends when this object does, or when the
// process that holds it dies: a lab whose `up` was killed leaves no process behind.
class StartingNode {
  public:
    // Starts the first process in namespaces of its own and the node's network namespace, which
    // must exist; the lab's folder must be complete (write_lab_files()).
    static Result<StartingNode> start(const LabState& lab, const NodeState& node);

    const ProcessId& init() const { return init_; }
    // Waits until its sshd answers; the Error holds what the node said.
    Status wait_ready(int timeout_ms);
    // From now on the node lives on its own.
    Status commit();

  private:
    ProcessId init_;
    Fd ready_;
    Fd commit_;
    std::string log_;
};

// True in a process that runs on a node of a lab (of any name).
bool on_a_node();

// The folders each node has for itself.
inline constexpr const char* own_folders[] = {"/tmp", "/run", "/dev/shm", "/scratch"};

// Keys, ssh configuration and hosts file in the lab's folder; what is there is kept but for the
// hosts file, which is rewritten in place (running nodes have it mounted).
Status write_lab_files(const LabState& lab);
std::string ssh_config_path(const std::string& lab);
// A key pair PATH, PATH.pub, if it is not there.
Status make_key(const std::string& path);
// Whose ssh goes from node to node, by which key.
struct SshClient {
    std::string name;
    std::string key;
    std::string known_hosts;
};
std::string ssh_config(const SshClient& client);

// What `ghost lab node` runs: never returns but with an exit status. The descriptors are those of
// StartingNode's pipes.
int node_main(const std::string& lab, const std::string& node, int ready_fd, int commit_fd);

// The environment of a command on a node: what makes mpirun and ghost work on a node of this lab as
// they stand: Open MPI's settings for the lab (over the lab's ssh and network only), and what
// `ghost env` prints. Name and value.
std::vector<std::pair<std::string, std::string>> node_environment(const std::string& lab);

}  // namespace ghost::tools::lab
