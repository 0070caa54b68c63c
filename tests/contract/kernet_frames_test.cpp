// SPDX-License-Identifier: BSD-3-Clause
// Packet sockets and their rings: what comes while nobody looks, and what becomes of a socket that
// is closed late. On the loopback interface.
#include <gtest/gtest.h>

#include <arpa/inet.h>
#include <cstring>
#include <dirent.h>
#include <fstream>
#include <net/if.h>
#include <netpacket/packet.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include "base/clock.hpp"
#include "kernet-btl/link/frame_ring.hpp"
#include "kernet-btl/link/net.hpp"
#include "kernet-btl/link/netdevice.hpp"

namespace {

using ghost::Fd;
using kernet::FrameRing;
using kernet::PacketView;

constexpr uint16_t type = 0x88b6;  // the other one for experiments: no link of ours has it
constexpr int64_t limit_us = 10'000'000;

Fd packet_socket() {
    return Fd(socket(AF_PACKET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
}

sockaddr_ll loopback() {
    sockaddr_ll out{};
    out.sll_family = AF_PACKET;
    out.sll_protocol = htons(type);
    out.sll_ifindex = static_cast<int>(if_nametoindex("lo"));
    out.sll_halen = 6;
    return out;
}

class KernetFrames : public testing::Test {
  protected:
    void SetUp() override {
        if (const auto usable = kernet::netdevice_usable(); !usable)
            GTEST_SKIP() << usable.error().message();
        in = packet_socket();
        out = packet_socket();
        auto made = FrameRing::make(in, 1000, 0);
        ASSERT_TRUE(made.ok()) << made.error().message();
        ring = std::move(*made);
        const sockaddr_ll at = loopback();
        ASSERT_EQ(bind(in.get(), reinterpret_cast<const sockaddr*>(&at), sizeof at), 0);
    }
    void send(uint32_t number, size_t size) {
        std::vector<uint8_t> bytes(size, static_cast<uint8_t>(number));
        std::memcpy(bytes.data(), &number, sizeof number);
        const sockaddr_ll to = loopback();
        ASSERT_EQ(sendto(out.get(), bytes.data(), size, 0, reinterpret_cast<const sockaddr*>(&to),
                         sizeof to),
                  static_cast<ssize_t>(size));
    }
    // The frame of that number, whole.
    void expect_next(uint32_t number, size_t size) {
        PacketView frame;
        const int64_t end = ghost::monotonic_us() + limit_us;
        while (ring->take(&frame, 1) == 0 && ghost::monotonic_us() < end) continue;
        ASSERT_EQ(frame.size, size) << number;
        uint32_t got;
        std::memcpy(&got, frame.data, sizeof got);
        EXPECT_EQ(got, number);
        EXPECT_EQ(frame.data[size - 1], static_cast<uint8_t>(number));
    }
    Fd in, out;
    std::unique_ptr<FrameRing> ring;
};

TEST_F(KernetFrames, FramesStayInOrderAroundRing) {
    for (uint32_t number = 0; number < 5 * ring->slots(); number++) {
        const size_t size = 8 + number % 993;
        send(number, size);
        ASSERT_NO_FATAL_FAILURE(expect_next(number, size));
    }
}

TEST_F(KernetFrames, FrameWithoutSlotIsLostAlone) {
    const auto slots = static_cast<uint32_t>(ring->slots());
    EXPECT_GE(slots, FrameRing::least_slots);
    EXPECT_LE(slots, 128U);
    for (uint32_t number = 0; number < slots + 50; number++) send(number, 100);
    for (uint32_t number = 0; number < slots; number++) {
        ASSERT_NO_FATAL_FAILURE(expect_next(number, 100));
    }
    PacketView frame;
    EXPECT_EQ(ring->take(&frame, 1), 0);
    send(1'000'000, 100);
    expect_next(1'000'000, 100);
}

// What is handed out stays as it is, however much comes meanwhile.
TEST_F(KernetFrames, FramesStayValidUntilNextPoll) {
    const auto slots = static_cast<uint32_t>(ring->slots());
    for (uint32_t number = 0; number < 10; number++) send(number, 100);
    std::vector<PacketView> frames(slots);
    int count = 0;
    const int64_t end = ghost::monotonic_us() + limit_us;
    pollfd readable{in.get(), POLLIN, 0};
    EXPECT_EQ(poll(&readable, 1, 10'000), 1);
    while (ghost::monotonic_us() < end && (count = ring->take(frames.data(), 10)) == 0) continue;
    ASSERT_EQ(count, 10);
    for (uint32_t number = 10; number < 2 * slots; number++) send(number, 100);
    for (int i = 0; i < count; i++) {
        uint32_t got;
        std::memcpy(&got, frames[static_cast<size_t>(i)].data, sizeof got);
        EXPECT_EQ(got, static_cast<uint32_t>(i));
    }
    for (uint32_t number = 10; number < slots; number++) {
        ASSERT_NO_FATAL_FAILURE(expect_next(number, 100));
    }
    while (ring->take(frames.data(), 64) > 0) continue;
    EXPECT_EQ(poll(&readable, 1, 0), 0) << "nothing is left";
}

// One that is too long for a slot is none of ours.
TEST_F(KernetFrames, TruncatedFrameIsDropped) {
    send(1, 1400);
    send(2, 1000);
    expect_next(2, 1000);
}

int descriptors() {
    int count = 0;
    DIR* dir = opendir("/proc/self/fd");
    while (dir && readdir(dir)) count++;
    if (dir) closedir(dir);
    return count;
}

bool listed(const std::string& inode) {
    std::ifstream list("/proc/net/packet");
    for (std::string line; std::getline(list, line);) {
        if (line.size() > inode.size() && line.ends_with(" " + inode)) return true;
        const size_t end = line.find_last_not_of(' ');
        if (end != line.npos && line.substr(0, end + 1).ends_with(" " + inode)) return true;
    }
    return false;
}

TEST_F(KernetFrames, DeferredCloseEndsSocket) {
    char link[64] = {};
    ASSERT_GT(readlink(("/proc/self/fd/" + std::to_string(in.get())).c_str(), link, 63), 8);
    std::string inode(link + 8);  // socket:[N]
    inode.pop_back();
    // (the list may pass over one while others that were closed late go)
    int64_t end = ghost::monotonic_us() + limit_us;
    while (!listed(inode) && ghost::monotonic_us() < end) continue;
    ASSERT_TRUE(listed(inode));
    ring.reset();
    const int before = descriptors();
    kernet::net::close_later(std::move(in));
    EXPECT_EQ(descriptors(), before - 1);
    end = ghost::monotonic_us() + limit_us;
    while (listed(inode) && ghost::monotonic_us() < end) continue;
    EXPECT_FALSE(listed(inode));
}

// Who waits for the system's other processors gives up its own: once for each socket that it has
// to end itself.
TEST_F(KernetFrames, DeferredCloseDoesNotBlock) {
    if (!kernet::net::closes_later()) GTEST_SKIP() << "Linux 6.9 is needed";
    constexpr int sockets = 60;
    int waited = 0;
    for (int i = 0; i < sockets; i++) {
        Fd one = packet_socket();
        ASSERT_TRUE(one);
        rusage before{}, after{};
        getrusage(RUSAGE_THREAD, &before);
        kernet::net::close_later(std::move(one));
        getrusage(RUSAGE_THREAD, &after);
        waited += after.ru_nvcsw > before.ru_nvcsw;
    }
    EXPECT_LE(waited, 2);
}

}  // namespace
