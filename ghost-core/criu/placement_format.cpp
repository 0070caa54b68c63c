// SPDX-License-Identifier: BSD-3-Clause
// How placements and settings are written in a ghost: docs/IMAGE_FORMAT.md, ghost-placement.json.
#include <fmt/format.h>
#include <map>
#include <utility>

#include "base/json_text.hpp"
#include "base/schema_json.hpp"
#include "ghost-core/criu/placement.hpp"

namespace ghost::core {
namespace {

using schema::Field;
using schema::field;
using schema::Form;
using schema::Record;
using schema::record;

constexpr size_t threads_limit = 1 << 20;

// Threads that are placed alike.
struct Group {
    std::string processors;
    uint32_t policy = 0;
    uint64_t flags = 0;
    uint32_t priority = 0;
    int32_t nice = 0;
    uint64_t runtime = 0, deadline = 0, period = 0;
    std::vector<uint32_t> clamps;
    int32_t io_priority = 0;
    uint64_t slack_ns = 0;
    std::vector<int32_t> threads;
    static const Record table;
};
const char* two_clamps(const void* group) {
    return static_cast<const Group*>(group)->clamps.size() == 2 ? nullptr : "two clamps";
}
constexpr Field group_fields[] = {
    field<&Group::processors>("processors", "that they may use, as the kernel lists them"),
    field<&Group::policy>("policy", "this and what follows: sched_setattr(2)"),
    field<&Group::flags>("flags", "only SCHED_FLAG_RESET_ON_FORK"),
    field<&Group::priority>("priority", "real-time"),
    field<&Group::nice>("nice", "also of a class that does not use it"),
    field<&Group::runtime>("runtime", "of SCHED_DEADLINE").in("ns"),
    field<&Group::deadline>("deadline", "the same").in("ns"),
    field<&Group::period>("period", "the same").in("ns"),
    field<&Group::clamps>("clamps", "of utilization: least, most").items_at_most(2),
    field<&Group::io_priority>("io_priority", "ioprio_set(2)"),
    field<&Group::slack_ns>("slack_ns", "/proc/PID/timerslack_ns"),
    field<&Group::threads>("threads", "their numbers in the tree").items_at_most(threads_limit)};

struct Wait {
    int32_t thread = 0;
    int64_t left_ns = 0;
    static const Record table;
};
constexpr Field wait_fields[] = {
    field<&Wait::thread>("thread", "its number in the tree"),
    field<&Wait::left_ns>("left_ns", "of a sleep or a limit").in("ns").at_least(0)};

struct ThreadPolicy {
    int32_t thread = 0;
    MemoryPolicy policy;
    static const Record table;
};
constexpr Field thread_policy_fields[] = {
    field<&ThreadPolicy::thread>("thread", "its number in the tree"),
    field<&ThreadPolicy::policy>("policy", "as in /proc/PID/numa_maps")};

constexpr Field mapping_fields[] = {
    field<&MappingPolicy::start>("start", "its first byte"),
    field<&MappingPolicy::end>("end", "behind its last byte"),
    field<&MappingPolicy::policy>("policy", "as in /proc/PID/numa_maps")};

struct Timer {
    int32_t number = 0;
    int64_t end_ns = 0;
    static const Record table;
};
constexpr Field timer_fields[] = {field<&Timer::number>("number", "timer_create(2)"),
                                  field<&Timer::end_ns>("end_ns", "the time of day").in("ns")};

struct Asked {
    int32_t process = 0;
    uint32_t personality = 0, core_filter = 0;
    uint8_t merges = 0;
    int32_t future_locks = 0, session_nice = 0;
    std::vector<ThreadPolicy> policies;
    std::vector<MappingPolicy> mappings;
    std::vector<Timer> timers;
    static const Record table;
};
constexpr Field asked_fields[] = {
    field<&Asked::process>("process", "its number in the tree"),
    field<&Asked::personality>("personality", "personality(2)"),
    field<&Asked::core_filter>("core_filter", "/proc/PID/coredump_filter"),
    field<&Asked::merges>("merges", "1: prctl(PR_SET_MEMORY_MERGE)"),
    field<&Asked::future_locks>("future_locks", "of mlockall(2)"),
    field<&Asked::session_nice>("session_nice", "of its autogroup"),
    field<&Asked::policies>("policies", "of threads that have one"),
    field<&Asked::mappings>("mappings", "those that have one"),
    field<&Asked::timers>("timers", "that end at a time of day")};

struct Document {
    std::string usable, binding;
    std::vector<Group> groups;
    std::vector<Wait> waits;
    std::vector<int32_t> stopped;
    std::vector<Asked> settings;
    static const Record table;
};
constexpr Field document_fields[] = {
    field<&Document::usable>("usable", "processors of whoever is not bound"),
    field<&Document::binding>("binding", "processors of the exporting process"),
    field<&Document::groups>("groups", "its threads"),
    // (an older Ghost wrote none of these)
    field<&Document::waits>("waits", "threads that sleep").or_default(),
    field<&Document::stopped>("stopped", "threads that were stopped before").or_default(),
    field<&Document::settings>("settings", "of processes that asked for something").or_default()};

}  // namespace

constinit const Record Group::table =
    record<Group>("group", "threads that are placed alike", group_fields, Form::object, two_clamps);
constinit const Record Wait::table =
    record<Wait>("wait", "what is left of it", wait_fields, Form::array);
constinit const Record ThreadPolicy::table =
    record<ThreadPolicy>("policy", "of a thread's memory", thread_policy_fields, Form::array);
constinit const Record MappingPolicy::table =
    record<MappingPolicy>("mapping", "with a memory policy", mapping_fields, Form::array);
constinit const Record Timer::table =
    record<Timer>("timer", "at a time of day", timer_fields, Form::array);
constinit const Record Asked::table =
    record<Asked>("settings", "what a process asked for", asked_fields);
constinit const Record Document::table =
    record<Document>("placement", "how the threads of a tree are scheduled", document_fields);

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

namespace {

bool from_list(const std::string& text, cpu_set_t& out) {
    CPU_ZERO(&out);
    return text.empty() || each_listed(text, CPU_SETSIZE, [&](size_t cpu) { CPU_SET(cpu, &out); });
}

Group group_of(const Placement& one) {
    const auto& a = one.attributes;
    return {to_list(one.processors),
            a.policy,
            a.flags & reset_on_fork,
            a.priority,
            one.nice,
            a.runtime,
            a.deadline,
            a.period,
            {a.util_min, a.util_max},
            one.io_priority,
            one.slack_ns,
            {}};
}

bool take_group(const Group& from, Placement& out) {
    out.attributes = {.policy = from.policy,
                      .flags = from.flags,
                      .nice = from.nice,
                      .priority = from.priority,
                      .runtime = from.runtime,
                      .deadline = from.deadline,
                      .period = from.period,
                      .util_min = from.clamps[0],
                      .util_max = from.clamps[1]};
    out.nice = from.nice;
    out.io_priority = from.io_priority;
    out.slack_ns = from.slack_ns;
    return from_list(from.processors, out.processors);
}

Asked asked_of(int process, const ProcessSettings& one) {
    Asked out{process,    one.personality,  one.core_filter,
              one.merges, one.future_locks, one.session_nice,
              {},         one.mappings,     {}};
    for (const auto& [thread, policy] : one.policies) out.policies.push_back({thread, policy});
    for (const auto& [timer, end_ns] : one.timers) out.timers.push_back({timer, end_ns});
    return out;
}

ProcessSettings settings_in(const Asked& from) {
    ProcessSettings out{from.personality,  from.core_filter,
                        from.merges != 0,  from.future_locks,
                        from.session_nice, {},
                        from.mappings,     {}};
    for (const auto& one : from.policies) out.policies[one.thread] = one.policy;
    for (const auto& one : from.timers) out.timers[one.number] = one.end_ns;
    return out;
}

Error damaged(const std::string& why) {
    return make_error(Code::corrupt, "read how the threads of the ghost are scheduled", {}, why);
}

}  // namespace

std::string encode(const TreePlacement& placement) {
    Document out{to_list(placement.usable), to_list(placement.binding), {}, {}, {}, {}};
    // What most threads of a tree have in common is written once.
    std::map<std::string, Group> groups;
    for (const auto& one : placement.threads) {
        if (one.inner == 0) continue;
        Group group = group_of(one);
        const auto text = schema::to_json(group).dump();
        groups.try_emplace(text, std::move(group)).first->second.threads.push_back(one.inner);
        if (one.wait_ns > 0) out.waits.push_back({one.inner, one.wait_ns});
        if (one.stopped) out.stopped.push_back(one.inner);
    }
    for (auto& [text, group] : groups) out.groups.push_back(std::move(group));
    for (const auto& [process, one] : placement.settings)
        out.settings.push_back(asked_of(process, one));
    return schema::to_json(out).dump();
}

Result<TreePlacement> decode_placement(std::string_view text) {
    const auto read = schema::from_json<Document>(parse_json(text));
    if (!read.ok()) return damaged(read.error().message());
    TreePlacement out;
    if (!from_list(read->usable, out.usable) || !from_list(read->binding, out.binding))
        return damaged("no list of processors");
    std::map<int, size_t> threads;  // by number: where they are in `out`
    for (const auto& group : read->groups) {
        Placement one;
        if (!take_group(group, one)) return damaged("no list of processors");
        if (out.threads.size() + group.threads.size() > threads_limit)
            return damaged("too many threads");
        for (const int thread : group.threads) {
            one.inner = thread;
            threads[thread] = out.threads.size();
            out.threads.push_back(one);
        }
    }
    for (const auto& wait : read->waits)
        if (const auto at = threads.find(wait.thread); at != threads.end())
            out.threads[at->second].wait_ns = wait.left_ns;
    for (const int thread : read->stopped)
        if (const auto at = threads.find(thread); at != threads.end())
            out.threads[at->second].stopped = true;
    for (const auto& one : read->settings) out.settings[one.process] = settings_in(one);
    return out;
}

}  // namespace ghost::core
