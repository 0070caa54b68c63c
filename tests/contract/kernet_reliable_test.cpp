// SPDX-License-Identifier: BSD-3-Clause
// The reliability of packet links: two sockets on one thread over link loop, with everything a
// network does to packets.
#include <gtest/gtest.h>

#include <cstring>
#include <deque>
#include <random>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.hpp"
#include "kernet-btl/transport/datapath.hpp"
#include "kernet-btl/link/fault.hpp"
#include "kernet-btl/link/loop.hpp"
#include "kernet-btl/link/pair.hpp"
#include "kernet-btl/link/reliable.hpp"
#include "kernet-btl/link/shm.hpp"

namespace {

using namespace kernet;

std::vector<uint8_t> message_of(uint64_t number, size_t size) {
    std::vector<uint8_t> bytes(size);
    for (size_t at = 0; at < size; at++) {
        bytes[at] = static_cast<uint8_t>((number * 131 + at) * 2654435761U >> 13);
    }
    return bytes;
}

// Of the messages of the test in progress, bytes: none longer; each as it says here, if it does.
size_t longest = SIZE_MAX;
std::vector<size_t> sizes;

struct SizesAsBefore {  // however the test ends
    ~SizesAsBefore() {
        longest = SIZE_MAX;
        sizes.clear();
    }
};

size_t size_of(uint64_t number) {
    if (!sizes.empty()) return number < sizes.size() ? sizes[number] : 0;
    std::mt19937 random(static_cast<uint32_t>(number));
    const uint32_t pick = random() % 20;
    const size_t size = pick < 15   ? random() % 500
                        : pick < 19 ? random() % 20'000
                                    : random() % 300'000;
    return std::min(size, longest);
}

// Checks that messages 0, 1, 2, … come.
class Taker : public Receiver {
  public:
    void deliver(Socket&, uint8_t, uint8_t* bytes, size_t size) override { check(bytes, size); }
    uint8_t* place(Socket&, uint8_t, const uint8_t*, size_t, size_t size) override {
        room_.resize(size);
        return room_.data();
    }
    void placed(Socket&, uint8_t, const uint8_t*, size_t, uint8_t* body, size_t size) override {
        check(body, size);
    }
    void released(Socket&, void* token) override {
        delete static_cast<std::vector<uint8_t>*>(token);
    }
    uint64_t taken = 0;
    bool wrong = false;

  private:
    void check(const uint8_t* bytes, size_t size) {
        const auto expected = message_of(taken, size_of(taken));
        wrong |=
            size != expected.size() || (size && std::memcmp(bytes, expected.data(), size) != 0);
        taken++;
    }
    std::vector<uint8_t> room_;
};

struct End {
    explicit End(uint32_t peer) : path(registry, false), shared(registry.peer(peer)) {
        path.set_receiver(&receiver);
        socket = &path.attach(peer);
    }
    // more: the next one leaves together with it.
    void send(uint64_t number, bool more = false) {
        auto bytes = message_of(number, size_of(number));
        Gate::Holder inside(path.gate());
        if (more) {
            Frame* frame = path.pool().get(bytes.size());
            if (!bytes.empty()) std::memcpy(frame->bytes(), bytes.data(), bytes.size());
            socket->send_frame(frame, bytes.size(), 1, nullptr, true);
            return;
        }
        if (bytes.size() <= 4096) {
            uint8_t* room = socket->reserve(bytes.size());
            if (!bytes.empty()) std::memcpy(room, bytes.data(), bytes.size());
            socket->commit(bytes.size(), 1);
            return;
        }
        auto* kept = new std::vector<uint8_t>(std::move(bytes));
        socket->send_bulk(1, nullptr, 0, kept->data(), kept->size(), kept);
    }
    bool lost() const { return shared.lost_generation.load() != 0; }

