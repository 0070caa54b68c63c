// SPDX-License-Identifier: BSD-3-Clause
#include "ghost-core/criu/settings.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <ctime>
#include <fcntl.h>
#include <fmt/format.h>
#include <linux/mempolicy.h>
#include <optional>
#include <string_view>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/fd.hpp"
#include "base/file.hpp"
#include "base/log.hpp"
#include "base/proc.hpp"
#include "ghost-core/criu/kernel_state.hpp"
#include "ghost-core/memory/injection.hpp"
#include "ghost-core/memory/kernel_iterator.hpp"
#include "ghost-core/memory/kernel_types.hpp"
#include "ghost-core/memory/scratch.hpp"
#include "ghost-core/memory/timers.hpp"
#include "ghost-core/memory/waits.hpp"

namespace ghost::core {
namespace {

constexpr int64_t limit_us = 200000;  // for a thread to stop
constexpr int64_t second_ns = 1000000000;
constexpr uint64_t page = Scratch::page;
constexpr uint64_t set_memory_merge = 67;  // PR_SET_MEMORY_MERGE of linux/prctl.h (Linux 6.4)
constexpr size_t most_nodes = 1024;        // MAX_NUMNODES of Linux
constexpr const char* usual_policy = "default";

struct Mode {
    std::string_view name;
    int number;
};
// policy_modes of mm/mempolicy.c; longer names of one beginning first.
constexpr std::array<Mode, 7> modes = {{{"default", 0},
                                        {"prefer (many)", 5},
                                        {"prefer", 1},
                                        {"bind", 2},
                                        {"interleave", 3},
                                        {"local", 4},
                                        {"weighted interleave", 6}}};

const Mode* mode_of(std::string_view text) {
    const auto found = std::ranges::find_if(
        modes, [text](const Mode& mode) { return text.starts_with(mode.name); });
    return found == modes.end() ? nullptr : &*found;
}

template <typename T>
bool number(std::string_view& text, T& out, int base = 10) {
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), out, base);
    text.remove_prefix(static_cast<size_t>(end - text.data()));
    return error == std::errc{};
}

bool skip(std::string_view& text, std::string_view what) {
    if (!text.starts_with(what)) return false;
    text.remove_prefix(what.size());
    return true;
}

std::string file_of(pid_t pid, const char* name) {
    auto text = read_file(fmt::format("/proc/{}/{}", pid, name));
    return text ? std::move(*text) : std::string();
}

// The policy in a line of numa_maps: "address policy more"; a name may hold a space.
MemoryPolicy policy_in(std::string_view line) {
    line.remove_prefix(std::min(line.size(), line.find(' ') + 1));
    const auto* mode = mode_of(line);
    if (mode == nullptr) return usual_policy;
    return std::string(line.substr(0, line.find_first_of(" \n", mode->name.size())));
}

// That of a thread: what the kernel shows for the program's code, which has none of its own. Only
// so much is read that the kernel looks at no more.
MemoryPolicy policy_of(pid_t tid) {
    const Fd file(open(fmt::format("/proc/{}/numa_maps", tid).c_str(), O_RDONLY | O_CLOEXEC));
    std::array<char, 96> text;
    const auto got = file ? read(file.get(), text.data(), text.size()) : 0;
    return got > 0 ? policy_in({text.data(), static_cast<size_t>(got)}) : usual_policy;
}

// The value behind "key:"; empty: none.
std::string_view value_of(std::string_view text, std::string_view key) {
    std::string_view out;
    for_lines(text, [&](std::string_view line) {
        if (!skip(line, key) || !skip(line, ":")) return;
        line.remove_prefix(std::min(line.size(), line.find_first_not_of(" \t")));
        out = line;
    });
    return out;
}

// Where the mappings end that begin there.
std::map<uint64_t, uint64_t> ends_of(pid_t pid) {
    std::map<uint64_t, uint64_t> out;
    for_lines(file_of(pid, "maps"), [&](std::string_view line) {
        uint64_t start = 0, end = 0;
        if (number(line, start, 16) && skip(line, "-") && number(line, end, 16)) out[start] = end;
    });
    return out;
}

KeptIterator kept_policies("ghost_policies");

// Finds the mappings that have a policy of their own. numa_maps tells it too, but looks at every
// page for it (some 50 ms for each GiB, while the process can map nothing), so it is read only for
// a process that has one. Those of shared memory are not seen: they are that memory's.
class MappingLook {
  public:
    // What takes long (20 ms), once in a process.
    static void prepare() { places(); }

