// SPDX-License-Identifier: BSD-3-Clause
// A program that has a terminal of its own: its keys, its size, what it shows, how it leaves it.
#pragma once

#include <algorithm>
#include <csignal>
#include <cstdlib>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <iterator>
#include <optional>
#include <string>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include "base/await.hpp"
#include "base/child.hpp"
#include "base/clock.hpp"
#include "base/exit_status.hpp"
#include "base/fd.hpp"

namespace ghost {

// One thread. Destroying it kills the program.
class PtyProgram {
  public:
    static constexpr int limit_ms = 20000;

    // `command`: for sh, which becomes it.
    PtyProgram(const std::string& command, const std::string& term)
        : keyboard_(::posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC)) {
        ::grantpt(keyboard_.get());
        ::unlockpt(keyboard_.get());
        char name[64] = "";
        ::ptsname_r(keyboard_.get(), name, sizeof name);
        terminal_ = Fd(::open(name, O_RDWR | O_NOCTTY | O_CLOEXEC));
        EXPECT_TRUE(terminal_) << name;
        resize(24, 80);
        before_ = mode();
        // The leader of a session that has no terminal opens one: it is its from then on.
        const std::string line = "ulimit -c 0; exec " + command + " <\"$0\" >\"$0\" 2>&1";
        auto child = Child::start({.argv = {"sh", "-c", line, name},
                                   .environment = {"TERM=" + term, "LC_ALL=C.UTF-8"},
                                   .place = ChildRequest::Place::own_session});
        EXPECT_TRUE(child.ok()) << child.error().message();
        child_.emplace(std::move(*child));
    }

    void type(const std::string& keys) {
        EXPECT_EQ(::write(keyboard_.get(), keys.data(), keys.size()),
                  static_cast<ssize_t>(keys.size()));
    }
    void resize(unsigned short rows, unsigned short columns) {
        const winsize size{rows, columns, 0, 0};
        EXPECT_EQ(::ioctl(keyboard_.get(), TIOCSWINSZ, &size), 0);
    }
    void signal(int signum) { ::kill(child_->pid(), signum); }
    // Its other end is closed.
    void unplug() {
        terminal_ = Fd();
        keyboard_ = Fd();
    }

    // All that was written to it so far.
    const std::string& shown() {
        char some[4096];
        while (keyboard_ && await_readable(keyboard_.get(), 0)) {
            const ssize_t n = ::read(keyboard_.get(), some, sizeof some);
            if (n <= 0) break;
            shown_.append(some, static_cast<size_t>(n));
        }
        return shown_;
    }
    // The text is written after what `forget` has cut off.
    bool shows(const std::string& text, int timeout_ms = limit_ms) {
        const int64_t until = monotonic_us() + int64_t{timeout_ms} * 1000;
        while (shown().find(text, from_) == std::string::npos) {
            if (monotonic_us() >= until) return false;
            await_readable(keyboard_.get(), 20);
        }
        return true;
    }
    void forget() { from_ = shown().size(); }

    // Exit status, 128 + signal; -1: it has not ended in time.
    int finish(int timeout_ms = limit_ms) {
        const int64_t until = monotonic_us() + int64_t{timeout_ms} * 1000;
        while (!child_->wait(monotonic_us() + 20'000)) {
            shown();
            if (monotonic_us() >= until) return -1;
        }
        shown();
        return exit_status_of(child_->status());
    }

    termios mode() const {
        termios out{};
        EXPECT_EQ(::tcgetattr(terminal_.get(), &out), 0);
        return out;
    }
    // What it is set to is as it was before the program.
    bool is_as_before() const {
        const termios now = mode();
        return now.c_iflag == before_.c_iflag && now.c_oflag == before_.c_oflag &&
               now.c_cflag == before_.c_cflag && now.c_lflag == before_.c_lflag &&
               std::equal(std::begin(now.c_cc), std::end(now.c_cc), std::begin(before_.c_cc));
    }

  private:
    Fd keyboard_, terminal_;
    termios before_{};
    std::optional<Child> child_;
    std::string shown_;
    size_t from_ = 0;
};

}  // namespace ghost
