// SPDX-License-Identifier: BSD-3-Clause
// The `ghost` command: one table of verbs, one file each.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <fmt/format.h>
#include <string>
#include <vector>

#include "base/log.hpp"
#include "tools/restart_line.hpp"
#include "tools/verbs/verb.hpp"

namespace ghost::tools {
namespace {

constexpr Verb verbs[] = {
    {"ps", "list running jobs with their nodes and ranks, or those that have ended", define_ps},
    {"top", "show running jobs live in a terminal", define_top},
    {"report", "one page about a job that runs or has ended", define_report},
    {"migrate", "move ranks of a running job to another node", define_migrate},
    {"drain", "move all ranks off a node, which then leaves the job", define_drain},
    {"grow", "a node joins a running job", define_grow},
    {"cancel", "undo moves and snapshots that are under way or wait", define_cancel},
    {"run", "start a program so that it can move to another node later", define_run},
    {"export", "save a process outside MPI as a ghost in a file", define_export},
    {"import", "restore a process from a ghost in a file", define_import},
    {"dup", "clone a process outside MPI, here or on another node", define_dup},
    {"checkpoint", "save a running job, or a process outside MPI", define_checkpoint},
    {"restart", "restart a job from a snapshot, or a process from a checkpoint", define_restart},
    {"supervise", "a job that is started again from its newest snapshot when it is lost",
     define_supervise},
    {"snapshots", "list the job snapshots in a folder", define_snapshots},
    {"gather", "collect a snapshot that is spread over nodes into one folder", define_gather},
    {"holder", "show or delete ghosts that are kept in this node's memory", define_holder},
    {"receive", "internal: the target side of dup, which starts it", define_receive},
    {"inspect", "show what a ghost or a snapshot contains", define_inspect},
    {"verify", "check every byte of ghosts and of their parents", define_verify},
    {"merge", "merge an incremental ghost and its parents into a full one", define_merge},
    {"key", "make a pair of keys, to sign ghosts and to check who has made them", define_key},
    {"doctor", "find what a node lacks, and the command that fixes it", define_doctor},
    {"params", "list the parameters for `mpirun --mca`", define_params},
    {"env", "print the exports that make mpirun use this build", define_env},
    {"lab", "run a virtual cluster on this machine", define_lab},
};

// CLI11 takes "--" for itself and then does not hand on what follows as a command: the one between
// `ghost lab exec [--name LAB] NODE` and the command, or after `ghost run` and its flags, is
// dropped before it sees it.
std::vector<std::string> arguments(int argc, char** argv) {
    std::vector<std::string> args(argv + 1, argv + argc);
    if (!args.empty() && (args[0] == "run" || args[0] == "supervise")) {
        auto word = args.begin() + 1;
        for (; word != args.end() && *word != "--" && word->starts_with('-'); ++word)
            if (*word == "--attempts" && word + 1 != args.end()) ++word;
        if (word != args.end() && *word == "--") args.erase(word);
        return args;
    }
    if (!args.empty() && args[0] == "restart") return mark_mpirun_options(args);
    if (args.size() < 4 || args[0] != "lab" || args[1] != "exec") return args;
    size_t at = 2;
    for (int words = 0; at < args.size() && args[at] != "--"; ++at) {
        bool option = args[at][0] == '-';
        if (!option && ++words > 1) return args;  // the command begins here
        if (args[at] == "--name") ++at;
    }
    if (at < args.size()) args.erase(args.begin() + static_cast<std::ptrdiff_t>(at));
    return args;
}

// Steps (one letter more, less, other, or two swapped) from one word to the other.
size_t distance(const std::string& a, const std::string& b) {
    std::vector<std::vector<size_t>> d(a.size() + 1, std::vector<size_t>(b.size() + 1));
    for (size_t i = 0; i <= a.size(); ++i) d[i][0] = i;
    for (size_t j = 0; j <= b.size(); ++j) d[0][j] = j;
    for (size_t i = 1; i <= a.size(); ++i) {
        for (size_t j = 1; j <= b.size(); ++j) {
            d[i][j] = std::min({d[i - 1][j] + 1, d[i][j - 1] + 1,
                                d[i - 1][j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1)});
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) {
                d[i][j] = std::min(d[i][j], d[i - 2][j - 2] + 1);
            }
        }
    }
    return d[a.size()][b.size()];
}

// Says so, with the verb that was probably meant, if the first word is no verb.
bool is_no_verb(const std::vector<std::string>& args) {
    if (args.empty() || args[0].empty() || args[0][0] == '-') return false;
    const Verb* nearest = nullptr;
    size_t least = 3;  // further away it is another word
    for (const Verb& verb : verbs) {
        size_t steps = distance(args[0], verb.name);
        if (steps == 0) return false;
        if (steps < least) {
            least = steps;
            nearest = &verb;
        }
    }
    fmt::print(stderr, "ghost: there is no verb \"{}\"{}; `ghost --help` lists them\n", args[0],
               nearest != nullptr ? fmt::format(", did you mean \"{}\"", nearest->name) : "");
    return true;
}

int run(int argc, char** argv) {
    std::vector<std::string> args = arguments(argc, argv);
    if (is_no_verb(args)) return exit_usage;
    CLI::App app(
        "Moves running MPI ranks and other processes between nodes, and saves and restarts them.",
        "ghost");
    app.require_subcommand(1);
    int exit_status = exit_done;
    for (const Verb& verb : verbs) {
        verb.define(CommandLine(*app.add_subcommand(verb.name, verb.help)), exit_status);
    }
    try {
        std::reverse(args.begin(), args.end());  // as CLI11 wants a vector
        app.parse(args);
    } catch (const CLI::RuntimeError& error) {  // a verb has said why already
        return error.get_exit_code();
    } catch (const CLI::ParseError& error) {
        int status = app.exit(error);
        return status == 0 ? exit_done : exit_usage;
    }
    return exit_status;
}

}  // namespace
}  // namespace ghost::tools

int main(int argc, char** argv) {
    ghost::log::setup("command", ghost::log::level_from_environment());
    try {
        return ghost::tools::run(argc, argv);
    } catch (const std::exception& error) {
        fmt::print(stderr, "ghost: {}\n", error.what());
        return ghost::tools::exit_unharmed;
    }
}
