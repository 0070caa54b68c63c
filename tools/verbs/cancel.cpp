// SPDX-License-Identifier: BSD-3-Clause
// `ghost cancel`: undoes what a running job has been asked for.
#include <charconv>
#include <fmt/format.h>
#include <optional>

#include "base/json_member.hpp"
#include "tools/verbs/job_answer.hpp"
#include "tools/verbs/verb.hpp"

namespace ghost::tools {
namespace {

struct CancelArgs {
    std::vector<std::string> words;  // [JOB] [ID]
};

std::optional<uint64_t> number(const std::string& text) {
    uint64_t value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    const bool whole = error == std::errc() && end == text.data() + text.size();
    return whole && value > 0 ? std::optional(value) : std::nullopt;
}

// One word is a job if there is one of that name.
Result<Job> job_of(const CancelArgs& args, std::optional<uint64_t>& id) {
    const size_t count = args.words.size();
    if (count > 0) id = number(args.words.back());
    if (count == 2) {
        if (!id) return make_error(Code::invalid, "understand the number", args.words[1]);
        return choose_job(args.words[0]);
    }
    if (count == 0) return choose_job("");
    auto named = choose_job(args.words[0]);
    if (named.ok() || !id || named.error().code != Code::not_found) {
        id.reset();
        return named;
    }
    return choose_job("");
}

int run_cancel(const CancelArgs& args, bool json) {
    if (args.words.size() > 2)
        return report(make_error(Code::invalid, "understand more than a job and a number"), json);
    std::optional<uint64_t> id;
    auto job = job_of(args, id);
    if (!job.ok()) return report(job.error(), json);
    const Answer answer = ask(*job, plugin::CancelRequest{id});
    const Json rows = answer.result.is_array() ? answer.result : Json::array();
    return tell(answer, json, {{"cancelled", rows}}, [&] {
        if (rows.empty() && answer.exit == exit_done) fmt::print("nothing is under way or waits\n");
        for (const Json& row : rows)
            fmt::print(
                "{} {}: {}\n", member(row, "id", 0), member(row, "what", "?"),
                member(row, "undone", false) ? "cancelled" : "not cancelled, it was decided");
    });
}

}  // namespace

void define_cancel(CommandLine app, int& exit_status) {
    auto args = std::make_shared<CancelArgs>();
    app.add_option("job", args->words,
                   "mpirun's pid or the job's name (default: the only job there is), and the "
                   "number of a request as `ghost ps` shows it (default: all of them)");
    auto json = add_json(app);
    app.footer(
        "What waits does not begin; what is under way is undone: ranks go on where they are.\n"
        "Exit status: 0 cancelled, or nothing was there; 1 some of it was decided already, or the "
        "number is of nothing; 2 wrong usage.");
    app.callback([=, &exit_status] { exit_status = run_cancel(*args, *json); });
}

}  // namespace ghost::tools
