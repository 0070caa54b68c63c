// SPDX-License-Identifier: BSD-3-Clause
// What it costs that a move's stream is sealed: the same process goes from one thread of this
// program to another over loopback, by turns through a plain connection and through
// NetworkResource; and the same bytes without a process. Medians and ratios.
//
//   sealed_move [MEGABYTES=512] [TURNS=5] [CRIU=criu/sbin/criu]
//
// Run as root. Both ends share this machine's processors; between two nodes each has its own.
#include <algorithm>
#include <climits>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <map>
#include <sys/socket.h>
#include <thread>
#include <unistd.h>

#include "base/clock.hpp"
#include "base/log.hpp"
#include "benchmarks/micro/subject.hpp"
#include "ghost-core/engine/migration.hpp"
#include "ghost-core/resource/network.hpp"

namespace ghost::bench {
namespace {

using namespace ghost::core;

// A connection as it was before streams were sealed: bytes as they are.
class PlainConnection : public Resource {
  public:
    explicit PlainConnection(int fd) : fd_(fd) {}
    ResourceClass class_id() const override { return ResourceClass::network; }
    Status init() override { return {}; }
    Status write(const void* data, size_t size) override {
        iovec piece{const_cast<void*>(data), size};
        return write_gather(&piece, 1);
    }
    Status write_gather(iovec* pieces, size_t count) override {
        while (count > 0) {
            msghdr message{};
            message.msg_iov = pieces;
            message.msg_iovlen = std::min<size_t>(count, IOV_MAX);
            const ssize_t done = sendmsg(fd_, &message, MSG_NOSIGNAL);
            if (done < 0) return sys_error("send");
            for (auto left = static_cast<size_t>(done); count > 0; pieces++, count--) {
                const size_t part = std::min(left, pieces->iov_len);
                left -= part;
                pieces->iov_base = static_cast<char*>(pieces->iov_base) + part;
                pieces->iov_len -= part;
                if (pieces->iov_len > 0) break;
            }
        }
        return {};
    }
    Result<size_t> read(void* data, size_t size) override {
        const ssize_t got = recv(fd_, data, size, 0);
        if (got < 0) return sys_error("receive");
        return static_cast<size_t>(got);
    }
    Status finalize() override {
        shutdown(fd_, SHUT_WR);
        return {};
    }

  private:
    int fd_;
};

struct Pair {
    std::unique_ptr<NetworkResource> source, target;
    Pair() {
        auto listener = NetworkListener::listen("secret");
        if (!listener) std::abort();
        std::thread connects([&] {
            auto made = NetworkResource::connect("127.0.0.1", listener->port(), listener->token(),
                                                 "secret");
            if (made) source = std::move(*made);
        });
        auto came = listener->accept(5000);
        connects.join();
        if (came) target = std::move(*came);
        if (!source || !target) std::abort();
    }
};

// Runs `act` over a new connection, sealed or, with the same socket options, not.
template <typename Act>
void over_connection(bool sealed, Act act) {
    Pair pair;
    PlainConnection out(pair.source->fd()), in(pair.target->fd());
    if (sealed)
        act(*pair.source, *pair.target);
    else
        act(out, in);
}

double bytes_alone(bool sealed, size_t bytes) {
    double ms = 0;
    over_connection(sealed, [&](Resource& out, Resource& in) {
        constexpr size_t piece = 1 << 20;
        std::vector<char> from(piece, 'x'), to(piece);
        const int64_t begin = monotonic_us();
        std::thread writer([&] {
            for (size_t at = 0; at < bytes; at += piece) (void)out.write(from.data(), piece).ok();
            (void)out.finalize().ok();
        });
        for (;;) {
            auto got = in.read(to.data(), piece);
            if (!got || *got == 0) break;
        }
        writer.join();
        ms = static_cast<double>(monotonic_us() - begin) / 1000;
    });
    return ms;
}

struct Folders {
    std::string base = "/dev/shm/ghost-sealed-move." + std::to_string(getpid());
    std::string source = base + "/s", target = base + "/t";
    Folders() {
        std::filesystem::create_directories(source);
        std::filesystem::create_directories(target);
    }
    ~Folders() { std::filesystem::remove_all(base); }
};

// From the begin of the freeze until the other one is held, ms; 0: it failed.
double move(bool sealed, pid_t root, const Folders& folders, const std::string& criu) {
    double ms = 0;
    over_connection(sealed, [&](Resource& out, Resource& in) {
        const int64_t begin = monotonic_us();
        std::thread exporter([&] {
            ExportRequest request;
            request.root = root;
            request.criu = {criu, folders.source, 60};
            auto sent = export_tree(request, out);
            if (!sent) std::fprintf(stderr, "%s\n", sent.error().message().c_str());
        });
        auto importer = Importer::open(in);
        Result<HeldTree> held = make_error(Code::internal, "not run");
        if (importer)
            held = importer->hold({criu, folders.target, 60}, {});
        else
            held = importer.error();
        ms = static_cast<double>(monotonic_us() - begin) / 1000;
        exporter.join();
        if (held) {
            destroy_tree(*held);
        } else {
            std::fprintf(stderr, "%s\n", held.error().message().c_str());
            ms = 0;
        }
        (void)resume_tree(root).ok();
    });
    return ms;
}

double median(std::vector<double> all) {
    std::sort(all.begin(), all.end());
    return all[all.size() / 2];
}

void compare(const char* what, size_t bytes, int turns, const std::function<double(bool)>& run) {
    std::map<bool, std::vector<double>> ms;
    (void)run(false), (void)run(true);  // warm
    for (int i = 0; i < turns; i++)
        for (const bool sealed : {false, true}) ms[sealed].push_back(run(sealed));
    const double plain = median(ms[false]), sealed = median(ms[true]);
    const auto rate = [&](double t) { return static_cast<double>(bytes) / 1e6 / t; };
    std::printf("%-16s plain %7.1f ms (%.2f GB/s)  sealed %7.1f ms (%.2f GB/s)  ratio %.2f\n", what,
                plain, rate(plain), sealed, rate(sealed), sealed / plain);
}

int main_of(int argc, char** argv) {
    const size_t megabytes = argc > 1 ? std::strtoul(argv[1], nullptr, 10) : 512;
    const int turns = argc > 2 ? std::atoi(argv[2]) : 5;
    const std::string criu = std::filesystem::absolute(argc > 3 ? argv[3] : "criu/sbin/criu");
    compare("bytes alone", megabytes << 20, turns,
            [&](bool sealed) { return bytes_alone(sealed, megabytes << 20); });
    Subject subject({megabytes, 0, false});
    if (!subject.ready()) return 1;
    const Folders folders;
    compare("stop-and-copy", megabytes << 20, turns,
            [&](bool sealed) { return move(sealed, subject.pid(), folders, criu); });
    return 0;
}

}  // namespace
}  // namespace ghost::bench

int main(int argc, char** argv) {
    ghost::bench::be_subject_if_asked(argc, argv);
    ghost::log::setup("sealed_move", ghost::log::level_from_environment());
    return ghost::bench::main_of(argc, argv);
}
