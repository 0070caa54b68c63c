// `ghost import`: a ghost in a file becomes a process.
#include <fmt/format.h>

#include "tools/ghost_files.hpp"
#include "tools/plain_ghost.hpp"
#include "tools/verb.hpp"

namespace ghost::tools {

void define_import(CommandLine app, int& exit_status) {
    auto file = std::make_shared<std::string>();
    auto options = std::make_shared<ImportOptions>();
    app.add_option("file", *file,
                   "the ghost: a file, packed or not, or what --to of export was; the parents "
                   "of an incremental one are looked for beside it")
        .required();
    app.add_flag("--detach", options->detach, "print the program's pid and return");
    app.add_flag("--clone", options->clone, "GHOST_CLONE reads 1 in it: the original goes on");
    auto key = add_key(app);
    auto json = add_json(app);
    app.footer(
        "This command's standard input and output take the place of those outside the tree. "
        "Without --detach it ends as the program does. Exit status 1: refused or failed, nothing "
        "is "
        "left; 2: usage.");
    app.callback([=, &exit_status] {
        options->json = *json;
        auto classes = all_classes();  // outlives what it opens
        if (!classes) {
            exit_status = report(classes.error(), *json);
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
