// SPDX-License-Identifier: BSD-3-Clause
// How long a program is frozen while it is moved live between two nodes of the virtual cluster.
//
//   live_downtime [--mb 1024] [--threads 4] [--rate 100] [--moves 10] [--gaps 0]
//                 [--order pre|post|hybrid]
//
// Brings up a lab of two nodes, an agent on each, starts live_subject on one and moves it there and
// back; after every move the program checks all its memory and state. Prints for each move the
// longest time between two of its heartbeats and where the stop's time went, then medians and the
// 99th percentile. --gaps MS: also when every longer time between two heartbeats was, ms after the
// move's begin. Exit status 1 if anything was wrong. Needs root; run in the build folder.
#include <array>
#include <csignal>
#include <cstdio>
#include <iostream>
#include <map>
#include <sstream>
#include <sys/mount.h>
#include <thread>

#include "base/log.hpp"
#include "ghost-core/engine/live.hpp"
#include "ghost-core/resource/network.hpp"
#include "tests/process/live_tree.hpp"

namespace ghost::core::test {
namespace {

const std::string secret = "downtime";
constexpr const char* lab_name = "downtime";

// ---- on a node

CriuSettings criu(const WorkFolder& folder) {
    return {criu_program(), folder.path(), 30};
}

pid_t start_subject(const std::string& folder, const std::string& options) {
    std::istringstream words(options);
    std::string size, threads, rate;
    words >> size >> threads >> rate;
    auto program = subject_program();
    program.replace(program.rfind('/') + 1, std::string::npos, "live_subject");
    const auto file = folder + "/beats", lines = folder + "/lines";
    const auto pid = static_cast<pid_t>(
        syscall(SYS_clone, SIGCHLD | CLONE_NEWPID, nullptr, nullptr, nullptr, 0L));
    if (pid != 0) return pid;
    dup2(open("/dev/null", O_RDONLY), 0);
    dup2(open(lines.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0600), 1);
    dup2(open("/dev/null", O_WRONLY), 2);
    close_range(3, ~0U, 0);
    execl(program.c_str(), program.c_str(), "init", size.c_str(), threads.c_str(), rate.c_str(),
          file.c_str(), nullptr);
    _exit(127);
}

void say(const std::string& line) {
    std::cout << line << std::endl;
}

void print(const LiveStats& s) {
    std::ostringstream out;
    out << "moved attempts " << s.attempts << " rounds " << s.rounds << " bytes " << s.bytes
        << " last_bytes " << s.last_bytes << " skeleton_stop " << s.skeleton_stop << " attach "
        << s.attach_stop << " stop " << s.stop << " freeze " << s.freeze << " files " << s.files
        << " state " << s.state << " mappings " << s.mappings << " scan " << s.scan << " send "
        << s.send << " ready " << s.ready << " commit " << s.commit << " release " << s.release
        << " target_mappings " << s.target_mappings << " target_pages " << s.target_pages
        << " target_state " << s.target_state << " target_release " << s.target_release
        << " deferred_bytes " << s.deferred_bytes << " faults " << s.faults << " longest_fault "
        << s.longest_fault << " deferred " << s.deferred << " total " << s.total;
    say(out.str());
}

// Serves the commands on its standard input: start, receive, send, end.
int agent(const std::string& folder) {
    WorkFolder work;
    if (auto warm = warm_up(criu(work)); !warm.ok()) return say(warm.error().message()), 1;
    pid_t root = 0;
    std::thread importer;
    for (std::string line; std::getline(std::cin, line);) {
        std::istringstream words(line);
        std::string what, host, token, rest;
        int port = 0;
        words >> what;
        if (importer.joinable()) importer.join();
        if (what == "start") {
            std::getline(words, rest);
            root = start_subject(folder, rest);
            say("started");
        } else if (what == "receive") {
            auto listener = NetworkListener::listen(secret);
            if (!listener) return say(listener.error().message()), 1;
            say(fmt::format("listening {} {}", listener->port(), listener->token()));
            auto link = listener->accept(10000);
            if (!link) return say(link.error().message()), 1;
            LiveImportRequest request;
            request.criu = criu(work);
            auto got = live_import(request, **link);
            if (got) root = got->root;
            say(got ? "received" : "failed: " + got.error().message());
        } else if (what == "send") {
            words >> host >> port >> token;
            auto link = NetworkResource::connect(host, port, token, secret);
            if (!link) return say(link.error().message()), 1;
            LiveExportRequest request;
            words >> rest;
            if (rest == "post") request.order = PageOrder::post_copy;
            if (rest == "hybrid") request.order = PageOrder::hybrid;
            request.root = root;
            request.criu = criu(work);
            auto sent = live_export(request, **link);
            if (sent.outcome == LiveOutcome::moved) {
                print(sent.stats);
                while (waitpid(root, nullptr, 0) < 0 && errno == EINTR) {
                }
            } else {
                say("failed: " + sent.error->message());
            }
        } else {
            break;
        }
    }
    if (root > 0) kill(root, SIGKILL);
    return 0;
}

// ---- the conductor

class Agent {
  public:
    Agent(const std::string& node, const std::string& self, const std::string& folder) {
        int in[2], out[2];
        if (pipe2(in, O_CLOEXEC) != 0 || pipe2(out, O_CLOEXEC) != 0) std::abort();
        pid_ = fork();
        if (pid_ == 0) {
            dup2(in[0], 0);
            dup2(out[1], 1);
            const auto command =
                fmt::format("cd {} && exec {} --agent {}", std::filesystem::current_path().string(),
                            self, folder);
            execl("tools/ghost", "ghost", "lab", "exec", "--name", lab_name, node.c_str(), "--",
                  "sh", "-c", command.c_str(), nullptr);
            _exit(127);
        }
        close(in[0]);
        close(out[1]);
        to_ = fdopen(in[1], "w");
        from_ = fdopen(out[0], "r");
    }
    ~Agent() {
        fclose(to_);
        fclose(from_);
        waitpid(pid_, nullptr, 0);
    }
    Agent(const Agent&) = delete;
    Agent& operator=(const Agent&) = delete;

