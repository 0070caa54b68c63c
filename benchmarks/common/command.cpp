// SPDX-License-Identifier: BSD-3-Clause
#include "benchmarks/common/command.hpp"

#include <csignal>
#include <fcntl.h>
#include <sys/wait.h>
#include <utility>

#include "base/await.hpp"
#include "base/child.hpp"
#include "base/clock.hpp"
#include "base/exit_status.hpp"
#include "base/pidfd.hpp"

namespace ghost::bench {
namespace {

constexpr int64_t grace_us = 2'000'000;

}  // namespace

Result<Command> Command::start(const std::vector<std::string>& argv) {
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) != 0) return sys_error("make a pipe for", argv[0]);
    Fd output(ends[0]);
    Fd input(ends[1]);
    auto child = Child::start({.argv = argv,
                               .stdio = {null_device, input.get(), input.get()},
                               .signals = ChildRequest::Signals::kept});
    if (!child) return child.error();
    return Command(child->release(), std::move(output));
}

Command::Command(Command&& other) noexcept
    : pid_(std::exchange(other.pid_, -1)),
      output_(std::move(other.output_)),
      rest_(std::move(other.rest_)) {}

Command::~Command() {
    if (pid_ < 0) return;
    kill(-pid_, SIGTERM);
    if (wait(monotonic_us() + grace_us).ok()) return;
    kill(-pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
}

Result<bool> Command::follow(const std::function<bool(const std::string&)>& line,
                             int64_t deadline_us) {
    for (;;) {
        for (size_t end = rest_.find('\n'); end != std::string::npos; end = rest_.find('\n')) {
            const std::string text = rest_.substr(0, end);
            rest_.erase(0, end + 1);
            if (!line(text)) return false;
        }
        if (!await_readable_until(output_.get(), deadline_us))
            return make_error(Code::timeout, "wait for a program's output");
        char buffer[4096];
        const ssize_t count = read(output_.get(), buffer, sizeof buffer);
        if (count < 0) return sys_error("read a program's output");
        if (count == 0) {
            if (!rest_.empty()) line(std::exchange(rest_, {}));
            return true;
        }
        rest_.append(buffer, static_cast<size_t>(count));
    }
}

Result<int> Command::wait(int64_t deadline_us) {
    const Fd end = open_pidfd(pid_);
    if (!end) return sys_error("wait for a program");
    if (!await_readable_until(end.get(), deadline_us))
        return make_error(Code::timeout, "wait for a program");
    int status = 0;
    if (waitpid(pid_, &status, 0) != pid_) return sys_error("wait for a program");
    pid_ = -1;
    return exit_status_of(status);
}

Result<Ended> run(const std::vector<std::string>& argv, int limit_s) {
    const int64_t deadline = monotonic_us() + int64_t{limit_s} * 1'000'000;
    auto command = Command::start(argv);
    if (!command.ok()) return command.error();
    Ended ended;
    auto all = command->follow(
        [&](const std::string& line) {
            ended.output += line + "\n";
            return true;
        },
        deadline);
    if (!all.ok()) return all.error();
    auto status = command->wait(deadline);
    if (!status.ok()) return status.error();
    ended.status = *status;
    return ended;
}

}  // namespace ghost::bench