    Registry registry;
    Taker receiver;
    DataPath path;
    PeerShared& shared;
    Socket* socket;
    PacketLink* link = nullptr;
    PairLink* both = nullptr;  // beside a connection
};

enum class Ways { packets, connection, both };

struct Pair {
    explicit Pair(const FaultPlan& plan, int64_t dead_after_us = 10'000'000,
                  Ways ways = Ways::packets)
        : ways(ways), a(1), b(0) {
        join(plan, dead_after_us);
    }
    ~Pair() {
        a.path.unattach_all();
        b.path.unattach_all();
    }
    void join(FaultPlan plan, int64_t dead_after_us) {
        generation++;
        auto one = hub->make(), other = hub->make();
        const auto at_one = one->address(), at_other = other->address();
        address_of_b = at_other;
        ASSERT_TRUE(one->connect(at_other, 1).ok());
        ASSERT_TRUE(other->connect(at_one, 2).ok());
        ghost::Fd ends[2];
        if (ways != Ways::packets) connect(ends);
        give(a, std::move(one), std::move(ends[0]), plan, {{2, 22, 7}, {1, 11, 8}}, b,
             dead_after_us);
        plan.seed++;
        give(b, std::move(other), std::move(ends[1]), plan, {{1, 11, 8}, {2, 22, 7}}, a,
             dead_after_us);
    }
    static void connect(ghost::Fd* ends) {
        int fds[2];
        ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds), 0);
        ends[0].reset(fds[0]);
        ends[1].reset(fds[1]);
    }
    void give(End& to, std::unique_ptr<PacketDriver> driver, ghost::Fd beside,
              const FaultPlan& plan, const PacketKeys& keys, End& from, int64_t dead_after_us) {
        if (plan.any()) driver = make_faulty(std::move(driver), plan);
        auto link = std::make_unique<PacketLink>(std::move(driver), keys, dead_after_us);
        to.link = link.get();
        auto offer = std::make_unique<LinkHandoff>();
        offer->peer = &to.shared;
        offer->generation = generation;
        offer->peer_last_seen = from.shared.received.load();
        std::unique_ptr<TcpLink> bytes;
        if (ways != Ways::packets) {
            bytes = std::make_unique<TcpLink>(std::move(beside), keys.out.epoch, keys.in.epoch,
                                              dead_after_us);
        }
        if (ways == Ways::both) {
            auto both = std::make_unique<PairLink>("pair", std::move(link), std::move(bytes));
            to.both = both.get();
            offer->link = std::move(both);
        } else if (ways == Ways::connection) {
            offer->link = std::move(bytes);
        } else {
            offer->link = std::move(link);
        }
        to.registry.offers.put(std::move(offer));
    }
    // Messages both ways until all have come, or a link is lost.
    void exchange(uint64_t messages) {
        const int64_t end = ghost::monotonic_us() + 240'000'000;
        while ((a.receiver.taken < messages || b.receiver.taken < messages || a.socket->busy() ||
                b.socket->busy()) &&
               ghost::monotonic_us() < end && !a.receiver.wrong && !b.receiver.wrong) {
            for (End* side : {&a, &b}) {
                uint64_t& next = side == &a ? next_a : next_b;
                if (next < messages && side->socket->backlog() < 200'000) side->send(next++);
                side->path.progress();
            }
            if (a.lost() || b.lost()) return;
        }
        EXPECT_EQ(a.receiver.taken, messages);
        EXPECT_EQ(b.receiver.taken, messages);
        EXPECT_FALSE(a.receiver.wrong || b.receiver.wrong);
        EXPECT_FALSE(a.socket->busy() || b.socket->busy());
    }
    const Ways ways;
    std::shared_ptr<LoopHub> hub = std::make_shared<LoopHub>();
    End a, b;
    LinkAddress address_of_b;
    uint64_t generation = 0, next_a = 0, next_b = 0;
};

FaultPlan plan_of(const char* text) {
    auto plan = FaultPlan::parse(text);
    EXPECT_TRUE(plan.ok()) << text;
    return plan ? *plan : FaultPlan{};
}

TEST(KernetReliable, NoRetransmissionWithoutLoss) {
    Pair pair(FaultPlan{});
    pair.exchange(3000);
    for (End* side : {&pair.a, &pair.b}) {
        EXPECT_EQ(side->link->counts().again, side->link->counts().probes);
        EXPECT_EQ(side->link->counts().refused, 0U);
    }
}

