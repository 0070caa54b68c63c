// SPDX-License-Identifier: BSD-3-Clause
// coverage [--list] [--phases A,B] [--now-file PATH] [--dir FOLDER] [--threads N] [--max-bytes B]
// [--memory MB] [--seconds T] [--iterations N] [--until-file PATH]
//
// Every kind of communication of MPI, phase by phase, with every byte checked. --phases takes names
// and kinds (--list prints both). A round is one run of each of them; with --now-file it is one run
// of those that the first line of this file names, and of all while it is not there. With --threads
// the program asks for MPI_THREAD_MULTIPLE. Rank 0 prints a line for each phase run and at the end
// "coverage: N rounds, E errors"; the program ends with 1 after the first phase with an error.
#include <algorithm>
#include <fstream>
#include <sstream>

#include "tests/mpi/coverage.hpp"

using namespace mpitest;

namespace {

std::vector<Phase> every_phase() {
    std::vector<Phase> all;
    for (auto kind : {messages(), types(), collectives(), communicators(), windows(), accumulates(),
                      files(), threads()}) {
        all.insert(all.end(), kind.begin(), kind.end());
    }
    return all;
}

bool named(const Phase& phase, const std::string& list) {
    std::istringstream words(list);
    for (std::string word; std::getline(words, word, ',');) {
        if (word == phase.name || word == phase.kind) return true;
    }
    return false;
}

bool possible(const Phase& phase, int threads) {
    return threads > 1 || std::string(phase.kind) != "threads";
}

class Program {
  public:
    Program(const World& world, const Options& options)
        : world_(world), options_(options), limit_(options, 2) {
        settings_.folder = options.text("--dir", ".");
        settings_.threads = static_cast<int>(options.number("--threads", 0));
        const std::string wanted = options.text("--phases", "");
        for (const Phase& phase : every_phase()) {
            if (!possible(phase, settings_.threads)) continue;
            if (wanted.empty() || named(phase, wanted)) phases_.push_back({phase});
        }
    }

    uint64_t run();

  private:
    struct Chosen {
        Phase phase;
        uint64_t runs = 0;
    };
    std::string now() const;
    uint64_t run_once(Chosen& chosen);
    uint64_t round(const std::string& list);

    const World& world_;
    const Options& options_;
    Limit limit_;
    Settings settings_;
    std::vector<Chosen> phases_;
};

// What --now-file says, told by rank 0 to all.
std::string Program::now() const {
    char line[256] = {};
    const std::string path = options_.text("--now-file", "");
    if (world_.rank == 0 && !path.empty()) std::ifstream(path).getline(line, sizeof line);
    MPI_Bcast(line, sizeof line, MPI_CHAR, 0, MPI_COMM_WORLD);
    return line;
}

uint64_t Program::run_once(Chosen& chosen) {
    const Phase& phase = chosen.phase;
    if (chosen.runs == 0 && phase.begin) phase.begin(world_, settings_);
    // Every fourth run goes up to the largest messages, the others are quick.
    const auto most = static_cast<size_t>(options_.number("--max-bytes", 1 << 20));
    const size_t bytes = chosen.runs % 4 == 0 ? most : std::min<size_t>(most, 70000);
    const double start = mpitest::now();
    Turn turn(world_, phase.name, chosen.runs, bytes);
    phase.run(turn);
    const uint64_t errors = world_.sum(turn.errors());
    if (world_.rank == 0) {
        std::printf("phase %s/%s round %llu: %llu errors, %.3f s\n", phase.kind, phase.name,
                    static_cast<unsigned long long>(chosen.runs),
                    static_cast<unsigned long long>(errors), mpitest::now() - start);
        std::fflush(stdout);
    }
    ++chosen.runs;
    return errors;
}

uint64_t Program::round(const std::string& list) {
    bool any = false;
    for (const Chosen& chosen : phases_) any |= named(chosen.phase, list);
    uint64_t errors = 0;
    for (Chosen& chosen : phases_) {
        if (errors == 0 && (!any || named(chosen.phase, list))) errors = run_once(chosen);
    }
    return errors;
}

uint64_t Program::run() {
    Ballast ballast(static_cast<size_t>(options_.number("--memory", 1)), world_.rank);
    uint64_t errors = phases_.empty() ? 1 : 0, rounds = 0;
    while (world_.agree(!limit_.reached(rounds)) && errors == 0) {
        errors += round(now());
        ++rounds;
    }
    for (const Chosen& chosen : phases_) {
        if (chosen.runs > 0 && chosen.phase.end) chosen.phase.end();
    }
    errors += world_.sum(ballast.wrong_words());
    world_.say_end("coverage", rounds, "rounds", errors);
    return errors;
}

void list() {
    for (const Phase& phase : every_phase()) std::printf("%s %s\n", phase.kind, phase.name);
}

}  // namespace

void Turn::expect_none(size_t wrong, const char* where, int64_t which) {
    if (wrong == 0) return;
    errors_ += wrong;
    if (said_++ >= most_said) return;
    std::fprintf(stderr, "coverage: rank %d, phase %s, round %llu: %zu wrong in %s (%lld)\n",
                 world.rank, phase_, static_cast<unsigned long long>(number), wrong, where,
                 static_cast<long long>(which));
}

int main(int argc, char** argv) {
    const Options options(argc, argv);
    if (options.flag("--list")) {
        list();
        return 0;
    }
    const bool multiple = options.number("--threads", 0) > 1;
    uint64_t errors = 1;
    {
        const World world(&argc, &argv, multiple ? MPI_THREAD_MULTIPLE : MPI_THREAD_SINGLE);
        errors = Program(world, options).run();
    }
    MPI_Finalize();
    return errors == 0 ? 0 : 1;
}
