// SPDX-License-Identifier: BSD-3-Clause
// `ghost report`: one page about a job that runs or has ended, made of its event log.
#include <fmt/format.h>

#include "base/file.hpp"
#include "tools/history.hpp"
#include "tools/report_page.hpp"
#include "tools/verbs/verb.hpp"

namespace ghost::tools {
namespace {

// A log is named by its path; a job has no such name.
Result<JobHistory> history_of_word(const std::string& word) {
    const bool is_path =
        word.find('/') != std::string::npos || word.ends_with(".events") || word.ends_with(".old");
    return is_path ? read_history(word) : find_history(word);
}

int run_report(const std::string& word, const std::string& html, bool json) {
    const auto history = history_of_word(word);
    if (!history.ok()) return report(history.error(), json);
    if (!html.empty()) {
        if (Status written = write_file(html, report_page(*history), 0644); !written.ok())
            return report(written.error(), json);
    }
    if (json)
        print_json(history_json(*history, true));
    else
        fmt::print("{}\n", line_about(*history));
    if (!html.empty() && !json) fmt::print("its page is {}\n", html);
    return exit_done;
}

}  // namespace

void define_report(CommandLine app, int& exit_status) {
    auto word = std::make_shared<std::string>();
    auto html = std::make_shared<std::string>();
    app.add_option("job", *word,
                   "mpirun's pid, the job's name, or the path of an event log (default: the job "
                   "that began last)");
    app.add_option("--html", *html, "file for the page: one picture, no script");
    auto json = add_json(app);
    app.footer(
        "Shows where each rank was at which time, moves, snapshots and for how long ranks stood. "
        "Logs are kept of the last 50 jobs (mpirun --mca ghost_events).\n"
        "Exit status: 0 done; 1 there is no such log, or the page could not be written; 2 wrong "
        "usage.");
    app.callback([=, &exit_status] { exit_status = run_report(*word, *html, *json); });
}

}  // namespace ghost::tools
