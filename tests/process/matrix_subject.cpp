// SPDX-License-Identifier: BSD-3-Clause
// matrix_subject NAME FOLDER: begins the case, makes FOLDER/NAME.ready, waits for FOLDER/NAME.go,
// checks, and leaves FOLDER/NAME.result: "ok", or what is wrong. `--list`: all cases.
// `--serve`: the services of a node. Built as matrix_rank it does all that as a rank of an MPI job.
#include "tests/process/matrix_subject.hpp"

#include <array>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <string_view>
#include <unistd.h>

#ifdef MATRIX_RANK
#define OMPI_SKIP_MPICXX 1
#include <mpi.h>
#endif

namespace matrix {
namespace {

constexpr std::array all_cases = {&task_cases,   &scheduling_cases, &setting_cases,
                                  &signal_cases, &file_cases,       &name_cases,
                                  &object_cases, &memory_cases,     &node_cases};
// How ranks (tests/net/rank_matrix.sh) are unlike plain processes. "not: …": no rank, and why;
// "with: …": in a job of its own, with this parameter set to 1.
constexpr std::array<std::array<std::string_view, 2>, 2> unlike_plain = {{
    {"large_removed", "not: gigabytes, which go the way of any other removed file"},
    {"sysv", "with: ghost_own_ipc"},
}};
// How an ordinary user's (GHOST_TEST_USER) are unlike root's. "not: …": only root can begin it, and
// why; else he is refused so.
constexpr std::array<std::array<std::string_view, 2>, 10> unlike_root = {{
    {"device", "not: what devices there are is for root alone here"},
    {"filter", "only root can read a seccomp filter"},
    {"memory_policies", "not: those of mappings are looked for by BPF, which is root's"},
    {"named_semaphore", "only root can open it"},
    {"proc_of_others", "not: it removes a mount"},
    {"removed_mapping", "only root can open it"},
    {"socket_limits", "not: what is left of them is found by BPF, which is root's"},
    {"tcp_inside", "only root can take a TCP connection along"},
    {"far_watch", "only root is told what it watches"},
    {"undumpable", "it lets nobody but root look at it"},
}};
std::string result_path;

void put(const std::string& path, const std::string& text) {
    const std::string beside = path + ".new";
    if (FILE* file = std::fopen(beside.c_str(), "w")) {
        std::fputs(text.c_str(), file);
        std::fclose(file);
        std::rename(beside.c_str(), path.c_str());
    }
}

const Case* find(const std::string& name) {
    for (const auto* cases : all_cases)
        for (const auto& one : *cases)
            if (name == one.name) return &one;
    return nullptr;
}

template <typename Table>
std::string how_in(const Table& table, const std::string_view name, const char* otherwise) {
    for (const auto& [one, how] : table)
        if (one == name) return std::string(how);
    return otherwise;
}

void list() {
    for (const auto* cases : all_cases)
        for (const auto& one : *cases)
            std::printf("%s\t%s\t%s\t%s\t%s\n", one.name, one.what,
                        one.refused != nullptr ? one.refused : "",
                        how_in(unlike_plain, one.name, "ranks").c_str(),
                        how_in(unlike_root, one.name, "").c_str());
}

#ifdef MATRIX_RANK
// Signals of the whole process are for the program's own threads: those that the runtime makes
// have them blocked, as a case that waits for a signal wants it of every thread.
void init_rank(int& argc, char**& argv) {
    sigset_t of_cases, before;
    sigemptyset(&of_cases);
    for (const int one : {SIGUSR1, SIGUSR2, SIGALRM, SIGRTMIN + 3, SIGRTMIN + 5})
        sigaddset(&of_cases, one);
    pthread_sigmask(SIG_BLOCK, &of_cases, &before);
    MPI_Init(&argc, &argv);
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
}
#endif

}  // namespace

void need(bool condition, const char* what) {
    if (condition) return;
    put(result_path, std::string("cannot begin: ") + what + ": " + std::strerror(errno));
    _exit(1);
}

std::string differs(const char* what, long is, long was) {
    if (is == was) return {};
    return std::string(what) + " is " + std::to_string(is) + ", was " + std::to_string(was);
}

}  // namespace matrix

int main(int argc, char** argv) {
    using namespace matrix;
    if (argc == 2 && std::strcmp(argv[1], "--list") == 0) {
        list();
        return 0;
    }
    if (argc == 2 && std::strcmp(argv[1], "--serve") == 0) serve();
    const Case* one = argc == 3 ? find(argv[1]) : nullptr;
    if (one == nullptr) return 2;
#ifdef MATRIX_RANK
    init_rank(argc, argv);
#endif
    const std::string base = std::string(argv[2]) + "/" + one->name;
    result_path = base + ".result";
    const Check check = one->begin(argv[2]);
    put(base + ".ready", "");
    while (access((base + ".go").c_str(), F_OK) != 0) usleep(10000);
    const std::string wrong = check();
    put(result_path, wrong.empty() ? "ok" : wrong);
#ifdef MATRIX_RANK
    MPI_Finalize();
#endif
    return wrong.empty() ? 0 : 1;
}
