// SPDX-License-Identifier: BSD-3-Clause
#include "tools/paths.hpp"

#include <sys/stat.h>
#include <unistd.h>

#include "base/paths.hpp"

namespace ghost::tools {
namespace {

std::string parent(const std::string& path) {
    size_t slash = path.rfind('/');
    return slash == std::string::npos || slash == 0 ? "/" : path.substr(0, slash);
}

std::string base_name(const std::string& path) {
    return path.substr(path.rfind('/') + 1);
}

bool exists(const std::string& path) {
    struct stat st {};
    return ::stat(path.c_str(), &st) == 0;
}

std::string first_existing(const std::vector<std::string>& candidates,
                           const std::string& otherwise) {
    for (const std::string& path : candidates) {
        if (exists(path)) return path;
    }
    return otherwise;
}

// The program with this name in PATH, or the bare name.
std::string in_path(const std::string& name) {
    const std::string found = find_in_path(name);
    return found.starts_with('/') ? found : name;
}

Paths build_tree(const std::string& root) {
    Paths out;
    out.root = root;
    out.ompi_components = root + "/components/ompi";
    out.pmix_components = root + "/components/pmix";
    out.wrapper = root + "/pmix-plugin/wrapper/ghost-wrapper";
    return out;
}

Paths installed_tree(const std::string& prefix) {
    Paths out;
    out.installed = true;
    out.root = prefix;
    out.ompi_components = first_existing({GHOST_LIBRARIES "/ompi"}, OPEN_MPI_COMPONENTS);
    out.pmix_components = first_existing({GHOST_LIBRARIES "/pmix"}, PMIX_COMPONENTS);
    out.wrapper = GHOST_PROGRAMS "/ghost-wrapper";
    return out;
}

}  // namespace

Paths find_paths() {
    std::string folder = parent(own_program());
    if (base_name(folder) == ".libs") folder = parent(folder);
    std::string above = parent(folder);
    // config.status is what tells a build tree from a prefix that happens to have a tools folder.
    bool built = base_name(folder) == "tools" && exists(above + "/config.status");
    Paths out = built ? build_tree(above) : installed_tree(above);
    out.program_folder = folder;
    out.open_mpi_components = OPEN_MPI_COMPONENTS;
    out.mpirun = in_path("mpirun");
    if (out.mpirun[0] != '/') out.mpirun = OPEN_MPI_PROGRAMS "/mpirun";
    std::string configured = GHOST_CRIU_PROGRAM;
    if (built && exists(above + "/criu/sbin/criu")) {
        out.criu = above + "/criu/sbin/criu";
    } else if (configured.find('/') != std::string::npos && exists(configured)) {
        out.criu = configured;
    } else {
        out.criu = in_path(base_name(configured));
    }
    return out;
}

std::vector<std::pair<std::string, std::string>> ghost_environment(const Paths& paths) {
    std::string path = search_path();
    if ((path + ":").compare(0, paths.program_folder.size() + 1, paths.program_folder + ":") != 0) {
        path = paths.program_folder + ":" + path;
    }
    std::vector<std::pair<std::string, std::string>> out;
    // The parameter replaces the default, so Open MPI's own folder is named too; and it finds
    // nothing at all when one of the folders is missing, so ours is named only once it is built.
    if (paths.ompi_components != paths.open_mpi_components && exists(paths.ompi_components)) {
        out.emplace_back("OMPI_MCA_mca_base_component_path",
                         paths.ompi_components + ":" + paths.open_mpi_components);
    }
    out.emplace_back("PATH", path);
    out.emplace_back("GHOST_PMIX_COMPONENTS", paths.pmix_components);
    out.emplace_back("GHOST_WRAPPER", paths.wrapper);
    out.emplace_back("GHOST_CRIU", paths.criu);
    return out;
}

std::string shell_quote(const std::string& text) {
    std::string out = "'";
    for (char c : text) {
        if (c == '\'') {
            out += "'\\''";
        } else {
            out += c;
        }
    }
    return out + "'";
}

}  // namespace ghost::tools
