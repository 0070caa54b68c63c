// SPDX-License-Identifier: BSD-3-Clause
// The contract of all links (kernet-btl/link/table.hpp): whatever happens to the network and to
// either end, every byte comes once and in order.
#include <gtest/gtest.h>

#include <algorithm>
#include <arpa/inet.h>
#include <cstring>
#include <fmt/format.h>
#include <netinet/in.h>
#include <optional>
#include <sys/socket.h>
#include <unistd.h>

#include "kernet-btl/link/loop.hpp"
#include "kernet-btl/link/net.hpp"
#include "kernet-btl/link/table.hpp"
#include "tests/contract/kernet_ends.hpp"

namespace {

using namespace kernet_test;
using kernet::FaultPlan;
using kernet::LoopHub;

struct Link {
    const char* name;
    const char* line;        // of the table
    const char* interfaces;  // to use
    const char* faults;      // "": none
};

// Both ends of a link, as processes of their own would have them.
struct Ends {
    Ends(const Link& link, const std::string& what)
        : a(make(0, link, what)), b(make(1, link, what)) {}
    EndpointConfig make(uint32_t rank, const Link& link, const std::string& what) const {
        const bool shm = std::string(link.line) == "shm";
        EndpointConfig config =
            config_of(rank, fmt::format("l{}-{}-{}", getpid(), link.name, what), shm, !shm);
        config.if_include = link.interfaces;
        if (!shm) config.links = link.line;
        config.loop = hub;
        if (auto plan = FaultPlan::parse(link.faults); plan) config.faults = *plan;
        return config;
    }
    std::shared_ptr<LoopHub> hub = std::make_shared<LoopHub>();
    EndpointConfig a, b;
};

class KernetLink : public testing::TestWithParam<Link> {
  protected:
    void SetUp() override {
        for (const kernet::LinkLine& line : kernet::link_table()) {
            if (std::string(line.name) != GetParam().line || !line.usable) continue;
            LoopHub hub;
            const auto usable = line.usable(&hub);
            if (!usable) GTEST_SKIP() << usable.error().message();
        }
        Ends ends(GetParam(), "probe");
        auto made = Endpoint::create(ends.a);
        if (!made) GTEST_SKIP() << made.error().message();
    }
    // Messages both ways, with something happening meanwhile every few milliseconds.
    void exchange(int64_t messages, bool suspends, bool cuts);
};

void KernetLink::exchange(int64_t messages, bool suspends, bool cuts) {
    const Ends ends(GetParam(), suspends ? "s" : cuts ? "c" : "p");
    const MemoryPeak memory;
    Side a(ends.a, messages), b(ends.b, messages);
    const Location at_a = a.location(), at_b = b.location();
    a.begin(at_b);
    b.begin(at_a);
    Side* sides[2] = {&a, &b};
    std::mt19937 random(7);
    uint64_t epoch = 0;
    for (Exchange exchange(a, b); exchange.goes_on();) {
        // what is slower gets as much done between two of them
        usleep(static_cast<unsigned>(times_slower() * rarer(GetParam().line)) *
               (1000 + random() % 8'000));
        if (cuts && random() % 2) cut_links(random);
        if (!suspends) continue;
        const bool both = random() % 4 == 0;
        const int first = static_cast<int>(random() % 2);
        sides[first]->suspend();
        if (both) sides[1 - first]->suspend();
        usleep(random() % 3000);
        sides[first]->wake("n0", ++epoch, sides[1 - first]->location());
        if (both) sides[1 - first]->wake("n0", ++epoch, sides[first]->location());
    }
    EXPECT_EQ(a.received(), messages);
    EXPECT_EQ(b.received(), messages);
    EXPECT_TRUE(a.went_by(GetParam().line));
    EXPECT_TRUE(b.went_by(GetParam().line));
    if (suspends) {
        EXPECT_GT(epoch, 0U);
    }
    a.stop();
    b.stop();
    EXPECT_LT(memory.grown(), most_memory);
}

int64_t usual() {
    return message_count(4000);
}

TEST_P(KernetLink, MessagesArriveOnceInOrder) {
    exchange(usual(), false, false);
}

TEST_P(KernetLink, MessagesArriveOnceWhileConnectionsAreCut) {
    exchange(usual(), false, true);
}

TEST_P(KernetLink, MessagesArriveOnceWhileEndsMove) {
    exchange(usual(), true, false);
}

TEST_P(KernetLink, MessagesArriveOnceWhileEndsMoveAndConnectionsAreCut) {
    exchange(usual(), true, true);
}

TEST_P(KernetLink, EveryMessageSizeArrives) {
    const Ends ends(GetParam(), "z");
    Idler a(ends.a), b(ends.b);
    a.endpoint().set_location(b.location());
    b.endpoint().set_location(a.location());
    Stream& out = a.hub().attach(1);
    Stream& in = b.hub().attach(0);
    std::vector<size_t> sizes = {0, 1, 2, 3, 5, 7, 8, 9, 15, 16, 17, 8 << 20};
    for (size_t edge : {48, 304, 1024, 1416, 4096, 16384, 65536, 130048, 131072, 132096, 1 << 20}) {
        for (size_t size : {edge - 1, edge, edge + 1}) sizes.push_back(size);
    }
    size_t checked = 0;
    const int64_t end = ghost::monotonic_us() + limit_us;
    for (const size_t size : sizes) {
        Stream::Message message(size), got;
        for (size_t i = 0; i < size; i++) message[i] = static_cast<uint8_t>(i * 7 + i / 255 + size);
        out.send(Stream::Message(message));
        while (!in.recv(got) && ghost::monotonic_us() < end) {
            a.hub().progress();
            b.hub().progress();
        }
        ASSERT_TRUE(got == message) << size;
        checked++;
    }
    EXPECT_EQ(checked, sizes.size());
}

// What is sent to a peer that does not look waits here: links hold so much and no more.
TEST_P(KernetLink, PeerThatDoesNotReadBlocksSender) {
    constexpr size_t size = 100'000, most = 96 << 20;
    const Ends ends(GetParam(), "b");
    Idler a(ends.a), b(ends.b);
    a.endpoint().set_location(b.location());
    b.endpoint().set_location(a.location());
    Stream& out = a.hub().attach(1);
    Stream& in = b.hub().attach(0);
    size_t sent = 0;
    const int64_t end = ghost::monotonic_us() + limit_us;
    while (out.backlog() < 20 * size && sent * size < most && ghost::monotonic_us() < end) {
        out.send(Stream::Message(size, static_cast<uint8_t>(sent++)));
        for (int i = 0; i < 100; i++) a.hub().progress();
    }
    EXPECT_LT(sent * size, most);
    Stream::Message got;
    for (size_t i = 0; i < sent; i++) {
        while (!in.recv(got) && ghost::monotonic_us() < end) {
            a.hub().progress();
            b.hub().progress();
        }
        ASSERT_EQ(got, Stream::Message(size, static_cast<uint8_t>(i)));
    }
    while (out.backlog() > 0 && ghost::monotonic_us() < end) a.hub().progress();
    EXPECT_EQ(out.backlog(), 0U);
}

// The same when the link has long been there, and full: what waits for room leaves by the agent.
TEST_P(KernetLink, QueuedMessageArrivesWhileSenderIsIdle) {
    constexpr uint64_t messages = 20'000, size = 1000;
    const Ends ends(GetParam(), "f");
    Idler sender(ends.a), receiver(ends.b);
    sender.endpoint().set_location(receiver.location());
    receiver.endpoint().set_location(sender.location());
    Stream& out = sender.hub().attach(1);
    Stream& in = receiver.hub().attach(0);
    Stream::Message got;
    const int64_t end = ghost::monotonic_us() + limit_us;
    out.send(Stream::Message(size));
    while (!in.recv(got) && ghost::monotonic_us() < end) receiver.hub().progress();
    // The agents look after a new link a millisecond after it is there.
    const int64_t looked = ghost::monotonic_us() + 2'000;
    while (!(sender.served_since(looked) && receiver.served_since(looked)) &&
           ghost::monotonic_us() < end)
        usleep(1000);
    for (uint64_t i = 0; i < messages; i++) {
        Stream::Message message(size);
        std::memcpy(message.data(), &i, sizeof i);
        out.send(std::move(message));
    }
    EXPECT_GT(out.backlog(), 0U) << "not what this is about";
    const int64_t begun = ghost::monotonic_us();
    for (uint64_t i = 0; i < messages; i++) {
        while (!in.recv(got) && ghost::monotonic_us() < begun + limit_us) receiver.hub().progress();
        uint64_t number = 0;
        ASSERT_EQ(got.size(), size) << i;
        std::memcpy(&number, got.data(), sizeof number);
        ASSERT_EQ(number, i);
        got.clear();
    }
}

// MPI promises that what was sent arrives, though the sender computes for hours afterwards.
TEST_P(KernetLink, SentMessageArrivesWhileSenderIsIdle) {
    const Ends ends(GetParam(), "e");
    Idler sender(ends.a), receiver(ends.b);
    sender.endpoint().set_location(receiver.location());
    receiver.endpoint().set_location(sender.location());
    Stream& out = sender.hub().attach(1);
    Stream& in = receiver.hub().attach(0);
    for (uint64_t round = 0; round < 10; ++round) {
        // More than one window, so that the sender's agent has to go on by itself.
        Stream::Message message(round % 3 ? 1000 : 3'000'000, static_cast<uint8_t>(round)), got;
        out.send(Stream::Message(message));
        if (round > 0) receiver.move_to("n0", round, sender.location());
        const int64_t end = ghost::monotonic_us() + limit_us;
        while (!in.recv(got) && ghost::monotonic_us() < end) receiver.hub().progress();
        ASSERT_TRUE(got == message) << "round " << round;
    }
}

// More peers than are tried one by one: who has something is told by their descriptors, except what
// the agent took off them while the rank was elsewhere, and what one look could not take.
TEST_P(KernetLink, MessageReadByAgentIsFoundAmongManyPeers) {
    const Ends ends(GetParam(), "m");
    std::vector<std::unique_ptr<Idler>> ranks;
    for (uint32_t rank = 0; rank < 6; rank++) {
        ranks.push_back(std::make_unique<Idler>(ends.make(rank, GetParam(), "m")));
    }
    Idler& center = *ranks[0];
    for (size_t i = 1; i < ranks.size(); i++) {
        center.endpoint().set_location(ranks[i]->location());
        ranks[i]->endpoint().set_location(center.location());
    }
    const auto message = [](size_t i, size_t size) {
        return Stream::Message(size, static_cast<uint8_t>(i + 1));
    };
    const int64_t end = ghost::monotonic_us() + limit_us / 4;
    for (size_t size : {1000, 6'000'000}) {
        for (size_t i = 1; i < ranks.size(); i++) {
            ranks[i]->hub().attach(0).send(message(i, size));
        }
        const auto all_settled = [&] {
            return std::all_of(ranks.begin() + 1, ranks.end(), [](const auto& rank) {
                rank->hub().progress();
                kernet::Gate::Holder inside(rank->endpoint().data().gate());
                return !rank->endpoint().data().attach(0).unsettled();
            });
        };
        // The small ones are all with the center's agent before it looks.
        while (size == 1000 && !all_settled() && ghost::monotonic_us() < end) continue;
        size_t left = ranks.size() - 1;
        std::vector<Stream::Message> got(ranks.size());
        while (left > 0 && ghost::monotonic_us() < end) {
            for (const auto& rank : ranks) rank->hub().progress();
            for (size_t i = 1; i < ranks.size(); i++) {
                if (center.hub().attach(static_cast<uint32_t>(i)).recv(got[i])) left--;
            }
        }
        ASSERT_EQ(left, 0U) << size;
        for (size_t i = 1; i < ranks.size(); i++) ASSERT_TRUE(got[i] == message(i, size));
    }
}

TEST_P(KernetLink, SuspendClosesAllDescriptors) {
    const int before = held();
    const Ends ends(GetParam(), "h");
    Side a(ends.a, 300), b(ends.b, 300);
    until_both_have_all(a, b);
    EXPECT_GT(held(), before);
    a.suspend();
    b.suspend();
    EXPECT_EQ(held(), before);
    a.stop();
    b.stop();
}

// Strangers who say anything to everything that listens.
TEST_P(KernetLink, UnauthenticatedPeerIsRefused) {
    const Ends ends(GetParam(), "g");
    const int64_t messages = 2000;
    Side a(ends.a, messages), b(ends.b, messages);
    const Location at_a = a.location(), at_b = b.location();
    a.begin(at_b);
    b.begin(at_a);
    std::mt19937 random(3);
    const int64_t end = ghost::monotonic_us() + limit_us;
    uint16_t probe = 0;
    while (!(a.done() && b.done()) && ghost::monotonic_us() < end) {
        uint8_t bytes[300];
        for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(random());
        sockaddr_in to{};
        to.sin_family = AF_INET;
        to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        if (!at_a.tcp.empty()) {
            const ghost::Fd fd(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
            to.sin_port = htons(random() % 2 ? at_a.tcp[0].port : at_b.tcp[0].port);
            if (connect(fd.get(), reinterpret_cast<sockaddr*>(&to), sizeof to) == 0 ||
                errno == EINPROGRESS) {
                send(fd.get(), bytes, random() % sizeof bytes, MSG_NOSIGNAL | MSG_DONTWAIT);
            }
        }
        const ghost::Fd fd(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
        for (int i = 0; i < 500; i++) {  // some of the ephemeral ports, time after time all
            to.sin_port = htons(static_cast<uint16_t>(32768 + probe++ % 28232));
            sendto(fd.get(), bytes, random() % sizeof bytes, MSG_NOSIGNAL | MSG_DONTWAIT,
                   reinterpret_cast<sockaddr*>(&to), sizeof to);
        }
        usleep(1000);
    }
    EXPECT_EQ(a.received(), messages);
    EXPECT_EQ(b.received(), messages);
    a.stop();
    b.stop();
}

constexpr const char* bad = "drop=100,duplicate=50,reorder=50,delay=20,corrupt=50";
constexpr const char* worse = "drop=100,duplicate=50,reorder=50,delay=20,corrupt=50,cut=5";

constexpr Link all_links[] = {{"shm", "shm", "lo", ""},
                              {"tcp", "tcp", "127.0.0.1/32", ""},
                              {"tcp6", "tcp", "::1/128", ""},
                              {"udp", "udp", "127.0.0.1/32", ""},
                              {"udp6", "udp", "::1/128", ""},
                              {"loop", "loop", "lo", ""},
                              {"netdevice", "netdevice", "127.0.0.1/32", ""},
                              {"ofi", "ofi", "127.0.0.1/32", ""},
                              {"ofi6", "ofi", "::1/128", ""},
                              {"netdevice_bad", "netdevice", "127.0.0.1/32", bad},
                              {"udp_bad", "udp", "127.0.0.1/32", bad},
                              {"pair", "pair", "127.0.0.1/32", ""},
                              {"pair6", "pair", "::1/128", ""},
                              {"pair_bad", "pair", "127.0.0.1/32", bad},
                              {"pair_worse", "pair", "127.0.0.1/32", worse},
                              {"framepair", "framepair", "127.0.0.1/32", ""},
                              {"framepair6", "framepair", "::1/128", ""},
                              {"framepair_bad", "framepair", "127.0.0.1/32", bad},
                              {"framepair_worse", "framepair", "127.0.0.1/32", worse},
                              {"loop_worse", "loop", "lo", worse}};

INSTANTIATE_TEST_SUITE_P(All, KernetLink, testing::ValuesIn(all_links),
                         [](const auto& info) { return std::string(info.param.name); });

// No line of the table without an end to be made, or without this contract.
TEST(KernetLinkTable, EveryLinkHasMakerAndContract) {
    for (const kernet::LinkLine& line : kernet::link_table()) {
        EXPECT_NE(line.make, nullptr) << line.name;
        EXPECT_TRUE(std::any_of(std::begin(all_links), std::end(all_links), [&](const Link& link) {
            return std::string(link.line) == line.name;
        })) << line.name;
    }
}

// A link on which nothing gets across is given up for the connection beside it.
class KernetDeadLink : public testing::TestWithParam<const char*> {};

TEST_P(KernetDeadLink, DeadPacketLinkIsSkipped) {
    const Link link{GetParam(), GetParam(), "lo", "drop=10000"};
    const Ends ends(link, "x");
    Side a(ends.a, 200), b(ends.b, 200);
    until_both_have_all(a, b);
    EXPECT_EQ(a.received(), 200);
    EXPECT_EQ(b.received(), 200);
    EXPECT_TRUE(a.went_by("tcp"));
    a.stop();
    b.stop();
}

INSTANTIATE_TEST_SUITE_P(KernetLinkChoice, KernetDeadLink,
                         testing::Values("udp", "pair", "framepair"));

// One end prefers what the other one does not have.
TEST(KernetLinkChoice, LinkNeedsConsentOfBothEnds) {
    Ends ends({"udp", "udp,tcp", "lo", ""}, "y");
    ends.b.links = "tcp";
    Side a(ends.a, 200), b(ends.b, 200);
    until_both_have_all(a, b);
    EXPECT_EQ(a.received(), 200);
    EXPECT_EQ(b.received(), 200);
    EXPECT_TRUE(b.went_by("tcp"));
    a.stop();
    b.stop();
}

TEST(KernetLinkChoice, UnknownLinkIsRefusedByName) {
    Ends ends({"udp", "udp,carrier-pigeon", "lo", ""}, "n");
    const auto made = Endpoint::create(ends.a);
    ASSERT_FALSE(made.ok());
    EXPECT_NE(made.error().message().find("carrier-pigeon"), std::string::npos);
    EXPECT_NE(made.error().message().find("udp"), std::string::npos);
}

// A run that is to have faults and has none would prove nothing.
TEST(KernetLinkFaults, MalformedFaultPlanIsRefused) {
    ASSERT_EQ(setenv("GHOST_LINK_FAULTS", "drop=300,corrupt=20,seed=70000", 1), 0);
    const auto good = FaultPlan::from_environment();
    ASSERT_TRUE(good.ok()) << good.error().message();
    EXPECT_EQ(good->drop, 300U);
    EXPECT_EQ(good->corrupt, 20U);
    for (const char* text : {"drip=3", "drop", "drop=", "drop=3x", "drop=-1", "drop=3;cut=1",
                             "drop=10001", "drop=3,,cut=1"}) {
        ASSERT_EQ(setenv("GHOST_LINK_FAULTS", text, 1), 0);
        const auto plan = FaultPlan::from_environment();
        ASSERT_FALSE(plan.ok()) << text;
        EXPECT_EQ(plan.error().code, ghost::Code::invalid);
        EXPECT_NE(plan.error().message().find("faults of links"), std::string::npos);
    }
    ASSERT_EQ(unsetenv("GHOST_LINK_FAULTS"), 0);
    EXPECT_FALSE(FaultPlan::from_environment()->any());
}

// --- greetings ---

using kernet::wire::Verdict;

// What rank 0 of the job says to a HELLO of its rank 1 that is never confirmed; nothing: it hangs
// up.
std::optional<Verdict> answer_to(const EndpointConfig& from, const Location& at) {
    using namespace kernet::wire;
    auto fd = kernet::net::connect_tcp("127.0.0.1", at.tcp.at(0).port, {});
    if (!fd) {
        ADD_FAILURE() << "no connection";
        return {};
    }
    pollfd ready{fd->get(), POLLOUT, 0};
    EXPECT_EQ(poll(&ready, 1, 5000), 1);
    const Hello hello = hello_of(from);
    EXPECT_EQ(send(fd->get(), &hello, sizeof hello, 0), ssize_t{sizeof hello});
    ready.events = POLLIN;
    EXPECT_EQ(poll(&ready, 1, 5000), 1);
    Welcome welcome;
    if (recv(fd->get(), &welcome, sizeof welcome, MSG_WAITALL) != ssize_t{sizeof welcome})
        return {};
    return welcome.verdict;
}

void expect_exchange(Side& one, Side& other) {
    const int64_t end = ghost::monotonic_us() + 20'000'000 * times_slower();
    while (!(one.done() && other.done()) && ghost::monotonic_us() < end) usleep(1000);
    EXPECT_TRUE(one.done() && other.done()) << one.received() << " " << other.received();
}

// What somebody has recorded of a peer's later placement, or made up who knows the secret: without
// CONFIRM it is nobody's word, and the peer is as welcome as before.
TEST(KernetGreeting, UnconfirmedEpochShutsNobodyOut) {
    const std::string job = fmt::format("g{}", getpid());
    Side one(config_of(0, job, false, true), 20), other(config_of(1, job, false, true), 20);
    const Location at = one.location(), from = other.location();
    one.begin(from);
    EndpointConfig later = config_of(1, job, false, true);
    later.epoch = 9;
    EXPECT_EQ(answer_to(later, at), Verdict::accept);
    other.begin(at);
    expect_exchange(one, other);
}

// A rank that lived on behind a cut while its job was restarted has the job, secret and number of
// the true one, and a later placement.
TEST(KernetGreeting, RankOfAnotherLifeIsRefused) {
    const std::string job = fmt::format("f{}", getpid());
    EndpointConfig first = config_of(0, job, false, true), second = config_of(1, job, false, true);
    first.life = second.life = "11fe";
    first.filters = second.filters = "crypto";
    Side one(first, 20), other(second, 20);
    one.hold_at(0);
    one.begin(other.location());
    EndpointConfig old = second;
    old.epoch = 9;  // of a later placement than known: it crosses no attempt
    EXPECT_EQ(answer_to(old, one.location()), Verdict::accept);
    for (const char* life : {"", "2e"}) {
        old.life = life;
        EXPECT_EQ(answer_to(old, one.location()), std::nullopt) << life;
    }
    // Saved, and the job restarted.
    one.suspend();
    one.begin_life("2e");
    one.wake("n0", 1, other.location());
    EXPECT_EQ(answer_to(old, one.location()), Verdict::accept);
    old.life = "11fe";
    EXPECT_EQ(answer_to(old, one.location()), std::nullopt);
    second.life = "2e";  // which the filters of its streams know too
    second.epoch = 2;
    Side again(second, 20);
    again.begin(one.location());
    one.hold_at(20);
    expect_exchange(one, again);
}

}  // namespace
