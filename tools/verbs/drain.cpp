// SPDX-License-Identifier: BSD-3-Clause
// `ghost drain`: all ranks of a running job leave a node, which then leaves the job.
#include <fmt/format.h>

#include "base/json_member.hpp"
#include "tools/verbs/job_answer.hpp"
#include "tools/verbs/verb.hpp"

namespace ghost::tools {
namespace {

struct DrainArgs {
    std::vector<std::string> words;  // [JOB] NODE
    std::vector<std::string> to;
    std::string mode;
};

void print_result(const Answer& answer) {
    for (const Json& row : list_in(answer.result, "moves"))
        if (member(row, "moved", false)) print_move(row);
    for (const Json& one : list_in(answer.result, "stay"))
        fmt::print("rank {} stays: {}\n", member(one, "rank", -1), member(one, "why", "?"));
    const auto note = member(answer.result, "note", std::string());
    if (!note.empty()) fmt::print("{}\n", note);
}

int run_drain(const DrainArgs& args, bool json) {
    if (args.words.size() > 2)
        return report(make_error(Code::invalid, "understand more than a job and a node"), json);
    auto job = choose_job(args.words.size() == 2 ? args.words[0] : "");
    if (!job.ok()) return report(job.error(), json);
    plugin::DrainRequest request{args.words.back(), args.to, {}};
    if (!args.mode.empty()) request.mode = args.mode;
    const Answer answer = ask(*job, request, progress_of_ranks());
    Json out = object_of(answer);
    out["node"] = args.words.back();
    return tell(answer, json, std::move(out), [&] { print_result(answer); });
}

}  // namespace

void define_drain(CommandLine app, int& exit_status) {
    auto args = std::make_shared<DrainArgs>();
    app.add_option("node", args->words,
                   "node that all ranks leave, behind mpirun's pid or the job's name if several "
                   "jobs run")
        .required();
    app.add_option("--to", args->to,
                   "nodes to choose from, separated by commas (default: all others; for each rank "
                   "the one with the most free slots)")
        .delimiter(',')
        .expected(1)
        .take_all();
    app.add_option("--mode", args->mode, "how memory moves, as for `ghost migrate`")
        .one_of({"auto", "live", "stop"});
    auto json = add_json(app);
    app.footer(
        "A rank that cannot move keeps no other one. When none is there any more the node's daemon "
        "leaves the job: the node can be switched off. mpirun's own node keeps mpirun.\n"
        "Exit status: 0 drained; 1 refused, or some ranks stay, the job is unharmed; 2 wrong "
        "usage; 3 the job was harmed.");
    app.callback([=, &exit_status] { exit_status = run_drain(*args, *json); });
}

}  // namespace ghost::tools
