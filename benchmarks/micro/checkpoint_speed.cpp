// SPDX-License-Identifier: BSD-3-Clause
// Checkpoints to memory and restarts from it, beside criu's own to tmpfs and a plain copy from
// memory to memory, of the same process in the same run; medians and ratios.
//
//   checkpoint_speed [--mb 1024] [--rate MB/s] [--huge] [--repeat 3] [--ready] [--dirty PERCENT]
//                    [--defer-above US] [--never-defer] [--criu PROGRAM] [--no-criu]
//                    [--json FILE]
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fmt/format.h>
#include <fstream>
#include <map>
#include <sys/mman.h>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>

#include "base/clock.hpp"
#include "base/json.hpp"
#include "base/log.hpp"
#include "benchmarks/micro/subject.hpp"
#include "ghost-core/engine/checkpoint.hpp"
#include "ghost-core/resource/memory.hpp"

namespace ghost::bench {
namespace {

using namespace ghost::core;

struct Options {
    SubjectShape shape{1024, 100, false};
    int repeat = 3;
    std::string criu = "criu/sbin/criu";
    bool no_criu = false;
    bool ready = false;
    bool never_defer = false;
    int64_t defer_above_us = CheckpointRequest::worth_it_us;
    double dirty = 1;
    std::string json;
};

// Figures of one kind, by name, each with its values.
using Figures = std::map<std::string, std::vector<double>>;

double median(std::vector<double> values) {
    if (values.empty()) return 0;
    std::sort(values.begin(), values.end());
    return values[values.size() / 2];
}

class Folder {
  public:
    Folder() {
        char name[] = "/dev/shm/ghost-speed.XXXXXX";
        path_ = mkdtemp(name);
    }
    ~Folder() { std::filesystem::remove_all(path_); }
    Folder(const Folder&) = delete;
    Folder& operator=(const Folder&) = delete;
    const std::string& path() const { return path_; }