    static std::vector<uint64_t> starts(pid_t pid) {
        const auto* at = places();
        if (at == nullptr) return {};
        const auto bytes =
            iterate(kept_policies.program(at->iterator.function, [at] { return code(*at); }), pid);
        std::vector<uint64_t> out(bytes.size() / sizeof(uint64_t));
        if (!out.empty()) std::memcpy(out.data(), bytes.data(), out.size() * sizeof(uint64_t));
        return out;
    }

  private:
    struct Places {
        IteratorPlaces iterator;
        uint32_t start = 0, policy = 0;
    };

    static std::optional<Places> find_places() {
        KernelPlaces kernel;
        Places out;
        out.iterator.find(kernel, "task_vma", "vma");
        kernel.offset(out.start, "vm_area_struct", {"vm_start"});
        kernel.offset(out.policy, "vm_area_struct", {"vm_policy"});
        return kernel.all() ? std::optional(out) : std::nullopt;
    }
    static const Places* places() {
        static const auto found = find_places();
        return found ? &*found : nullptr;
    }

    static KernelCode code(const Places& at) {
        constexpr uint8_t mapping = 7, policy = 8, out = 9;
        constexpr int word = -8;
        KernelCode code;
        code.begin(at.iterator, mapping, out);
        code.load(policy, mapping, at.policy);
        code.leave_if_null(policy);
        code.load(1, mapping, at.start);
        code.store(1, word);
        code.write(out, word, sizeof(uint64_t));
        code.leave();
        return code;
    }
};

std::vector<MappingPolicy> mapping_policies(pid_t pid) {
    std::vector<MappingPolicy> out;
    const auto starts = MappingLook::starts(pid);
    if (starts.empty()) return out;
    const auto ends = ends_of(pid);
    for_lines(file_of(pid, "numa_maps"), [&](std::string_view line) {
        auto policy = policy_in(line);
        uint64_t start = 0;
        if (!number(line, start, 16) || std::ranges::find(starts, start) == starts.end()) return;
        if (const auto found = ends.find(start); found != ends.end())
            out.push_back({start, found->second, std::move(policy)});
    });
    return out;
}

// The kernel says it only by what it does with new memory: to drop a page that is locked is
// refused, and it is there before anybody has touched it, unless locks are to wait for that.
int future_locks_of(pid_t pid) {
    int out = 0;
    const auto status = inject(pid, limit_us, [&](HeldThread& thread) -> Status {
        const auto scratch = Scratch::make(thread);
        if (!scratch) return scratch.error();
        auto looked = thread.call(SYS_mincore, scratch->at(), page, scratch->answer_at());
        if (!looked) return looked.error();
        const bool there = *looked == 0 && (scratch->answer<uint8_t>().value_or(0) & 1) != 0;
        auto dropped = thread.call(SYS_madvise, scratch->at(), page, MADV_DONTNEED);
        if (!dropped) return dropped.error();
        if (*dropped == -EINVAL) out = there ? MCL_FUTURE : MCL_FUTURE | MCL_ONFAULT;
        return {};
    });
    if (!status.ok()) log::debug("locks of process {}: {}", pid, status.error().message());
    return out;
}

bool leads_session(pid_t pid) {
    const auto fields = stat_fields(pid);
    return fields.size() > 3 && fields[3] == std::to_string(pid);
}

// What files of /proc say, threads' policies aside.
ProcessSettings outer_settings(pid_t pid) {
    ProcessSettings out;
    const auto hex = [pid](const char* name, uint32_t& to) {
        const auto text = file_of(pid, name);
        std::string_view view = text;
        if (uint32_t value = 0; number(view, value, 16)) to = value;
    };
    hex("personality", out.personality);
    hex("coredump_filter", out.core_filter);
    out.merges = value_of(file_of(pid, "ksm_stat"), "ksm_merge_any").starts_with("yes");
    if (!leads_session(pid)) return out;
    const auto text = file_of(pid, "autogroup");  // "/autogroup-7 nice 0"
    if (const auto at = text.find("nice "); at != std::string::npos) {
        auto nice = std::string_view(text).substr(at + 5);
        number(nice, out.session_nice);
    }
    return out;
}

ProcessSettings settings_of_process(const Task& task) {
    auto out = outer_settings(task.pid);
    const auto own = policy_of(task.pid);
    for (const pid_t tid : numbers_in(fmt::format("/proc/{}/task", task.pid))) {
        const auto policy = tid == task.pid ? own : policy_of(tid);
        if (policy == usual_policy) continue;
        if (const auto status = read_status(fmt::format("/proc/{}/task/{}", task.pid, tid)))
            out.policies[status->numbers.back()] = policy;
    }
    out.mappings = mapping_policies(task.pid);
    const auto locked = file_of(task.pid, "status");
    if (!value_of(locked, "VmLck").starts_with("0 ")) out.future_locks = future_locks_of(task.pid);
    return out;
}

