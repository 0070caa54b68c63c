// SPDX-License-Identifier: BSD-3-Clause
#include "pmix-plugin/runtime/orte41/facts.hpp"

#include <cstdlib>
#include <fcntl.h>
#include <filesystem>
#include <fstream>
#include <sys/stat.h>
#include <unistd.h>

#include "pmix-plugin/runtime/orte41/job.hpp"
#include "pmix-plugin/runtime/pmix/job_control.h"
#include "pmix-plugin/settings/parameters.hpp"

namespace ghost::plugin::orte41 {

namespace {

Json words(char** argv) {
    Json out = Json::array();
    for (char** word = argv; word && *word; ++word) out.push_back(*word);
    return out;
}

Json apps() {
    Json out = Json::array();
    orte_job_t* job = app_job();
    for (int i = 0; job && i < job->apps->size; ++i) {
        const auto* app = item<orte_app_context_t>(job->apps, i);
        if (!app) continue;
        out.push_back({{"argv", words(app->argv)},
                       {"np", static_cast<uint32_t>(app->num_procs)},
                       {"cwd", app->cwd ? app->cwd : ""}});
    }
    return out;
}

Json own_command_line() {
    Json out = Json::array();
    std::ifstream in("/proc/self/cmdline", std::ios::binary);
    for (std::string word; std::getline(in, word, '\0');) out.push_back(word);
    return out;
}

// What the user has set, on the command line, in the environment or in a parameter file.
Json parameters_set() {
    Json out = Json::object();
    for (const Parameter& parameter : parameters())
        if (const char* value = getenv((std::string("OMPI_MCA_") + parameter.name).c_str()))
            out[parameter.name] = value;
    return out;
}

Json mpirun() {
    std::error_code ignored;
    return {{"argv", own_command_line()},
            {"cwd", std::filesystem::current_path(ignored).string()},
            {"parameters", parameters_set()}};
}

// Input that goes to one rank can be taken up again; to all of them, each may have read on to
// another place.
Json input_json(const StartOfInput& input) {
    const orte_job_t* job = app_job();
    Json out{{"rank", 0}, {"path", ""}, {"offset", 0}};
    if (!job || job->stdin_target == ORTE_VPID_WILDCARD || job->stdin_target == ORTE_VPID_INVALID)
        return out;
    out["rank"] = job->stdin_target;
    out["path"] = input.path;
    out["offset"] = input.offset;
    return out;
}

Json nodes() {
    Json out = Json::array();
    for (const NodeInfo& node : list_nodes())
        if (node.alive)
            out.push_back({{"id", node.id}, {"name", node.name}, {"slots", slots_of(node.id)}});
    return out;
}

Json ranks() {
    Json out = Json::array();
    orte_job_t* job = app_job();
    for (int i = 0; job && i < job->procs->size; ++i) {
        auto* rank = item<orte_proc_t>(job->procs, i);
        if (!rank) continue;
        char* binding = nullptr;
        orte_get_attribute(&rank->attributes, ORTE_PROC_CPU_BITMAP,
                           reinterpret_cast<void**>(&binding), OPAL_STRING);
        out.push_back({{"rank", rank->name.vpid},
                       {"app", static_cast<uint32_t>(rank->app_idx)},
                       {"binding", binding ? binding : ""}});
        free(binding);
    }
    return out;
}

}  // namespace

StartOfInput start_of_input() {
    StartOfInput out;
    struct stat info {};
    if (fstat(STDIN_FILENO, &info) != 0 || !S_ISREG(info.st_mode)) return out;
    const off_t at = lseek(STDIN_FILENO, 0, SEEK_CUR);
    std::error_code failed;
    const auto path = std::filesystem::read_symlink("/proc/self/fd/0", failed);
    if (at < 0 || failed) return out;
    out.path = path.string();
    out.offset = static_cast<uint64_t>(at);
    return out;
}

Json facts_of_job(const StartOfInput& input) {
    return {{"runtime",
             {{"name", "Open MPI"},
              {"version", std::string(orte_version_string)},
              {"pmix", ghost_pmix_version()}}},
            {"apps", apps()},
            {"mpirun", mpirun()},
            {"stdin", input_json(input)},
            {"nodes", nodes()},
            {"ranks", ranks()}};
}

}  // namespace ghost::plugin::orte41
