// SPDX-License-Identifier: BSD-3-Clause
// The Unix sockets of a node, and what to do about those that lead out of a tree.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/result.hpp"
#include "ghost-core/criu/refusals.hpp"

namespace ghost::core {

struct UnixSocket {
    uint64_t peer = 0;  // inode of its other end, or of the listener that has not taken it yet
    std::string name;   // abstract ones with an @; those a listener has taken have its name
};

// By inode, as sock_diag(7) shows this network name space.
std::map<uint64_t, UnixSocket> unix_sockets();

// The name of a socket's other end; empty if it has none.
std::string name_of_peer(const std::map<uint64_t, UnixSocket>& all, uint64_t inode);

// Why a process with a connection to a socket of this name, outside of its tree, cannot leave;
// none: it is a service whose clients connect anew, so its end can be closed.
Refusal why_not_closed(const std::string& name);

// Whether the other end of a socket that leads out of a tree is to be closed; false: it is one of
// the `externals` (preflight.hpp), which are given new ends. refused: neither. The node's sockets
// are listed once, if any has to be looked for.
class LeftBehind {
  public:
    explicit LeftBehind(const std::vector<std::string>& externals) : externals_(externals) {}
    Result<bool> operator()(uint64_t inode);

  private:
    const std::vector<std::string>& externals_;
    std::optional<std::map<uint64_t, UnixSocket>> all_;
};

}  // namespace ghost::core
