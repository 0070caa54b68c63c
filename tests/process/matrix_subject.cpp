// SPDX-License-Identifier: BSD-3-Clause
// matrix_subject NAME FOLDER: begins the case, makes FOLDER/NAME.ready, waits for FOLDER/NAME.go,
// checks, and leaves FOLDER/NAME.result: "ok", or what is wrong. `--list`: all cases.
// `--serve`: the services of a node. Built as matrix_rank it does all that as a rank of an MPI job.
#include "tests/process/matrix_subject.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
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
// Those that tests/net/rank_matrix.sh runs as ranks as well.
constexpr std::array rank_cases = {&scheduling_cases, &setting_cases, &name_cases, &memory_cases,
                                   &node_cases};
// Those of them that it does not: gigabytes, which go the way of any other removed file.
constexpr std::array<std::string_view, 1> plain_cases = {"large_removed"};
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

bool is_for_ranks(const std::vector<Case>* cases, std::string_view name) {
    return std::ranges::find(rank_cases, cases) != rank_cases.end() &&
           std::ranges::find(plain_cases, name) == plain_cases.end();
}

void list() {
    for (const auto* cases : all_cases)
        for (const auto& one : *cases)
            std::printf("%s\t%s\t%s\t%s\n", one.name, one.what,
                        one.refused != nullptr ? one.refused : "",
                        is_for_ranks(cases, one.name) ? "ranks" : "");
}

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
    MPI_Init(&argc, &argv);
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
