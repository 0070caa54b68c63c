// SPDX-License-Identifier: BSD-3-Clause
// Programs that the kernel runs for each thread or mapping of a process, and that write what they
// see into a file (iterators, Documentation/bpf/bpf_iterators.rst of Linux): for what it tells
// nobody otherwise. Needs CAP_BPF and CAP_PERFMON.
#pragma once

#include <cstdint>
#include <linux/bpf.h>
#include <sys/types.h>
#include <vector>

#include "base/fd.hpp"

namespace ghost::core {

// Instructions of a program, in the kernel's machine language (linux/bpf.h). Registers 6 to 9 are
// kept over calls.
class KernelCode {
  public:
    static constexpr uint8_t frame = 10;

    void load(uint8_t to, uint8_t from, uint32_t offset, int size = BPF_DW) {
        add(BPF_LDX | BPF_MEM | size, to, from, static_cast<int>(offset), 0);
    }
    void store(uint8_t from, int offset, int size = BPF_DW) {
        add(BPF_STX | BPF_MEM | size, frame, from, offset, 0);
    }
    void copy(uint8_t to, uint8_t from, int plus = 0) {
        add(BPF_ALU64 | BPF_MOV | BPF_X, to, from, 0, 0);
        if (plus != 0) add(BPF_ALU64 | BPF_ADD | BPF_K, to, 0, 0, plus);
    }
    void set(uint8_t to, int value) { add(BPF_ALU64 | BPF_MOV | BPF_K, to, 0, 0, value); }
    void call(int helper) { add(BPF_JMP | BPF_CALL, 0, 0, 0, helper); }
    void leave_if_null(uint8_t what) {
        add(BPF_JMP | BPF_JNE | BPF_K, what, 0, 2, 0);
        leave();
    }
    void leave() {
        set(0, 0);
        add(BPF_JMP | BPF_EXIT, 0, 0, 0, 0);
    }
    const std::vector<bpf_insn>& all() const { return code_; }

  private:
    void add(int code, uint8_t to, uint8_t from, int offset, int value);
    std::vector<bpf_insn> code_;
};

// For the iterator described as `function` (KernelTypes). Nothing: it cannot be had. To load one
// takes 1.6 ms. Whoever keeps it must give it back in a child made by fork(2): a tree that has one
// can neither move nor be saved.
Fd load_iterator(const char* name, uint32_t function, const KernelCode& code);

// What it writes of a process; empty if that cannot be looked at.
std::vector<uint8_t> iterate(int program, pid_t pid);

}  // namespace ghost::core
