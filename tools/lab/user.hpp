// SPDX-License-Identifier: BSD-3-Clause
// Ordinary users of this machine on a lab's nodes: commands run as one of them, and ssh lets him
// from node to node with a key of his own, which opens no other account.
#pragma once

#include <string>
#include <sys/types.h>
#include <utility>
#include <vector>

#include "base/result.hpp"
#include "tools/lab/state.hpp"

namespace ghost::tools::lab {

struct LabUser {
    std::string name;
    gid_t group = 0;  // whose name need not be the user's
    std::string home;
    std::string ssh_config;
};

// Makes key and ssh configuration in the lab's folder, if they are not there. not_found: this
// machine has no such user. Needs root.
Result<LabUser> prepare_user(const LabState& lab, const std::string& name);

// That command as the user: with his groups and nobody else's, his home, his ssh.
std::vector<std::string> as_user(const LabUser& user, const std::vector<std::string>& command);
std::vector<std::pair<std::string, std::string>> environment_of(const LabUser& user);

// Where sshd looks for the keys of user NAME: this and "/NAME".
std::string keys_folder(const std::string& lab);

}  // namespace ghost::tools::lab