    void tell(const std::string& line) {
        std::fprintf(to_, "%s\n", line.c_str());
        std::fflush(to_);
    }
    std::string hear() {
        char line[4096] = "the agent has gone";
        if (std::fgets(line, sizeof line, from_) != nullptr) line[std::strcspn(line, "\n")] = 0;
        return line;
    }

  private:
    pid_t pid_ = 0;
    FILE *to_ = nullptr, *from_ = nullptr;
};

struct Options {
    int mb = 1024, threads = 4, rate = 100, moves = 10, gaps = 0;
    std::string order = "pre";
};

using Figures = std::map<std::string, std::vector<double>>;

double part(std::vector<double> all, double share) {
    std::sort(all.begin(), all.end());
    return all.empty() ? 0 : all[std::min(all.size() - 1, static_cast<size_t>(share * all.size()))];
}

bool move_once(int number, std::array<Agent*, 2> agents, LiveTree& tree, Figures& figures,
               const Options& options) {
    Agent &from = *agents[number % 2], &to = *agents[(number + 1) % 2];
    const uint64_t before = tree.count();
    to.tell("receive");
    std::istringstream listening(to.hear());
    std::string word, port, token;
    listening >> word >> port >> token;
    from.tell(fmt::format("send {} {} {} {}", number % 2 == 0 ? "10.77.0.2" : "10.77.0.1", port,
                          token, options.order));
    const auto sent = from.hear(), got = to.hear();
    if (!sent.starts_with("moved") || got != "received") {
        std::printf("move %d: %s / %s\n", number, sent.c_str(), got.c_str());
        return false;
    }
    usleep(100000);
    const auto [gap, where] = tree.longest_gap(before);
    const uint64_t end = tree.count();
    std::istringstream words(sent.substr(6));
    std::string name;
    for (double value = 0; words >> name >> value;) figures[name].push_back(value / 1000);
    figures["gap"].push_back(gap);
    const uint64_t wrong = tree.check();
    const auto now = [&](const char* which) { return figures[which].back(); };
    std::printf(
        "move %2d: longest gap %5.1f ms; stops: skeleton %5.1f, last %4.1f (%.2f MB); %.0f "
        "rounds, %.0f MB in %.0f ms; %s\n",
        number, gap, now("skeleton_stop"), now("stop"), now("last_bytes") / 1000,
        now("rounds") * 1000, now("bytes") / 1000, now("total"),
        wrong == 0 ? "whole" : fmt::format("WRONG {:#x}", wrong).c_str());
    if (now("deferred_bytes") > 0)
        std::printf("        %.0f MB followed in %.0f ms: %.0f waits, %.2f ms at most\n",
                    now("deferred_bytes") / 1000, now("deferred"), now("faults") * 1000,
                    now("longest_fault"));
    if (options.gaps > 0) {
        std::printf("        gaps (when, how long):");
        for (const auto& [at, ms] : tree.gaps(before, end, options.gaps))
            std::printf("  %.0f %.1f", at, ms);
        std::printf("\n");
    }
    std::fflush(stdout);
    return wrong == 0;
}

void report(const Figures& figures) {
    const auto line = [&](const char* name) {
        const auto& all = figures.at(name);
        std::printf("  %-16s %7.2f %7.2f %7.2f %7.2f\n", name, part(all, 0), part(all, 0.5),
                    part(all, 0.99), part(all, 1));
    };
    std::printf("\n%zu moves, ms: %14s %7s %7s\n  %24s %7s %7s %7s\n", figures.at("gap").size(), "",
                "", "", "least", "median", "p99", "most");
    for (const auto* name : {"gap",
                             "skeleton_stop",
                             "attach",
                             "stop",
                             "freeze",
                             "files",
                             "state",
                             "mappings",
                             "scan",
                             "send",
                             "ready",
                             "commit",
                             "release",
                             "target_mappings",
                             "target_pages",
                             "target_state",
                             "target_release",
                             "deferred",
                             "longest_fault",
                             "total"})
        line(name);
}

// Told to end (SIGTERM, SIGINT): after the move that goes on, or at once if the agents were told
// too.
volatile std::sig_atomic_t told_to_end = 0;

void end_when_told() {
    struct sigaction action {};
    action.sa_handler = [](int) { told_to_end = 1; };
    action.sa_flags = SA_RESTART;
    sigaction(SIGTERM, &action, nullptr);
    sigaction(SIGINT, &action, nullptr);
    std::signal(SIGPIPE, SIG_IGN);
}

int conduct(const std::string& self, const Options& options) {
    // Seen by both nodes, since they are started later: each has a /dev/shm of its own.
    const std::string folder = "/var/tmp/ghost-downtime";
    std::filesystem::create_directories(folder);
    if (mount("tmpfs", folder.c_str(), "tmpfs", 0, "size=256m") != 0) return perror("mount"), 2;
    const auto lab = [](const char* what) {
        return std::system(
            fmt::format("tools/ghost lab {} --name {} >/dev/null", what, lab_name).c_str());
    };
    end_when_told();
    bool good = lab("up -n 2") == 0;
    if (good) {
        Figures figures;
        Agent first("gn1", self, folder), second("gn2", self, folder);
        LiveTree tree(folder);
        first.tell(fmt::format("start {} {} {}", options.mb, options.threads, options.rate));
        good = first.hear() == "started" && tree.wait_ready();
        for (int i = 0; good && !told_to_end && i < options.moves; i++)
            good = move_once(i, {&first, &second}, tree, figures, options);
        if (figures.contains("gap")) report(figures);
        first.tell("end");
        second.tell("end");
    }
    lab("down");
    umount(folder.c_str());
    std::filesystem::remove_all(folder);
    return good ? 0 : 1;
}

}  // namespace
}  // namespace ghost::core::test

int main(int argc, char** argv) {
    using namespace ghost::core::test;
    ghost::log::setup("live_downtime", ghost::log::level_from_environment());
    if (argc == 3 && std::string(argv[1]) == "--agent") return agent(argv[2]);
    Options options;
    for (int i = 1; i + 1 < argc; i += 2) {
        const std::string name = argv[i];
        const int value = std::atoi(argv[i + 1]);
        if (name == "--mb") options.mb = value;
        if (name == "--threads") options.threads = value;
        if (name == "--rate") options.rate = value;
        if (name == "--moves") options.moves = value;
        if (name == "--gaps") options.gaps = value;
        if (name == "--order") options.order = argv[i + 1];
    }
    return conduct(std::filesystem::read_symlink("/proc/self/exe").string(), options);
}
