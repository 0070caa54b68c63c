// SPDX-License-Identifier: BSD-3-Clause
// Which parameters of Open MPI and PMIx a job needs so that its ranks can move, and whether the
// user's own choice leaves room for them. Pure decisions on an environment; no MPI in here.
//
// Why each is needed: a rank may hold nothing CRIU cannot carry. Stock transports keep listeners
// and shared segments (btl other than kernet, osc/coll sm, shmem posix), PMIx's default data store
// is a mapping shared with the server (gds ds12/ds21), and the wrapper must be the rank's parent.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <sys/types.h>
#include <utility>
#include <vector>

#include "base/result.hpp"

namespace ghost::plugin {

// Where the parts of Ghost are on this machine; empty: that part was not found.
struct InstalledPaths {
    std::string wrapper;          // ghost-wrapper
    std::string launcher;         // ghost-rsh, beside it
    std::string pmix_components;  // folder with pmix_mca_pnet_ghost.so; empty if PMIx's own
    std::string criu;             // what the wrapper runs
    std::string help;             // folder with help-ghost.txt
};

// Finds the parts: what GHOST_WRAPPER and GHOST_CRIU name, else beside the component's own file (an
// uninstalled tree) or where they are installed. `component` is that file's path.
InstalledPaths find_paths(const std::string& component);

using GetEnv = std::function<std::optional<std::string>(const std::string&)>;

struct Setting {
    std::string name;
    std::string value;
};

struct JobSettings {
    std::vector<Setting> settings;  // to be put into the environment, in place of any old value
    // Not empty: the user chose something that makes migration impossible (one sentence).
    std::string refusal;
    // Not empty: what the parameter files of Open MPI choose, and what is taken instead.
    std::string instead;
};

// What is to be set in the environment of mpirun or a daemon. The user's own values are kept.
// Without a wrapper the fork agent is left alone: ranks then run as ever and cannot move.
// in_files: a parameter's value (name without OMPI_MCA_) in Open MPI's parameter files, which are
// the site's, and yield.
JobSettings decide(const GetEnv& get, const InstalledPaths& paths, const GetEnv& in_files);

// "true", "yes", "on", "enabled", "t", "y", or a number but zero; "false", "no", "off", "disabled",
// "f", "n", or 0: as Open MPI reads booleans.
Result<bool> parse_yes(const std::string& text);
// False too for what parse_yes() does not understand.
bool is_yes(const std::string& text);

// The variables one rank finds in its environment (docs/PROTOCOL.md, "Environment of a rank"), and
// the addresses they name. Used when a rank is forked and when a wrapper restores one.

// Names of the job's abstract sockets that nobody else can know before they are used, as the
// alternatives of an address (base/control_socket.hpp). The same in all lives of a job, whose ranks
// know them: of its secret, which does not follow from them.
std::string socket_names(const std::string& secret);
// How they travel to the daemons, in the launch message.
inline constexpr const char* names_variable = "GHOST_NAMES";

// Abstract address of the node agent of a job; the same on every node (the abstract name space is
// per network name space). `job` is the job's number in decimal, `names` socket_names().
std::string node_socket(const std::string& job, uid_t user, const std::string& names);

// Abstract address of the stream manager (docs/KERNET.md) in the daemon whose node agent is at
// `node_socket`: on every node the same, so that it holds wherever a rank moves.
std::string stream_manager_address(const std::string& node_socket);
// Where libkernet looks for it.
inline constexpr const char* stream_manager_variable = "KERNET_MANAGER";

// Everything that differs between ranks. The secret, criu's path and the log are the same for all
// and travel in the launch message.
std::vector<std::pair<std::string, std::string>> rank_environment(unsigned job, unsigned rank,
                                                                  unsigned node,
                                                                  const std::string& node_name,
                                                                  const std::string& names);

// The same for a guest: a rank of a job that ranks of job `host` have spawned. It cannot move.
std::vector<std::pair<std::string, std::string>> guest_environment(unsigned host, unsigned node,
                                                                   const std::string& node_name,
                                                                   const std::string& names);

}  // namespace ghost::plugin
