// SPDX-License-Identifier: BSD-3-Clause
// `ghost grow`: a node joins a running job.
#include <charconv>
#include <fmt/format.h>

#include "base/json_member.hpp"
#include "tools/verbs/job_answer.hpp"
#include "tools/verbs/verb.hpp"

namespace ghost::tools {
namespace {

// NODE[:SLOTS]
Result<plugin::GrowRequest> read_node(const std::string& text) {
    plugin::GrowRequest request;
    const size_t colon = text.find(':');
    request.node = text.substr(0, colon);
    if (colon == std::string::npos) return request;
    const auto [end, error] =
        std::from_chars(text.data() + colon + 1, text.data() + text.size(), request.slots);
    if (error != std::errc() || end != text.data() + text.size() || request.slots < 1)
        return make_error(Code::invalid, "read the number of slots in", text);
    return request;
}

void print_result(const Json& result) {
    const std::string node = member(result, "node", "?");
    const int slots = member(result, "slots", 0);
    if (member(result, "again", false))
        fmt::print("node {} takes ranks again, up to {}\n", node, slots);
    else
        fmt::print("node {} has joined the job in {:.1f} s: ranks may move there, up to {}\n", node,
                   static_cast<double>(member(result, "total_us", int64_t{0})) / 1e6, slots);
}

int run_grow(const std::vector<std::string>& words, bool json) {
    if (words.size() > 2)
        return report(make_error(Code::invalid, "understand more than a job and a node"), json);
    const auto request = read_node(words.back());
    if (!request.ok()) return report(request.error(), json);
    auto job = choose_job(words.size() == 2 ? words[0] : "");
    if (!job.ok()) return report(job.error(), json);
    const Answer answer =
        ask(*job, *request, progress_line([&](const plugin::RequestProgress& progress) {
            return fmt::format("node {} {}", request->node, progress.phase);
        }));
    return tell(answer, json, object_of(answer), [&] {
        if (answer.exit == exit_done) print_result(answer.result);
    });
}

}  // namespace

void define_grow(CommandLine app, int& exit_status) {
    auto words = std::make_shared<std::vector<std::string>>();  // [JOB] NODE[:SLOTS]
    app.add_option("node", *words,
                   "node that joins, and how many ranks it has room for (default 1), behind "
                   "mpirun's pid or the job's name if several jobs run")
        .required();
    auto json = add_json(app);
    app.footer(
        "A daemon is started there as mpirun has started the others; then ranks may move there. A "
        "node that was drained may join again.\n"
        "Exit status: 0 joined; 1 refused or failed, the job is unharmed; 2 wrong usage.");
    app.callback([=, &exit_status] { exit_status = run_grow(*words, *json); });
}

}  // namespace ghost::tools
