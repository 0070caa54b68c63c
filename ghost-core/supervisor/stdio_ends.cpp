// SPDX-License-Identifier: BSD-3-Clause
#include "ghost-core/supervisor/stdio_ends.hpp"

#include <algorithm>
#include <cerrno>
#include <fcntl.h>
#include <fmt/format.h>
#include <map>
#include <pty.h>
#include <sys/socket.h>
#include <thread>
#include <unistd.h>

namespace ghost::core {
namespace {

std::string kind_of(int fd) {
    const auto kind = stdio_end(::getpid(), fd).kind;
    return kind == "file" && ::isatty(fd) == 1 ? "tty" : kind;
}

bool has(const std::vector<int>& numbers, int number) {
    return std::find(numbers.begin(), numbers.end(), number) != numbers.end();
}

// criu calls the socket that takes an external one's place by another name.
std::string heir_key(const StdioEnd& end) {
    return end.kind == "socket" ? "socket:" + end.key.substr(end.key.find('[')) : end.key;
}

}  // namespace

struct StdioEnds::Relay {
    int from = -1, to = -1;
    std::thread thread;

    void run() const {
        char buffer[65536];
        for (;;) {
            const ssize_t got = ::read(from, buffer, sizeof buffer);
            if (got < 0 && errno == EINTR) continue;
            if (got <= 0) return;
            for (ssize_t at = 0; at < got;) {
                const ssize_t put = ::write(to, buffer + at, static_cast<size_t>(got - at));
                if (put < 0 && errno == EINTR) continue;
                if (put < 0) return;
                at += put;
            }
        }
    }
};

Result<StdioEnds> StdioEnds::make(const PlainProcess& process, Relays relays) {
    std::map<std::string, std::pair<StdioEnd, std::vector<int>>> by_key;
    for (auto& [number, end] : outside_stdio(process)) {
        by_key[end.key].first = end;
        by_key[end.key].second.push_back(number);
    }
    StdioEnds out;
    for (const auto& [key, one] : by_key) GHOST_TRY(out.add(one.first, one.second, relays));
    return out;
}

// What `numbers` of the ghost were all one of.
Status StdioEnds::add(const StdioEnd& end, const std::vector<int>& numbers, Relays relays) {
    // Output decides where a terminal or socket is that is both.
    const int number = has(numbers, 1) ? 1 : numbers.front();
    const std::string ours = kind_of(number);
    if (ours == end.kind) {
        heirs_.push_back({number, heir_key(end)});
        return {};
    }
    if ((ours == "null" || ours == "closed") && end.kind == "pipe") {
        given_.emplace_back(::open("/dev/null", O_RDWR | O_CLOEXEC));
        heirs_.push_back({given_.back().get(), heir_key(end)});
        return {};
    }
    if (relays == Relays::refused)
        return make_error(
            Code::refused, "import process", {},
            fmt::format("its descriptor {} was a {}, and is here a {}", number, end.kind, ours));
    return add_relay(end, numbers);
}

Status StdioEnds::add_relay(const StdioEnd& end, const std::vector<int>& numbers) {
    int ends[2] = {-1, -1};  // the tree's, ours
    const bool input_only = numbers.size() == 1 && numbers.front() == 0;
    if (end.kind == "tty") {
        if (::openpty(&ends[1], &ends[0], nullptr, nullptr, nullptr) != 0)
            return sys_error("make a pseudo terminal");
    } else if (end.kind == "socket") {
        if (::socketpair(AF_UNIX, SOCK_STREAM, 0, ends) != 0) return sys_error("make a socket");
    } else {
        int made[2];
        if (::pipe(made) != 0) return sys_error("make a pipe");
        ends[0] = made[input_only ? 0 : 1];
        ends[1] = made[input_only ? 1 : 0];
    }
    for (const int fd : ends) ::fcntl(fd, F_SETFD, FD_CLOEXEC);
    given_.emplace_back(ends[0]);
    kept_.emplace_back(ends[1]);
    heirs_.push_back({ends[0], heir_key(end)});
    if (has(numbers, 0) && kind_of(0) != "closed") relay(0, ends[1]);
    if (!input_only) relay(ends[1], has(numbers, 1) ? 1 : 2);
    return {};
}

void StdioEnds::relay(int from, int to) {
    relays_.push_back(std::make_shared<Relay>());
    relays_.back()->from = from;
    relays_.back()->to = to;
}

void StdioEnds::start() {
    given_.clear();
    for (auto& relay : relays_)
        relay->thread = std::thread([this, relay] {
            relay->run();
            if (relay->from != 0) return;
            // The end of input; a pseudo terminal or a socket goes on in the other direction.
            for (Fd& fd : kept_) {
                if (fd.get() != relay->to) continue;
                if (kind_of(relay->to) == "pipe") fd.reset();
                if (kind_of(relay->to) == "socket") ::shutdown(relay->to, SHUT_WR);
            }
        });
    for (auto& relay : relays_)
        if (relay->from == 0) relay->thread.detach();
}

void StdioEnds::drain() {
    for (auto& relay : relays_)
        if (relay->thread.joinable()) relay->thread.join();
}

}  // namespace ghost::core
