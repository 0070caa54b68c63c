// SPDX-License-Identifier: BSD-3-Clause
#include "base/json_member.hpp"
#include "pmix-plugin/settings/parameters.hpp"
#include "tools/verbs/job_snapshots.hpp"

#include <filesystem>
#include <fmt/format.h>

#include "base/pidfd.hpp"
#include "tools/process.hpp"
#include "tools/terminal.hpp"
#include "tools/verbs/job_answer.hpp"
#include "tools/verbs/verb.hpp"

namespace ghost::tools {
namespace {

// An mpirun whose nodes do not answer any more may take long.
constexpr int ending_ms = 60'000;

void print_row(const Job& job, const Json& row, const std::string& then, bool ended) {
    const std::string second = member(row, "second", "");
    fmt::print("job {} -> {}{}  {}  {} ranks  {}  paused {}  total {}{}\n", job.name(),
               member(row, "snapshot", "?"), second.empty() ? "" : " and " + second,
               member(row, "kind", "?"), member(row, "ranks", 0),
               bytes_text(member(row, "bytes", uint64_t{0})),
               time_text(member(row, "pause_us", int64_t{0})),
               time_text(member(row, "total_us", int64_t{0})),
               then == "stop"   ? "  (stopped; send SIGCONT to mpirun to continue)"
               : then != "kill" ? ""
               : ended          ? "  (ended)"
                                : fmt::format("  (ending: mpirun {} is still there)", job.pid()));
}

}  // namespace

int checkpoint_job(const Job& job, const std::string& to, const std::string& then,
                   const std::string& sign, bool json) {
    std::error_code ignored;
    const bool parity = plugin::goes_to_xor(to);
    if (parity)
        if (const auto nodes = plugin::parse_xor(to); !nodes) return report(nodes.error(), json);
    const bool level = to == "memory" || to == "both" || to == "partner" || parity;
    const std::string folder =
        to.empty() || level ? to : std::filesystem::absolute(to, ignored).string();
    // Who restarts the job next must not find it running.
    Fd mpirun;
    if (const auto id = identify(job.pid()); then == "kill" && id.ok()) {
        if (auto opened = open_process(*id); opened.ok()) mpirun = std::move(*opened);
    }
    const plugin::CheckpointRequest request{
        folder, plugin::then_named(then).value_or(plugin::Then::go_on),
        sign.empty() ? sign : std::filesystem::absolute(sign, ignored).string()};
    const Answer answer =
        ask(job, request, progress_line([&](const plugin::RequestProgress& progress) {
                return "job " + job.name() + " " + progress.phase;
            }));
    bool ended = false;
    if (mpirun.valid() && answer.exit == exit_done) {
        ProgressLine line;
        line.show("job " + job.name() + " ending", 0, 0);
        ended = await_pidfd(mpirun.get(), ending_ms);
    }
    Json out = object_of(answer);
    out["job"] = job.name();
    out["then"] = then;
    if (then == "kill") out["ended"] = ended;
    return tell(answer, json, std::move(out), [&] {
        if (answer.exit == exit_done && answer.result.is_object())
            print_row(job, answer.result, then, ended);
    });
}

}  // namespace ghost::tools
