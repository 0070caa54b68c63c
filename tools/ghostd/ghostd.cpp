// SPDX-License-Identifier: BSD-3-Clause
// ghostd: lends name spaces and descriptors to ordinary users where they may not make or open them
// themselves (docs/SECURITY.md, "ghostd"). It reads 16 bytes of a stranger's and nothing else: no
// path, no number of a process, no image, no environment. Each request has a process of its own,
// with a time limit; this one only counts them.
#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <fmt/format.h>
#include <getopt.h>
#include <string>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>
#include <vector>

#include "base/await.hpp"
#include "base/fork.hpp"
#include "base/lender.hpp"
#include "tools/ghostd/loans.hpp"

namespace ghost::lending {
namespace {

constexpr const char* usage =
    "usage: ghostd [--listen PATH] [--lend LIST] [--spaces N]\n"
    "Lends name spaces and descriptors to users who may not make them (ghostd(8)).\n"
    "  --listen PATH   where to listen (default: the socket that systemd hands over)\n"
    "  --lend LIST     space, userfaultfd, or both with a comma between (default: space)\n"
    "  --spaces N      how many name spaces a user may have at a time (default: 1024)\n"
    "  --help          print this and exit\n";

constexpr size_t most_of_user = 8, most_of_all = 64;  // requests that are served at a time
constexpr int64_t idle_us = 30'000'000;               // after that systemd may start it anew
constexpr int first_handed_over = 3;                  // SD_LISTEN_FDS_START of sd_listen_fds(3)

struct Options {
    std::string listen;
    Terms terms;
    bool help = false;
};

Result<Options> read_options(int argc, char** argv) {
    static const option known[] = {{"listen", 1, nullptr, 'l'},
                                   {"lend", 1, nullptr, 'L'},
                                   {"spaces", 1, nullptr, 's'},
                                   {"help", 0, nullptr, 'h'},
                                   {nullptr, 0, nullptr, 0}};
    const auto wrong = make_error(Code::invalid, "understand the options");
    Options out;
    for (int c; (c = getopt_long(argc, argv, "h", known, nullptr)) != -1;) {
        switch (c) {
            case 'l':
                out.listen = optarg;
                break;
            case 'L':
                out.terms.lends = loans_named(optarg);
                if (out.terms.lends == 0) return wrong;
                break;
            case 's':
                out.terms.spaces = std::strtoul(optarg, nullptr, 10);
                break;
            case 'h':
                out.help = true;
                break;
            default:
                return wrong;
        }
    }
    if (optind != argc || out.terms.spaces == 0) return wrong;
    return out;
}

Result<Fd> listen_at(const std::string& path) {
    Fd fd(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    sockaddr_un at{};
    at.sun_family = AF_UNIX;
    if (path.size() >= sizeof at.sun_path)
        return make_error(Code::invalid, "listen at", path, "the path is too long");
    std::memcpy(at.sun_path, path.data(), path.size());
    if (!fd || ::bind(fd.get(), reinterpret_cast<sockaddr*>(&at), sizeof at) != 0 ||
        ::chmod(path.c_str(), 0666) != 0 || ::listen(fd.get(), SOMAXCONN) != 0)
        return sys_error("listen at", path);
    return fd;
}

int number_of(int fd, int option) {
    int value = -1;
    socklen_t size = sizeof value;
    return ::getsockopt(fd, SOL_SOCKET, option, &value, &size) == 0 ? value : -1;
}

// As sd_listen_fds(3) does.
Result<Fd> handed_over() {
    const char* pid = std::getenv("LISTEN_PID");
    const char* count = std::getenv("LISTEN_FDS");
    if (pid == nullptr || count == nullptr || std::atoi(pid) != ::getpid() ||
        std::strcmp(count, "1") != 0)
        return make_error(Code::invalid, "find the socket of systemd", {},
                          "start ghostd.socket, or say --listen PATH");
    Fd fd(first_handed_over);
    if (number_of(fd.get(), SO_DOMAIN) != AF_UNIX || number_of(fd.get(), SO_ACCEPTCONN) != 1 ||
        number_of(fd.get(), SO_TYPE) != SOCK_SEQPACKET)
        return make_error(Code::invalid, "use the socket of systemd", {},
                          "it is not ListenSequentialPacket= of a path");
    ::fcntl(fd.get(), F_SETFD, FD_CLOEXEC);
    ::fcntl(fd.get(), F_SETFL, ::fcntl(fd.get(), F_GETFL) | O_NONBLOCK);
    return fd;
}

// Who is being served. One thread.
class Counter {
  public:
    Counter(const Terms& terms, Fd listener) : terms_(terms), listener_(std::move(listener)) {}

    Status run(bool for_ever);

  private:
    struct Served {
        pid_t pid;
        uid_t user;
    };

    void reap() {
        while (true) {
            const pid_t pid = ::waitpid(-1, nullptr, WNOHANG);
            if (pid <= 0) return;
            std::erase_if(served_, [pid](const Served& one) { return one.pid == pid; });
        }
    }

    // All who wait, before anybody's turn is over: of a user whose requests are many the first are
    // served and the others told that it is busy, which takes microseconds, and so nobody waits
    // behind them for long.
    void take_waiting() {
        for (int taken = 0; taken < SOMAXCONN; taken++) {
            const Fd connection(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
            if (!connection) return;
            take(connection);
        }
    }

    void take(const Fd& connection) {
        ucred who{};
        socklen_t size = sizeof who;
        if (::getsockopt(connection.get(), SOL_SOCKET, SO_PEERCRED, &who, &size) != 0) return;
        const auto his = std::ranges::count(served_, who.uid, &Served::user);
        if (static_cast<size_t>(his) >= most_of_user || served_.size() >= most_of_all) {
            answer(connection.get(), loan_answer(Verdict::busy, terms_.lends), Fd());
            return;
        }
        const pid_t pid = fork_process();
        if (pid == 0) {
            listener_.reset();
            signals_.reset();
            serve(connection.get(), who, terms_);
            ::_exit(0);
        }
        if (pid > 0) served_.push_back({pid, who.uid});
    }

    Terms terms_;
    Fd listener_, signals_;
    std::vector<Served> served_;
};

Status Counter::run(bool for_ever) {
    sigset_t wanted;
    sigemptyset(&wanted);
    for (const int signal : {SIGTERM, SIGINT, SIGCHLD}) sigaddset(&wanted, signal);
    sigprocmask(SIG_BLOCK, &wanted, nullptr);
    signals_.reset(::signalfd(-1, &wanted, SFD_CLOEXEC));
    if (!signals_) return sys_error("wait for signals");
    for (;;) {
        pollfd both[] = {{signals_.get(), POLLIN, 0}, {listener_.get(), POLLIN, 0}};
        const bool idle = !for_ever && served_.empty();
        if (!await_any_until(both, idle ? monotonic_us() + idle_us : INT64_MAX)) return {};
        signalfd_siginfo signal{};
        if (both[0].revents != 0) {
            if (::read(signals_.get(), &signal, sizeof signal) != sizeof signal)
                return sys_error("read a signal");
            if (signal.ssi_signo != SIGCHLD) return {};
            reap();
        }
        if (both[1].revents != 0) take_waiting();
    }
}

Status run(const Options& options) {
    if (::geteuid() != 0) return make_error(Code::refused, "lend", {}, "only root has to lend");
    auto listener = options.listen.empty() ? handed_over() : listen_at(options.listen);
    if (!listener) return listener.error();
    const Status status = Counter(options.terms, std::move(*listener)).run(!options.listen.empty());
    if (!options.listen.empty()) ::unlink(options.listen.c_str());
    return status;
}

}  // namespace
}  // namespace ghost::lending

int main(int argc, char** argv) {
    const auto options = ghost::lending::read_options(argc, argv);
    if (!options || options->help) {
        std::fputs(ghost::lending::usage, options ? stdout : stderr);
        return options ? 0 : 2;
    }
    const auto status = ghost::lending::run(*options);
    if (status) return 0;
    fmt::print(stderr, "ghostd: {}\n", status.error().message());
    return 1;
}
