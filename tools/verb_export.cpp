// `ghost export`: a process and its tree become a ghost in a file.
#include <fmt/format.h>
#include <sys/stat.h>

#include "ghost-core/resource/file.hpp"
#include "tools/plain_ghost.hpp"
#include "tools/terminal.hpp"
#include "tools/verb.hpp"

namespace ghost::tools {
namespace {

struct ExportArgs {
    pid_t pid = 0;
    std::string to, then = "continue", mode = "concurrent";
};

int run(const ExportArgs& args, bool json) {
    auto then = then_named(args.then);
    if (!then) return report(then.error(), json);
    auto mode = mode_named(args.mode);
    if (!mode) return report(mode.error(), json);
    core::FileResource file(args.to, core::FileResource::Use::write);
    auto exported = export_plain(args.pid, file, *then, *mode);
    if (!exported) return report(exported.error(), json);
    Json out = export_json(*exported);
    struct stat info {};
    if (::stat(args.to.c_str(), &info) == 0) out["file_bytes"] = info.st_size;
    out["file"] = args.to;
    out["then"] = args.then;
    if (json) {
        print_json(out);
        return exit_done;
    }
    fmt::print("process {} -> {}  {}  stood {}  total {}\n", exported->tree.program, args.to,
               bytes_text(static_cast<uint64_t>(info.st_size)),
               time_text(exported->stats.frozen_us), time_text(exported->stats.total_us));
    return exit_done;
}

}  // namespace

void define_export(CLI::App& app, int& exit_status) {
    auto args = std::make_shared<ExportArgs>();
    app.add_option("pid", args->pid, "a process of the tree, or its `ghost run`")->required();
    app.add_option("--to", args->to, "the file; it has this name only when it is complete")
        ->required();
    app.add_option("--then", args->then, "what the original does afterwards")
        ->check(CLI::IsMember({"continue", "stop", "kill"}));
    add_mode(app, args->mode);
    auto json = add_json(app);
    app.footer("Exit status: 0 done; 1 refused or failed, the process runs on; 2 usage.");
    app.callback([=, &exit_status] { exit_status = in_worker([&] { return run(*args, *json); }); });
}

}  // namespace ghost::tools
