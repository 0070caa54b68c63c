// SPDX-License-Identifier: BSD-3-Clause
#include "tools/verbs/job_answer.hpp"

#include <fmt/format.h>
#include <string>

#include "base/json_member.hpp"
#include "tools/terminal.hpp"
#include "tools/verbs/verb.hpp"

namespace ghost::tools {

OnProgress progress_line(std::function<std::string(const plugin::RequestProgress&)> label) {
    return [line = std::make_shared<ProgressLine>(),
            label = std::move(label)](const plugin::RequestProgress& progress) {
        line->show(label(progress), progress.bytes, progress.total);
    };
}

OnProgress progress_of_ranks() {
    return progress_line([](const plugin::RequestProgress& progress) {
        return fmt::format("rank {} {}", progress.rank.value_or(0), progress.phase);
    });
}

Json object_of(const Answer& answer) {
    return answer.result.is_object() ? answer.result : Json::object();
}

int tell(const Answer& answer, bool json, Json out, const std::function<void()>& print) {
    if (!answer.error.empty()) fmt::print(stderr, "ghost: {}\n", answer.error);
    if (json) {
        out["exit"] = answer.exit;
        if (!answer.error.empty()) out["error"] = answer.error;
        print_json(out);
    } else {
        print();
    }
    if (answer.exit == exit_harmed) fmt::print(stderr, "ghost: the job was harmed\n");
    return answer.exit;
}

void print_move(const Json& row) {
    int rank = member(row, "rank", -1);
    std::string from = member(row, "from", "?"), to = member(row, "to", "?");
    if (!member(row, "moved", false)) {
        const bool there = from != "?" && from == to;
        fmt::print("rank {}: {}\n", rank, there ? "is already on " + to : "not moved");
        return;
    }
    fmt::print("rank {}: {} -> {} ({})  {} in {} rounds  downtime {}  total {}  epoch {}\n", rank,
               from, to, member(row, "mode", "?"), bytes_text(member(row, "bytes", uint64_t{0})),
               member(row, "rounds", 0), time_text(member(row, "downtime_us", int64_t{0})),
               time_text(member(row, "total_us", int64_t{0})), member(row, "epoch", 0));
}

}  // namespace ghost::tools
