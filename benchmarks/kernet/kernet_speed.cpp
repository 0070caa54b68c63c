// SPDX-License-Identifier: BSD-3-Clause
// One side of a stream, over KerNet, a TCP connection or a Unix socket. kernet-bench and figures
// start two of them and compare.
//
//   kernet_speed ping|pong KIND FOLDER [ADDRESS] [--lower BYTES] [--upper BYTES] [--turns N]
//                [--budget MS]
//   kernet_speed pour|drain KIND FOLDER [ADDRESS] [--seconds S]
//
// KIND is kernet, tcp, tcp-reno (that congestion control) or unix.
//
// pong and drain listen; FOLDER carries what the other side must know. ping and pong do what
// NetPIPE does: `ping` prints one JSON object for each size, the median over some turns of half a
// round trip, in microseconds. `pour` sends without a pause; `drain` prints ten times a second when
// it is (monotonic, microseconds) and the bytes that have come.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <arpa/inet.h>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fmt/format.h>
#include <fstream>
#include <memory>
#include <netinet/tcp.h>
#include <string>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include <vector>

#include "base/clock.hpp"
#include "base/fd.hpp"
#include "kernet-btl/include/kernet.h"

namespace {

using ghost::Fd;

[[noreturn]] void fail(const std::string& what, const std::string& why = std::strerror(errno)) {
    fmt::print(stderr, "kernet_speed: {}: {}\n", what, why);
    std::exit(1);
}

// A file appears whole or not at all.
void put(const std::string& path, const std::string& text) {
    std::ofstream(path + ".new") << text;
    if (std::rename((path + ".new").c_str(), path.c_str()) != 0) fail(path);
}
std::string get(const std::string& path) {
    for (int i = 0; i < 20'000; i++) {
        std::ifstream file(path);
        std::string text;
        if (file >> text) return text;
        usleep(1000);
    }
    fail(path, "nobody has written it");
}

class Way {
  public:
    virtual ~Way() = default;
    virtual void send(const uint8_t* bytes, size_t size) = 0;
    // Exactly so many bytes; of a stream of messages, one message.
    virtual void receive(uint8_t* bytes, size_t size) = 0;
    // What there is, at most so many bytes; 0 at the end.
    virtual size_t receive_some(uint8_t* bytes, size_t size) = 0;
};

class SocketWay final : public Way {
  public:
    explicit SocketWay(Fd fd) : fd_(std::move(fd)) {}
    void send(const uint8_t* bytes, size_t size) override {
        while (size > 0) {
            const ssize_t some = ::send(fd_.get(), bytes, size, MSG_NOSIGNAL);
            if (some <= 0) fail("send");
            bytes += some;
            size -= static_cast<size_t>(some);
        }
    }
    void receive(uint8_t* bytes, size_t size) override {
        while (size > 0) {
            const ssize_t some = ::recv(fd_.get(), bytes, size, 0);
            if (some <= 0) fail("receive");
            bytes += some;
            size -= static_cast<size_t>(some);
        }
    }
    size_t receive_some(uint8_t* bytes, size_t size) override {
        const ssize_t some = ::recv(fd_.get(), bytes, size, 0);
        if (some < 0) fail("receive");
        return static_cast<size_t>(some);
    }

