// SPDX-License-Identifier: BSD-3-Clause
#include "ghost-core/memory/timers.hpp"

#include <algorithm>
#include <array>
#include <cstring>
#include <ctime>
#include <fmt/format.h>
#include <optional>

#include "base/file.hpp"
#include "ghost-core/memory/kernel_iterator.hpp"
#include "ghost-core/memory/kernel_types.hpp"

namespace ghost::core {
namespace {

constexpr size_t timer_bytes = 384;  // of the kernel's structure, as far as it is looked at
constexpr int most_timers = 64;
constexpr uint8_t enqueued = 1;  // HRTIMER_STATE_ENQUEUED of linux/hrtimer.h

// What the program below says of a timer.
struct Record {
    std::array<uint8_t, timer_bytes> timer;
    uint64_t clock = 0;  // its lower half: what it is counted by
};

struct Places {
    IteratorPlaces iterator;
    uint32_t signals = 0, list = 0, in_list = 0;
    uint32_t number = 0, base = 0, end = 0, state = 0, clock = 0;
};

std::optional<Places> find_places() {
    KernelPlaces kernel;
    Places out;
    out.iterator.find(kernel, "task", "task");
    kernel.offset(out.signals, "task_struct", {"signal"});
    kernel.offset(out.list, "signal_struct", {"posix_timers"});
    kernel.offset(out.in_list, "k_itimer", {"list"});
    kernel.offset(out.number, "k_itimer", {"it_id"});
    kernel.offset(out.base, "k_itimer", {"it", "real", "timer", "base"});
    kernel.offset(out.end, "k_itimer", {"it", "real", "timer", "_softexpires"});
    kernel.offset(out.state, "k_itimer", {"it", "real", "timer", "state"});
    kernel.offset(out.clock, "hrtimer_clock_base", {"clockid"});
    const bool seen = std::max({out.number, out.base, out.end, out.state}) <= timer_bytes - 8;
    return kernel.all() && seen ? std::optional(out) : std::nullopt;
}

// For each thread a Record for each timer of its process. Registers 6 to 9 are kept over calls.
KernelCode program(const Places& at) {
    constexpr uint8_t task = 6, out = 7, timer = 8, head = 9;
    constexpr int next = -8, clock = -16, record = clock - static_cast<int>(timer_bytes);
    KernelCode code;
    code.begin(at.iterator, task, out);
    code.load(head, task, at.signals);
    code.leave_if_null(head);
    code.copy(head, head, static_cast<int>(at.list));
    // The first pointer of a list, and of each in it, is to the next one; that of older kernels is
    // a ring (list_head, now hlist_head).
    code.read(next, sizeof(uint64_t), head, 0);
    for (int i = 0; i < most_timers; i++) {
        code.load(timer, KernelCode::frame, static_cast<uint32_t>(next));
        code.leave_if_null(timer);
        code.leave_if_same(timer, head);
        code.read(record, timer_bytes, timer, -static_cast<int>(at.in_list));
        code.load(3, KernelCode::frame, static_cast<uint32_t>(record) + at.base);
        code.read(clock, sizeof(uint64_t), 3, static_cast<int>(at.clock));
        code.write(out, record, sizeof(Record));
        code.read(next, sizeof(uint64_t), timer, 0);
    }
    code.leave();
    return code;
}

const Places* places() {
    static const auto found = find_places();
    return found ? &*found : nullptr;
}

KeptIterator kept_timers("ghost_timers");

template <typename T>
T word(const Record& one, uint32_t offset) {
    T out{};
    std::memcpy(&out, &one.timer[offset], sizeof out);
    return out;
}

}  // namespace

void prepare_times_of_day() {
    places();
}

std::map<int, int64_t> times_of_day(pid_t pid) {
    std::map<int, int64_t> out;
    const auto text = read_file(fmt::format("/proc/{}/timers", pid));
    if (!text || text->find(fmt::format("ClockID: {}\n", CLOCK_REALTIME)) == std::string::npos)
        return out;
    const auto* at = places();
    if (at == nullptr) return out;
    const auto bytes =
        iterate(kept_timers.program(at->iterator.function, [at] { return program(*at); }), pid);
    for (size_t i = 0; i + sizeof(Record) <= bytes.size(); i += sizeof(Record)) {
        Record one;
        std::memcpy(&one, &bytes[i], sizeof one);
        if (static_cast<int32_t>(one.clock) == CLOCK_REALTIME &&
            (word<uint8_t>(one, at->state) & enqueued) != 0)
            out[word<int32_t>(one, at->number)] = word<int64_t>(one, at->end);
    }
    return out;
}

}  // namespace ghost::core
