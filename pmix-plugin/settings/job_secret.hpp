// SPDX-License-Identifier: BSD-3-Clause
// How a job's secret comes from mpirun to its daemons, and where both have it.
//
// mpirun draws it (a restart takes it from the snapshot) and keeps it in memory of its own, sealed
// (memfd_create(2)), that is found by a path below /proc which only this user can open. Whoever
// starts daemons, mpirun or a daemon, does so by `ghost-rsh PATH AGENT …` in place of the user's
// own launch agent (ssh): it puts secret and life on the agent's standard input, from where the
// daemon reads them. So they are in no argument, no environment and no message of the runtime's.
// Daemons that something else starts ask for them: secret_exchange.hpp.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/result.hpp"

namespace ghost::plugin {

struct JobSecret {
    std::string secret;  // 64 hex digits
    std::string life;    // of the job, 16 hex digits
};

// Where this process keeps it: a path that is not secret, in its environment.
inline constexpr const char* secret_place_variable = "GHOST_SECRET_PLACE";
// In the job's launch message where no launch agent hands the secret on: mpirun's public key.
inline constexpr const char* launched_key_variable = "GHOST_SECRET_KEY";
// Told to a daemon by ghost-rsh: the descriptor to read it from.
inline constexpr const char* secret_descriptor_variable = "OMPI_MCA_ghost_secret_descriptor";
inline constexpr const char* launcher_name = "ghost-rsh";

// From now on this process has it, as long as it lives.
Status keep_secret(const JobSecret& job);
// What this process keeps. not_found: nothing.
Result<JobSecret> kept_secret();
// The same of another process of this user, by the path it says.
Result<JobSecret> secret_at(const std::string& path);

// One line that comes from `fd`, within `limit_ms`.
Result<JobSecret> receive_secret(int fd, int limit_ms);
std::string secret_line(const JobSecret& job);
Result<JobSecret> parse_secret(const std::string& line, const std::string& whose);

// The launch agent that hands on what this process keeps: `launcher` (ghost-rsh) before the user's
// own. Of several that the user's value names ("ssh : rsh") the first that can be found in PATH.
std::string launch_agent(const std::string& launcher, const std::string& users);

// What ghost-rsh is to execute instead of `words` (agent, options, node, command), so that the
// daemon they start knows where to read: its standard input, descriptor 9 if it leaves that before.
// Words that start no daemon stay as they are: nothing.
std::optional<std::vector<std::string>> launch_words(std::vector<std::string> words,
                                                     const std::string& shell);

}  // namespace ghost::plugin
