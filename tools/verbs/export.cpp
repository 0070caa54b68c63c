// SPDX-License-Identifier: BSD-3-Clause
// `ghost export`: a process and its tree become a ghost in a file.
#include <fmt/format.h>

#include "tools/ghost_files.hpp"
#include "tools/plain_ghost.hpp"
#include "tools/terminal.hpp"
#include "tools/verbs/verb.hpp"

namespace ghost::tools {
namespace {

struct ExportArgs {
    pid_t pid = 0;
    std::string to, sign, then = "continue", mode = "concurrent";
};

int run_export(const ExportArgs& args, bool json) {
    auto then = then_named(args.then);
    if (!then) return report(then.error(), json);
    auto mode = mode_named(args.mode);
    if (!mode) return report(mode.error(), json);
    if (auto tree = reach_plain(args.pid); !tree) return report(tree.error(), json);
    auto classes = all_classes();
    if (!classes) return report(classes.error(), json);
    auto to = (*classes)->make(args.to, core::Use::write);
    if (to) to = signed_by(args.sign, std::move(*to));
    if (!to) return report(to.error(), json);
    auto exported = export_plain(args.pid, **to, *then, *mode);
    if (!exported) return report(exported.error(), json);
    Json out = export_json(*exported);
    const uint64_t size = size_of(args.to);
    if (size > 0) out["file_bytes"] = size;
    out["file"] = args.to;
    out["then"] = args.then;
    if (json) {
        print_json(out);
        return exit_done;
    }
    fmt::print("process {} -> {}  {}  paused {}  total {}\n", exported->tree.program, args.to,
               bytes_text(size > 0 ? size : exported->stats.page_bytes),
               time_text(exported->stats.frozen_us), time_text(exported->stats.total_us));
    return exit_done;
}

}  // namespace

void define_export(CommandLine app, int& exit_status) {
    auto args = std::make_shared<ExportArgs>();
    app.add_option("pid", args->pid, "any process of the tree, or its `ghost run`").required();
    app.add_option(
           "--to", args->to,
           "the ghost's file, or lz4:FILE, zstd:FILE, encrypt,key=KEYFILE:FILE, stripe:FILE;FILE, "
           "tee:FILE;FILE; the file appears when it is complete")
        .required();
    app.add_option("--then", args->then,
                   "what happens to the original afterwards: it continues (default), is stopped, "
                   "or is killed")
        .one_of({"continue", "stop", "kill"});
    add_mode(app, args->mode);
    auto sign = add_sign(app);
    auto json = add_json(app);
    app.footer("Exit status: 0 done; 1 refused or failed, the original continues; 2 wrong usage.");
    app.callback([=, &exit_status] {
        args->sign = *sign;
        exit_status = in_worker([&] { return run_export(*args, *json); });
    });
}

}  // namespace ghost::tools
