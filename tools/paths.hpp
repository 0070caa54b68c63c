// SPDX-License-Identifier: BSD-3-Clause
// Where this ghost's parts are: beside the running program in a build tree, or under the prefix it
// was installed to. Found from /proc/self/exe, so a tree can be moved. Any thread.
#pragma once

#include <string>
#include <utility>
#include <vector>

namespace ghost::tools {

struct Paths {
    bool installed = false;
    std::string root;                 // build tree's root, or the prefix
    std::string program_folder;       // holds this `ghost`
    std::string ompi_components;      // our mca_*.so
    std::string pmix_components;      // our pmix_mca_*.so
    std::string open_mpi_components;  // Open MPI's own
    std::string wrapper;              // ghost-wrapper
    std::string mpirun;               // in PATH, or that of the Open MPI we are built for
    std::string criu;                 // full path, or "criu" if it is left to PATH
};

Paths find_paths();

// The variables that make stock mpirun find this tree, in the order they are printed. Nothing but
// PATH for an installed tree whose parts are where Open MPI looks anyway.
std::vector<std::pair<std::string, std::string>> ghost_environment(const Paths& paths);

// What is printed or exported must survive a shell: 'text' with quotes inside escaped.
std::string shell_quote(const std::string& text);

}  // namespace ghost::tools
