// SPDX-License-Identifier: BSD-3-Clause
#include "tools/restart_line.hpp"

#include <algorithm>
#include <array>
#include <cstdlib>
#include <string_view>

namespace ghost::tools {
namespace {

constexpr std::array own_flags{
    "--replace", "--keep-longer", "--trust-owner", "--detach", "--json", "--help", "-h"};
constexpr std::array own_options{"--from", "--key", "--verify-key"};

template <typename Words>
bool is_one_of(const Words& words, std::string_view word) {
    return std::find(words.begin(), words.end(), word) != words.end();
}

// An option without its dashes: mpirun takes one as well as two.
std::string_view bare(std::string_view word) {
    const auto dashes = std::min<size_t>(word.find_first_not_of('-'), 2);
    return dashes == 0 ? std::string_view() : word.substr(std::min(dashes, word.size()));
}

bool sets_parameter(std::string_view word) {
    return is_one_of(std::array{"mca", "gmca", "omca"}, bare(word));
}

bool gives_parameter(const std::vector<std::string>& options, const std::string& name) {
    for (size_t i = 0; i + 1 < options.size(); ++i)
        if (sets_parameter(options[i]) && options[i + 1] == name) return true;
    return false;
}

// Of the job's first command line, in front of its program, what a restart repeats: parameters and
// options of how it runs, not of where, which are the restart's own.
constexpr std::array repeated_options{"allow-run-as-root", "enable-recovery", "disable-recovery",
                                      "continuous",        "tag-output",      "timestamp-output"};
constexpr std::array of_places{"rmaps",
                               "ras",
                               "hwloc_base_binding_policy",
                               "hwloc_base_cpu_list",
                               "orte_default_hostfile",
                               "orte_rankfile",
                               "ess_base_jobid"};

bool is_of_a_place(std::string_view name) {
    return std::ranges::any_of(of_places, [&](std::string_view begin) {
        return name == begin || name.starts_with(std::string(begin) + "_");
    });
}

struct Repeated {
    std::vector<std::pair<std::string, std::string>> parameters;
    std::vector<std::string> options;
};

// Of mpirun's line the words in front of its program.
std::vector<std::string> options_of(const plugin::Manifest& manifest) {
    const auto& line = manifest.mpirun.argv;
    const std::string program = manifest.apps.empty() ? "" : manifest.apps.front().argv.front();
    return {line.begin(), std::find(line.begin(), line.end(), program)};
}

Repeated repeated_of(const plugin::Manifest& manifest) {
    Repeated out;
    const auto line = options_of(manifest);
    for (size_t i = 1; i < line.size(); ++i) {
        if (is_one_of(repeated_options, bare(line[i]))) out.options.push_back(line[i]);
        if (!sets_parameter(line[i]) || i + 2 >= line.size()) continue;
        const std::string &name = line[i + 1], &value = line[i + 2];
        i += 2;
        if (name != "ghost" && !name.starts_with("ghost_") && !is_of_a_place(name))
            out.parameters.emplace_back(name, value);
    }
    return out;
}

Status check_options(const std::vector<std::string>& options) {
    for (const auto& word : options) {
        if (is_one_of(std::array{"np", "n", "c"}, bare(word)))
            return make_error(Code::invalid,
                              "restart with another number of ranks than the snapshot's:", word);
        if (is_one_of(std::array{"wdir", "wd"}, bare(word)))
            return make_error(Code::invalid,
                              "restart in another working folder than each rank had:", word);
        if (word == ":")
            return make_error(Code::invalid, "restart other programs than the snapshot's", {},
                              "\":\" is not taken");
    }
    for (const char* name : {"ghost", "ess_base_jobid", "ghost_restart", "ghost_restart_signer"})
        if (gives_parameter(options, name))
            return make_error(Code::invalid, "restart with another value of the parameter", name);
    return {};
}

class Line {
  public:
    Line(const std::vector<std::string>& options, const Lookup& environment)
        : options_(options), environment_(environment) {}

    void add(std::initializer_list<std::string> more) { words.insert(words.end(), more); }
    void parameter(const std::string& name, const std::string& value) {
        add({"--mca", name, value});
    }
    void parameter_unless_given(const std::string& name, const std::string& value) {
        if (!gives_parameter(options_, name) && !environment_("OMPI_MCA_" + name))
            parameter(name, value);
    }

    std::vector<std::string> words;

