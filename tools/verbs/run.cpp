// SPDX-License-Identifier: BSD-3-Clause
// `ghost run`: starts a program so that it can leave its system at any time.
#include <cstdlib>
#include <fmt/format.h>
#include <unistd.h>

#include "base/paths.hpp"
#include "base/user_space.hpp"
#include "ghost-core/criu/nested.hpp"
#include "ghost-core/supervisor/guard.hpp"
#include "tools/paths.hpp"
#include "tools/plain.hpp"
#include "tools/verbs/verb.hpp"

namespace ghost::tools {
namespace {

struct RunArgs {
    bool detach = false, share_ipc = false, inherit = false;
    std::vector<std::string> program;
};

// A background program's failure to start has nobody to be told to.
Status find_program(const std::string& name) {
    if (!find_in_path(name).empty()) return {};
    if (name.find('/') != std::string::npos && ::access(name.c_str(), X_OK) != 0)
        return sys_error("start", name);
    return make_error(Code::not_found, "start", name, "there is no such program in PATH");
}

Result<core::PlainTree> start(const RunArgs& args, const core::Signals& signals) {
    GHOST_TRY(enter_own_user_space());
    std::vector<char*> argv;
    for (const std::string& word : args.program) argv.push_back(const_cast<char*>(word.c_str()));
    argv.push_back(nullptr);
    core::NestedProgram program;
    program.init = core::init_beside(find_paths().wrapper);
    program.criu = find_paths().criu;
    program.number = core::random_number();
    program.argv = argv.data();
    program.only_stdio = !args.inherit;
    program.own_ipc = !args.share_ipc;
    auto root = core::spawn_nested(program, signals.original());
    if (!root) return root.error();
    core::PlainTree tree;
    tree.root = *root;
    tree.program = core::wait_for_program(*root);
    return tree;
}

int run_verb(const RunArgs& args, bool json) {
    if (args.detach)
        if (auto there = find_program(args.program.front()); !there.ok())
            return report(there.error(), json);
    auto signals = core::Signals::block();
    if (!signals) return report(signals.error(), json);
    Detached background;
    if (args.detach) {
        auto made = Detached::start();
        if (!made) return report(made.error(), json);
        background = std::move(*made);
    }
    reopen_foreign_stdio();
    ::setenv(core::clone_variable, "0", 1);
    auto tree = start(args, *signals);
    if (!tree) {
        if (!args.detach) return report(tree.error(), json);
        background.report(exit_unharmed, "", fmt::format("ghost: {}\n", tree.error().message()));
        return exit_unharmed;
    }
    const std::string told =
        json ? Json{{"pid", tree->program}}.dump() : std::to_string(tree->program);
    if (args.detach) background.report(exit_done, told + "\n");
    core::Guard guard;
    if (!args.detach) {
        auto made = core::Guard::start({.duty = core::Guard::Duty::kill, .root = tree->root});
        if (made.ok()) guard = std::move(*made);
    }
    const int status = attend(*tree, *signals);
    guard.stop();
    core::end_like(status);
}

}  // namespace

void define_run(CommandLine app, int& exit_status) {
    auto args = std::make_shared<RunArgs>();
    app.add_flag("--detach", args->detach, "print the program's pid and return");
    app.add_flag("--share-ipc", args->share_ipc,
                 "use the node's System V IPC objects; a program that uses any cannot be exported");
    // What a shell or a test left open by accident would lead out of the tree and keep it here.
    app.add_flag(
        "--inherit", args->inherit,
        "keep descriptors above 2 open; one that leads outside the program prevents its export");
    auto json = add_json(app);
    app.prefix_command();
    app.footer(
        "Everything after the options, or after --, is the program. Standard input and output, "
        "signals and exit status behave as they do without `ghost run`.");
    app.callback([=, &exit_status] {
        args->program = app.remaining();
        if (args->program.empty()) {
            fmt::print(stderr, "ghost: name a program to run: ghost run -- PROGRAM ...\n");
            exit_status = exit_usage;
            return;
        }
        exit_status = run_verb(*args, *json);
    });
}

}  // namespace ghost::tools
