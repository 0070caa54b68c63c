// SPDX-License-Identifier: BSD-3-Clause
// Memory of a held thread, for arguments and answers of the calls that are made in it. Gone with
// the object.
#pragma once

#include <cstdint>
#include <optional>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <utility>
#include <vector>

#include "base/result.hpp"
#include "ghost-core/memory/injection.hpp"

namespace ghost::core {

// Only inside inject().
class Scratch {
  public:
    static constexpr uint64_t page = 4096;

    static Result<Scratch> make(HeldThread& thread) {
        const auto at = thread.call(SYS_mmap, 0, 2 * page, PROT_READ | PROT_WRITE,
                                    MAP_PRIVATE | MAP_ANONYMOUS, ~uint64_t{0}, 0);
        if (!at) return at.error();
        if (*at < 0) return sys_error_of(static_cast<int>(-*at), "make memory in process");
        return Scratch(thread, static_cast<uint64_t>(*at));
    }
    ~Scratch() {
        if (at_ != 0) (void)thread_.call(SYS_munmap, at_, 2 * page);
    }
    Scratch(Scratch&& from) noexcept : thread_(from.thread_), at_(std::exchange(from.at_, 0)) {}
    Scratch(const Scratch&) = delete;
    Scratch& operator=(const Scratch&) = delete;
    Scratch& operator=(Scratch&&) = delete;

    // Its first page, at most.
    uint64_t at() const { return at_; }
    bool write(const void* bytes, size_t size) const {
        const iovec from{const_cast<void*>(bytes), size};
        const iovec to{reinterpret_cast<void*>(at_), size};
        return process_vm_writev(thread_.pid(), &from, 1, &to, 1, 0) == static_cast<ssize_t>(size);
    }
    bool write(const std::vector<uint64_t>& words) const {
        return write(words.data(), words.size() * sizeof(uint64_t));
    }
    // Where calls are to put their answers, its second page.
    uint64_t answer_at() const { return at_ + page; }
    template <typename T>
    std::optional<T> answer() const {
        T out{};
        const iovec to{&out, sizeof out}, from{reinterpret_cast<void*>(answer_at()), sizeof out};
        if (process_vm_readv(thread_.pid(), &to, 1, &from, 1, 0) != sizeof out) return {};
        return out;
    }

  private:
    Scratch(HeldThread& thread, uint64_t at) : thread_(thread), at_(at) {}
    HeldThread& thread_;
    uint64_t at_;
};

}  // namespace ghost::core
