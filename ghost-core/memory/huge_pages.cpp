// SPDX-License-Identifier: BSD-3-Clause
#include "ghost-core/memory/huge_pages.hpp"

#include <algorithm>
#include <cerrno>
#include <fstream>
#include <string>
#include <stop_token>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/json_text.hpp"
#include "base/pidfd.hpp"
#include "base/schema_json.hpp"
#include "base/scheduling.hpp"
#include "ghost-core/memory/page_scan.hpp"

namespace ghost::core {
namespace {

constexpr uint64_t huge = 2 << 20;
// Every call makes all processors put down the pages they have at hand (lru_add_drain_all), 12 ms
// if they are busy; the thread can end between two calls.
constexpr uint64_t step_bytes = 64 << 20;
constexpr int collapse = 25;  // MADV_COLLAPSE, Linux 6.1
constexpr int tries = 3;      // a page that somebody holds just then makes its huge page fail
constexpr size_t runs_limit = 1 << 20;

// The machine's administrator wants none; MADV_COLLAPSE would make them all the same.
bool are_unwanted() {
    std::ifstream in("/sys/kernel/mm/transparent_hugepage/enabled");
    std::string policies;
    std::getline(in, policies);
    return policies.find("[never]") != std::string::npos;
}

// False: it will not succeed later either.
bool make_huge(int pidfd, const PageRun& part, bool& all) {
    const iovec range{reinterpret_cast<void*>(part.start), part.bytes};
    if (syscall(SYS_process_madvise, pidfd, &range, 1, collapse, 0) >= 0) return true;
    all = false;
    return errno != ESRCH && errno != EPERM && errno != ENOSYS;
}

void make_all_huge(const std::stop_token& stop, int pidfd, const PageRuns& memory) {
    bool all = false;
    for (int i = 0; i < tries && !all; i++) {
        all = true;
        for (const auto& run : memory)
            for (uint64_t at = run.start; at < run.end(); at += step_bytes) {
                const PageRun part{at, std::min(step_bytes, run.end() - at)};
                if (stop.stop_requested() || !make_huge(pidfd, part, all)) return;
            }
    }
}

Error damaged() {
    return make_error(Code::corrupt, "read the list of huge pages of the ghost");
}

struct HugeRun {
    uint64_t start = 0, bytes = 0;
    static const schema::Record table;
};
constexpr schema::Field run_fields[] = {
    schema::field<&HugeRun::start>("start", "its first byte"),
    schema::field<&HugeRun::bytes>("bytes", "of it, whole huge pages")};

struct HugeProcess {
    int32_t pid = 0;
    std::vector<HugeRun> memory;
    static const schema::Record table;
};
constexpr schema::Field process_fields[] = {
    schema::field<&HugeProcess::pid>("pid", "its number in the tree"),
    schema::field<&HugeProcess::memory>("memory", "ascending").items_at_most(runs_limit)};

}  // namespace

constinit const schema::Record HugeRun::table =
    schema::record<HugeRun>("run", "huge pages", run_fields, schema::Form::array);
constinit const schema::Record HugeProcess::table =
    schema::record<HugeProcess>("process", "whose memory lies in huge pages", process_fields);

PageRuns whole_huge_pages(const PageRuns& pages) {
    PageRuns out;
    for (const auto& run : pages) {
        const uint64_t start = (run.start + huge - 1) / huge * huge, end = run.end() / huge * huge;
        if (start < end) out.push_back({start, end - start});
    }
    return out;
}

Result<PageRuns> huge_memory(pid_t pid) {
    auto areas = private_memory(pid);
    if (!areas) return areas.error();
    auto scan = PageScan::open(pid);
    if (!scan) return scan.error();
    PageRuns out;
    for (const auto& area : *areas) GHOST_TRY(scan->huge(area, out));
    make_set(out);
    return whole_huge_pages(out);
}

std::string encode(const HugeMemory& memory) {
    auto out = nlohmann::json::array();
    for (const auto& [inner, runs] : memory) {
        HugeProcess process{inner, {}};
        for (const auto& run : runs) process.memory.push_back({run.start, run.bytes});
        out.push_back(schema::to_json(process));
    }
    return out.dump();
}

Result<HugeMemory> decode_huge_memory(std::string_view text) {
    const auto json = parse_json(text);
    if (!json.is_array()) return damaged();
    HugeMemory out;
    for (const auto& one : json) {
        const auto process = schema::from_json<HugeProcess>(one);
        if (!process) return damaged();
        auto& runs = out[process->pid];
        for (const auto& [start, bytes] : process->memory) {
            const PageRun run{start, bytes};
            if (start % huge != 0 || bytes % huge != 0 || run.end() < start ||
                (!runs.empty() && start < runs.back().end()))
                return damaged();
            runs.push_back(run);
        }
    }
    return out;
}

void HugePages::add(pid_t pid, PageRuns memory) {
    if (memory.empty()) return;
    Fd pidfd = open_pidfd(pid);
    if (pidfd) processes_.push_back({std::move(pidfd), std::move(memory)});
}

void HugePages::start() {
    if (empty() || thread_.joinable() || are_unwanted()) return;
    thread_ = std::jthread([this](const std::stop_token& stop) {
        const sched_param none = lowest_of(SCHED_OTHER);
        // Whoever begins this may have a raised priority.
        sched_setscheduler(0, SCHED_OTHER, &none);
        for (const auto& process : processes_)
            make_all_huge(stop, process.pidfd.get(), process.memory);
    });
}

void HugePages::wait() {
    if (thread_.joinable()) thread_.join();
}

}  // namespace ghost::core
