// SPDX-License-Identifier: BSD-3-Clause
// `ghost migrate`: moves ranks of a running job to another node.
#include <algorithm>
#include <fmt/format.h>

#include "base/json_member.hpp"
#include "tools/verbs/job_answer.hpp"
#include "tools/ranks.hpp"
#include "tools/terminal.hpp"
#include "tools/verbs/verb.hpp"

namespace ghost::tools {
namespace {

struct MigrateArgs {
    std::string job;
    std::vector<std::string> ranks;
    std::string all_from;
    std::string to;
    std::string mode;
    bool with_sharers = false;
    bool verbose = false;
};

// Of a mode that was not asked for in so many words.
void say_why_so(const Json& row) {
    const auto why = member(row, "not_live", std::string());
    const auto mode = member(row, "mode", std::string());
    const int rank = member(row, "rank", -1);
    if (mode == "stop" && !why.empty())
        fmt::print(stderr, "ghost: rank {} moves by stop, not live: {}\n", rank, why);
    if (mode == "live" && row.contains("memory"))
        fmt::print(stderr, "ghost: rank {} moves live: it has {} of memory, and can\n", rank,
                   bytes_text(member(row, "memory", uint64_t{0})));
}

// One rank: its row is the object. Several: {"moves": […]}.
Json json_of(const Json& rows, size_t asked) {
    if (asked == 1 && rows.size() == 1) return rows[0];
    return {{"moves", rows}};
}

int run_migrate(const MigrateArgs& args, bool json) {
    if (args.ranks.empty() == args.all_from.empty())
        return report(make_error(Code::invalid, "move ranks", {}, "give --rank or --all-from"),
                      json);
    const auto ranks = parse_ranks(args.ranks);
    if (!ranks.ok()) return report(ranks.error(), json);
    const size_t asked = args.all_from.empty() ? ranks->size() : 0;
    auto job = choose_job(args.job);
    if (!job.ok()) return report(job.error(), json);
    plugin::MigrateRequest request{*ranks, args.to, {}, {}};
    if (!args.all_from.empty()) request.all_from = args.all_from;
    if (args.with_sharers) request.with_sharers = true;
    if (!args.mode.empty()) request.mode = args.mode;
    const Answer answer = ask(*job, request, progress_of_ranks());
    const Json rows = answer.result.is_array() ? answer.result : Json::array();
    return tell(answer, json, json_of(rows, asked), [&] {
        for (const Json& row : rows)
            if (args.verbose) say_why_so(row);
        // (of a single rank that was not moved the error has said all)
        const bool said = !answer.error.empty() && asked == 1;
        for (const Json& row : rows)
            if (!said || member(row, "moved", false)) print_move(row);
    });
}

}  // namespace

void define_migrate(CommandLine app, int& exit_status) {
    auto args = std::make_shared<MigrateArgs>();
    app.add_option("job", args->job,
                   "mpirun's pid or the job's name (default: the only job there is)");
    app.add_option("--rank", args->ranks, "rank to move, or several: 1,4-7")
        .delimiter(',')
        .expected(1)
        .take_all();
    app.add_option("--all-from", args->all_from,
                   "node all of whose ranks move, in place of --rank");
    app.add_option("--to", args->to,
                   "node of the job to move to, named as in mpirun's host list (default: for each "
                   "rank the one with the most free slots)");
    app.add_option(
           "--mode", args->mode,
           "how memory moves: live (the rank runs meanwhile, and is stopped for what it wrote "
           "last), stop (it is stopped while its memory is copied), or auto: live where that "
           "can be and is quicker, else stop (default: the job's ghost_migrate_mode, which is "
           "auto if nothing is said)")
        .one_of({"auto", "live", "stop"});
    app.add_flag("--with-sharers", args->with_sharers,
                 "move all ranks that share memory with these (an MPI shared window) along: they "
                 "move at once, or none does");
    app.add_flag("--verbose", args->verbose, "say by which mode auto moves each rank, and why");
    auto json = add_json(app);
    app.footer(
        "Ranks move at the same time as far as ghost_migrate_at_once allows. After one that cannot "
        "move no other one begins; `ghost cancel` undoes what has begun.\n"
        "Exit status: 0 moved, or already there; 1 refused or failed, the job is unharmed; 2 wrong "
        "usage; 3 the job was harmed.");
    app.callback([=, &exit_status] { exit_status = run_migrate(*args, *json); });
}

}  // namespace ghost::tools
