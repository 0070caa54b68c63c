// SPDX-License-Identifier: BSD-3-Clause
// Owner of one file descriptor.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <unistd.h>
#include <utility>

namespace ghost {

// Which descriptors the Fds of this program or library own. Thread-safe.
//
// A child made by fork(2) has copies of all of them, and none of the threads that serve them: what
// it keeps open its parent cannot close. close_all() there ends that.
class OwnedFds {
  public:
    static void add(int fd) noexcept {
        if (counted(fd)) word(fd).fetch_or(bit(fd), std::memory_order_relaxed);
    }
    // False: it is not ours any more, and may be somebody else's by now.
    static bool remove(int fd) noexcept {
        return !counted(fd) || (word(fd).fetch_and(~bit(fd), std::memory_order_relaxed) & bit(fd));
    }
    // In a child, once. What Fds there hold is nobody's afterwards. Async-signal-safe.
    static void close_all() noexcept {
        for (int fd = 0; fd < most; fd += bits) {
            uint64_t owned = word(fd).exchange(0, std::memory_order_relaxed);
            for (int at = fd; owned != 0; owned >>= 1, at++) {
                if (owned & 1) ::close(at);
            }
        }
    }

  private:
    static constexpr int most = 1 << 16, bits = 64;  // those above belong to their Fd alone

    static bool counted(int fd) { return fd >= 0 && fd < most; }
    static uint64_t bit(int fd) { return uint64_t{1} << fd % bits; }
    static std::atomic<uint64_t>& word(int fd) { return words_[fd / bits]; }

    static inline constinit std::atomic<uint64_t> words_[most / bits] = {};
};

// Closes its descriptor when destroyed. -1 means "none". Not thread-safe.
class Fd {
  public:
    Fd() = default;
    explicit Fd(int fd) : fd_(fd) { OwnedFds::add(fd); }
    Fd(Fd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
    Fd& operator=(Fd&& other) noexcept {
        if (this != &other) {
            reset();
            fd_ = std::exchange(other.fd_, -1);
        }
        return *this;
    }
    Fd(const Fd&) = delete;
    Fd& operator=(const Fd&) = delete;
    ~Fd() { reset(); }

    int get() const { return fd_; }
    bool valid() const { return fd_ >= 0; }
    explicit operator bool() const { return valid(); }
    // Gives the descriptor to the caller.
    int release() {
        OwnedFds::remove(fd_);
        return std::exchange(fd_, -1);
    }
    void reset(int fd = -1) {
        if (fd_ >= 0 && OwnedFds::remove(fd_)) ::close(fd_);
        OwnedFds::add(fd);
        fd_ = fd;
    }

  private:
    int fd_ = -1;
};

}  // namespace ghost
