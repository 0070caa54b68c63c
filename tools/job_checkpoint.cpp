#include "tools/job_checkpoint.hpp"

#include <filesystem>
#include <fmt/format.h>

#include "tools/terminal.hpp"
#include "tools/verb.hpp"

namespace ghost::tools {
namespace {

void print_row(const Job& job, const Json& row, const std::string& then) {
    const std::string second = row.value("second", "");
    fmt::print(
        "job {} -> {}{}  {}  {} ranks  {}  stood {}  total {}{}\n", job.name(),
        row.value("snapshot", "?"), second.empty() ? "" : " and " + second, row.value("kind", "?"),
        row.value("ranks", 0), bytes_text(row.value("bytes", uint64_t{0})),
        time_text(row.value("pause_us", int64_t{0})), time_text(row.value("total_us", int64_t{0})),
        then == "stop"   ? "  (stopped; SIGCONT to mpirun lets it go on)"
        : then == "kill" ? "  (ended)"
                         : "");
}

}  // namespace

int checkpoint_job(const Job& job, const std::string& to, const std::string& then, bool json) {
    std::error_code ignored;
    const std::string folder = to.empty() || to == "memory" || to == "both"
                                   ? to
                                   : std::filesystem::absolute(to, ignored).string();
    ProgressLine line;
    const Answer answer =
        ask(job, {{"t", "checkpoint"}, {"to", folder}, {"then", then}}, [&](const Json& p) {
            line.show("job " + job.name() + " " + p.value("phase", "?"),
                      p.value("bytes", uint64_t{0}), p.value("total", uint64_t{0}));
        });
    line.clear();
    if (!answer.error.empty()) fmt::print(stderr, "ghost: {}\n", answer.error);
    if (json) {
        Json out = answer.result.is_object() ? answer.result : Json::object();
        out["job"] = job.name();
        out["then"] = then;
        out["exit"] = answer.exit;
        if (!answer.error.empty()) out["error"] = answer.error;
        print_json(out);
    } else if (answer.exit == exit_done && answer.result.is_object()) {
        print_row(job, answer.result, then);
    }
    if (answer.exit == exit_harmed) fmt::print(stderr, "ghost: the job was harmed\n");
    return answer.exit;
}

}  // namespace ghost::tools
