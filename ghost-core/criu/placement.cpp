// SPDX-License-Identifier: BSD-3-Clause
#include "ghost-core/criu/placement.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <filesystem>
#include <fmt/format.h>
#include <optional>
#include <set>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/clock.hpp"
#include "base/fd.hpp"
#include "base/json.hpp"
#include "base/json_text.hpp"
#include "base/log.hpp"
#include "base/own_file.hpp"
#include "base/proc.hpp"

namespace ghost::core {
namespace {

constexpr int raised_priority = 7;  // of SCHED_RR; it says: this was raise_priority()
constexpr uint64_t usual_slack_ns = 50000;
constexpr uint64_t clamp_min = 0x20, clamp_max = 0x40;  // sched_attr flags
constexpr uint32_t most_utilization = 1024;
constexpr int of_process = 1;  // IOPRIO_WHO_PROCESS

bool is_real_time(uint32_t policy) {
    return policy == SCHED_FIFO || policy == SCHED_RR;
}

bool get(pid_t tid, ScheduleAttributes& out) {
    return syscall(SYS_sched_getattr, tid, &out, sizeof out, 0) == 0;
}

bool set(pid_t tid, ScheduleAttributes wanted) {
    wanted.size = sizeof wanted;
    wanted.flags &= reset_on_fork;
    // A kernel without clamps says 0 for both.
    const bool clamped =
        wanted.util_max != 0 && (wanted.util_min != 0 || wanted.util_max != most_utilization);
    if (clamped) wanted.flags |= clamp_min | clamp_max;
    if (syscall(SYS_sched_setattr, tid, &wanted, 0) == 0) return true;
    if (!clamped) return false;
    wanted.flags &= reset_on_fork;
    return syscall(SYS_sched_setattr, tid, &wanted, 0) == 0;
}

bool is_fair(uint32_t policy) {
    return policy == SCHED_OTHER || policy == SCHED_BATCH || policy == SCHED_IDLE;
}

// The slice of time (Linux 6.12) of whoever has not asked for one of his own, ns; 0: not known. The
// kernel does not say which is which, so that of this process, or its parent, is taken for it.
uint64_t usual_slice() {
    static const uint64_t slice = []() -> uint64_t {
        for (const pid_t pid : {getpid(), getppid()}) {
            ScheduleAttributes own;
            if (get(pid, own) && is_fair(own.policy) && own.runtime != 0) return own.runtime;
        }
        return 0;
    }();
    return slice;
}

// /proc/TID is there for every thread, though not listed.
Fd open_slack(pid_t tid, int how) {
    return Fd(open(fmt::format("/proc/{}/timerslack_ns", tid).c_str(), how | O_CLOEXEC));
}

uint64_t slack_of(pid_t tid) {
    const Fd file = open_slack(tid, O_RDONLY);
    std::array<char, 32> text;
    const auto got = file ? read(file.get(), text.data(), text.size()) : 0;
    uint64_t out = 0;
    if (got > 0) std::from_chars(text.data(), text.data() + got, out);
    return out;
}

bool set_slack(pid_t tid, uint64_t slack_ns) {
    const Fd file = open_slack(tid, O_WRONLY);
    const auto text = std::to_string(slack_ns);
    return file && write(file.get(), text.data(), text.size()) == static_cast<ssize_t>(text.size());
}

std::optional<Placement> placement_of(pid_t tid) {
    Placement out;
    out.tid = tid;
    if (!get(tid, out.attributes) ||
        sched_getaffinity(tid, sizeof out.processors, &out.processors) != 0)
        return std::nullopt;
    if (is_fair(out.attributes.policy) && out.attributes.runtime == usual_slice())
        out.attributes.runtime = 0;  // whatever it is where the tree goes
    out.nice = getpriority(PRIO_PROCESS, static_cast<id_t>(tid));
    const long io = syscall(SYS_ioprio_get, of_process, tid);
    out.io_priority = io > 0 ? static_cast<int32_t>(io) : 0;
    out.slack_ns = slack_of(tid);
    return out;
}

bool is_raised(const ScheduleAttributes& attributes) {
    return attributes.policy == SCHED_RR && attributes.priority == raised_priority &&
           (attributes.flags & reset_on_fork) == 0;
}

// One that raise_priority() is for.
bool is_ordinary(const ScheduleAttributes& attributes) {
    return attributes.policy == SCHED_OTHER && (attributes.flags & reset_on_fork) == 0;
}

// Of one that raise_priority() has found in the ordinary class, as far as that can be known.
void calm(Placement& raised) {
    raised.attributes.policy = SCHED_OTHER;
    raised.attributes.priority = 0;
    raised.attributes.nice = raised.nice;
    raised.slack_ns = usual_slack_ns;  // a real-time class has none
}

bool same(const cpu_set_t& a, const cpu_set_t& b) {
    return CPU_EQUAL(&a, &b);
}

bool is_within(const cpu_set_t& part, const cpu_set_t& whole) {
    cpu_set_t both;
    CPU_AND(&both, &part, &whole);
    return same(both, part);
}

}  // namespace

bool was_stopped(int inner, const Placements& threads) {
    return std::ranges::any_of(
        threads, [inner](const Placement& one) { return one.inner == inner && one.stopped; });
}

void add_placements(pid_t pid, bool stopped, Placements& out) {
    std::set<pid_t> known;
    for (const auto& one : out) known.insert(one.tid);
    for (const pid_t tid : numbers_in(fmt::format("/proc/{}/task", pid)))
        if (!known.contains(tid))
            if (auto placement = placement_of(tid)) {
                placement->stopped = stopped;
                out.push_back(*placement);
            }
}

bool complete(const std::map<pid_t, int>& numbers, Placements& out) {
    std::set<pid_t> known;
    for (auto& one : out) {
        known.insert(one.tid);
        if (const auto number = numbers.find(one.tid); number != numbers.end())
            one.inner = number->second;
    }
    bool added = false;
    for (const auto& [tid, inner] : numbers) {
        if (known.contains(tid)) continue;
        auto placement = placement_of(tid);
        if (!placement) continue;
        placement->inner = inner;
        if (is_raised(placement->attributes)) calm(*placement);  // made by one that was
        out.push_back(*placement);
        added = true;
    }
    return added;
}

void raise_priority(const Placements& threads) {
    sched_param param{};
    param.sched_priority = raised_priority;
    for (const auto& one : threads)
        if (is_ordinary(one.attributes)) sched_setscheduler(one.tid, SCHED_RR, &param);
}

namespace {

constexpr std::string_view note_prefix = "bound-";

Result<std::string> note_of(pid_t root) {
    auto folder = private_folder();
    if (folder) *folder += fmt::format("/{}{}", note_prefix, root);
    return folder;
}

// Which process the note is about, since pids come again, also in containers that share the folder;
// and when it was made (CLOCK_MONOTONIC).
struct NoteHead {
    std::array<char, 32> start{};
    uint64_t space = 0;  // in which it has this number
    int64_t at_ns = 0;

