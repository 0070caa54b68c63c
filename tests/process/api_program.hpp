// SPDX-License-Identifier: BSD-3-Clause
// A program that is started, exported and imported through the installed C++ header and nothing
// else, as the tests of that speak with it: over its standard input and output.
#pragma once

#include <array>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <optional>
#include <poll.h>
#include <string>
#include <sys/wait.h>
#include <unistd.h>
#include <vector>

#include "ghost-core/include/ghost/ghost.hpp"

namespace api_test {

inline int64_t now_ms() {
    timespec now{};
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * int64_t{1000} + now.tv_nsec / 1000000;
}

inline std::string text(const ghost::Failure& failure) {
    return std::to_string(failure.code) + " " + failure.text;
}

// What this process has as standard input, output and error is others while this lives: -1 is
// /dev/null, as is error.
class Stdio {
  public:
    Stdio(int in, int out) {
        std::fflush(nullptr);
        const int null = open("/dev/null", O_RDWR | O_CLOEXEC);
        const std::array<int, 3> wanted = {in, out, null};
        for (int i = 0; i < 3; i++) {
            const auto at = static_cast<size_t>(i);
            kept_[at] = fcntl(i, F_DUPFD_CLOEXEC, 100);
            dup2(wanted[at] >= 0 ? wanted[at] : null, i);
        }
        close(null);
    }
    ~Stdio() {
        for (int i = 0; i < 3; i++) {
            dup2(kept_[static_cast<size_t>(i)], i);
            close(kept_[static_cast<size_t>(i)]);
        }
    }
    Stdio(const Stdio&) = delete;
    Stdio& operator=(const Stdio&) = delete;

  private:
    std::array<int, 3> kept_ = {-1, -1, -1};
};

// It is killed and reaped at the end.
class Program {
  public:
    Program() = default;
    ~Program() {
        end();
        unplug();
    }
    Program(const Program&) = delete;
    Program& operator=(const Program&) = delete;

    void start(const std::vector<std::string>& words) {
        with_new_ends([&] { return ghost::start_process(words); });
    }
    void import(ghost::Ghost& g) {
        with_new_ends([&] { return g.import_process(); });
    }
    // Whatever gives a process: with new ends of the pipes as standard input and output.
    template <typename Make>
    void with_new_ends(const Make& make) {
        auto made = try_with_new_ends(make);
        ASSERT_TRUE(made) << text(made.failure());
    }
    template <typename Make>
    ghost::Result<pid_t> try_with_new_ends(const Make& make) {
        unplug();
        int in[2], out[2];
        if (pipe2(in, O_CLOEXEC) != 0 || pipe2(out, O_CLOEXEC) != 0) std::abort();
        to_ = in[1];
        from_ = out[0];
        auto made = [&] {
            const Stdio stdio(in[0], out[1]);
            return make();
        }();
        close(in[0]);
        close(out[1]);
        if (made) root = *made;
        return made;
    }

    // Nothing: no answer in time.
    std::optional<std::string> ask(const std::string& what = "sum\n",
                                   int timeout_ms = 60000) const {
        if (write(to_, what.data(), what.size()) != static_cast<ssize_t>(what.size())) return {};
        return listen(timeout_ms);
    }
    std::optional<std::string> listen(int timeout_ms = 60000) const {
        std::string line;
        const int64_t limit = now_ms() + timeout_ms;
        for (char byte = 0; now_ms() < limit;) {
            pollfd ready{from_, POLLIN, 0};
            if (poll(&ready, 1, 10) <= 0) continue;
            if (read(from_, &byte, 1) != 1) return {};
            if (byte == '\n') return line;
            line += byte;
        }
        return {};
    }
    // Of ghost_subject: its count of work done, or what is wrong.
    uint64_t healthy() const {
        const auto answer = ask("check\n");
        if (answer && answer->starts_with("beats ")) return std::stoull(answer->substr(6));
        ADD_FAILURE() << "the program says: " << answer.value_or("nothing");
        return 0;
    }

    void end() {
        if (root <= 0) return;
        kill(root, SIGKILL);
        EXPECT_TRUE(ghost::wait_process(root));
        root = 0;
    }
    // It has been killed, or runs elsewhere.
    void ended() {
        EXPECT_TRUE(ghost::wait_process(root)) << ghost_error();
        root = 0;
    }

    pid_t root = 0;

  private:
    void unplug() {
        if (to_ >= 0) close(to_);
        if (from_ >= 0) close(from_);
        to_ = from_ = -1;
    }
    int to_ = -1, from_ = -1;
};

}  // namespace api_test
