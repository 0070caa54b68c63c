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
constexpr uint64_t reset_on_fork = 1, clamp_min = 0x20, clamp_max = 0x40;  // sched_attr flags
constexpr uint32_t most_utilization = 1024;
constexpr int of_process = 1;  // IOPRIO_WHO_PROCESS
constexpr size_t threads_limit = 1 << 20;

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

namespace {

// "0-3,8", as the kernel writes them.
std::string to_list(const cpu_set_t& processors) {
    std::string out;
    for (int first = 0; first < CPU_SETSIZE; first++) {
        const auto has = [&processors](int cpu) {
            return cpu < CPU_SETSIZE && CPU_ISSET(static_cast<size_t>(cpu), &processors);
        };
        if (!has(first)) continue;
        int last = first;
        while (has(last + 1)) last++;
        out += out.empty() ? "" : ",";
        out += last == first ? std::to_string(first) : fmt::format("{}-{}", first, last);
        first = last;
    }
    return out;
}

bool from_list(const std::string& text, cpu_set_t& out) {
    CPU_ZERO(&out);
    return text.empty() || each_listed(text, CPU_SETSIZE, [&](size_t cpu) { CPU_SET(cpu, &out); });
}

// What most threads of a tree have in common is written once.
nlohmann::json to_json(const Placement& one) {
    const auto& a = one.attributes;
    return {{"processors", to_list(one.processors)},
            {"policy", a.policy},
            {"flags", a.flags & reset_on_fork},
            {"priority", a.priority},
            {"nice", one.nice},
            {"runtime", a.runtime},
            {"deadline", a.deadline},
            {"period", a.period},
            {"clamps", {a.util_min, a.util_max}},
            {"io_priority", one.io_priority},
            {"slack_ns", one.slack_ns}};
}

bool take_processors(const nlohmann::json& from, const char* key, cpu_set_t& out) {
    const auto found = from.find(key);
    return found != from.end() && found->is_string() && from_list(found->get<std::string>(), out);
}

bool from_json(const nlohmann::json& json, Placement& out) {
    auto& a = out.attributes;
    if (!json.is_object()) return false;
    const auto clamps = json.find("clamps");
    if (clamps == json.end() || !clamps->is_array() || clamps->size() != 2 ||
        !read_whole((*clamps)[0], a.util_min) || !read_whole((*clamps)[1], a.util_max))
        return false;
    if (!take_processors(json, "processors", out.processors) ||
        !read_whole(json, "policy", a.policy) || !read_whole(json, "flags", a.flags) ||
        !read_whole(json, "priority", a.priority) || !read_whole(json, "nice", out.nice) ||
        !read_whole(json, "runtime", a.runtime) || !read_whole(json, "deadline", a.deadline) ||
        !read_whole(json, "period", a.period) ||
        !read_whole(json, "io_priority", out.io_priority) ||
        !read_whole(json, "slack_ns", out.slack_ns))
        return false;
    a.nice = out.nice;
    return true;
}

Error damaged() {
    return make_error(Code::corrupt, "read how the threads of the ghost are scheduled");
}

}  // namespace

std::string encode(const TreePlacement& placement) {
    std::map<std::string, std::pair<nlohmann::json, std::vector<int>>> groups;
    auto waits = nlohmann::json::array(), stopped = nlohmann::json::array();
    for (const auto& one : placement.threads) {
        if (one.inner == 0) continue;
        auto json = to_json(one);
        auto& group = groups[json.dump()];
        group.first = std::move(json);
        group.second.push_back(one.inner);
        if (one.wait_ns > 0) waits.push_back({one.inner, one.wait_ns});
        if (one.stopped) stopped.push_back(one.inner);
    }
    auto list = nlohmann::json::array();
    for (auto& [text, group] : groups) {
        group.first["threads"] = group.second;
        list.push_back(std::move(group.first));
    }
    return nlohmann::json{
        {"usable", to_list(placement.usable)}, {"binding", to_list(placement.binding)},
        {"groups", std::move(list)},           {"waits", std::move(waits)},
        {"stopped", std::move(stopped)},       {"settings", to_json(placement.settings)}}
        .dump();
}

namespace {

using ByInner = std::map<int, Placement*>;

ByInner by_inner_number(Placements& threads) {
    ByInner out;
    for (auto& one : threads) out[one.inner] = &one;
    return out;
}

// A ghost of before them has none.
bool take_waits(const nlohmann::json& from, const ByInner& by_inner) {
    const auto list = from.find("waits");
    if (list == from.end()) return true;
    if (!list->is_array()) return false;
    for (const auto& wait : *list) {
        int number = 0;
        int64_t wait_ns = 0;
        if (!wait.is_array() || wait.size() != 2 || !read_whole(wait[0], number) ||
            !read_whole(wait[1], wait_ns) || wait_ns < 0)
            return false;
        const auto found = by_inner.find(number);
        if (found != by_inner.end()) found->second->wait_ns = wait_ns;
    }
    return true;
}

// Likewise.
bool take_stopped(const nlohmann::json& from, const ByInner& by_inner) {
    const auto list = from.find("stopped");
    if (list == from.end()) return true;
    if (!list->is_array()) return false;
    for (const auto& thread : *list) {
        int number = 0;
        if (!read_whole(thread, number)) return false;
        const auto found = by_inner.find(number);
        if (found != by_inner.end()) found->second->stopped = true;
    }
    return true;
}

}  // namespace

Result<TreePlacement> decode_placement(std::string_view text) {
    const auto json = parse_json(text);
    TreePlacement out;
    if (!json.is_object() || !take_processors(json, "usable", out.usable) ||
        !take_processors(json, "binding", out.binding) || !json.contains("groups") ||
        !json["groups"].is_array())
        return damaged();
    for (const auto& group : json["groups"]) {
        Placement one;
        if (!from_json(group, one)) return damaged();
        const auto threads = group.find("threads");
        if (threads == group.end() || !threads->is_array()) return damaged();
        for (const auto& thread : *threads) {
            if (!read_whole(thread, one.inner) || out.threads.size() >= threads_limit)
                return damaged();
            out.threads.push_back(one);
        }
    }
    const auto settings = json.find("settings");  // of an older Ghost: none
    const auto by_inner = by_inner_number(out.threads);
    if (!take_waits(json, by_inner) || !take_stopped(json, by_inner) ||
        (settings != json.end() && !from_json(*settings, out.settings)))
        return damaged();
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