    bool is_of(const NoteHead& other) const { return start == other.start && space == other.space; }
};

struct Note {
    Placements threads;
    int64_t at_ns = 0;
};

NoteHead head_of(pid_t root) {
    NoteHead out;
    const auto start = start_of(root);
    std::memcpy(out.start.data(), start.data(), std::min(start.size(), out.start.size()));
    struct stat space {};
    if (stat("/proc/self/ns/pid", &space) == 0) out.space = space.st_ino;
    out.at_ns = monotonic_ns();
    return out;
}

Note read_note(pid_t root) {
    const auto path = note_of(root);
    if (!path) return {};
    const auto file = open_own_file(*path);
    struct stat info {};
    if (!file || fstat(file->get(), &info) != 0) return {};
    NoteHead head;
    if (read(file->get(), &head, sizeof head) != sizeof head || !head.is_of(head_of(root)))
        return {};
    Placements threads((static_cast<size_t>(info.st_size) - sizeof head) / sizeof(Placement));
    const size_t size = threads.size() * sizeof(Placement);
    if (read(file->get(), threads.data(), size) != static_cast<ssize_t>(size)) return {};
    return {std::move(threads), head.at_ns};
}

// A real-time class has no timer slack, and leaves that of the thread's maker behind: none, where
// that was a raised criu.
void leave_raised(pid_t tid, const Placement& before) {
    if (!is_ordinary(before.attributes)) return;
    set(tid, before.attributes);
    set_slack(tid, before.slack_ns);
}

// Of one that nobody knows anything of; nothing to do is fine.
void calm(pid_t tid) {
    Placement now;
    if (!get(tid, now.attributes) || !is_raised(now.attributes)) return;
    now.nice = getpriority(PRIO_PROCESS, static_cast<id_t>(tid));
    calm(now);
    leave_raised(tid, now);
}

std::map<pid_t, const Placement*> by_number(const Placements& all) {
    std::map<pid_t, const Placement*> out;
    for (const auto& one : all) out[one.tid] = &one;
    return out;
}

}  // namespace

void keep_waits(const SocketWaits& waits, Placements& threads) {
    const int64_t now = monotonic_ns();
    for (auto& one : threads)
        if (const auto wait = waits.find(one.tid); wait != waits.end())
            one.wait_ns = std::max<int64_t>(1, wait->second - now);
}

Status note_placements(pid_t root, const Placements& before) {
    const auto path = note_of(root);
    if (!path) return path.error();
    const auto file = open_own_file(*path, O_WRONLY | O_CREAT | O_TRUNC);
    if (!file) return file.error();
    const NoteHead head = head_of(root);
    const size_t size = before.size() * sizeof(Placement);
    if (write(file->get(), &head, sizeof head) == sizeof head &&
        write(file->get(), before.data(), size) == static_cast<ssize_t>(size))
        return {};
    const auto error = sys_error("note how a tree is scheduled", *path);
    unlink(path->c_str());
    return error;
}

void remove_stale_notes() {
    const auto folder = private_folder();
    if (!folder) return;
    std::error_code ignored;
    for (const auto& entry : std::filesystem::directory_iterator(*folder, ignored)) {
        const std::string name = entry.path().filename();
        if (!name.starts_with(note_prefix)) continue;
        const pid_t root = std::atoi(name.c_str() + note_prefix.size());
        const auto file = open_own_file(entry.path());
        NoteHead head;
        // one that is just being written is nobody's yet
        if (root <= 0 || !file || read(file->get(), &head, sizeof head) != sizeof head) continue;
        const NoteHead now = head_of(root);
        if (head.space == now.space && !head.is_of(now)) unlink(entry.path().c_str());
    }
}

std::optional<Frozen> give_back(pid_t root, const std::vector<Task>& tasks) {
    const auto [noted, at_ns] = read_note(root);
    if (noted.empty()) return std::nullopt;
    Frozen out;
    for (const auto& one : noted) {
        if (one.stopped) out.stopped.insert(one.tid);
        if (one.wait_ns > 0) out.waits[one.tid] = at_ns + one.wait_ns;
    }
    const auto before = by_number(noted);
    for (const auto& task : tasks)
        for (const pid_t tid : numbers_in(fmt::format("/proc/{}/task", task.pid))) {
            const auto known = before.find(tid);
            if (known == before.end()) {
                calm(tid);
                continue;
            }
            leave_raised(tid, *known->second);
            sched_setaffinity(tid, sizeof(cpu_set_t), &known->second->processors);
        }
    if (const auto note = note_of(root); note.ok()) unlink(note->c_str());
    return out;
}

TreePlacement placement_here() {
    TreePlacement out;
    cpu_set_t before, all;
    CPU_ZERO(&all);
    std::memset(&all, 0xff, sizeof all);
    sched_getaffinity(getpid(), sizeof out.binding, &out.binding);
    out.usable = out.binding;
    // The kernel cuts off what this process may not use.
    if (sched_getaffinity(0, sizeof before, &before) != 0) return out;
    if (sched_setaffinity(0, sizeof all, &all) == 0)
        sched_getaffinity(0, sizeof out.usable, &out.usable);
    sched_setaffinity(0, sizeof before, &before);
    return out;
}

cpu_set_t processors_here(const cpu_set_t& thread, const TreePlacement& there,
                          const TreePlacement& here) {
    if (is_within(there.usable, thread)) return here.usable;
    const bool bound = !same(here.binding, here.usable);
    if (bound && same(thread, there.binding)) return here.binding;
    return is_within(thread, here.usable) ? thread : here.binding;
}

cpu_set_t binding_here(const TreePlacement& there, const TreePlacement& here,
                       const cpu_set_t& taken) {
    if (same(there.binding, there.usable)) return here.usable;
    const auto is_free = [&](const cpu_set_t& set) {
        cpu_set_t both;
        CPU_AND(&both, &set, &taken);
        return is_within(set, here.usable) && CPU_COUNT(&both) == 0;
    };
    for (int by = 0; by < CPU_SETSIZE; by++) {
        cpu_set_t moved;
        CPU_ZERO(&moved);
        for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
            if (CPU_ISSET(static_cast<size_t>(cpu), &there.binding))
                CPU_SET(static_cast<size_t>((cpu + by) % CPU_SETSIZE), &moved);
        if (is_free(moved)) return moved;
    }
    return is_within(there.binding, here.usable) ? there.binding : here.usable;
}

void bind_beside_siblings(const TreePlacement& there) {
    if (there.threads.empty() || same(there.binding, there.usable)) return;
    const auto here = placement_here();
    cpu_set_t taken, one;
    CPU_ZERO(&taken);
    for (const pid_t sibling : children_of(getppid()))
        if (sibling != getpid() && sched_getaffinity(sibling, sizeof one, &one) == 0 &&
            !is_within(here.usable, one))
            CPU_OR(&taken, &taken, &one);
    const auto binding = binding_here(there, here, taken);
    for (const pid_t tid : numbers_in("/proc/self/task"))
        sched_setaffinity(tid, sizeof binding, &binding);
}

namespace {

// What of it could not be is what is false.
struct Placed {
    bool processors = true, schedule = true;
};

Placed place(pid_t tid, const Placement& there, const cpu_set_t& processors) {
    Placed out;
    out.processors = sched_setaffinity(tid, sizeof processors, &processors) == 0;
    // Also of a class that does not use it.
    if (is_real_time(there.attributes.policy))
        setpriority(PRIO_PROCESS, static_cast<id_t>(tid), there.nice);
    out.schedule = set(tid, there.attributes);
    if (syscall(SYS_ioprio_get, of_process, tid) != there.io_priority)
        out.schedule &= syscall(SYS_ioprio_set, of_process, tid, there.io_priority) == 0;
    if (!is_real_time(there.attributes.policy) && slack_of(tid) != there.slack_ns)
        out.schedule &= set_slack(tid, there.slack_ns);
    return out;
}

}  // namespace

void place(const std::vector<Task>& tasks, const TreePlacement& there) {
    const auto here = placement_here();
    std::map<int, const Placement*> wanted;
    for (const auto& one : there.threads) wanted[one.inner] = &one;
    cpu_set_t missing;
    CPU_ZERO(&missing);
    size_t elsewhere = 0, otherwise = 0;
    for (const auto& task : tasks) {
        const auto folder = fmt::format("/proc/{}/task", task.pid);
        for (const pid_t tid : numbers_in(folder)) {
            const auto status = read_status(fmt::format("{}/{}", folder, tid));
            const auto found = status ? wanted.find(status->numbers.back()) : wanted.end();
            if (found == wanted.end()) {
                calm(tid);
                continue;
            }
            const auto& before = *found->second;
            const auto processors = processors_here(before.processors, there, here);
            const auto placed = place(tid, before, processors);
            otherwise += placed.schedule ? 0 : 1;
            if (placed.processors && (is_within(before.processors, here.usable) ||
                                      is_within(there.usable, before.processors)))
                continue;
            elsewhere++;
            CPU_OR(&missing, &missing, &before.processors);
        }
    }
    if (elsewhere > 0)
        log::warning(
            "{} of its threads were bound to processors {}, which are not all here: they use {}",
            elsewhere, to_list(missing), to_list(here.binding));
    if (otherwise > 0)
        log::warning("{} of its threads cannot be scheduled here as they were", otherwise);
}

}  // namespace ghost::core
