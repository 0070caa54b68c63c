// SPDX-License-Identifier: BSD-3-Clause
// Programs that the kernel runs for each thread or mapping of a process, and that write what they
// see into a file (iterators, Documentation/bpf/bpf_iterators.rst of Linux): for what it tells
// nobody otherwise. Needs CAP_BPF and CAP_PERFMON.
#pragma once

#include <cstdint>
#include <functional>
#include <linux/bpf.h>
#include <mutex>
#include <sys/types.h>
#include <vector>

#include "base/fd.hpp"
#include "ghost-core/memory/kernel_types.hpp"

namespace ghost::core {

// What a program of an iterator is given.
struct IteratorPlaces {
    uint32_t function = 0, meta = 0, object = 0, file = 0;
    // "task", of which it looks at `name`: itself, or its "task_vma", "vma".
    void find(KernelPlaces& kernel, const std::string& iterator, std::string_view name);
};

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
    void leave_if_same(uint8_t one, uint8_t other) {
        add(BPF_JMP | BPF_JNE | BPF_X, one, other, 2, 0);
        leave();
    }
    // Leaves `size` bytes of the kernel's at `from` + `plus` in the frame.
    void read(int to, size_t size, uint8_t from, int plus) {
        copy(3, from, plus);
        copy(1, frame, to);
        set(2, static_cast<int>(size));
        call(BPF_FUNC_probe_read_kernel);
    }
    // What is in the frame goes to the iterator's file.
    void write(uint8_t file, int from, size_t size) {
        copy(1, file);
        copy(2, frame, from);
        set(3, static_cast<int>(size));
        call(BPF_FUNC_seq_write);
    }
    void leave() {
        set(0, 0);
        add(BPF_JMP | BPF_EXIT, 0, 0, 0, 0);
    }
    // How an iterator's program begins: registers for what it is to look at, and for its file. It
    // is over at the end of the list.
    void begin(const IteratorPlaces& at, uint8_t object, uint8_t file) {
        load(object, 1, at.object);
        load(file, 1, at.meta);
        leave_if_null(object);
        load(file, file, at.file);
    }
    const std::vector<bpf_insn>& all() const { return code_; }

  private:
    void add(int code, uint8_t to, uint8_t from, int offset, int value);
    std::vector<bpf_insn> code_;
};

// One for all uses in this process, a global: to load it takes 1.6 ms. A child made by fork(2)
// gives its copy back at once, since a tree that has one can neither move nor be saved.
class KeptIterator {
  public:
    // `name`: of a program, at most 15 letters; what the kernel shows of it.
    explicit KeptIterator(const char* name);
    KeptIterator(const KeptIterator&) = delete;
    KeptIterator& operator=(const KeptIterator&) = delete;

    // For the iterator at `function` (IteratorPlaces); `code` is asked when it is loaded. -1: it
    // cannot be had. Any thread.
    int program(uint32_t function, const std::function<KernelCode()>& code);

  private:
    static void forked();

    const char* const name_;
    std::mutex mutex_;
    Fd program_;
    KeptIterator* const next_;
};

// What it writes of a process; empty if that cannot be looked at.
std::vector<uint8_t> iterate(int program, pid_t pid);

}  // namespace ghost::core