struct Fault {
    const char* name;
    const char* plan;
    uint64_t PacketCounts::*noticed;  // at either end
};

class KernetFault : public testing::TestWithParam<Fault> {};

TEST_P(KernetFault, MessagesArriveOnceInOrder) {
    Pair pair(plan_of(GetParam().plan));
    pair.exchange(2000);
    const auto noticed = GetParam().noticed;
    EXPECT_GT(pair.a.link->counts().*noticed + pair.b.link->counts().*noticed, 0U);
}

INSTANTIATE_TEST_SUITE_P(
    All, KernetFault,
    testing::Values(Fault{"drop", "drop=300", &PacketCounts::again},
                    Fault{"drop_much", "drop=3000,seed=5", &PacketCounts::again},
                    Fault{"duplicate", "duplicate=1000", &PacketCounts::repeated},
                    Fault{"reorder", "reorder=1000", &PacketCounts::ahead},
                    Fault{"delay", "delay=300", &PacketCounts::ahead},
                    Fault{"corrupt", "corrupt=500", &PacketCounts::refused},
                    Fault{"everything", "drop=200,duplicate=200,reorder=200,delay=200,corrupt=200",
                          &PacketCounts::again}),
    [](const auto& info) { return std::string(info.param.name); });

// A link that breaks in the middle of anything is followed by another.
TEST(KernetFaultCut, NextLinkResumesWhereLastBroke) {
    Pair pair(plan_of("cut=20,drop=100"));
    int links = 1;
    const int64_t end = ghost::monotonic_us() + 240'000'000;
    while (ghost::monotonic_us() < end) {
        pair.exchange(2000);
        if (!pair.a.lost() && !pair.b.lost()) break;
        pair.a.shared.lost_generation = pair.b.shared.lost_generation = 0;
        FaultPlan plan = plan_of("cut=20,drop=100");
        plan.seed = static_cast<uint32_t>(++links) * 10;
        pair.join(plan, 10'000'000);
    }
    EXPECT_GT(links, 5);
    EXPECT_EQ(pair.a.receiver.taken, 2000U);
    EXPECT_EQ(pair.b.receiver.taken, 2000U);
}

