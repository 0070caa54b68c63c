// SPDX-License-Identifier: BSD-3-Clause
#include "kernet-btl/transport/gate.hpp"

#include <linux/futex.h>
#include <linux/membarrier.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace kernet {

namespace {

long membarrier(int command) {
    return syscall(SYS_membarrier, command, 0, 0);
}

// Registration belongs to the address space and is asked for again before every use, because a
// restored process is a new one to the kernel; when registered already it costs next to nothing.
bool register_barrier() {
    return membarrier(MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED) == 0;
}

void futex(std::atomic<uint32_t>& word, int operation, uint32_t value) {
    syscall(SYS_futex, reinterpret_cast<uint32_t*>(&word), operation | FUTEX_PRIVATE_FLAG, value,
            nullptr, nullptr, 0);
}

}  // namespace

Gate::Gate(bool threads) : threads_(threads), fence_(!register_barrier()) {}

void Gate::wait_open() {
    do {
        inside_.store(0, std::memory_order_release);
        while (closed_.load(std::memory_order_acquire) != 0) futex(closed_, FUTEX_WAIT, 1);
        inside_.store(1, std::memory_order_seq_cst);
    } while (closed_.load(std::memory_order_seq_cst) != 0);
}

void Gate::close() {
    closed_.store(1, std::memory_order_seq_cst);
    if (!fence_) {
        register_barrier();
        membarrier(MEMBARRIER_CMD_PRIVATE_EXPEDITED);
    }
    // A call in progress never blocks, but its thread may have lost the processor.
    while (inside_.load(std::memory_order_acquire) != 0) sched_yield();
}

void Gate::open() {
    if (closed_.exchange(0, std::memory_order_seq_cst) != 0) futex(closed_, FUTEX_WAKE, INT32_MAX);
}

}  // namespace kernet
