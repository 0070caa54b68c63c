// SPDX-License-Identifier: BSD-3-Clause
#include "tests/contract/kernet_ends.hpp"

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <dirent.h>
#include <fcntl.h>
#include <fstream>
#include <sys/socket.h>

#include "kernet-btl/filter/list.hpp"
#include "kernet-btl/link/table.hpp"
#include "base/fd.hpp"
#include "tests/rounds.hpp"

#ifdef __SANITIZE_ADDRESS__
// libfabric 1.17 forgets connections it had accepted and that broke before they were complete, 400
// bytes each. LeakSanitizer asks for this function by name.
extern "C" __attribute__((visibility("default"))) const char* __lsan_default_suppressions() {
    return "leak:libfabric.so\n";
}
#endif

namespace kernet_test {

uint64_t mix(uint64_t x) {
    x += 0x9e3779b97f4a7c15;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9;
    x = (x ^ x >> 27) * 0x94d049bb133111eb;
    return x ^ x >> 31;
}

namespace {

// Sizes from 0 to 1 MB, mostly small, so that many messages are affordable.
size_t size_of(uint32_t rank, uint64_t index) {
    const uint64_t r = mix(rank * 1'000'000'007 + index);
    const uint64_t pick = r % 1000;
    if (pick < 900) return (r >> 16) % 400;
    if (pick < 990) return (r >> 16) % 40'000;
    return (r >> 16) % (1024 * 1024 + 1);
}

}  // namespace

int times_slower() {
    const char* text = std::getenv("GHOST_TEST_SLOWER");
    return std::max(1, text ? atoi(text) : 1);
}

int64_t message_count(int64_t usual) {
    if (const auto asked = ghost::test::rounds("GHOST_TEST_MESSAGES", 0, 1'000'000)) return asked;
    if (times_slower() > 1)
        printf("%jd messages instead of %jd in this slower run\n",
               static_cast<intmax_t>(usual / times_slower()), static_cast<intmax_t>(usual));
    return usual / times_slower();
}

void fill(Stream::Message& message, uint32_t rank, uint64_t index) {
    message.resize(size_of(rank, index));
    for (size_t at = 0; at < message.size(); at += 8) {
        const uint64_t word = (index << 1 | rank) * 0x9e3779b97f4a7c15 + at;
        std::memcpy(message.data() + at, &word, std::min<size_t>(8, message.size() - at));
    }
}

EndpointConfig config_of(uint32_t rank, const std::string& job, bool shm, bool tcp,
                         const std::string& filters) {
    EndpointConfig config;
    config.filters = filters;
    config.job = job;
    config.rank = rank;
    config.secret_hex = std::string(64, 'a');
    config.node = 0;
    config.node_name = "n0";
    config.if_include = "lo";
    config.use_shm = shm;
    config.use_tcp = tcp;
    config.ring_bytes = 512 * 1024;
    config.ring_frames = 64;
    return config;
}

kernet::wire::Hello hello_of(const EndpointConfig& from) {
    using namespace kernet::wire;
    Hello hello;
    hello.from = from.rank;
    hello.to = 0;
    hello.epoch = from.epoch;
    hello.generation = 1'000'000;  // whatever one's own attempts have come to
    hello.nonce = random_nonce();
    if (auto filters = kernet::filter::List::parse(from.filters); filters.ok())
        hello.filters = filters->digest();
    const auto key = HandshakeKey::make(from.secret_hex, from.job, from.life);
    EXPECT_TRUE(key.ok());
    if (key.ok()) seal(hello, *key);
    return hello;
}

namespace {

constexpr bool keeps_freed =
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    true;
#else
    false;
#endif

// Of /proc/self/status, in bytes; 0 if it is not there.
size_t status_of_memory(const std::string& name) {
    std::ifstream in("/proc/self/status");
    for (std::string line; std::getline(in, line);)
        if (line.starts_with(name + ":")) return 1024 * std::stoul(line.substr(name.size() + 1));
    return 0;
}

}  // namespace

MemoryPeak::MemoryPeak() {
    // the peak begins anew
    if (!keeps_freed && (std::ofstream("/proc/self/clear_refs") << 5 << std::flush))
        before_ = status_of_memory("VmRSS");
}

size_t MemoryPeak::grown() const {
    if (before_ == 0) return 0;
    return std::max(before_, status_of_memory("VmHWM")) - before_;
}

bool Exchange::goes_on() {
    if ((a_.done() && b_.done()) || a_.wrong() || b_.wrong()) return false;
    const int64_t received = a_.received() + b_.received(), now = ghost::monotonic_us();
    if (std::exchange(received_, received) != received) since_ = now;
    return now - since_ < limit_us;
}

void until_both_have_all(Side& a, Side& b) {
    const Location at_a = a.location(), at_b = b.location();
    a.begin(at_b);
    b.begin(at_a);
    for (Exchange exchange(a, b); exchange.goes_on();) usleep(1000);
}

void cut_links(std::mt19937& random) {
    DIR* dir = opendir("/proc/self/fd");
    if (!dir) return;
    while (dirent* entry = readdir(dir)) {
        const int number = atoi(entry->d_name);
        if (number < 3 || number == dirfd(dir)) continue;
        // The number may be given to another socket at any time: what is looked at is what is cut.
        const ghost::Fd fd(fcntl(number, F_DUPFD_CLOEXEC, copies_from));
        sockaddr_storage peer;
        socklen_t size = sizeof peer;
        if (getpeername(fd.get(), reinterpret_cast<sockaddr*>(&peer), &size) != 0) continue;
        // Pairs of sockets (libfabric wakes itself by one) are of no network.
        if (peer.ss_family == AF_UNIX && size == sizeof peer.ss_family) {
            size = sizeof peer;
            getsockname(fd.get(), reinterpret_cast<sockaddr*>(&peer), &size);
            if (size == sizeof peer.ss_family) continue;
        }
        if (random() % 2) shutdown(fd.get(), SHUT_RDWR);
    }
    closedir(dir);
}

int rarer(const std::string& links) {
    const auto wish = kernet::parse_links(links);
    return wish && !wish->measured && wish->lines.front()->slow_to_make ? 8 : 1;
}

int held() {
    int count = 0;
    if (DIR* dir = opendir("/proc/self/fd")) {
        while (readdir(dir)) count++;
        closedir(dir);
    }
    FILE* maps = fopen("/proc/self/maps", "r");
    char line[512];
    while (maps && fgets(line, sizeof line, maps)) {
        // (the second is a packet socket's ring)
        if (strstr(line, "memfd:kernet") || strstr(line, "socket:[")) count += 1000;
    }
    if (maps) fclose(maps);
    return count;
}

}  // namespace kernet_test
