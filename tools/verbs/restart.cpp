// SPDX-License-Identifier: BSD-3-Clause
// `ghost restart`: a whole MPI job from its snapshot; or a process from its checkpoint, on disk or
// in the memory of the node's holder.
#include <filesystem>
#include <fmt/format.h>
#include <optional>
#include <unistd.h>

#include "base/own_file.hpp"
#include "ghost-core/engine/holder.hpp"
#include "ghost-core/resource/memory.hpp"
#include "tools/ghost_files.hpp"
#include "tools/verbs/job_snapshots.hpp"
#include "tools/plain_ghost.hpp"
#include "tools/verbs/verb.hpp"

namespace ghost::tools {
namespace {

struct RestartArgs {
    std::string snapshot, from;
    std::shared_ptr<std::string> key, signer;
    std::shared_ptr<bool> trust;
    bool keep_longer = false;
    std::vector<std::string> mpirun;
};

// A folder means the newest ghost in it that may be used; only complete ones have a name.
Result<std::string> file_of(const std::string& snapshot, bool trust_owner) {
    namespace fs = std::filesystem;
    std::error_code failed;
    if (!fs::is_directory(snapshot, failed)) return snapshot;
    fs::path newest;
    std::optional<Error> refused;
    for (const auto& entry : fs::directory_iterator(snapshot, failed)) {
        if (entry.path().extension() != ".ghost") continue;
        if (!newest.empty() && entry.last_write_time(failed) <= fs::last_write_time(newest, failed))
            continue;
        const auto file = trust_owner ? Result<Fd>(Fd()) : open_trusted_file(entry.path());
        if (file)
            newest = entry.path();
        else
            refused = file.error();
    }
    if (newest.empty() && refused) return *refused;
    if (newest.empty()) return make_error(Code::not_found, "find a ghost in", snapshot);
    return newest.string();
}

// What the snapshot is called in memory, as its holder has it; none: it is a file or a folder.
std::optional<std::string> name_in_memory(const RestartArgs& args) {
    const std::string prefix = "memory:";
    if (args.snapshot.starts_with(prefix)) return args.snapshot.substr(prefix.size());
    return args.from == "memory" ? std::optional(args.snapshot) : std::nullopt;
}

Result<std::unique_ptr<core::Resource>> open_snapshot(const core::ResourceRegistry& classes,
                                                      const RestartArgs& args) {
    if (const auto name = name_in_memory(args)) {
        if (classes.signer())
            return make_error(Code::refused, "restart", args.snapshot,
                              "ghosts in memory are not signed");
        auto holder = core::HolderClient::connect({});
        if (!holder) return holder.error();
        auto buffer = holder->get(*name);
        if (!buffer) return buffer.error();
        return std::unique_ptr<core::Resource>(new core::MemoryResource(*buffer));
    }
    if (args.snapshot.empty())
        return make_error(Code::invalid, "restart", {},
                          "no snapshot was named, and not --from memory");
    auto file = file_of(args.snapshot, *args.trust);
    if (!file) return file.error();
    return open_ghost(classes, *file, *args.key);
}

// Where the snapshots of jobs are in this node's memory (ghost_checkpoint_to); empty: nowhere.
std::string in_memory(const std::string& name) {
    std::string out, newest;
    for (const auto& folder : own_folders(plugin::memory_snapshots())) {
        std::error_code failed;
        if (!name.empty()) {
            if (std::filesystem::exists(folder + "/" + name, failed)) return folder + "/" + name;
            continue;
        }
        const auto all = plugin::list_snapshots(folder);
        if (!all || all->empty()) continue;
        const auto& manifest = all->front().manifest;
        const std::string time = manifest ? manifest->time : "";
        if (out.empty() || time > newest) out = folder, newest = time;
    }
    return out;
}

bool is_held(const std::string& name) {
    auto holder = core::HolderClient::connect({});
    return holder && holder->get(name);
}

// Whoever gives options of mpirun means a job's snapshot; why there is none.
Error no_job_snapshot(const RestartArgs& args) {
    std::error_code failed;
    const auto what = std::filesystem::status(args.snapshot, failed).type();
    if (const auto name = name_in_memory(args)) {
        if (!is_held(*name))
            return make_error(Code::not_found, "restart", args.snapshot,
                              "no such snapshot of a job is in this node's memory");
    } else {
        if (what == std::filesystem::file_type::not_found)
            return make_error(Code::not_found, "restart", args.snapshot, "no such file or folder");
        if (what == std::filesystem::file_type::directory && !file_of(args.snapshot, *args.trust))
            return make_error(Code::not_found, "restart", args.snapshot,
                              "no snapshot of a job is in this folder");
    }
    return make_error(Code::invalid, "restart with",
                      args.keep_longer ? "--keep-longer" : args.mpirun[0],
                      "only a snapshot of a job takes this option");
}

// What is a job's is known by its folder; everything else is a process.
int run_restart(RestartArgs args, const ImportOptions& options) {
    if (args.from == "memory")
        if (const auto found = in_memory(args.snapshot); means_job(found))
            args.snapshot = found, args.from = "disk";
    if (args.from != "memory" && means_job(args.snapshot)) {
        if (options.detach)
            return report(make_error(Code::invalid, "restart a job with --detach", {},
                                     "mpirun stays in the foreground"),
                          options.json);
        if (*args.trust)
            return report(make_error(Code::invalid, "restart a job with --trust-owner", {},
                                     "a job's snapshot is only used by the user whose job it was"),
                          options.json);
        return restart_job({args.snapshot, args.mpirun, options.replace, args.keep_longer,
                            *args.signer, options.json});
    }
    if (!args.mpirun.empty() || args.keep_longer)
        return report(no_job_snapshot(args), options.json);
    auto classes = all_classes();  // outlives what it opens
    if (!classes) return report(classes.error(), options.json);
    (*classes)->trust_only(whose_ghosts(*args.trust));
    if (auto known = expect_signer(**classes, *args.signer); !known.ok())
        return report(known.error(), options.json);
    return import_plain([&] { return open_snapshot(**classes, args); }, options);
}

}  // namespace

void define_restart(CommandLine app, int& exit_status) {
    auto args = std::make_shared<RestartArgs>();
    auto options = std::make_shared<ImportOptions>();
    app.add_option("snapshot", args->snapshot,
                   "a job's snapshot, or a folder of snapshots (the newest complete one is used); "
                   "for a process: a ghost's file, a folder, or memory:NAME");
    app.add_option("--from", args->from,
                   "memory: a job's snapshot in this node's memory; if there is none, the holder's "
                   "ghost of that name, or its newest")
        .one_of({"memory", "disk"});
    app.add_flag("--detach", options->detach, "print the program's pid and return");
    app.add_flag(
        "--replace", options->replace,
        "end the original if it still runs on this node; otherwise the restart is refused");
    app.add_flag("--keep-longer", args->keep_longer,
                 "jobs: keep a copy of each file whose later changes the restart takes back");
    app.add_option("--mpirun", args->mpirun, "jobs: every other word goes to mpirun")
        .take_all()
        .hidden();
    args->key = add_key(app);
    args->trust = add_trust(app);
    args->signer = add_signer(app);
    auto json = add_json(app);
    app.footer(
        "A job: this command replaces itself by mpirun and passes on all options that are not its "
        "own. Everything that is missing is listed before anything starts. A process: with "
        "--replace the original is ended when its successor is complete, before that runs. Without "
        "--detach the command exits with the program's status.\n"
        "Exit status 1: refused or failed, nothing is left running; 2: wrong usage.");
    app.callback([=, &exit_status] {
        options->json = *json;
        options->check_original = true;
        exit_status = run_restart(*args, *options);
    });
}

}  // namespace ghost::tools