  private:
    Fd fd_;
};

class KernetWay final : public Way {
  public:
    KernetWay(bool calls, const std::string& folder) : node_(kernet_open(nullptr)) {
        if (!node_) fail("open", kernet_error());
        kernet_stream stream = 0;
        if (!calls) {
            check(kernet_create(node_, KERNET_DIRECT, 2, &stream));
            socket_ = kernet_attach(node_, stream, KERNET_BOTH);
            put(folder + "/stream", std::to_string(stream));
        } else {
            stream = std::strtoull(get(folder + "/stream").c_str(), nullptr, 10);
            socket_ = kernet_attach(node_, stream, KERNET_BOTH);
        }
        check(socket_ > 0 ? kernet_wait(node_, socket_, 20'000) : -1);
    }
    ~KernetWay() override {
        kernet_unattach(node_, socket_, 5000);
        kernet_close(node_);
    }
    void send(const uint8_t* bytes, size_t size) override {
        check(kernet_send(node_, socket_, bytes, size, -1));
    }
    void receive(uint8_t* bytes, size_t size) override {
        if (kernet_recv(node_, socket_, bytes, size, -1) != static_cast<ssize_t>(size)) {
            fail("receive", kernet_error());
        }
    }
    size_t receive_some(uint8_t* bytes, size_t size) override {
        const ssize_t some = kernet_recv(node_, socket_, bytes, size, -1);
        if (some < 0 && errno != EPIPE) fail("receive", kernet_error());
        return some < 0 ? 0 : static_cast<size_t>(some);
    }

  private:
    static void check(int result) {
        if (result != 0) fail("kernet", kernet_error());
    }
    kernet_node* node_;
    int socket_ = -1;
};

// congestion: the control algorithm; empty: the system's.
std::unique_ptr<Way> make_tcp(bool calls, const std::string& folder, const std::string& address,
                              const std::string& congestion) {
    sockaddr_in at{};
    at.sin_family = AF_INET;
    Fd fd(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    if (!congestion.empty() && setsockopt(fd.get(), IPPROTO_TCP, TCP_CONGESTION, congestion.data(),
                                          static_cast<socklen_t>(congestion.size())) != 0)
        fail("use " + congestion);
    inet_pton(AF_INET, address.c_str(), &at.sin_addr);
    const int on = 1;
    if (calls) {
        at.sin_port = htons(static_cast<uint16_t>(std::stoi(get(folder + "/port"))));
        if (connect(fd.get(), reinterpret_cast<sockaddr*>(&at), sizeof at) != 0) fail("connect");
    } else {
        socklen_t size = sizeof at;
        if (bind(fd.get(), reinterpret_cast<sockaddr*>(&at), size) != 0 || listen(fd.get(), 1) != 0)
            fail("listen");
        getsockname(fd.get(), reinterpret_cast<sockaddr*>(&at), &size);
        put(folder + "/port", std::to_string(ntohs(at.sin_port)));
        fd.reset(accept4(fd.get(), nullptr, nullptr, SOCK_CLOEXEC));
    }
    setsockopt(fd.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    return std::make_unique<SocketWay>(std::move(fd));
}

std::unique_ptr<Way> make_unix(bool calls, const std::string& folder) {
    sockaddr_un at{};
    at.sun_family = AF_UNIX;
    const std::string path = folder + "/socket";
    std::memcpy(at.sun_path, path.c_str(), std::min(path.size(), sizeof at.sun_path - 1));
    Fd fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    if (calls) {
        get(folder + "/listens");
        if (connect(fd.get(), reinterpret_cast<sockaddr*>(&at), sizeof at) != 0) fail("connect");
    } else {
        if (bind(fd.get(), reinterpret_cast<sockaddr*>(&at), sizeof at) != 0 ||
            listen(fd.get(), 1) != 0)
            fail("listen");
        put(folder + "/listens", "yes");
        fd.reset(accept4(fd.get(), nullptr, nullptr, SOCK_CLOEXEC));
    }
    return std::make_unique<SocketWay>(std::move(fd));
}

constexpr size_t poured_bytes = 64 * 1024;
constexpr int64_t report_us = 100'000;

struct Options {
    std::string role, kind, folder;
    std::string address = "127.0.0.1";
    size_t lower = 1, upper = 4 << 20;
    int turns = 7;
    double budget_ms = 150;  // for all turns of one size
    double seconds = 5;
};

// What ping says before each turn, so that pong need not know how quick the network is.
struct Turn {
    uint64_t size = 0;  // 0: it was the last
    uint64_t count = 0;
};

void say(Way& way, const Turn& turn) {
    way.send(reinterpret_cast<const uint8_t*>(&turn), sizeof turn);
}

// Half a round trip, microseconds.
double round_trips(Way& way, const Turn& turn, std::vector<uint8_t>& bytes) {
    say(way, turn);
    const int64_t began = ghost::monotonic_us();
    for (uint64_t i = 0; i < turn.count; i++) {
        bytes[0] = bytes[turn.size - 1] = static_cast<uint8_t>(i);
        way.send(bytes.data(), turn.size);
        way.receive(bytes.data(), turn.size);
        if (bytes[0] != static_cast<uint8_t>(i) ||
            bytes[turn.size - 1] != static_cast<uint8_t>(i)) {
            fail("compare", "other bytes came back");
        }
    }
    return static_cast<double>(ghost::monotonic_us() - began) /
           (2.0 * static_cast<double>(turn.count));
}

void ping(Way& way, const Options& options) {
    std::vector<uint8_t> bytes(options.upper);
    for (size_t size = options.lower; size <= options.upper; size *= 2) {
        // the clock counts microseconds, and a guess made while others had the processor is large
        const double least = size <= 4096 ? 20 : 1;
        const double guess = std::max(
            std::min(round_trips(way, {size, 2}, bytes), round_trips(way, {size, 2}, bytes)), 0.1);
        const double fit = options.budget_ms * 1000 / options.turns / (2 * guess);
        const auto count = static_cast<uint64_t>(std::clamp(fit, least, 1500.0));
        std::vector<double> times;
        for (int turn = 0; turn < options.turns; turn++)
            times.push_back(round_trips(way, {size, count}, bytes));
        std::sort(times.begin(), times.end());
        fmt::print("{{\"size\": {}, \"us\": {:.3f}}}\n", size, times[times.size() / 2]);
        std::fflush(stdout);
    }
    say(way, {});
}

void pong(Way& way) {
    std::vector<uint8_t> bytes;
    for (Turn turn;;) {
        way.receive(reinterpret_cast<uint8_t*>(&turn), sizeof turn);
        if (turn.size == 0) return;
        bytes.resize(std::max<size_t>(bytes.size(), turn.size));
        for (uint64_t i = 0; i < turn.count; i++) {
            way.receive(bytes.data(), turn.size);
            way.send(bytes.data(), turn.size);
        }
    }
}

void pour(Way& way, const Options& options) {
    const std::vector<uint8_t> bytes(poured_bytes, 1);
    const int64_t end = ghost::monotonic_us() + static_cast<int64_t>(options.seconds * 1e6);
    while (ghost::monotonic_us() < end) way.send(bytes.data(), bytes.size());
}

void drain(Way& way) {
    std::vector<uint8_t> bytes(poured_bytes);
    uint64_t come = 0;
    int64_t due = 0;
    while (const size_t some = way.receive_some(bytes.data(), bytes.size())) {
        come += some;
        const int64_t now = ghost::monotonic_us();
        if (now < due) continue;
        due = now + report_us;
        fmt::print("{{\"at_us\": {}, \"bytes\": {}}}\n", now, come);
        std::fflush(stdout);
    }
}

std::unique_ptr<Way> make_way(const Options& options) {
    const bool calls = options.role == "ping" || options.role == "pour";
    if (options.kind == "kernet") return std::make_unique<KernetWay>(calls, options.folder);
    if (options.kind == "tcp") return make_tcp(calls, options.folder, options.address, "");
    if (options.kind == "tcp-reno") return make_tcp(calls, options.folder, options.address, "reno");
    return make_unix(calls, options.folder);
}

}  // namespace

int main(int argc, char** argv) {
    Options options;
    CLI::App app("One side of a stream over KerNet, TCP or a Unix socket");
    app.add_option("role", options.role, "ping, pong, pour or drain")
        ->required()
        ->check(CLI::IsMember({"ping", "pong", "pour", "drain"}));
    app.add_option("kind", options.kind, "kernet, tcp, tcp-reno or unix")
        ->required()
        ->check(CLI::IsMember({"kernet", "tcp", "tcp-reno", "unix"}));
    app.add_option("folder", options.folder, "where the two sides meet")->required();
    app.add_option("address", options.address, "IPv4 address of the side that listens");
    app.add_option("--lower", options.lower, "smallest message of ping, bytes")
        ->check(CLI::PositiveNumber);
    app.add_option("--upper", options.upper, "largest message of ping, bytes");
    app.add_option("--turns", options.turns, "turns of ping for each size")
        ->check(CLI::PositiveNumber);
    app.add_option("--budget", options.budget_ms, "milliseconds of ping for each size, about");
    app.add_option("--seconds", options.seconds, "how long to pour");
    CLI11_PARSE(app, argc, argv);
    const auto way = make_way(options);
    if (options.role == "ping") ping(*way, options);
    if (options.role == "pong") pong(*way);
    if (options.role == "pour") pour(*way, options);
    if (options.role == "drain") drain(*way);
    return 0;
}
