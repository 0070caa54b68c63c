// SPDX-License-Identifier: BSD-3-Clause
// Timers of timer_create(2) that end at a time of day. /proc/PID/timers does not tell them from
// those that end after a duration, and CRIU makes durations of all: in a ghost the time of day goes
// on. The kernel knows it by the clock that it counts them by: for a duration that is never
// CLOCK_REALTIME (common_timer_set of kernel/time/posix-timers.c).
#pragma once

#include <cstdint>
#include <map>
#include <sys/types.h>

namespace ghost::core {

// When they end, ns of CLOCK_REALTIME, by their numbers (timer_t of the kernel); of the first 64 of
// a process, those that are armed. Nothing where the kernel may not be asked (BPF, BTF).
std::map<int, int64_t> times_of_day(pid_t pid);
// What takes long in it (20 ms), once in a process.
void prepare_times_of_day();

}  // namespace ghost::core
