// SPDX-License-Identifier: BSD-3-Clause

#include <csignal>
#include <cstdlib>
#include <fcntl.h>
#include <filesystem>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.hpp"
#include "base/paths.hpp"
#include "base/pidfd.hpp"
#include "pmix-plugin/events/event.hpp"
#include "tools/ghost_files.hpp"
#include "tools/job_client.hpp"
#include "tools/verbs/job_snapshots.hpp"
#include "tools/restart_line.hpp"

namespace ghost::tools {
namespace {

namespace fs = std::filesystem;
using plugin::Manifest;
using plugin::Snapshot;

constexpr int answer_limit_ms = 2000;
constexpr int64_t end_limit_us = 30'000'000;  // mpirun gives its ranks time to end
constexpr useconds_t look_us = 20'000;

std::string folder_of(const Snapshot& snapshot) {
    return fs::path(snapshot.path).parent_path();
}

// Nobody else has the job; given up again, for mpirun takes it itself.
Status check_free(const Snapshot& snapshot) {
    auto lock = plugin::lock_job(folder_of(snapshot), snapshot.manifest->job.name,
                                 plugin::name_of_this("process"));
    return lock.ok() ? Status() : lock.error();
}

std::optional<pid_t> running_here(const std::string& job) {
    for (const Job& one : running_jobs(answer_limit_ms))
        if (one.name() == job) return one.pid();
    return std::nullopt;
}

Status end_mpirun(pid_t pid) {
    const Fd mpirun = open_pidfd(pid);
    if (!mpirun) return {};
    signal_pidfd(mpirun.get(), SIGTERM);
    if (await_pidfd(mpirun.get(), end_limit_us / 1000)) return {};
    return make_error(Code::timeout, "end the running job, mpirun", std::to_string(pid));
}

// No two of one identity may run: their ranks would be each other's.
Status make_free(const Snapshot& snapshot, bool replace) {
    const std::string& job = snapshot.manifest->job.name;
    const auto pid = running_here(job);
    if (pid && !replace)
        return make_error(
            Code::refused, "restart a job beside itself", {},
            fmt::format("it still runs as mpirun {} (--replace ends it first)", *pid));
    if (pid) {
        fmt::print(stderr, "ghost: ending job {}, mpirun {}, to replace it\n", job, *pid);
        GHOST_TRY(end_mpirun(*pid));
    }
    Status free = check_free(snapshot);
    const int64_t limit = monotonic_us() + (pid ? end_limit_us : 0);
    while (!free.ok() && free.error().code == Code::busy && monotonic_us() < limit) {
        ::usleep(look_us);
        free = check_free(snapshot);
    }
    if (!free.ok() && free.error().code == Code::refused) return free;
    // a folder nobody can write to has no lock, and keeps nobody from restarting
    if (free.ok() || free.error().code != Code::busy) return {};
    Error error = free.error();
    error.code = Code::refused;
    error.why += "; end it where it runs (--replace ends only a job of this node)";
    return error;
}

// mpirun reads on where the rank had read to.
Status reopen_input(const Manifest& manifest) {
    if (manifest.input.path.empty()) return {};
    const Fd fd(::open(manifest.input.path.c_str(), O_RDONLY | O_CLOEXEC));
    if (!fd) return sys_error("open", manifest.input.path);
    if (::lseek(fd.get(), static_cast<off_t>(manifest.input.offset), SEEK_SET) < 0 ||
        ::dup2(fd.get(), STDIN_FILENO) < 0)
        return sys_error("read on in", manifest.input.path);
    return {};
}

// Hosts are named, or a batch system has given some.
bool may_start_elsewhere(const std::vector<std::string>& options) {
    return gives_hosts(environment_variable) || name_hosts(options);
}

int refuse(const Shortcomings& lacks, const Snapshot& snapshot, bool json) {
    fmt::print(stderr, "ghost: cannot restart {}: missing here\n", snapshot.path);
    for (const auto& line : lacks.here) fmt::print(stderr, "  {}\n", line);
    fmt::print(stderr, "ghost: nothing was started\n");
    if (json)
        print_json({{"error", "missing here"}, {"missing", lacks.here}, {"exit", exit_unharmed}});
    return exit_unharmed;
}

void tell(const Snapshot& snapshot, const Shortcomings& lacks) {
    const Manifest& manifest = *snapshot.manifest;
    for (const auto& line : lacks.perhaps)
        fmt::print(stderr, "ghost: if ranks start on this node, it lacks: {}\n", line);
    fmt::print(stderr, "ghost: resuming job {} from {} ({} ranks, {})\n", manifest.job.name,
               snapshot.path, manifest.ranks.size(), manifest.time);
    plugin::Event event = plugin::make_event(plugin::EventKind::restart);
    event.snapshot = snapshot.name;
    event.asked_by = plugin::name_of_this("process");
    const Status noted =
        plugin::append_event(folder_of(snapshot), manifest.job.name, plugin::line_of(event));
    if (!noted.ok()) fmt::print(stderr, "ghost: {}\n", noted.error().message());
}

int become(const std::string& program, std::vector<std::string>& words, const Paths& paths) {
    for (const auto& [name, value] : ghost_environment(paths))
        ::setenv(name.c_str(), value.c_str(), name == "PATH" ? 1 : 0);
    std::vector<char*> argv;
    for (auto& word : words) argv.push_back(word.data());
    argv.push_back(nullptr);
    ::execv(program.c_str(), argv.data());
    return report(sys_error("run", program), false);
}

}  // namespace

int restart_job(const JobRestart& args) {
    auto registry = all_classes();
    if (!registry) return report(registry.error(), args.json);
    (*registry)->trust_only(core::Whose::own);
    Verifier verifier(**registry, nullptr);
    const auto signer = signer_of(args.signer);
    if (!signer) return report(signer.error(), args.json);
    auto snapshot = choose_snapshot(args.snapshot, verifier, *signer);
    if (!snapshot) return report(snapshot.error(), args.json);
    const Manifest& manifest = *snapshot->manifest;
    RestartPlan plan{snapshot->path, args.options, "", *signer ? (*signer)->hex() : ""};
    if (args.keep_longer) plan.keep_suffix = ".after-" + snapshot->name;
    auto words = restart_line(manifest, plan, environment_variable);
    if (!words) return report(words.error(), args.json);
    const Paths paths = find_paths();
    const Shortcomings lacks =
        find_shortcomings(*snapshot, paths, may_start_elsewhere(args.options), *signer);
    if (!lacks.here.empty()) return refuse(lacks, *snapshot, args.json);
    Status ready = make_free(*snapshot, args.replace);
    if (ready.ok()) ready = reopen_input(manifest);
    if (!ready.ok()) return report(ready.error(), args.json);
    tell(*snapshot, lacks);
    return become(paths.mpirun, *words, paths);
}

}  // namespace ghost::tools
