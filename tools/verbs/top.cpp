// SPDX-License-Identifier: BSD-3-Clause
// `ghost top`: jobs of this user on this node, live in a terminal.
#include <fmt/format.h>
#include <unistd.h>
#include <utility>

#include "base/clock.hpp"
#include "base/json_member.hpp"
#include "tools/history.hpp"
#include "tools/job_client.hpp"
#include "tools/screen.hpp"
#include "tools/top_frame.hpp"
#include "tools/verbs/verb.hpp"

namespace ghost::tools {
namespace {

constexpr int answer_limit_ms = 5000;

// What the jobs say now. not_found: none runs.
Result<Json> look(const std::string& wanted, std::string& trouble) {
    Json jobs = Json::array();
    trouble.clear();
    if (!wanted.empty()) {
        auto job = choose_job(wanted);
        if (!job.ok()) return job.error();
        jobs.push_back(job->info);
        return jobs;
    }
    std::vector<std::string> silent;
    for (const Job& job : running_jobs(answer_limit_ms, &silent)) jobs.push_back(job.info);
    if (!silent.empty()) trouble = silent.front();
    if (jobs.empty() && silent.empty())
        return make_error(Code::not_found, "show a job", "",
                          "none with `--mca ghost 1` of yours runs on this node");
    return jobs;
}

void print_frame(const std::vector<FrameLine>& lines) {
    for (const FrameLine& line : lines) fmt::print("{}\n", line.text);
}

// What became of those that were there last.
void say_ended(const Json& jobs) {
    for (const Json& job : jobs) {
        const auto pid = std::to_string(member(job, "pid", int64_t{0}));
        const auto history = find_history(pid);
        const bool known = history.ok() && history->job == member(job, "job", "");
        fmt::print("job {} of mpirun {} {}\n", harmless(member(job, "job", "?")), pid,
                   known && !history->running ? state_of(*history) : "has ended");
    }
}

int run_once(const std::string& wanted, bool json) {
    std::string trouble;
    const auto jobs = look(wanted, trouble);
    if (!jobs.ok()) return report(jobs.error(), json);
    TopFrames frames;
    if (!trouble.empty()) fmt::print(stderr, "ghost: {}\n", trouble);
    if (json)
        print_json(frames.json(*jobs, monotonic_us()));
    else
        print_frame(frames.frame(*jobs, monotonic_us()));
    return trouble.empty() ? exit_done : exit_unharmed;
}

bool is_over(const Error& error) {
    return error.code == Code::not_found || error.code == Code::peer_lost;
}

// True: the user has ended it; false: no job is left. `last`: what the jobs said last.
bool watch(const std::string& wanted, int seconds, Json& last, std::string trouble) {
    TopFrames frames;
    Screen screen;
    auto lines = frames.frame(last, monotonic_us());
    for (;;) {
        screen.show(lines, trouble.empty() ? "q ends, arrows scroll" : harmless(trouble));
        if (!screen.wait(seconds * 1000)) return true;
        const auto jobs = look(wanted, trouble);
        if (!jobs.ok() && is_over(jobs.error())) return false;
        if (!jobs.ok()) trouble = jobs.error().message();
        if (!jobs.ok() || jobs->empty()) continue;
        last = *jobs;
        lines = frames.frame(last, monotonic_us());
    }
}

int run_screen(const std::string& wanted, int seconds) {
    std::string trouble;
    const auto first = look(wanted, trouble);
    if (!first.ok()) return report(first.error(), false);
    if (Status begun = Screen::begin(); !begun.ok()) return report(begun.error(), false);
    Json last = *first;
    const bool left = watch(wanted, seconds, last, trouble);
    Screen::end();
    if (!left) say_ended(last);
    return exit_done;
}

// Both are needed for a screen.
Status both_are_terminals() {
    constexpr std::pair<int, const char*> both[] = {{STDOUT_FILENO, "standard output"},
                                                    {STDIN_FILENO, "standard input"}};
    for (const auto& [fd, name] : both)
        if (::isatty(fd) != 1)
            return make_error(Code::invalid, "show a screen on", name,
                              "it is no terminal; --once prints one frame");
    return {};
}

}  // namespace

void define_top(CommandLine app, int& exit_status) {
    struct Options {
        std::string job;
        bool once = false;
        int every = 1;  // s
    };
    auto options = std::make_shared<Options>();
    app.add_option("job", options->job, "mpirun's pid or the job's name (default: all jobs)");
    app.add_flag("--once", options->once, "print one frame as plain text and end");
    app.add_option("--every", options->every, "seconds between two frames, 1 to 3600");
    auto json = add_json(app);
    app.footer(
        "q ends; arrows, Page Up, Page Down, Home and End scroll. It ends by itself when no job is "
        "left.\n"
        "Exit status: 0 done; 1 no job runs, or one does not answer; 2 wrong usage.");
    app.callback([=, &exit_status] {
        const Options& o = *options;
        const bool screen = !*json && !o.once;
        Status usable;
        if (o.every < 1 || o.every > 3600)
            usable = make_error(Code::invalid, "show a frame every", fmt::format("{} s", o.every),
                                "--every takes 1 to 3600 seconds");
        else if (screen)
            usable = both_are_terminals();
        if (!usable.ok())
            exit_status = report(usable.error(), *json);
        else
            exit_status = screen ? run_screen(o.job, o.every) : run_once(o.job, *json);
    });
}

}  // namespace ghost::tools
