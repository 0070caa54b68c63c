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
#include "base/pidfd.hpp"

namespace ghost::tools {
namespace {

Result<std::string> read_all(int fd, const std::string& what) {
    std::string out;
    char buffer[8192];
    for (;;) {
        ssize_t n = ::read(fd, buffer, sizeof buffer);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return sys_error("read", what);
        if (n == 0) return out;
        out.append(buffer, static_cast<size_t>(n));
    }
}

Status write_all(int fd, const std::string& text, const std::string& what) {
    size_t done = 0;
    while (done < text.size()) {
        ssize_t n = ::write(fd, text.data() + done, text.size() - done);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return sys_error("write", what);
        done += static_cast<size_t>(n);
    }
    return {};
}

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

std::string boot_id() {
    auto text = read_file("/proc/sys/kernel/random/boot_id");
    return text.ok() ? text->substr(0, 36) : std::string();
}

Result<std::string> read_file(const std::string& path) {
    Fd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    if (!fd.valid()) {
        return sys_error("open", path, errno == ENOENT ? Code::not_found : Code::io);
    }
    return read_all(fd.get(), path);
}

Status write_file(const std::string& path, const std::string& text, mode_t mode) {
    std::string beside = path + ".new";
    Fd fd(::open(beside.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, mode));
    if (!fd.valid()) return sys_error("create", beside);
    GHOST_TRY(write_all(fd.get(), text, beside));
    if (::fchmod(fd.get(), mode) != 0 || ::rename(beside.c_str(), path.c_str()) != 0) {
        return sys_error("replace", path);
    }
    return {};
}

}  // namespace ghost::tools
