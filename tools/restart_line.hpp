// SPDX-License-Identifier: BSD-3-Clause
// The command line of the mpirun that takes a job up again: decisions on words, nothing is run.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "base/result.hpp"
#include "pmix-plugin/snapshots/manifest.hpp"

namespace ghost::tools {

using Lookup = std::function<std::optional<std::string>(const std::string&)>;

// `ghost restart SNAPSHOT [mpirun options]`: puts everything that is not the verb's own behind
// --mpirun=, one for each word, so that no option of mpirun is taken for one of the verb's. `args`
// begin with the verb.
std::vector<std::string> mark_mpirun_options(const std::vector<std::string>& args);

// Whether a batch system, or Open MPI's own settings, give hosts to a mpirun that names none.
bool gives_hosts(const Lookup& environment);

// How the job's first command line maps and binds ranks, whatever the nodes are.
std::vector<std::string> mapping_options(const plugin::Manifest& manifest);

// Whether the options name hosts, so that ranks may run elsewhere than here.
bool name_hosts(const std::vector<std::string>& options);

// The job family a job belongs to, as ess_base_jobid takes it: mpirun's own number. invalid: this
// is no number of a job that mpirun starts.
Result<uint32_t> job_family(const std::string& job);

struct RestartPlan {
    std::string folder;                // of the snapshot, absolute
    std::vector<std::string> options;  // the user's, for mpirun
    std::string keep_suffix;           // not empty: files that are cut back are kept with it behind
    std::string signer = {};  // public key that it has to be signed with; empty: it need not
};

// All words, mpirun's name first. `environment` says what is set there: what that or the options
// give is not taken from the manifest. invalid: the options contradict what a restart is.
Result<std::vector<std::string>> restart_line(const plugin::Manifest& manifest,
                                              const RestartPlan& plan, const Lookup& environment);

}  // namespace ghost::tools