// What could not be.
struct Failures {
    size_t policies = 0, others = 0;
};

bool succeeded(const Result<long>& answer) {
    return answer.ok() && *answer >= 0;
}

// By `call`, which takes mode, nodes and their number; false: these nodes are not here.
template <typename Call>
bool set_policy(const Scratch& scratch, const MemoryPolicy& policy, Call&& call) {
    int mode = 0;
    std::vector<uint64_t> nodes;
    if (!take_apart(policy, mode, nodes)) return false;
    const bool none = std::ranges::all_of(nodes, [](uint64_t word) { return word == 0; });
    if (!none && !scratch.write(nodes)) return false;
    return succeeded(
        call(static_cast<uint64_t>(mode), none ? 0 : scratch.at(), none ? 0 : most_nodes + 1));
}

void write_proc(pid_t pid, const char* name, const std::string& text, Failures& failures) {
    const auto path = fmt::format("/proc/{}/{}", pid, name);
    const Fd file(open(path.c_str(), O_WRONLY | O_CLOEXEC));
    if (!file || write(file.get(), text.data(), text.size()) != static_cast<ssize_t>(text.size()))
        failures.others++;
}

// Of one process: what it has now, what it is to have.
class Applying {
  public:
    Applying(const Task& task, const ProcessSettings& wanted, Failures& failures)
        : task_(task), wanted_(wanted), failures_(failures) {}

    void run() {
        if (now_.core_filter != wanted_.core_filter)
            write_proc(task_.pid, "coredump_filter", fmt::format("{:#x}", wanted_.core_filter),
                       failures_);
        if (now_.session_nice != wanted_.session_nice)
            write_proc(task_.pid, "autogroup", std::to_string(wanted_.session_nice), failures_);
        for (const pid_t tid : threads()) visit(tid);
    }

  private:
    bool of_process() const {
        return now_.merges != wanted_.merges || !wanted_.mappings.empty() ||
               !wanted_.timers.empty() || wanted_.future_locks != 0;
    }

    // Those that calls are to be made in. All have been made by one that was as the first one is.
    std::vector<pid_t> threads() const {
        const bool every = now_.personality != wanted_.personality || policy_ != usual_policy;
        if (!every && wanted_.policies.empty() && !of_process()) return {};
        if (!every && wanted_.policies.empty()) return {task_.pid};
        return numbers_in(fmt::format("/proc/{}/task", task_.pid));
    }

    void visit(pid_t tid) {
        const auto status = read_status(fmt::format("/proc/{}/task/{}", task_.pid, tid));
        if (!status) return;
        const auto found = wanted_.policies.find(status->numbers.back());
        const MemoryPolicy policy =
            found == wanted_.policies.end() ? MemoryPolicy(usual_policy) : found->second;
        if (policy == policy_ && now_.personality == wanted_.personality &&
            !(tid == task_.pid && of_process()))
            return;
        const auto done = inject(
            task_.pid, limit_us, [&](HeldThread& thread) { return calls(thread, tid, policy); },
            tid);
        if (done.ok()) return;
        failures_.others++;
        log::debug("settings of thread {}: {}", tid, done.error().message());
    }

    Status calls(HeldThread& thread, pid_t tid, const MemoryPolicy& policy) {
        if (now_.personality != wanted_.personality &&
            !succeeded(thread.call(SYS_personality, wanted_.personality)))
            failures_.others++;
        if (policy != policy_) {
            const auto scratch = Scratch::make(thread);
            if (!scratch) return scratch.error();
            if (!set_policy(*scratch, policy, [&](uint64_t mode, uint64_t nodes, uint64_t most) {
                    return thread.call(SYS_set_mempolicy, mode, nodes, most);
                }))
                failures_.policies++;
        }
        return tid == task_.pid ? calls_of_process(thread) : Status();
    }

    Status calls_of_process(HeldThread& thread) {
        if (now_.merges != wanted_.merges &&
            !succeeded(thread.call(SYS_prctl, set_memory_merge, wanted_.merges ? 1 : 0)))
            failures_.others++;
        if (!wanted_.mappings.empty()) {
            const auto scratch = Scratch::make(thread);
            if (!scratch) return scratch.error();
            for (const auto& one : wanted_.mappings)
                if (!set_policy(*scratch, one.policy,
                                [&](uint64_t mode, uint64_t nodes, uint64_t most) {
                                    return thread.call(SYS_mbind, one.start, one.end - one.start,
                                                       mode, nodes, most, 0);
                                }))
                    failures_.policies++;
        }
        if (!wanted_.timers.empty()) {
            const auto scratch = Scratch::make(thread);
            if (!scratch) return scratch.error();
            for (const auto& [timer, end_ns] : wanted_.timers)
                if (!set_end(thread, *scratch, static_cast<uint64_t>(timer), end_ns))
                    failures_.others++;
        }
        // Last: what is mapped for the calls above is not to be locked.
        if (wanted_.future_locks != 0 &&
            !succeeded(thread.call(SYS_mlockall, static_cast<uint64_t>(wanted_.future_locks))))
            failures_.others++;
        return {};
    }

