// SPDX-License-Identifier: BSD-3-Clause
#include "tests/net/process.hpp"

#include <chrono>
#include <csignal>
#include <cstdlib>
#include <fcntl.h>
#include <filesystem>
#include <poll.h>
#include <stdexcept>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <utility>

namespace nettest {
namespace {

double now() {
    auto t = std::chrono::steady_clock::now().time_since_epoch();
    return std::chrono::duration<double>(t).count();
}

// A file without a name; readers use pread, so that writers keep their own offset.
int spool() {
    int fd = memfd_create("spool", MFD_CLOEXEC);
    if (fd < 0) throw std::runtime_error("memfd_create failed");
    return fd;
}

std::string read_spool(int fd) {
    struct stat info {};
    if (fstat(fd, &info) != 0) return {};
    std::string text(static_cast<size_t>(info.st_size), '\0');
    ssize_t n = ::pread(fd, text.data(), text.size(), 0);
    text.resize(n > 0 ? static_cast<size_t>(n) : 0);
    return text;
}

int code_of(int wait_status) {
    return WIFEXITED(wait_status) ? WEXITSTATUS(wait_status) : 128 + WTERMSIG(wait_status);
}

}  // namespace

bool poll_until(double seconds, const std::function<bool()>& condition) {
    const double end = now() + seconds;
    while (!condition()) {
        if (now() >= end) return false;
        ::poll(nullptr, 0, 10);
    }
    return true;
}

Scratch::Scratch() {
    std::string name = std::filesystem::current_path().string() + "/net-test-XXXXXX";
    if (mkdtemp(name.data()) == nullptr) throw std::runtime_error("cannot make " + name);
    folder_ = name;
}

Scratch::~Scratch() {
    std::error_code ignored;
    std::filesystem::remove_all(folder_, ignored);
}

void touch(const std::string& path) {
    int fd = ::open(path.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
    if (fd < 0) throw std::runtime_error("cannot make " + path);
    ::close(fd);
}

Background::Background(const std::vector<std::string>& argv, const std::string& input, bool more)
    : out_(spool()), err_(spool()) {
    std::vector<char*> words;
    for (const std::string& word : argv) words.push_back(const_cast<char*>(word.c_str()));
    words.push_back(nullptr);
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) != 0) throw std::runtime_error("pipe2 failed");
    in_ = ends[1];
    ::signal(SIGPIPE, SIG_IGN);
    pid_ = fork();
    if (pid_ < 0) throw std::runtime_error("fork failed");
    if (pid_ > 0) {
        ::close(ends[0]);
        feed(input, more);
        return;
    }
    setpgid(0, 0);
    ::signal(SIGPIPE, SIG_DFL);
    // Appending, so that several writers do not overwrite each other.
    for (int fd : {out_, err_}) fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_APPEND);
    dup2(ends[0], 0);
    dup2(out_, 1);
    dup2(err_, 2);
    execvp(words[0], words.data());
    _exit(127);
}

void Background::feed(const std::string& input, bool more) {
    for (size_t done = 0; done < input.size();) {
        ssize_t n = ::write(in_, input.data() + done, input.size() - done);
        if (n < 0) break;  // nobody reads any more
        done += static_cast<size_t>(n);
    }
    if (!more) {
        ::close(in_);
        in_ = -1;
    }
}

Background::Background(Background&& other) noexcept
    : pid_(std::exchange(other.pid_, -1)),
      status_(other.status_),
      ended_(other.ended_),
      in_(std::exchange(other.in_, -1)),
      out_(std::exchange(other.out_, -1)),
      err_(std::exchange(other.err_, -1)) {}

Background::~Background() {
    if (pid_ > 0 && running()) {
        ::kill(pid_, SIGTERM);
        if (!poll_until(2, [this] { return !running(); })) {
            ::kill(-pid_, SIGKILL);
            reap(true);
        }
    }
    for (int fd : {in_, out_, err_}) {
        if (fd >= 0) ::close(fd);
    }
}

bool Background::reap(bool block) {
    int wait_status = 0;
    if (!ended_ && waitpid(pid_, &wait_status, block ? 0 : WNOHANG) == pid_) {
        status_ = code_of(wait_status);
        ended_ = true;
    }
    return ended_;
}

bool Background::running() {
    return !reap(false);
}
std::string Background::out() const {
    return read_spool(out_);
}
std::string Background::err() const {
    return read_spool(err_);
}

Finished Background::finish(double seconds) {
    bool in_time = poll_until(seconds, [this] { return !running(); });
    if (!in_time) {
        ::kill(pid_, SIGTERM);
        if (!poll_until(2, [this] { return !running(); })) ::kill(-pid_, SIGKILL);
        reap(true);
    }
    return {in_time ? status_ : -1, out(), err()};
}

Finished run(const std::vector<std::string>& argv, double seconds) {
    return Background(argv).finish(seconds);
}

}  // namespace nettest
