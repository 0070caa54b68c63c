// SPDX-License-Identifier: BSD-3-Clause
#include "tools/node_checks.hpp"

#include <dlfcn.h>
#include <fmt/format.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tools/process.hpp"

namespace ghost::tools {
namespace {

std::string first_line(const std::string& text) {
    return text.substr(0, text.find('\n'));
}

// The first "N.N.N" in a text.
std::string version_in(const std::string& text) {
    for (size_t i = 0; i < text.size(); ++i) {
        int a = 0, b = 0, c = 0;
        if (std::sscanf(text.c_str() + i, "%d.%d.%d", &a, &b, &c) == 3) {
            return fmt::format("{}.{}.{}", a, b, c);
        }
    }
    return {};
}

// Layouts of structures in these libraries are used, so another minor version will not do.
Finding exactly(const std::string& text, const std::string& wanted) {
    std::string version = version_in(text);
    if (version.empty()) return {false, "not found"};
    if (version.compare(0, wanted.size(), wanted) == 0) return {true, version};
    return {false, fmt::format("{}, but {}x is needed", version, wanted)};
}

Finding look_open_mpi(const Paths&) {
    auto text = run_checked({"mpirun", "--version"});
    return text.ok() ? exactly(*text, "4.1.") : Finding{false, "mpirun is not in PATH"};
}

Finding look_pmix(const Paths&) {
    void* library = ::dlopen(PMIX_LIBRARY, RTLD_LAZY | RTLD_LOCAL);
    if (library == nullptr) return {false, first_line(::dlerror())};
    auto version = reinterpret_cast<const char* (*)()>(::dlsym(library, "PMIx_Get_version"));
    Finding out = version != nullptr ? exactly(version(), "4.2.") : Finding{false, "no version"};
    ::dlclose(library);
    return out;
}

Finding look_criu(const Paths& paths) {
    auto end = run_program({paths.criu, "--version"});
    if (!end.ok() || end->status != 0) return {false, paths.criu + " does not run"};
    std::string line = first_line(end->output);  // "Version: 4.2.1"
    size_t digit = line.find_first_of("0123456789");
    std::string version = digit != std::string::npos ? line.substr(digit) : "unknown";
    return {std::atof(version.c_str()) >= 4.1, version + " at " + paths.criu};
}

Finding look_criu_check(const Paths& paths) {
    std::vector<std::string> check{paths.criu, "check"};
    if (::geteuid() != 0) check.emplace_back("--unprivileged");
    auto end = run_program(check);
    if (!end.ok()) return {false, paths.criu + " does not run"};
    if (WIFEXITED(end->status) && WEXITSTATUS(end->status) == 0) return {true, "works"};
    return {false, first_line(end->output)};
}

Finding look_component(const Paths& paths, const char* wanted, const char* file) {
    for (const auto& [name, value] : ghost_environment(paths)) {
        ::setenv(name.c_str(), value.c_str(), 1);
    }
    auto text = run_checked({"ompi_info", "--parsable"});
    if (!text.ok()) return {false, "ompi_info is not in PATH"};
    if (text->find(wanted) != std::string::npos) return {true, "found by Open MPI"};
    std::string path = paths.ompi_components + "/" + file;
    return {false, ::access(path.c_str(), R_OK) == 0 ? path + " is not accepted by Open MPI"
                                                     : path + " is missing"};
}

Finding look_transport(const Paths& paths) {
    return look_component(paths, "mca:btl:kernet:", "mca_btl_kernet.so");
}

Finding look_plugin(const Paths& paths) {
    return look_component(paths, "mca:schizo:ghost:", "mca_schizo_ghost.so");
}

Finding look_server_plugin(const Paths& paths) {
    std::string path = paths.pmix_components + "/pmix_mca_pnet_ghost.so";
    return {::access(path.c_str(), R_OK) == 0, path};
}

Finding look_wrapper(const Paths& paths) {
    return {::access(paths.wrapper.c_str(), X_OK) == 0, paths.wrapper};
}

constexpr const char* build = "make (in the build folder), or make install";
constexpr const char* kernel = "use Linux 6.1 or newer, outside a confined container";
// Debian 12's own kernel is 6.1.
constexpr const char* tracking =
    "use Linux 6.7 or newer (Debian 12: apt-get install -t bookworm-backports linux-image-amd64)";

}  // namespace

const std::vector<Check>& node_checks() {
    static const std::vector<Check> checks = {
        {"privilege", For::all, look_capabilities, "use another container, or another node"},
        {"PID namespaces", For::all, look_pid_namespaces, kernel},
        {"clone3 set_tid", For::all, look_set_tid, kernel},
        {"userfaultfd", For::all, look_userfaultfd, kernel},
        {"process_vm_readv", For::all, look_process_vm_readv,
         "sysctl -w kernel.yama.ptrace_scope=0"},
        {"memfd_create", For::all, look_memfd, kernel},
        {"PAGEMAP_SCAN", For::comfort, look_pagemap_scan, tracking},
        {"/dev/shm", For::all, look_shm, "mount -t tmpfs tmpfs /dev/shm"},
        {"criu", For::all, look_criu, "make criu (in the build folder)"},
        {"criu check", For::all, look_criu_check, "run it: criu check says what the kernel lacks"},
        {"real-time priority", For::comfort, look_realtime,
         "a control group with real-time budget, for processes with CAP_SYS_NICE"},
        {"userfaultfd for all faults", For::comfort, look_all_faults, kernel},
        {"ghostd", For::comfort, look_lender, build},
        {"Open MPI", For::jobs, look_open_mpi, "apt-get install openmpi-bin libopenmpi-dev"},
        {"PMIx", For::jobs, look_pmix, "apt-get install libpmix2 libpmix-dev"},
        {"wrapper", For::jobs, look_wrapper, build},
        {"plugin in mpirun", For::jobs, look_plugin, build},
        {"plugin in PMIx servers", For::jobs, look_server_plugin, build},
        {"transport in ranks", For::jobs, look_transport, build},
    };
    return checks;
}

}  // namespace ghost::tools
