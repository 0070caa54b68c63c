// The `ghost` command: one table of verbs, one file each.
#include <algorithm>
#include <fmt/format.h>
#include <string>
#include <vector>

#include "tools/verb.hpp"

namespace ghost::tools {
namespace {

constexpr Verb verbs[] = {
    {"lab", "the virtual cluster on this machine", define_lab},
};

// CLI11 takes "--" for itself and then does not hand on what follows as a command: the one between
// `ghost lab exec [--name LAB] NODE` and the command is dropped before it sees it.
std::vector<std::string> arguments(int argc, char** argv) {
    std::vector<std::string> args(argv + 1, argv + argc);
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

int run(int argc, char** argv) {
    CLI::App app("Moves the processes of running MPI jobs between nodes.", "ghost");
    app.require_subcommand(1);
    int exit_status = exit_done;
    for (const Verb& verb : verbs) {
        verb.define(*app.add_subcommand(verb.name, verb.help), exit_status);
    }
    try {
        std::vector<std::string> args = arguments(argc, argv);
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
    try {
        return ghost::tools::run(argc, argv);
    } catch (const std::exception& error) {
        fmt::print(stderr, "ghost: {}\n", error.what());
        return ghost::tools::exit_unharmed;
    }
}
