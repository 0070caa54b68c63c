// One side of a ping-pong, as NetPIPE has it: over a KerNet stream, a TCP connection or a Unix
// socket. kernet-bench starts two of them and compares.
//
//   kernet_speed ping|pong kernet|tcp|unix FOLDER [ADDRESS]
//
// The side that listens is `pong`; FOLDER carries what the other one must know. `ping` prints one
// JSON object for each size: the median over some turns of half a round trip, in microseconds.
#include <algorithm>
#include <arpa/inet.h>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fmt/format.h>
#include <fstream>
#include <functional>
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
    virtual void receive(uint8_t* bytes, size_t size) = 0;
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

  private:
    Fd fd_;
};

class KernetWay final : public Way {
  public:
    KernetWay(bool ping, const std::string& folder) : node_(kernet_open(nullptr)) {
        if (!node_) fail("open", kernet_error());
        kernet_stream stream = 0;
        if (!ping) {
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

  private:
    static void check(int result) {
        if (result != 0) fail("kernet", kernet_error());
    }
    kernet_node* node_;
    int socket_ = -1;
};

std::unique_ptr<Way> make_tcp(bool ping, const std::string& folder, const std::string& address) {
    sockaddr_in at{};
    at.sin_family = AF_INET;
    Fd fd(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    inet_pton(AF_INET, address.c_str(), &at.sin_addr);
    const int on = 1;
    if (ping) {
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

std::unique_ptr<Way> make_unix(bool ping, const std::string& folder) {
    sockaddr_un at{};
    at.sun_family = AF_UNIX;
    const std::string path = folder + "/socket";
    std::memcpy(at.sun_path, path.c_str(), std::min(path.size(), sizeof at.sun_path - 1));
    Fd fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    if (ping) {
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

const std::vector<size_t> sizes{1, 8, 64, 256, 1024, 4096, 16384, 65536, 262144, 1048576, 4194304};
constexpr int turns = 7;

int repetitions(size_t size) {
    return static_cast<int>(std::clamp<size_t>(20'000'000 / (size + 10'000), 5, 1500));
}

void ping(Way& way, size_t size, std::vector<uint8_t>& bytes) {
    std::vector<double> times;
    for (int turn = 0; turn < turns; turn++) {
        const int count = repetitions(size);
        const int64_t began = ghost::monotonic_us();
        for (int i = 0; i < count; i++) {
            bytes[0] = bytes[size - 1] = static_cast<uint8_t>(i);
            way.send(bytes.data(), size);
            way.receive(bytes.data(), size);
            if (bytes[0] != static_cast<uint8_t>(i) || bytes[size - 1] != static_cast<uint8_t>(i)) {
                fail("compare", "other bytes came back");
            }
        }
        times.push_back(static_cast<double>(ghost::monotonic_us() - began) / (2.0 * count));
    }
    std::sort(times.begin(), times.end());
    fmt::print("{{\"size\": {}, \"us\": {:.3f}}}\n", size, times[times.size() / 2]);
    std::fflush(stdout);
}

}  // namespace

int main(int argc, char** argv) {
    if (argc < 4) {
        fmt::print(stderr, "usage: kernet_speed ping|pong kernet|tcp|unix FOLDER [ADDRESS]\n");
        return 2;
    }
    const bool first = std::string(argv[1]) == "ping";
    const std::string kind = argv[2], folder = argv[3];
    std::unique_ptr<Way> way;
    if (kind == "kernet") way = std::make_unique<KernetWay>(first, folder);
    if (kind == "tcp") way = make_tcp(first, folder, argc > 4 ? argv[4] : "127.0.0.1");
    if (kind == "unix") way = make_unix(first, folder);
    if (!way) fail(kind, "no such way");
    std::vector<uint8_t> bytes(sizes.back());
    for (size_t size : sizes) {
        if (first) {
            ping(*way, size, bytes);
            continue;
        }
        for (int i = 0; i < turns * repetitions(size); i++) {
            way->receive(bytes.data(), size);
            way->send(bytes.data(), size);
        }
    }
    return 0;
}