  private:
    const std::vector<std::string>& options_;
    const Lookup& environment_;
};

std::string folder_above(const std::string& path) {
    return path.substr(0, std::max<size_t>(path.rfind('/'), 1));
}

}  // namespace

std::vector<std::string> mark_mpirun_options(const std::vector<std::string>& args) {
    std::vector<std::string> out;
    bool named = false;
    for (size_t i = 0; i < args.size(); ++i) {
        const std::string& word = args[i];
        const bool is_option = word.size() > 1 && word[0] == '-';
        if (i == 0 || is_one_of(own_flags, word) ||
            is_one_of(own_options, word.substr(0, word.find('=')))) {
            out.push_back(word);
            if (is_one_of(own_options, word) && i + 1 < args.size()) out.push_back(args[++i]);
        } else if (!is_option && !named) {
            out.push_back(word);
            named = true;
        } else {
            out.push_back("--mpirun=" + word);
        }
    }
    return out;
}

std::vector<std::string> mapping_options(const plugin::Manifest& manifest) {
    constexpr std::array names{"map-by", "rank-by", "bind-to"};
    const auto line = options_of(manifest);
    std::vector<std::string> out;
    for (size_t i = 1; i + 1 < line.size(); ++i)
        if (is_one_of(names, bare(line[i]))) out.insert(out.end(), {line[i], line[i + 1]});
    return out;
}

bool gives_hosts(const Lookup& environment) {
    constexpr std::array names{"SLURM_JOB_ID", "PBS_NODEFILE",
                               "LSB_HOSTS",    "LSB_DJOB_HOSTFILE",
                               "PE_HOSTFILE",  "OMPI_MCA_orte_default_hostfile"};
    return std::ranges::any_of(names,
                               [&](const char* name) { return environment(name).has_value(); });
}

bool name_hosts(const std::vector<std::string>& options) {
    return std::any_of(options.begin(), options.end(), [](const std::string& word) {
        return is_one_of(std::array{"H", "host", "hostfile", "machinefile", "default-hostfile",
                                    "add-host", "add-hostfile"},
                         bare(word));
    });
}

Result<uint32_t> job_family(const std::string& job) {
    char* end = nullptr;
    const unsigned long number = std::strtoul(job.c_str(), &end, 10);
    // of each family of 65536 numbers 0 is mpirun and its daemons, 1 the job on the command line
    if (job.empty() || *end != '\0' || number > UINT32_MAX || (number & 0xffff) != 1)
        return make_error(Code::invalid, "find the job family of job", job);
    return static_cast<uint32_t>(number - 1);
}

Result<std::vector<std::string>> restart_line(const plugin::Manifest& manifest,
                                              const RestartPlan& plan, const Lookup& environment) {
    const auto& options = plan.options;
    GHOST_TRY(check_options(options));
    auto family = job_family(manifest.job.name);
    if (!family) return family.error();
    Line line(options, environment);
    line.add({"mpirun"});
    line.parameter("ghost", "1");
    line.parameter("ess_base_jobid", std::to_string(*family));
    line.parameter("ghost_restart", plan.folder);
    if (!plan.keep_suffix.empty()) line.parameter("ghost_restart_keep", plan.keep_suffix);
    if (!plan.signer.empty()) line.parameter("ghost_restart_signer", plan.signer);
    // wherever they were before, the next snapshots continue the numbers of this folder
    line.parameter_unless_given("ghost_checkpoint_dir", folder_above(plan.folder));
    for (const auto& [name, value] : manifest.mpirun.parameters)
        if (name != "ghost" && name != "ghost_restart" && name != "ghost_checkpoint_dir")
            line.parameter_unless_given(name, value);
    const auto repeated = repeated_of(manifest);
    for (const auto& [name, value] : repeated.parameters) line.parameter_unless_given(name, value);
    for (const auto& option : repeated.options)
        if (!is_one_of(options, option)) line.add({option});
    if (!manifest.input.path.empty() && manifest.input.rank != 0)
        line.add({"--stdin", std::to_string(manifest.input.rank)});
    line.words.insert(line.words.end(), options.begin(), options.end());
    for (size_t i = 0; i < manifest.apps.size(); ++i) {
        const auto& app = manifest.apps[i];
        if (i > 0) line.add({":"});
        line.add({"-np", std::to_string(app.np)});
        if (!app.cwd.empty()) line.add({"--wdir", app.cwd});
        line.words.insert(line.words.end(), app.argv.begin(), app.argv.end());
    }
    return line.words;
}

}  // namespace ghost::tools