  private:
    std::string path_;
};

// Runs a program to its end; ms, or -1 if it failed.
double timed(const std::vector<std::string>& words) {
    std::vector<char*> argv;
    for (const auto& word : words) argv.push_back(const_cast<char*>(word.c_str()));
    argv.push_back(nullptr);
    const int64_t begin = monotonic_us();
    const pid_t child = fork();
    if (child == 0) {
        execv(argv[0], argv.data());
        _exit(127);
    }
    int status = 0;
    waitpid(child, &status, 0);
    return WIFEXITED(status) && WEXITSTATUS(status) == 0
               ? static_cast<double>(monotonic_us() - begin) / 1e3
               : -1;
}

// criu as everybody uses it: images on tmpfs, the process runs on; then a copy of it is restored.
void criu_itself(const Options& options, pid_t root, Figures& figures) {
    const Folder folder;
    const double dump =
        timed({options.criu, "dump", "-t", std::to_string(root), "-D", folder.path(), "-o",
               "dump.log", "-v1", "--leave-running", "--manage-cgroups=ignore"});
    const auto pidfile = folder.path() + "/pid";
    const double restore =
        timed({options.criu, "restore", "-d", "-D", folder.path(), "-o", "restore.log", "-v1",
               "--manage-cgroups=ignore", "--pidfile", pidfile});
    pid_t copy = 0;
    std::ifstream in(pidfile);
    in >> copy;
    if (copy > 1) kill(copy, SIGKILL);
    if (dump < 0 || restore < 0) {
        std::fprintf(stderr, "criu failed: dump %.0f, restore %.0f\n", dump, restore);
        return;
    }
    figures["criu dump ms"].push_back(dump);
    figures["criu restore ms"].push_back(restore);
}

struct Ours {
    Checkpointer checkpointer;
    std::shared_ptr<MemoryBuffer> buffer = std::make_shared<MemoryBuffer>(),
                                  small = std::make_shared<MemoryBuffer>();
    int64_t resumed_us = 0;  // when the tree ran again after the last checkpoint
    Folder folder;
};

bool checkpoint(const Options& options, Subject& subject, Ours& ours, const std::string& name,
                bool keep, bool incremental, Figures& figures) {
    CheckpointRequest request;
    request.root = subject.pid();
    request.criu = {options.criu, ours.folder.path(), 20};
    request.keep_tracking = keep;
    request.stay_ready = keep && options.ready;
    request.incremental = incremental;
    if (!options.never_defer) request.defer_above_us = options.defer_above_us;
    auto buffer = incremental ? ours.small : ours.buffer;
    buffer->clear();
    MemoryResource ghost(buffer);
    subject.felt();
    auto stats = ours.checkpointer.run(request, ghost);
    if (stats) ours.resumed_us = monotonic_us() - stats->write_us;
    const auto felt = subject.felt();
    if (!stats) {
        std::fprintf(stderr, "%s: %s\n", name.c_str(), stats.error().message().c_str());
        return false;
    }
    const auto put = [&](const char* what, double value) {
        figures[name + " " + what].push_back(value);
    };
    put("total ms", static_cast<double>(stats->total_us) / 1e3);
    put("pause ms", static_cast<double>(stats->pause_us) / 1e3);
    put("pause, criu ms", static_cast<double>(stats->skeleton_us) / 1e3);
    put("pause, memory ms", static_cast<double>(stats->memory_us) / 1e3);
    put("pause, memory, join ms", static_cast<double>(stats->join_us) / 1e3);
    put("pause, memory, scan ms", static_cast<double>(stats->scan_us) / 1e3);
    put("copy, first round ms", static_cast<double>(stats->first_us) / 1e3);
    put("copy, criu ahead ms", static_cast<double>(stats->ahead_us) / 1e3);
    put("copy ms", static_cast<double>(stats->copy_us) / 1e3);
    put("write ms", static_cast<double>(stats->write_us) / 1e3);
    put("rounds", stats->rounds);
    put("deferred MB", static_cast<double>(stats->deferred_bytes) / 1e6);
    put("deferred, faulted MB", static_cast<double>(stats->faulted_bytes) / 1e6);
    put("deferred ms", static_cast<double>(stats->deferred_us) / 1e3);
    put("last KiB", static_cast<double>(stats->last_bytes) / 1024);
    put("ghost MB", static_cast<double>(buffer->size()) / 1e6);
    put("longest gap felt ms", felt.gap_ms);
    put("rate meanwhile MB/s", felt.rate);
    return true;
}

// Until so much has been written since the tree was frozen for the last checkpoint.
void write_some(const Options& options, const Ours& ours) {
    const double wanted =
        static_cast<double>(options.shape.megabytes) * 1.048576 * options.dirty / 100;
    if (options.shape.rate <= 0) return;
    const auto until = ours.resumed_us + static_cast<int64_t>(wanted / options.shape.rate * 1e6);
    while (monotonic_us() < until) usleep(1000);
}

// What memory gives here and now: as many bytes copied from one warm place to another one by as
// many threads as a checkpoint has.
void plain_copy(const Options& options, Figures& figures) {
    constexpr size_t bytes = 256 << 20;
    static std::vector<char> from(bytes, 1), to(bytes, 2);
    const size_t threads = std::max(1U, std::thread::hardware_concurrency());
    const size_t part = bytes / threads, turns = std::max<size_t>(1, options.shape.megabytes / 256);
    const int64_t begin = monotonic_us();
    {
        std::vector<std::jthread> all;
        for (size_t i = 0; i < threads; i++)
            all.emplace_back([&, i] {
                for (size_t turn = 0; turn < turns; turn++)
                    std::memcpy(to.data() + i * part, from.data() + i * part, part);
            });
    }
    const double us = static_cast<double>(monotonic_us() - begin);
    figures["plain copy ms"].push_back(us / 1e3 * static_cast<double>(options.shape.megabytes) /
                                       static_cast<double>(turns * 256));
}

// What new pages cost here and now: as much memory as a restart fills, touched for the first time
// by as many threads.
void fresh_memory(const Options& options, Figures& figures) {
    const size_t bytes = options.shape.megabytes << 20;
    const size_t threads = std::max(1U, std::thread::hardware_concurrency());
    const size_t part = bytes / threads / 4096 * 4096;
    auto* const base = static_cast<char*>(mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                                               MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
    if (base == MAP_FAILED) return;
    if (!options.shape.huge) madvise(base, bytes, MADV_NOHUGEPAGE);
    const int64_t begin = monotonic_us();
    {
        std::vector<std::jthread> all;
        for (size_t i = 0; i < threads; i++)
            all.emplace_back([&, i] { madvise(base + i * part, part, MADV_POPULATE_WRITE); });
    }
    figures["fresh memory ms"].push_back(static_cast<double>(monotonic_us() - begin) / 1e3);
    munmap(base, bytes);
}

void restart(const Options& options, Ours& ours, Figures& figures) {
    MemoryResource ghost(ours.buffer);
    const int64_t begin = monotonic_us();
    auto importer = Importer::open(ghost);
    if (!importer) return;
    auto held = importer->hold({options.criu, ours.folder.path(), 20}, {});
    if (!held) {
        std::fprintf(stderr, "restart: %s\n", held.error().message().c_str());
        return;
    }
    figures["restart total ms"].push_back(static_cast<double>(monotonic_us() - begin) / 1e3);
    figures["restart, pages ms"].push_back(static_cast<double>(held->pages_us) / 1e3);
    if (held->huge) {
        const int64_t made = monotonic_us();
        held->huge->start();
        held->huge->wait();
        figures["restart, huge pages again ms"].push_back(
            static_cast<double>(monotonic_us() - made) / 1e3);
    }
    destroy_tree(*held);
}

void report(const Options& options, const Figures& figures) {
    std::printf("%zu MiB, %s pages, writes %.0f MB/s, median of %d\n", options.shape.megabytes,
                options.shape.huge ? "huge" : "4 KiB", options.shape.rate, options.repeat);
    nlohmann::json json;
    std::map<std::string, double> of;
    for (const auto& [name, values] : figures) {
        of[name] = median(values);
        json[name] = values;
        std::printf("  %-34s %9.2f   (%.2f to %.2f)\n", name.c_str(), of[name],
                    *std::min_element(values.begin(), values.end()),
                    *std::max_element(values.begin(), values.end()));
    }
    const double gigabytes = static_cast<double>(options.shape.megabytes) * 1.048576e-3;
    const auto line = [&](const char* what, const char* ours, const char* theirs) {
        if (of[ours] <= 0) return;
        std::printf("  %s: %.2f GB/s", what, gigabytes / of[ours] * 1e3);
        if (of[theirs] > 0) std::printf(", %.2f times criu's own", of[theirs] / of[ours]);
        std::printf("\n");
    };
    line("checkpoint", "checkpoint total ms", "criu dump ms");
    line("restart", "restart total ms", "criu restore ms");
    if (of["incremental total ms"] > 0)
        std::printf("  incremental/full: time %.3f, bytes %.3f\n",
                    of["incremental total ms"] / of["checkpoint total ms"],
                    of["incremental ghost MB"] / of["checkpoint ghost MB"]);
    line("plain copy in memory", "plain copy ms", "");
    line("fresh memory", "fresh memory ms", "");
    std::printf("  ghost/memory: %.4f\n", of["checkpoint ghost MB"] / 1e3 / gigabytes);
    if (!options.json.empty()) std::ofstream(options.json) << json.dump(1) << "\n";
}

int measure(const Options& options) {
    Subject subject(options.shape);
    if (!subject.ready()) return 1;
    Figures figures;
    {
        Ours cold;
        if (auto warm = warm_up({options.criu, cold.folder.path(), 20}); !warm.ok()) {
            std::fprintf(stderr, "%s\n", warm.error().message().c_str());
            return 1;
        }
        checkpoint(options, subject, cold, "first ever", false, false, figures);
        const int64_t begin = monotonic_us();
        cold.checkpointer.wait_huge_pages();
        if (options.shape.huge)
            figures["first ever huge pages again ms"].push_back(
                static_cast<double>(monotonic_us() - begin) / 1e3);
    }
    Ours ours;
    for (int i = -1; i < options.repeat; i++) {  // the first one warms the memory
        Figures unused;
        auto& into = i < 0 ? unused : figures;
        if (!checkpoint(options, subject, ours, "checkpoint", true, false, into)) return 1;
        write_some(options, ours);
        checkpoint(options, subject, ours, "incremental", true, true, into);
        ours.checkpointer.stop_tracking();
        restart(options, ours, into);
        plain_copy(options, into);
        fresh_memory(options, into);
        if (!options.no_criu && i >= 0) criu_itself(options, subject.pid(), into);
    }
    report(options, figures);
    return 0;
}

}  // namespace
}  // namespace ghost::bench

int main(int argc, char** argv) {
    using namespace ghost::bench;
    be_subject_if_asked(argc, argv);
    ghost::log::setup("checkpoint_speed", ghost::log::level_from_environment());
    Options options;
    CLI::App app("Checkpoints to memory and restarts, beside criu's own");
    app.add_option("--mb", options.shape.megabytes, "size of the process, MiB");
    app.add_option("--rate", options.shape.rate, "what it writes, MB/s");
    app.add_flag("--huge", options.shape.huge, "its memory is in huge pages");
    app.add_option("--repeat", options.repeat, "times each is done");
    app.add_option("--criu", options.criu, "criu");
    app.add_flag("--ready", options.ready, "a criu waits between the checkpoints");
    app.add_option("--defer-above", options.defer_above_us,
                   "us the rest may take to copy while it is frozen; -1: none");
    app.add_flag("--never-defer", options.never_defer,
                 "one that writes fast is frozen until all is copied");
    app.add_option("--dirty", options.dirty, "percent written before the incremental one");
    app.add_flag("--no-criu", options.no_criu, "without criu's own");
    app.add_option("--json", options.json, "all values go there");
    CLI11_PARSE(app, argc, argv);
    options.criu = std::filesystem::absolute(options.criu);
    return measure(options);
}