// A peer that computes is no dead peer, and its silence is no loss: nothing but some questions goes
// out until it looks again, by its agent, which cannot take messages in; then everything goes on.
TEST(KernetReliable, ComputingPeerIsWaitedFor) {
    Pair pair(FaultPlan{}, 300'000);
    pair.exchange(50);
    for (uint64_t i = 50; i < 120; i++) pair.a.send(pair.next_a++);
    const int64_t start = ghost::monotonic_us();
    int64_t looked = start;
    while (ghost::monotonic_us() < start + 1'000'000) {
        pair.a.path.progress();
        if (ghost::monotonic_us() - looked < 100'000) continue;
        looked = ghost::monotonic_us();
        pair.b.path.push();
    }
    ASSERT_FALSE(pair.a.lost());
    EXPECT_LT(pair.a.link->counts().again, 40U);
    EXPECT_EQ(pair.b.receiver.taken, 50U);
    pair.exchange(120);
}

// A peer from which nothing comes any more is given up in the time set, not before.
TEST(KernetReliable, SilentPeerIsGivenUp) {
    Pair pair(FaultPlan{}, 300'000);
    pair.exchange(50);
    const int64_t start = ghost::monotonic_us();
    pair.a.send(pair.next_a++);
    while (!pair.a.lost() && ghost::monotonic_us() < start + 30'000'000) pair.a.path.progress();
    ASSERT_TRUE(pair.a.lost());
    EXPECT_GT(ghost::monotonic_us() - start, 290'000);
    EXPECT_LT(ghost::monotonic_us() - start, 10'000'000);
    pair.join(FaultPlan{}, 10'000'000);
    pair.a.shared.lost_generation = 0;
    pair.exchange(60);
}

// What strangers send, and what is left of earlier links, is dropped.
TEST(KernetReliable, ForgedAndStalePacketsAreDropped) {
    Pair pair(FaultPlan{});
    pair.exchange(20);
    auto stranger = pair.hub->make();
    ASSERT_TRUE(stranger->connect(pair.address_of_b, 3).ok());
    std::mt19937 random(1);
    const std::vector<wire::PacketKey> keys = {
        {2, 22, 8}, {2, 23, 7}, {3, 22, 7}, {1, 11, 8}};  // all but the right one: {2, 22, 7}
    for (int i = 0; i < 2000; i++) {
        uint8_t packet[256];
        for (uint8_t& byte : packet) byte = static_cast<uint8_t>(random());
        PacketView view{packet, random() % sizeof packet};
        if (i % 2) {
            wire::PacketHeader header;
            header.length = 100;
            header.number = random() % 100;
            header.ack = random() % 40;
            wire::seal_packet(packet, header, keys[random() % keys.size()]);
            view.size = wire::packet_header_size + 100;
        }
        stranger->send(&view, 1);
        pair.b.path.progress();
    }
    pair.exchange(500);
    EXPECT_EQ(pair.b.link->counts().refused, 2000U);
}

// A frame says how far its sender had come when it began to be written. What came while the rest of
// it was written must be said by something else: a peer whose message is never acknowledged waits
// for ever. One message after the other, so that nothing else says it.
TEST(KernetReliable, ArrivalsDuringLongWriteAreAcknowledged) {
    Pair pair(FaultPlan{}, 10'000'000, Ways::connection);
    for (uint64_t number = 0; number < 400 && !HasFailure(); number++) pair.exchange(number + 1);
}

// --- packets beside a connection ---

constexpr int64_t long_us = 10'000'000;

TEST(KernetPair, LargeMessagesGoByTcp) {
    Pair pair(FaultPlan{}, long_us, Ways::both);
    uint64_t packets = 0, would_be = 0;
    for (uint64_t number = 0; number < 400 && !HasFailure(); number++) {
        const uint64_t before = pair.a.link->counts().sent;
        pair.exchange(number + 1);
        if (size_of(number) < 100'000) continue;
        packets += pair.a.link->counts().sent - before;
        would_be += size_of(number) / pair.a.link->segment();
    }
    EXPECT_GT(would_be, 100U);
    EXPECT_LT(packets, would_be / 2);
    EXPECT_GT(pair.a.link->counts().sent, 100U);
    EXPECT_FALSE(pair.a.both->lossy() || pair.b.both->lossy());
}

// A request and the memory it offers are one call and arrive by one way.
TEST(KernetPair, SmallMessageFollowedByLargeGoesTogether) {
    Pair pair(FaultPlan{}, long_us, Ways::both);
    int together = 0;
    for (uint64_t number = 0; number < 600 && !HasFailure(); number++) {
        const bool two = size_of(number) < 500 && size_of(number + 1) > 100'000;
        const uint64_t acknowledged = pair.a.link->counts().sent;
        if (two) {
            pair.a.send(pair.next_a++, true);
            pair.a.send(pair.next_a++);
            EXPECT_EQ(pair.a.link->counts().sent, acknowledged);
            pair.b.send(pair.next_b++);
            number++;
            together++;
        }
        pair.exchange(number + 1);
    }
    EXPECT_GT(together, 10);
}

// What has begun by one way goes on by it, whatever comes to stand behind it meanwhile. Nobody
// looks until no more goes into the packets, in most turns in the middle of a message.
TEST(KernetPair, StartedMessageKeepsItsWay) {
    const SizesAsBefore after;
    std::mt19937 random(7);
    sizes = {1};
    Pair pair(FaultPlan{}, long_us, Ways::both);
    for (int turn = 0; turn < 30 && !HasFailure(); turn++) {
        while (pair.a.socket->backlog() == 0) {
            for (int left = 30; left > 0; left--) {
                sizes.push_back(random() % 4000);
                pair.a.send(pair.next_a++, left > 1);
            }
        }
        sizes.insert(sizes.end(), {200'000, 10});
        pair.exchange(sizes.size());
        ASSERT_FALSE(pair.a.lost() || pair.b.lost()) << "turn " << turn;
    }
}

// How many small messages to b are not there at the first look after a while, which a program that
// computes takes once in a while. Nothing goes the other way.
int missed_after_a_while(Pair& pair) {
    int small = 0, after_large = 0, missed = 0;
    pair.exchange(1);
    const int64_t end = ghost::monotonic_us() + 240'000'000;
    for (uint64_t number = 1; number < 300 && ghost::monotonic_us() < end; number++) {
        usleep(200);
        pair.a.send(pair.next_a++);
        pair.b.path.progress();
        if (size_of(number) < 500) {
            small++;
            after_large += size_of(number - 1) > 20'000;
            missed += pair.b.receiver.taken == number;
        }
        while ((pair.b.receiver.taken <= number || pair.a.socket->busy()) &&
               ghost::monotonic_us() < end) {
            pair.a.path.progress();
            pair.b.path.progress();
        }
    }
    EXPECT_EQ(pair.b.receiver.taken, 300U);
    EXPECT_FALSE(pair.b.receiver.wrong);
    EXPECT_GT(small, 150);
    EXPECT_GT(after_large, 5);
    return missed;
}

TEST(KernetPair, LatePollFindsBothWays) {
    Pair pair(FaultPlan{}, long_us, Ways::both);
    EXPECT_EQ(missed_after_a_while(pair), 0);
}

TEST(KernetReliable, LatePollFindsPacketsOutsideRings) {
    Pair pair(FaultPlan{}, long_us, Ways::connection);
    pair.b.path.attach(2);
    auto ring = RingMapping::create(RingGeometry{});
    ASSERT_TRUE(ring.ok());
    auto offer = std::make_unique<LinkHandoff>();
    offer->peer = &pair.b.registry.peer(2);
    offer->generation = 1;
    offer->link = std::make_unique<ShmLink>(std::move(ring->first), RingPieces{});
    pair.b.registry.offers.put(std::move(offer));
    EXPECT_EQ(missed_after_a_while(pair), 0);
}

// A peer that computes does not look, and what a connection holds for it is far more than a window.
TEST(KernetPair, FullPacketRingFallsBackToTcp) {
    const SizesAsBefore after;
    longest = 500;
    Pair pair(FaultPlan{}, long_us, Ways::both);
    pair.exchange(50);
    const uint64_t before = pair.a.link->counts().sent;
    while (pair.next_a < 250) pair.a.send(pair.next_a++);
    EXPECT_EQ(pair.a.socket->backlog(), 0U) << "all have left though nobody looks";
    const uint64_t packets = pair.a.link->counts().sent - before;
    EXPECT_GT(packets, 10U);
    EXPECT_LT(packets, 150U);
    pair.exchange(250);
    // Then packets again.
    const uint64_t then = pair.a.link->counts().sent;
    for (uint64_t number = 250; number < 300 && !HasFailure(); number++) pair.exchange(number + 1);
    EXPECT_GT(pair.a.link->counts().sent, then + 49);
    EXPECT_FALSE(pair.a.both->lossy() || pair.b.both->lossy());
}

TEST(KernetPair, LostPacketIsResent) {
    Pair pair(plan_of("drop=100,duplicate=200,reorder=100,corrupt=50"), long_us, Ways::both);
    pair.exchange(3000);
    EXPECT_GT(pair.a.link->counts().again + pair.b.link->counts().again, 0U);
}

TEST(KernetPair, FrequentLossFallsBackToTcp) {
    Pair pair(plan_of("drop=2000"), long_us, Ways::both);
    pair.exchange(3000);
    ASSERT_TRUE(pair.a.both->lossy());
    ASSERT_TRUE(pair.b.both->lossy());
    const uint64_t sent = pair.a.link->counts().sent - pair.a.link->counts().probes;
    pair.exchange(6000);
    EXPECT_LT(pair.a.link->counts().sent - pair.a.link->counts().probes, sent + 10);
    // The next link is as good as it was before it was tried.
    pair.join(FaultPlan{}, long_us);
    pair.exchange(6500);
    EXPECT_FALSE(pair.a.both->lossy());
}

}  // namespace