    static bool set_end(HeldThread& thread, const Scratch& scratch, uint64_t timer, int64_t ns) {
        if (!succeeded(thread.call(SYS_timer_gettime, timer, scratch.answer_at()))) return false;
        const auto now = scratch.answer<itimerspec>();
        if (!now || !scratch.write({static_cast<uint64_t>(now->it_interval.tv_sec),
                                    static_cast<uint64_t>(now->it_interval.tv_nsec),
                                    static_cast<uint64_t>(ns / second_ns),
                                    static_cast<uint64_t>(ns % second_ns)}))
            return false;
        return succeeded(thread.call(SYS_timer_settime, timer, TIMER_ABSTIME, scratch.at(), 0));
    }

    const Task& task_;
    const ProcessSettings& wanted_;
    Failures& failures_;
    const ProcessSettings now_ = outer_settings(task_.pid);
    const MemoryPolicy policy_ = policy_of(task_.pid);
};

}  // namespace

bool ProcessSettings::operator==(const ProcessSettings& other) const {
    const auto same = [](const MappingPolicy& a, const MappingPolicy& b) {
        return a.start == b.start && a.end == b.end && a.policy == b.policy;
    };
    return personality == other.personality && core_filter == other.core_filter &&
           merges == other.merges && future_locks == other.future_locks &&
           session_nice == other.session_nice && policies == other.policies &&
           std::ranges::equal(mappings, other.mappings, same) && timers == other.timers;
}

void prepare_settings() {
    static const bool prepared = [] {
        const auto types = KernelTypes::get();  // once for all three
        MappingLook::prepare();
        prepare_times_of_day();
        return Waits::prepare();
    }();
    (void)prepared;
}

TreeSettings settings_of(pid_t root) {
    TreeSettings out;
    const auto tasks = list_tree(root);
    if (!tasks) return out;
    for (const auto& task : *tasks) {
        if (task.state == 'Z') continue;
        auto settings = settings_of_process(task);
        if (settings != ProcessSettings()) out.emplace(task.inner, std::move(settings));
    }
    return out;
}

void add_timers(const std::vector<Task>& tasks, TreeSettings& settings) {
    for (const auto& task : tasks)
        if (auto timers = times_of_day(task.pid); !timers.empty())
            settings[task.inner].timers = std::move(timers);
}

bool each_listed(std::string_view text, size_t limit, const std::function<void(size_t)>& each) {
    for (bool more = true; more; more = skip(text, ",")) {
        size_t first = 0, last = 0;
        if (!number(text, first)) return false;
        last = first;
        if (skip(text, "-") && !number(text, last)) return false;
        if (last >= limit) return false;
        for (; first <= last; first++) each(first);
    }
    return text.empty();
}

bool take_apart(const MemoryPolicy& policy, int& mode, std::vector<uint64_t>& nodes) {
    std::string_view text = policy;
    const auto* found = mode_of(text);
    if (found == nullptr) return false;
    mode = found->number;
    skip(text, found->name);
    if (skip(text, "=")) {
        if (skip(text, "static")) mode |= MPOL_F_STATIC_NODES;
        skip(text, "relative");
        skip(text, "|");
        if (skip(text, "balancing")) mode |= 1 << 13;  // MPOL_F_NUMA_BALANCING (Linux 5.12)
    }
    nodes.assign(most_nodes / 64, 0);
    return text.empty() || (skip(text, ":") && each_listed(text, most_nodes, [&](size_t node) {
                                nodes[node / 64] |= 1ULL << node % 64;
                            }));
}

void give_settings(const std::vector<Task>& tasks, const TreeSettings& settings) {
    static const ProcessSettings usual;
    Failures failures;
    for (const auto& task : tasks) {
        if (task.state == 'Z') continue;
        const auto found = settings.find(task.inner);
        Applying(task, found == settings.end() ? usual : found->second, failures).run();
    }
    if (failures.policies > 0)
        log::warning("{} of its memory policies name nodes that are not here: the kernel chooses",
                     failures.policies);
    if (failures.others > 0)
        log::warning(
            "{} of its settings (personality, locks on later memory, nice values of "
            "sessions, ends of timers) could not be made here as they were",
            failures.others);
}

}  // namespace ghost::core
