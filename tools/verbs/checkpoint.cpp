// SPDX-License-Identifier: BSD-3-Clause
// `ghost checkpoint`: a snapshot of a whole MPI job; or, of a process, an export with a place of
// its own: a folder of snapshots, or the memory of the node's holder; and `ghost holder`, that
// process.
#include <ctime>
#include <filesystem>
#include <fmt/format.h>
#include <sys/prctl.h>
#include <sys/stat.h>

#include "base/clock.hpp"
#include "base/json_member.hpp"
#include "base/paths.hpp"
#include "ghost-core/engine/holder.hpp"
#include "ghost-core/engine/tree_facts.hpp"
#include "ghost-core/resource/file.hpp"
#include "ghost-core/resource/memory.hpp"
#include "pmix-plugin/settings/parameters.hpp"
#include "tools/verbs/job_snapshots.hpp"
#include "tools/ghost_files.hpp"
#include "tools/job_client.hpp"
#include "tools/plain_ghost.hpp"
#include "tools/terminal.hpp"
#include "tools/verbs/verb.hpp"

namespace ghost::tools {
namespace {

constexpr uint64_t skeleton_room = 16 << 20;  // beside the pages

struct CheckpointArgs {
    std::string which, to, then = "continue", mode = "concurrent", name, sign;
    std::string folder() const { return to.empty() ? "./ghost-snapshots" : to; }
};

std::string now_text() {
    const time_t now = ::time(nullptr);
    tm parts{};
    ::gmtime_r(&now, &parts);
    char text[32];
    ::strftime(text, sizeof text, "%Y%m%dT%H%M%S", &parts);
    return fmt::format("{}.{:06}", text, realtime_us() % 1000000);
}

// Name of what the program is, as far as it can be part of a file's name.
std::string program_name(pid_t pid) {
    std::error_code ignored;
    const auto link = std::filesystem::read_symlink(fmt::format("/proc/{}/exe", pid), ignored);
    return link.empty() ? "process" : link.filename().string();
}

Result<pid_t> process_named(const std::string& which) {
    char* end = nullptr;
    const long pid = std::strtol(which.c_str(), &end, 10);
    if (which.empty() || *end != '\0' || pid <= 0)
        return make_error(Code::not_found, "find a process or job", which);
    return static_cast<pid_t>(pid);
}

Json result_json(const Exported& exported, const std::string& snapshot,
                 const CheckpointArgs& args) {
    Json out = export_json(exported);
    out["snapshot"] = snapshot;
    out["then"] = args.then;
    return out;
}

Result<Json> to_disk(pid_t pid, Then then, Mode mode, const CheckpointArgs& args) {
    auto tree = reach_plain(pid);
    if (!tree) return tree.error();
    std::error_code failed;
    std::filesystem::create_directories(args.folder(), failed);
    if (failed) return sys_error_of(failed.value(), "make folder", args.folder());
    const auto name = args.name.empty() ? fmt::format("{}-{}-{}", program_name(tree->program),
                                                      tree->inner, now_text())
                                        : args.name;
    const auto path = (std::filesystem::path(args.folder()) / (name + ".ghost")).string();
    auto file = signed_by(args.sign, std::make_unique<core::FileResource>(path, core::Use::write));
    if (!file) return file.error();
    auto exported = export_plain(pid, **file, then, mode);
    if (!exported) return exported.error();
    return result_json(*exported, path, args);
}

Result<Json> to_memory(pid_t pid, Then then, Mode mode, const CheckpointArgs& args) {
    auto tree = core::find_plain(pid);
    if (!tree) return tree.error();
    auto needs = core::needs_of(tree->root);
    if (!needs) return needs.error();
    auto holder = core::HolderClient::connect({own_program(), "holder"});
    if (!holder) return holder.error();
    // the holder, which may just have been started, stays outside
    if (auto inside = reach_plain(pid); !inside) return inside.error();
    const int64_t begin = monotonic_us();
    auto buffer = holder->room(needs->memory + skeleton_room);
    if (!buffer) return buffer.error();
    const int64_t ready = monotonic_us();
    core::MemoryResource memory(*buffer);
    // The original is dealt with only when the holder has the ghost.
    const auto keep = [&](const Exported& made, core::Guard&) -> Result<Then> {
        const pid_t program = made.tree.program;
        GHOST_TRY(holder->keep(
            args.name.empty() ? std::to_string(program) : args.name, **buffer,
            {{"pid", program}, {"program", program_name(program)}, {"made", now_text()}}));
        return then;
    };
    auto exported = export_plain(pid, memory, then, mode, keep);
    if (!exported) return exported.error();
    const auto name = args.name.empty() ? std::to_string(exported->tree.program) : args.name;
    Json out = result_json(*exported, "memory:" + name, args);
    out["room_us"] = ready - begin;
    out["ghost_bytes"] = (*buffer)->size();
    return out;
}

// A name that is a process too means the job: mpirun itself is nothing to keep.
std::optional<int> run_for_job(const CheckpointArgs& args, bool json) {
    std::optional<Job> job;
    if (args.which.empty()) {
        auto only = choose_job("");
        if (!only) return report(only.error(), json);
        job = std::move(*only);
    } else {
        auto found = find_job(args.which);
        if (!found) return report(found.error(), json);
        if (!*found) return std::nullopt;
        job = std::move(*found);
    }
    if (!args.name.empty())
        return report(make_error(Code::invalid, "use --name", {},
                                 "a job's snapshots are numbered, not named"),
                      json);
    return checkpoint_job(*job, args.to, args.then, args.sign, json);
}

int run_checkpoint(const CheckpointArgs& args, bool json) {
    if (const auto done = run_for_job(args, json)) return *done;
    auto then = then_named(args.then);
    if (!then) return report(then.error(), json);
    auto mode = mode_named(args.mode);
    if (!mode) return report(mode.error(), json);
    auto pid = process_named(args.which);
    if (!pid) return report(pid.error(), json);
    if (args.to == "both" || args.to == "partner" || plugin::goes_to_xor(args.to))
        return report(make_error(Code::invalid, "use --to " + args.to, {},
                                 "it is for jobs, and this is process " + args.which),
                      json);
    if (args.to == "memory" && !args.sign.empty())
        return report(
            make_error(Code::invalid, "use --sign", {}, "ghosts in memory are not signed"), json);
    auto done = args.to == "memory" ? to_memory(*pid, *then, *mode, args)
                                    : to_disk(*pid, *then, *mode, args);
    if (!done) return report(done.error(), json);
    if (json) {
        print_json(*done);
        return exit_done;
    }
    fmt::print("process {} -> {}  {}  paused {}  total {}\n", done->value("pid", 0),
               done->value("snapshot", ""), bytes_text(done->value("bytes", uint64_t{0})),
               time_text(done->value("pause_us", int64_t{0})),
               time_text(done->value("total_us", int64_t{0})));
    return exit_done;
}

int show_holder(bool list, bool stop, const std::string& drop, bool json) {
    if (!list && !stop && drop.empty()) {
        ::prctl(PR_SET_NAME, "ghost-holder");
        auto served = core::serve_holder();
        return served.ok() ? exit_done : report(served.error(), json);
    }
    auto holder = core::HolderClient::connect({});
    if (!holder) return report(holder.error(), json);
    if (stop || !drop.empty()) {
        auto done = stop ? holder->stop() : holder->drop(drop);
        return done.ok() ? exit_done : report(done.error(), json);
    }
    auto kept = holder->list();
    if (!kept) return report(kept.error(), json);
    Json all = Json::array();
    for (const auto& one : *kept) {
        all.push_back({{"name", one.name}, {"bytes", one.bytes}, {"about", one.about}});
        if (!json)
            fmt::print("{:<16} {:>12}  {}  {}\n", one.name, bytes_text(one.bytes),
                       member(one.about, "program", ""), member(one.about, "made", ""));
    }
    if (json) print_json({{"ghosts", all}});
    return exit_done;
}

}  // namespace

void define_checkpoint(CommandLine app, int& exit_status) {
    auto args = std::make_shared<CheckpointArgs>();
    app.add_option("which", args->which,
                   "a job (mpirun's pid or the job's number; default: the only job), or the pid of "
                   "a process outside MPI (any process of its tree, or its `ghost run`)");
    app.add_option(
        "--to", args->to,
        "a folder (default: the job's ghost_checkpoint_dir, else ./ghost-snapshots); "
        "memory: each node's memory (for a process: its holder); both: folder and "
        "memory; partner: memory, and a copy in that of another node; xor:N: memory, and "
        "parity over groups of N nodes (jobs only)");
    app.add_option("--then", args->then,
                   "what happens to the original afterwards: it continues (default), is stopped, "
                   "or is killed")
        .one_of({"continue", "stop", "kill"});
    app.add_option("--name", args->name,
                   "name of a process's checkpoint; replaces an older one of this name (default in "
                   "memory: the pid)");
    add_mode(app, args->mode);
    auto sign = add_sign(app);
    auto json = add_json(app);
    app.footer(
        "Exit status: 0 done; 1 refused or failed, the original continues; 2 wrong usage; 3 the "
        "job was harmed.");
    app.callback([=, &exit_status] {
        args->sign = *sign;
        exit_status = in_worker([&] { return run_checkpoint(*args, *json); });
    });
}

void define_holder(CommandLine app, int& exit_status) {
    auto list = std::make_shared<bool>(false), stop = std::make_shared<bool>(false);
    auto drop = std::make_shared<std::string>();
    app.add_flag("--list", *list, "list the ghosts in memory, newest first");
    app.add_option("--drop", *drop, "delete one ghost");
    app.add_flag("--stop", *stop, "stop the holder and delete its ghosts");
    auto json = add_json(app);
    app.footer(
        "Without an option this command is the holder itself; `ghost checkpoint --to memory` "
        "starts it when needed.");
    app.callback([=, &exit_status] { exit_status = show_holder(*list, *stop, *drop, *json); });
}

}  // namespace ghost::tools
