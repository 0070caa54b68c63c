// SPDX-License-Identifier: BSD-3-Clause
#include "tools/process.hpp"

#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <fcntl.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "base/child.hpp"
#include "base/file.hpp"
#include "base/pidfd.hpp"

namespace ghost::tools {
namespace {

// State letter and start time from /proc/PID/stat; the command name in it may hold anything, so
// fields are counted from its closing parenthesis.
Result<std::pair<char, uint64_t>> read_stat(pid_t pid) {
    auto text = read_file(fmt::format("/proc/{}/stat", pid));
    size_t close = text.ok() ? text->rfind(')') : std::string::npos;
    if (close == std::string::npos || close + 2 >= text->size()) {
        return make_error(Code::not_found, "find process", std::to_string(pid));
    }
    char state = (*text)[close + 2];
    size_t at = close + 2;
    for (int field = 3; field < 22 && at != std::string::npos; ++field) {
        at = text->find(' ', at + 1);
    }
    if (at == std::string::npos) {
        return make_error(Code::corrupt, "read start time of process", std::to_string(pid));
    }
    return std::pair{state, uint64_t{std::strtoull(text->c_str() + at, nullptr, 10)}};
}

}  // namespace

Result<ProgramEnd> run_program(const std::vector<std::string>& argv, const std::string& input) {
    // Memory files instead of pipes: nothing to pump, nothing to deadlock on.
    Fd in(::memfd_create("input", MFD_CLOEXEC)), out(::memfd_create("output", MFD_CLOEXEC));
    if (!in.valid() || !out.valid()) return sys_error("create a memory file for", argv[0]);
    GHOST_TRY(write_all(in.get(), input, "input"));
    ::lseek(in.get(), 0, SEEK_SET);
    // Not longer than us: an `ip` of a killed `lab up` would go on where `lab down` has looked.
    auto child = Child::start({.argv = argv,
                               .stdio = {in.get(), out.get(), out.get()},
                               .place = ChildRequest::Place::here,
                               .signals = ChildRequest::Signals::kept,
                               .death_signal = SIGKILL});
    if (!child) return child.error();
    child->wait(Child::no_limit);
    ProgramEnd end;
    end.status = child->status();
    ::lseek(out.get(), 0, SEEK_SET);
    auto text = read_all(out.get(), "output of " + argv[0]);
    GHOST_TRY(text);
    end.output = std::move(*text);
    return end;
}

Result<std::string> run_checked(const std::vector<std::string>& argv, const std::string& input) {
    auto end = run_program(argv, input);
    GHOST_TRY(end);
    if (WIFEXITED(end->status) && WEXITSTATUS(end->status) == 0) return std::move(end->output);
    while (!end->output.empty() && end->output.back() == '\n') end->output.pop_back();
    return make_error(Code::io, "run", fmt::format("{}", fmt::join(argv, " ")), end->output);
}

Result<ProcessId> identify(pid_t pid) {
    auto stat = read_stat(pid);
    GHOST_TRY(stat);
    if (stat->first == 'Z' || stat->first == 'X') {
        return make_error(Code::not_found, "find process", std::to_string(pid));
    }
    return ProcessId{pid, stat->second};
}

bool is_alive(const ProcessId& id) {
    if (id.pid <= 0) return false;
    auto now = identify(id.pid);
    return now.ok() && *now == id;
}

Result<Fd> open_process(const ProcessId& id) {
    if (id.pid <= 0) return make_error(Code::not_found, "find process", std::to_string(id.pid));
    Fd fd = open_pidfd(id.pid);
    if (!fd.valid()) {
        return sys_error("find process", std::to_string(id.pid),
                         errno == ESRCH ? Code::not_found : Code::io);
    }
    // Checked after opening: from here on the descriptor cannot mean another process.
    if (!is_alive(id)) return make_error(Code::not_found, "find process", std::to_string(id.pid));
    return fd;
}

Status kill_process(const ProcessId& id, int timeout_ms) {
    auto fd = open_process(id);
    if (!fd.ok()) return fd.error().code == Code::not_found ? Status() : Status(fd.error());
    if (!signal_pidfd(fd->get(), SIGKILL) && errno != ESRCH) {
        return sys_error("kill process", std::to_string(id.pid));
    }
    if (!await_pidfd(fd->get(), timeout_ms)) {
        return make_error(Code::timeout, "wait for the end of process", std::to_string(id.pid));
    }
    ::waitpid(id.pid, nullptr, WNOHANG);  // only if it is our own child
    return {};
}

}  // namespace ghost::tools
