// SPDX-License-Identifier: BSD-3-Clause
// `ghost import`: a ghost in a file becomes a process.
#include <fmt/format.h>

#include "tools/ghost_files.hpp"
#include "tools/plain_ghost.hpp"
#include "tools/verbs/verb.hpp"

namespace ghost::tools {

void define_import(CommandLine app, int& exit_status) {
    auto file = std::make_shared<std::string>();
    auto options = std::make_shared<ImportOptions>();
    app.add_option("file", *file,
                   "the ghost: a file, compressed or not, or what was given to export --to; the "
                   "parents of an incremental ghost are found beside it")
        .required();
    app.add_flag("--detach", options->detach, "print the program's pid and return");
    app.add_flag("--clone", options->clone,
                 "set GHOST_CLONE to 1 in the process: its original continues elsewhere");
    auto key = add_key(app);
    auto trust = add_trust(app);
    auto signer = add_signer(app);
    auto json = add_json(app);
    app.footer(
        "The process gets this command's standard input and output in place of its own terminal "
        "or pipes. Without --detach the command waits for the program and ends as it does, with "
        "its exit status or by its signal.\n"
        "Exit status 1: refused or failed, nothing is left running; 2: wrong usage.");
    app.callback([=, &exit_status] {
        options->json = *json;
        auto classes = all_classes();  // outlives what it opens
        if (!classes) {
            exit_status = report(classes.error(), *json);
            return;
        }
        (*classes)->trust_only(whose_ghosts(*trust));
        if (auto known = expect_signer(**classes, *signer); !known.ok()) {
            exit_status = report(known.error(), *json);
            return;
        }
        exit_status = import_plain(
            [&]() -> Result<std::unique_ptr<core::Resource>> {
                return open_ghost(**classes, *file, *key);
            },
            *options);
    });
}

}  // namespace ghost::tools
