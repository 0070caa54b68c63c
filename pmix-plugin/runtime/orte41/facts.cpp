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

std::vector<std::string> words(char** argv) {
    std::vector<std::string> out;
    for (char** word = argv; word && *word; ++word) out.push_back(*word);
    return out;
}

std::vector<Manifest::App> apps() {
    std::vector<Manifest::App> out;
    orte_job_t* job = app_job();
    for (int i = 0; job && i < job->apps->size; ++i) {
        const auto* app = item<orte_app_context_t>(job->apps, i);
        if (!app) continue;
        out.push_back(
            {words(app->argv), static_cast<uint32_t>(app->num_procs), app->cwd ? app->cwd : ""});
    }
    return out;
}

std::vector<std::string> own_command_line() {
    std::vector<std::string> out;
    std::ifstream in("/proc/self/cmdline", std::ios::binary);
    for (std::string word; std::getline(in, word, '\0');) out.push_back(word);
    return out;
}

// What the user has set, on the command line, in the environment or in a parameter file.
std::map<std::string, std::string> parameters_set() {
    std::map<std::string, std::string> out;
    for (const Parameter& parameter : parameters())
        if (const char* value = getenv((std::string("OMPI_MCA_") + parameter.name).c_str()))
            out[parameter.name] = value;
    return out;
}

Manifest::Mpirun mpirun() {
    std::error_code ignored;
    return {own_command_line(), std::filesystem::current_path(ignored).string(), parameters_set()};
}

// Input that goes to one rank can be taken up again; to all of them, each may have read on to
// another place.
Manifest::Input input_of(const StartOfInput& input) {
    const orte_job_t* job = app_job();
    if (!job || job->stdin_target == ORTE_VPID_WILDCARD || job->stdin_target == ORTE_VPID_INVALID)
        return {};
    return {job->stdin_target, input.path, input.offset};
}

std::vector<Manifest::Node> nodes() {
    std::vector<Manifest::Node> out;
    for (const NodeInfo& node : list_nodes())
        if (node.alive) out.push_back({node.id, node.name, slots_of(node.id)});
    return out;
}

std::vector<JobDescription::Place> ranks() {
    std::vector<JobDescription::Place> out;
    orte_job_t* job = app_job();
    for (int i = 0; job && i < job->procs->size; ++i) {
        auto* rank = item<orte_proc_t>(job->procs, i);
        if (!rank) continue;
        char* binding = nullptr;
        orte_get_attribute(&rank->attributes, ORTE_PROC_CPU_BITMAP,
                           reinterpret_cast<void**>(&binding), OPAL_STRING);
        out.push_back(
            {rank->name.vpid, static_cast<uint32_t>(rank->app_idx), binding ? binding : ""});
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

JobDescription description_of_job(const StartOfInput& input) {
    return {{"Open MPI", orte_version_string, ghost_pmix_version()},
            apps(),
            mpirun(),
            input_of(input),
            nodes(),
            ranks()};
}

}  // namespace ghost::plugin::orte41
