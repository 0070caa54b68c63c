// SPDX-License-Identifier: BSD-3-Clause
// What comes from outside is judged before it is believed: frames, handshakes, locations, rings.
#include <gtest/gtest.h>

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <random>
#include <stdexcept>
#include <sys/mman.h>
#include <sys/socket.h>
#include <tuple>

#include "base/clock.hpp"
#include "base/doorway.hpp"
#include "kernet-btl/transport/location.hpp"
#include "kernet-btl/link/net.hpp"
#include "kernet-btl/link/ring.hpp"
#include "kernet-btl/wire/frame.hpp"
#include "kernet-btl/wire/handshake.hpp"

namespace {

using namespace kernet;
using ghost::Fd;

wire::FrameHeader good() {
    wire::FrameHeader header;
    header.seq = 5;
    header.length = 100;
    header.epoch = 3;
    header.ack = 2;
    return header;
}

const wire::FrameLimits limits{3, 4, 2};

TEST(KernetFrame, GoodAndRepeatedFramesPass) {
    auto header = good();
    EXPECT_EQ(wire::check(header, limits), nullptr);
    header.seq = 1;
    EXPECT_EQ(wire::check(header, limits), nullptr);
    header.head = wire::max_pad;
    EXPECT_EQ(wire::check(header, limits), nullptr);
    header.type = wire::FrameType::bulk;
    header.head = 8;
    EXPECT_EQ(wire::check(header, limits), nullptr);
}

TEST(KernetFrame, MalformedFramesAreRefused) {
    const std::vector<void (*)(wire::FrameHeader&)> spoil = {
        [](auto& h) { h.magic++; },
        [](auto& h) { h.version++; },
        [](auto& h) { h.epoch++; },
        [](auto& h) { h.reserved = 1; },
        [](auto& h) { h.seq = 0; },
        [](auto& h) { h.seq = 6; },
        [](auto& h) { h.ack = 3; },
        [](auto& h) { h.length = wire::max_message + 1; },
        [](auto& h) { h.head = wire::max_pad + 1; },
        [](auto& h) {
            h.length = 10;
            h.head = 11;
        },
        [](auto& h) { h.type = static_cast<wire::FrameType>(9); },
        [](auto& h) { h.type = wire::FrameType::ack; },
        [](auto& h) {
            h.type = wire::FrameType::bulk;
            h.head = 101;
        },
        [](auto& h) {
            h.type = wire::FrameType::bulk;
            h.length = UINT64_MAX;
        },
    };
    for (size_t i = 0; i < spoil.size(); i++) {
        auto header = good();
        spoil[i](header);
        EXPECT_NE(wire::check(header, limits), nullptr) << i;
    }
}

TEST(KernetHandshake, AnyChangedByteIsRefused) {
    auto key = wire::HandshakeKey::make(std::string(64, '1'), "7");
    ASSERT_TRUE(key.ok());
    wire::Hello hello;
    hello.from = 1;
    hello.nonce = wire::random_nonce();
    wire::seal(hello, *key);
    EXPECT_EQ(wire::check(hello, *key), nullptr);
    for (size_t i = 0; i < sizeof hello; i++) {
        wire::Hello other = hello;
        reinterpret_cast<uint8_t*>(&other)[i] ^= 1;
        EXPECT_NE(wire::check(other, *key), nullptr) << i;
    }
    auto other_job = wire::HandshakeKey::make(std::string(64, '1'), "8");
    EXPECT_NE(wire::check(hello, *other_job), nullptr);
    EXPECT_FALSE(wire::HandshakeKey::make("12", "7").ok());
}

TEST(KernetHandshake, AnswerToAnotherChallengeIsRefused) {
    auto key = wire::HandshakeKey::make(std::string(64, '1'), "7");
    wire::Hello hello, other;
    hello.from = other.from = 1;
    hello.nonce = wire::random_nonce();
    other.nonce = wire::random_nonce();
    wire::seal(hello, *key);
    wire::seal(other, *key);
    wire::Welcome welcome;
    wire::seal(welcome, hello, *key);
    EXPECT_EQ(wire::check(welcome, hello, *key), nullptr);
    EXPECT_NE(wire::check(welcome, other, *key), nullptr);
    wire::Confirm confirm;
    wire::seal(confirm, hello, welcome, *key);
    EXPECT_EQ(wire::check(confirm, hello, welcome, *key), nullptr);
    EXPECT_NE(wire::check(confirm, other, welcome, *key), nullptr);
}

TEST(KernetLocation, LocationSurvivesJsonAndRefusesMalformed) {
    Location location{2, 7, 1, "gn1", true, {{"10.0.0.1", 4711}}, "@ghost/0/1/r2.7"};
    auto again = location_from_json(to_json(location));
    ASSERT_TRUE(again.ok());
    EXPECT_EQ(*again, location);
    for (const char* field : {"rank", "epoch", "node", "node_name", "attached", "tcp", "unix"}) {
        auto json = to_json(location);
        json.erase(field);
        EXPECT_FALSE(location_from_json(json).ok()) << field;
        json[field] = nlohmann::json::object({{"x", 1}});
        EXPECT_FALSE(location_from_json(json).ok()) << field;
    }
    auto json = to_json(location);
    json["tcp"][0]["port"] = 65536;
    EXPECT_FALSE(location_from_json(json).ok());
    json = to_json(location);
    json["rank"] = -1;
    EXPECT_FALSE(location_from_json(json).ok());
}

std::string congestion_of(const Fd& fd) {
    char name[16] = "";
    socklen_t size = sizeof name;
    getsockopt(fd.get(), IPPROTO_TCP, TCP_CONGESTION, name, &size);
    return name;
}

// Set on a connection, it leaves the system's own (BBR) pacing every message by a timer.
TEST(KernetNet, CongestionControlIsSetBeforeConnect) {
    auto listener = net::listen_tcp({"nonsense,reno"});
    ASSERT_TRUE(listener.ok());
    EXPECT_EQ(congestion_of(listener->fds[0]), "reno");
    auto calling = net::connect_tcp("127.0.0.1", listener->port, {"reno"});
    ASSERT_TRUE(calling.ok());
    EXPECT_EQ(congestion_of(*calling), "reno");
    pollfd made{calling->get(), POLLOUT, 0}, waiting{listener->fds[0].get(), POLLIN, 0};
    ASSERT_EQ(::poll(&made, 1, 5000), 1);
    ASSERT_EQ(send(calling->get(), "x", 1, MSG_NOSIGNAL), 1);
    ASSERT_EQ(::poll(&waiting, 1, 5000), 1);
    const auto came = ghost::Doorway().accept(listener->fds[0].get(), ghost::monotonic_us());
    ASSERT_TRUE(came);
    const Fd& called = came->fd;
    EXPECT_EQ(congestion_of(called), "reno");
    int on = 0;
    socklen_t size = sizeof on;
    ASSERT_EQ(getsockopt(called.get(), IPPROTO_TCP, TCP_NODELAY, &on, &size), 0);
    EXPECT_EQ(on, 1);
}

// Segments of 500 bytes, and a receiver whose buffer fills up so that its window does not move.
struct UnreadConnection {
    UnreadConnection() {
        const int segment = 500, buffer = 8 << 10;
        listener.reset(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
        sender.reset(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
        for (const Fd* fd : {&listener, &sender}) {
            setsockopt(fd->get(), IPPROTO_TCP, TCP_MAXSEG, &segment, sizeof segment);
            setsockopt(fd->get(), SOL_SOCKET, SO_RCVBUF, &buffer, sizeof buffer);
        }
        sockaddr_in where{};
        where.sin_family = AF_INET;
        where.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        socklen_t size = sizeof where;
        auto* const any = reinterpret_cast<sockaddr*>(&where);
        if (bind(listener.get(), any, size) != 0 || listen(listener.get(), 1) != 0 ||
            getsockname(listener.get(), any, &size) != 0 || connect(sender.get(), any, size) != 0)
            return;
        receiver.reset(accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
        const int on = 1;
        setsockopt(sender.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    }
    // A question and its answer, so that acknowledgements may wait for data; then `bytes` that
    // nobody reads. How many segments of them are not acknowledged.
    uint32_t left_unacknowledged(size_t bytes) const {
        std::vector<char> data(bytes);
        for (int i = 0; i < 30; i++) {
            if (send(sender.get(), data.data(), 600, 0) != 600 ||
                recv(receiver.get(), data.data(), 600, MSG_WAITALL) != 600 ||
                send(receiver.get(), data.data(), 1, 0) != 1 ||
                recv(sender.get(), data.data(), 1, 0) != 1)
                return UINT32_MAX;
        }
        if (send(sender.get(), data.data(), bytes, 0) != static_cast<ssize_t>(bytes))
            return UINT32_MAX;
        tcp_info info{};
        socklen_t size = sizeof info;
        if (getsockopt(sender.get(), IPPROTO_TCP, TCP_INFO, &info, &size) != 0) return UINT32_MAX;
        return info.tcpi_unacked;
    }
    Fd listener, sender, receiver;
};

TEST(KernetNet, TcpAcknowledgesOnArrival) {
    const UnreadConnection as_it_is, at_once;
    ASSERT_TRUE(as_it_is.receiver && at_once.receiver);
    net::acknowledge_on_arrival(at_once.receiver.get(), 32 << 10);
    EXPECT_EQ(as_it_is.left_unacknowledged(1400), 3u) << "it shows nothing here";
    EXPECT_EQ(at_once.left_unacknowledged(1400), 0u);
}

TEST(KernetNet, AwaitedSingleByteWakesReceiver) {
    const UnreadConnection one;
    ASSERT_TRUE(one.receiver);
    pollfd waiting{one.receiver.get(), POLLIN, 0};
    net::acknowledge_on_arrival(one.receiver.get(), 32 << 10);
    ASSERT_EQ(send(one.sender.get(), "x", 1, 0), 1);
    net::acknowledge_on_arrival(one.receiver.get(), 1);
    EXPECT_EQ(::poll(&waiting, 1, 5000), 1);
}

// One ring as both processes have it mapped. What cannot be made ends the case.
struct Ring {
    explicit Ring(uint32_t lines) {
        auto made = RingMapping::create({lines, 512 * 1024});
        if (!made) throw std::runtime_error(made.error().message());
        auto other = RingMapping::attach(made->second);
        if (!other) throw std::runtime_error(other.error().message());
        writers = std::move(made->first);
        readers = std::move(*other);
    }
    std::unique_ptr<RingMapping> writers, readers;
};

TEST(KernetRing, LinePointingOutsideIsRefused) {
    const Ring ring(8);
    RingTx tx(*ring.writers, 0);
    RingRx rx(*ring.readers, 0);
    EXPECT_FALSE(rx.ready());
    ASSERT_NE(tx.reserve(1000), nullptr);
    tx.commit(1000, 1, LineKind::data, 1);
    ASSERT_TRUE(rx.ready());
    LineView line;
    EXPECT_TRUE(rx.view(line));
    RingLine& spoilt = ring.writers->lines(0)[0];
    spoilt.where = 512 * 1024 - 999;
    EXPECT_FALSE(rx.view(line));
    spoilt.where = 0;
    spoilt.info = line_info(wire::max_message + 1, 1, LineKind::data);
    EXPECT_FALSE(rx.view(line));
}

// What an earlier message left in a line must never be taken for one: here every line is filled
// with the stamps a guess without the key would look for.
TEST(KernetRing, MessageBytesAreNotTakenForStamp) {
    const Ring ring(8);
    RingTx tx(*ring.writers, 0);
    RingRx rx(*ring.readers, 0);
    for (uint64_t round = 0; round < 1000; round++) {
        const size_t size = round % 2 ? ring.readers->geometry().run_on_max() : 8;
        uint8_t* room = tx.reserve(size);
        ASSERT_NE(room, nullptr);
        for (size_t at = 0; at + 8 <= size; at += 8) {
            const uint64_t guess = tx.position() + lines_of(size) + at / 64;
            memcpy(room + at, &guess, 8);
        }
        tx.commit(size, 1, LineKind::data, round);
        LineView line;
        ASSERT_TRUE(rx.ready());
        ASSERT_TRUE(rx.view(line));
        ASSERT_EQ(line.length, size);
        rx.advance(line);
        ASSERT_FALSE(rx.ready());
    }
}

// Nor are they where they cover only some bytes of an earlier stamp, whatever these bytes are.
TEST(KernetRing, MixedBytesAreNotTakenForStamp) {
    for (const uint32_t lines : {8U, 64U}) {
        const Ring ring(lines);
        RingTx tx(*ring.writers, 0);
        RingRx rx(*ring.readers, 0);
        std::mt19937 random(lines);
        for (uint32_t number = 0; number < 400'000; number++) {
            const size_t size = random() % 128;  // the last line often has a few bytes only
            uint8_t* room = tx.reserve(size);
            ASSERT_NE(room, nullptr) << number;
            for (size_t i = 0; i < size; i++) room[i] = static_cast<uint8_t>(random());
            tx.commit(size, 0, LineKind::data, number);
            ASSERT_TRUE(rx.ready());
            LineView view;
            ASSERT_TRUE(rx.view(view));
            ASSERT_EQ(view.seq, number);
            ASSERT_EQ(view.length, size);
            rx.advance(view);
            ASSERT_FALSE(rx.ready()) << "message " << number << ", " << lines << " lines";
        }
    }
}

// The tail of a ring is walked message by message, also past the array's end and past the end of
// a turn.
class KernetRingTail : public testing::TestWithParam<uint32_t> {};

TEST_P(KernetRingTail, TailStartsAtReader) {
    const Ring ring(GetParam());
    RingTx tx(*ring.writers, 0);
    RingRx rx(*ring.readers, 0);
    LineView line;
    for (uint64_t round = 0; round < 200; round++) {
        const size_t sizes[] = {40, round * 7 % ring.readers->geometry().run_on_max(), 20};
        for (size_t i = 0; i < 3; i++) {
            uint8_t* room = tx.reserve(sizes[i]);
            ASSERT_NE(room, nullptr);
            memset(room, static_cast<int>(round + i), sizes[i]);
            tx.commit(sizes[i], 1, LineKind::data, round * 3 + i);
        }
        ASSERT_TRUE(rx.ready() && rx.view(line));
        rx.advance(line);
        size_t i = 1;
        for (uint64_t at = tx.consumed(); at < tx.position(); at = tx.after(at, line), i++) {
            ASSERT_TRUE(tx.view(at, line));
            ASSERT_EQ(line.length, sizes[i]);
            ASSERT_EQ(line.seq, round * 3 + i);
            for (size_t b = 0; b < line.length; b++) ASSERT_EQ(line.data[b], uint8_t(round + i));
        }
        ASSERT_EQ(i, 3u);
        for (i = 1; i < 3; i++) {
            ASSERT_TRUE(rx.ready() && rx.view(line));
            rx.advance(line);
        }
    }
}

INSTANTIATE_TEST_SUITE_P(Lines, KernetRingTail, testing::Values(8, 512));

TEST(KernetRing, UnsealedOrForeignMemoryIsRefused) {
    Fd unsealed(memfd_create("x", MFD_ALLOW_SEALING));
    EXPECT_FALSE(RingMapping::attach(unsealed).ok());
    EXPECT_FALSE(RingMapping::attach(Fd(dup(0))).ok());
}

// Messages in turns use few pages again and again; nothing that has not been read is written over,
// however many are on their way at times.
class KernetRingTurns : public testing::TestWithParam<std::tuple<uint32_t, size_t>> {};

TEST_P(KernetRingTurns, RingRestartsWhenAllIsRead) {
    const auto [lines, size_in_turns] = GetParam();
    const Ring ring(lines);
    RingTx tx(*ring.writers, 0);
    RingRx rx(*ring.readers, 0);
    std::mt19937 random(1);
    uint64_t written = 0, read = 0;
    const auto write = [&](size_t size) -> uint8_t* {
        uint8_t* room = tx.reserve(size);
        if (!room) return nullptr;
        memset(room, static_cast<int>(written), size);
        tx.commit(size, 1, LineKind::data, written++);
        return room;
    };
    const auto take = [&] {
        LineView line;
        if (!rx.ready() || !rx.view(line) || line.seq != static_cast<uint32_t>(read)) return false;
        for (size_t i = 0; i < line.length; i++)
            if (line.data[i] != static_cast<uint8_t>(read)) return false;
        rx.advance(line);
        read++;
        return true;
    };
    for (int turns = 0; turns < 40; turns++) {
        uint8_t *lowest = nullptr, *highest = nullptr;
        for (int i = 0; i < 400; i++) {
            uint8_t* room = write(size_in_turns);
            ASSERT_NE(room, nullptr);
            ASSERT_TRUE(take());
            if (i < 70) continue;  // where the storm before had ended
            lowest = lowest ? std::min(lowest, room) : room;
            highest = std::max(highest, room);
        }
        EXPECT_LT(highest - lowest, 16 * 1024);
        const int storm = static_cast<int>(random() % 300);
        const bool small = random() % 2;
        for (int i = 0; i < storm; i++) {
            const size_t most = small ? 100 : random() % 3 ? 2000 : wire::max_message;
            if (!write(random() % most)) {
                ASSERT_TRUE(take());
            }
            if (random() % 8 == 0 && read < written) {
                ASSERT_TRUE(take());
            }
        }
        while (read < written) ASSERT_TRUE(take());
    }
}

INSTANTIATE_TEST_SUITE_P(Sizes, KernetRingTurns,
                         testing::Values(std::tuple{64U, size_t{3000}},
                                         std::tuple{512U, size_t{3000}},
                                         std::tuple{512U, size_t{200}},
                                         std::tuple{512U, size_t{8}}));

// Who begins anew has room for a turn at least before he is read, and for all of the ring after.
TEST(KernetRing, RestartLeavesRoomForATurn) {
    const Ring ring(512);
    RingTx tx(*ring.writers, 0);
    RingRx rx(*ring.readers, 0);
    LineView line;
    uint64_t unread = 0, number = 0;
    const auto write = [&] {
        if (!tx.reserve(8)) return false;
        tx.commit(8, 1, LineKind::data, number++);
        unread++;
        return true;
    };
    const auto see = [&] { return rx.ready() && rx.view(line); };
    const auto take = [&] {
        if (!see()) return false;
        rx.advance(line);
        unread--;
        return true;
    };
    while (write() && see() && !line.last_of_turn) ASSERT_TRUE(take());
    ASSERT_TRUE(line.last_of_turn);
    while (write()) {
    }
    EXPECT_EQ(unread, 64u);
    ASSERT_TRUE(take());
    while (write()) {
    }
    EXPECT_EQ(unread, 512u);
    while (take()) {
    }
    EXPECT_EQ(tx.consumed(), tx.position());
}

// Nothing begins anew where messages go one way: there the room of a whole ring is worth more.
TEST(KernetRing, OneWayTrafficUsesWholeRing) {
    const Ring ring(512);
    const RingRx answers(*ring.writers, 1);
    RingTx tx(*ring.writers, 0, &answers);
    RingRx rx(*ring.readers, 0);
    for (uint64_t number = 0; number < 2000; number++) {
        ASSERT_NE(tx.reserve(8), nullptr);
        tx.commit(8, 1, LineKind::data, number);
        ASSERT_EQ(tx.position(), number + 1);
        LineView line;
        ASSERT_TRUE(rx.ready() && rx.view(line));
        rx.advance(line);
    }
}

TEST(KernetRing, FullRingResumesWhenRead) {
    const Ring ring(64);
    RingTx tx(*ring.writers, 0);
    RingRx rx(*ring.readers, 0);
    uint64_t written = 0, read = 0;
    for (int round = 0; round < 5000; round++) {
        const size_t runs_on = ring.readers->geometry().run_on_max();
        const size_t most = round % 4 ? runs_on + 2 : wire::max_message;
        const size_t size = static_cast<size_t>(round) * 37 % most;
        uint8_t* room = tx.reserve(size);
        if (room) {
            memset(room, static_cast<int>(written), size);
            tx.commit(size, 1, LineKind::data, ++written);
        }
        if (room && round % 3) continue;
        LineView line;
        ASSERT_TRUE(rx.ready());
        ASSERT_TRUE(rx.view(line));
        EXPECT_EQ(line.seq, static_cast<uint32_t>(read + 1));
        for (size_t i = 0; i < line.length; i += 7) {
            ASSERT_EQ(line.data[i], static_cast<uint8_t>(read));
        }
        read++;
        rx.advance(line);
    }
    EXPECT_GT(read, 1000u);
}

}  // namespace
