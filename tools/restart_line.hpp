// The command line of the mpirun that takes a job up again: decisions on words, nothing is run.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "base/result.hpp"
#include "pmix-plugin/snapshot/manifest.hpp"

namespace ghost::tools {

// `ghost restart SNAPSHOT [mpirun options]`: puts everything that is not the verb's own behind
// --mpirun=, one for each word, so that no option of mpirun is taken for one of the verb's. `args`
// begin with the verb.
std::vector<std::string> mark_mpirun_options(const std::vector<std::string>& args);

// Whether the options name hosts, so that ranks may run elsewhere than here.
bool name_hosts(const std::vector<std::string>& options);

// The job family a job belongs to, as ess_base_jobid takes it: mpirun's own number. invalid: this
// is no number of a job that mpirun starts.
Result<uint32_t> job_family(const std::string& job);

using Lookup = std::function<std::optional<std::string>(const std::string&)>;

// All words, mpirun's name first. `folder` is the snapshot's, absolute; `options` are the user's,
// `environment` says what is set there: what is given by either is not taken from the manifest.
// invalid: the options contradict what a restart is.
Result<std::vector<std::string>> restart_line(const plugin::Manifest& manifest,
                                              const std::string& folder,
                                              const std::vector<std::string>& options,
                                              const Lookup& environment);

}  // namespace ghost::tools
