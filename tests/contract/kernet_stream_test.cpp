// SPDX-License-Identifier: BSD-3-Clause
// Streams keep their promise over every link: exactly once, in order, every byte, while either end
// or both are suspended and woken (in place, on the other node, on the other link) and while
// connections are cut.
#include <gtest/gtest.h>

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <dirent.h>
#include <fmt/format.h>
#include <mutex>
#include <poll.h>
#include <random>
#include <sys/resource.h>
#include <sys/socket.h>
#include <thread>
#include <unistd.h>

#include "kernet-btl/link/table.hpp"
#include "tests/contract/kernet_ends.hpp"
#include "tests/unit/kernet_filters.hpp"

namespace {

using namespace kernet_test;

// So many messages of either end may be on the disk unread: some 300 MB in all, where a million
// would be 28 GB.
constexpr int64_t unread_messages = 10'000;

// What the ends write down is what they send: whole messages here, as pieces are cut elsewhere. It
// is read while it is written, and takes no room on the disk afterwards.
class Backups {
  public:
    Backups(const std::string& folder, const std::string& job)
        : files_{File(folder + "/" + job + "-0-1.backup"),
                 File(folder + "/" + job + "-1-0.backup")} {}

    // Takes what has come.
    void read() {
        for (File& file : files_) {
            while (!file.wrong && file.reader.next(record_)) take(file);
            file.reader.forget();
        }
    }
    // Messages from that rank that both ends have written down, and that have been read.
    int64_t read_from(uint32_t rank) const {
        return std::min(files_[rank].out.whole, files_[1 - rank].in.whole);
    }
    bool wrong() const { return files_[0].wrong || files_[1].wrong; }
    void expect_all(int64_t count) {
        read();
        for (uint32_t rank : {0U, 1U}) {
            EXPECT_TRUE(files_[rank].reader.at_end()) << rank;
            EXPECT_EQ(files_[rank].out.whole, count) << rank;
            EXPECT_EQ(files_[rank].in.whole, count) << rank;
        }
    }

  private:
    struct Direction {
        uint64_t last = 0;  // number
        int64_t whole = 0;  // messages
    };
    struct File {
        explicit File(std::string path) : reader(std::move(path)) {}
        kernettest::BackupReader reader;
        Direction out, in;
        bool wrong = false;
    };
    // By number, as a frame goes to the file before it is sent, and may be sent again.
    void take(File& file) {
        using kernet::filter::BackupKind;
        const auto& head = record_.head;
        if (head.kind == BackupKind::opened) return;
        Direction& way = head.kind == BackupKind::sent ? file.out : file.in;
        EXPECT_EQ(head.number, way.last + 1) << head.rank;
        file.wrong = head.number != ++way.last;
        way.whole += head.part != static_cast<uint8_t>(kernet::filter::Part::piece) ? 1 : 0;
    }

    File files_[2];
    kernettest::Backed record_;
};

struct Case {
    const char* name;
    bool shm, tcp;
    bool suspends, cuts;
    const char* filters = "";
    const char* links = "tcp";
    const char* faults = "";  // of packets, for each 10,000
    int fewer = 4'000;        // messages, where there are filters or packets
};

// What is not to be had here of the links a case is about; "" if nothing.
std::string missing_link(const Case& c) {
    const auto wish = kernet::parse_links(c.links);
    if (!wish) return wish.error().message();
    for (const kernet::LinkLine* line : wish->lines) {
        if (!line->usable) continue;
        if (const auto usable = line->usable(nullptr); !usable) return usable.error().message();
    }
    return {};
}

EndpointConfig config_for(const Case& c, uint32_t rank, const std::string& job,
                          const std::string& filters) {
    EndpointConfig config = config_of(rank, job, c.shm, c.tcp, filters);
    config.links = c.links;
    if (auto plan = kernet::FaultPlan::parse(c.faults); plan) config.faults = *plan;
    return config;
}

class KernetStream : public testing::TestWithParam<Case> {};

TEST_P(KernetStream, MessagesArriveOnceInOrder) {
    const Case& c = GetParam();
    if (const std::string missing = missing_link(c); !missing.empty()) GTEST_SKIP() << missing;
    const std::string job = fmt::format("t{}-{}", getpid(), c.name);
    const MemoryPeak memory;
    const kernettest::Folder folder;
    const std::string filters = kernettest::with_places(c.filters, folder);
    // with filters, and over packets: less, as there are many cases
    const bool fewer = *c.filters || std::string_view(c.links) != "tcp";
    const int64_t count = message_count(fewer ? c.fewer : 20'000);
    Side a(config_for(c, 0, job, filters), count);
    Side b(config_for(c, 1, job, filters), count);
    const Location at_a = a.location(), at_b = b.location();
    a.begin(at_b);
    b.begin(at_a);
    Side* sides[2] = {&a, &b};
    std::mt19937 random(1);
    uint64_t epoch = 0;
    int moves = 0;
    const bool backed = filters.find(folder.path) != std::string::npos;
    Backups backups(folder.path, job);
    for (Exchange exchange(a, b); exchange.goes_on() && !backups.wrong();) {
        if (backed) backups.read();
        for (uint32_t rank : {0U, 1U})
            if (backed) sides[rank]->hold_at(backups.read_from(rank) + unread_messages);
        // what is slower gets as much done between two of them
        usleep(static_cast<unsigned>(times_slower() * rarer(c.links)) * (1000 + random() % 10'000));
        if (c.cuts && random() % 2) cut_links(random);
        if (!c.suspends) continue;
        const bool both = random() % 4 == 0;
        const int first = static_cast<int>(random() % 2);
        sides[first]->suspend();
        if (both) sides[1 - first]->suspend();
        usleep(random() % 3000);
        // On the same node, or on another one: then the other link is used.
        const std::string node = random() % 2 ? "n0" : "n1";
        sides[first]->wake(node, ++epoch, sides[1 - first]->location());
        if (both) sides[1 - first]->wake("n0", ++epoch, sides[first]->location());
        moves++;
    }
    EXPECT_EQ(a.received(), count);
    EXPECT_EQ(b.received(), count);
    if (c.suspends) {
        EXPECT_GT(moves, 0);
    }
    a.stop();
    b.stop();
    if (backed) backups.expect_all(count);
    EXPECT_LT(memory.grown(), most_memory);
}

INSTANTIATE_TEST_SUITE_P(Links, KernetStream,
                         testing::Values(Case{"shm", true, false, false, false},
                                         Case{"tcp", false, true, false, false},
                                         Case{"shm_cuts", true, false, false, true},
                                         Case{"tcp_cuts", false, true, false, true},
                                         Case{"tcp_suspends", false, true, true, false},
                                         Case{"both_suspends", true, true, true, false},
                                         Case{"both_suspends_and_cuts", true, true, true, true}),
                         [](const auto& info) { return std::string(info.param.name); });

std::vector<Case> filter_cases() {
    std::vector<Case> cases;
    for (const char* chain : kernettest::all_chains) {
        cases.push_back({"shm", true, false, false, false, chain});
        cases.push_back({"tcp_cuts", false, true, false, true, chain});
        cases.push_back({"both_suspends_and_cuts", true, true, true, true, chain});
    }
    return cases;
}

INSTANTIATE_TEST_SUITE_P(Filters, KernetStream, testing::ValuesIn(filter_cases()),
                         [](const auto& info) {
                             return std::string(info.param.name) + "_" +
                                    kernettest::case_name(info.param.filters);
                         });

// Links of packets lose, repeat and reorder them, under cuts and moves, with and without filters.
std::vector<Case> packet_cases() {
    constexpr const char* bad = "drop=250,duplicate=200,reorder=250,delay=200,corrupt=200";
    std::vector<Case> cases;
    for (const char* links : {"udp,tcp", "pair,tcp"}) {
        for (const char* chain : {"", "crypto,compress"}) {
            cases.push_back({"cuts", false, true, false, true, chain, links, ""});
            cases.push_back({"bad_cuts", false, true, false, true, chain, links, bad});
            cases.push_back({"bad_suspends", false, true, true, false, chain, links, bad});
            cases.push_back({"bad_both", true, true, true, true, chain, links, bad});
        }
    }
    for (const char* links : {"netdevice,tcp", "framepair,tcp", "ofi,tcp"}) {
        cases.push_back({"cuts", false, true, false, true, "", links, "", 1'000});
        cases.push_back({"both", true, true, true, true, "", links, "", 1'000});
    }
    // (libfabric loses nothing)
    cases.push_back({"bad_both", true, true, true, true, "", "netdevice,tcp", bad, 1'000});
    return cases;
}

INSTANTIATE_TEST_SUITE_P(Packets, KernetStream, testing::ValuesIn(packet_cases()),
                         [](const auto& info) {
                             const std::string links = info.param.links;
                             return links.substr(0, links.find(',')) + "_" + info.param.name +
                                    (*info.param.filters ? "_filtered" : "");
                         });

class KernetIdle : public testing::TestWithParam<std::tuple<bool, const char*>> {};

// MPI promises that what was sent arrives, even if the sender computes for hours afterwards: before
// the first link is there, and when the peer moves before it has taken what is on its way.
TEST_P(KernetIdle, SentMessageArrivesWhileSenderIsIdle) {
    const std::string job = fmt::format("i{}", getpid());
    const auto [shm, filters] = GetParam();
    Idler sender(config_of(0, job, shm, !shm, filters));
    Idler receiver(config_of(1, job, shm, !shm, filters));
    sender.endpoint().set_location(receiver.location());
    receiver.endpoint().set_location(sender.location());
    Stream& out = sender.hub().attach(1);
    Stream& in = receiver.hub().attach(0);
    for (uint64_t round = 0; round < 20; ++round) {
        Stream::Message message(1000, static_cast<uint8_t>(round)), got;
        out.send(Stream::Message(message));
        if (round > 0) receiver.move_to("n0", round, sender.location());
        const int64_t end = ghost::monotonic_us() + limit_us;
        while (!in.recv(got) && ghost::monotonic_us() < end) receiver.hub().progress();
        ASSERT_EQ(got, message) << "round " << round;
    }
}

// The same with a message that goes, and is encoded, in pieces: where the peer has just moved, its
// agent sends them all.
TEST_P(KernetIdle, LongMessageArrivesWhileSenderIsIdle) {
    const std::string job = fmt::format("l{}", getpid());
    const auto [shm, filters] = GetParam();
    Idler sender(config_of(0, job, shm, !shm, filters));
    Idler receiver(config_of(1, job, shm, !shm, filters));
    sender.endpoint().set_location(receiver.location());
    receiver.endpoint().set_location(sender.location());
    Stream& out = sender.hub().attach(1);
    Stream& in = receiver.hub().attach(0);
    Stream::Message message, got;
    for (uint64_t round = 0; round < 6; ++round) {
        message.resize(3'000'000);
        for (size_t at = 0; at < message.size(); ++at)
            message[at] = static_cast<uint8_t>(mix(at + round));
        out.send(Stream::Message(message));
        out.send({static_cast<uint8_t>(round)});
        const bool moves = round % 2 == 1;
        if (moves) receiver.move_to("n0", round, sender.location());
        const int64_t end = ghost::monotonic_us() + limit_us;
        auto take = [&] {
            while (!in.recv(got) && ghost::monotonic_us() < end) {
                receiver.hub().progress();
                if (!moves) sender.hub().progress();
            }
        };
        take();
        ASSERT_TRUE(got == message) << "round " << round;
        take();
        ASSERT_EQ(got, Stream::Message(1, static_cast<uint8_t>(round)));
    }
}

INSTANTIATE_TEST_SUITE_P(Links, KernetIdle,
                         testing::Combine(testing::Bool(), testing::Values("", "crypto,compress")),
                         [](const auto& info) {
                             return std::string(std::get<0>(info.param) ? "shm" : "tcp") +
                                    (*std::get<1>(info.param) ? "_filtered" : "");
                         });

// Ranks that would not understand each other do not meet, and say why.
TEST(KernetFilters, EndsWithDifferentFiltersRefuseEachOther) {
    const std::string job = fmt::format("o{}", getpid());
    for (const char* others : {"", "crypto=aes256gcm", "compress,crypto,compress=zstd"}) {
        if (std::string(others) == "crypto=aes256gcm" &&
            !Endpoint::create(config_of(1, job, false, true, others)))
            continue;  // this processor has none
        testing::internal::CaptureStderr();
        {
            Idler sender(config_of(0, job, false, true, "crypto"));
            Idler receiver(config_of(1, job, false, true, others));
            sender.endpoint().set_location(receiver.location());
            receiver.endpoint().set_location(sender.location());
            sender.hub().attach(1).send(Stream::Message(10));
            receiver.hub().attach(0).send(Stream::Message(10));
            Stream::Message got;
            const int64_t end = ghost::monotonic_us() + 300'000;
            while (ghost::monotonic_us() < end) {
                sender.hub().progress();
                receiver.hub().progress();
                EXPECT_FALSE(sender.hub().attach(1).recv(got));
                EXPECT_FALSE(receiver.hub().attach(0).recv(got));
            }
        }
        const std::string said = testing::internal::GetCapturedStderr();
        EXPECT_NE(
            said.find("no link with rank 1: its messages go through other filters than \"crypto\""),
            std::string::npos)
            << said;
        EXPECT_NE(said.find("no link with rank 0: "), std::string::npos) << said;
    }
}

TEST(KernetFilters, InvalidFilterIsRefusedByName) {
    for (const char* filters : {"zip", "crypto,so:/nowhere/filter.so", "backup=/proc/nowhere"}) {
        auto made = Endpoint::create(config_of(0, "7", false, true, filters));
        ASSERT_FALSE(made.ok());
        const std::string last = std::string(filters).substr(std::string(filters).find(',') + 1);
        EXPECT_NE(made.error().message().find("\"" + last + "\""), std::string::npos)
            << made.error().message();
    }
}

// More peers than are tried one by one (DataPath::watch_streams): one after the other and all at
// once, also when one of them comes back by a new link.
TEST(KernetPeers, ManyTcpPeersAreAllServed) {
    const std::string job = fmt::format("p{}", getpid());
    Idler middle(config_of(0, job, false, true));
    std::vector<std::unique_ptr<Idler>> others;
    for (uint32_t rank = 1; rank <= 6; ++rank) {
        others.push_back(std::make_unique<Idler>(config_of(rank, job, false, true)));
        middle.endpoint().set_location(others.back()->location());
        others.back()->endpoint().set_location(middle.location());
    }
    auto heard = [&](uint32_t rank, uint8_t value) {
        Stream::Message got;
        const int64_t end = ghost::monotonic_us() + limit_us;
        while (!middle.hub().attach(rank).recv(got)) {
            if (ghost::monotonic_us() > end) return false;
            middle.hub().progress();
        }
        return got == Stream::Message(3000, value);
    };
    for (uint8_t round = 0; round < 30; ++round) {
        if (round % 10 == 9) others[round % 6]->move_to("n0", round, middle.location());
        for (auto& other : others) other->hub().attach(0).send(Stream::Message(3000, round));
        for (uint32_t rank = 6; rank >= 1; --rank) ASSERT_TRUE(heard(rank, round)) << rank;
    }
}

TEST(KernetSuspend, SuspendLeavesNoDescriptorOrSharedMapping) {
    const int before = held();
    Side a(config_of(0, fmt::format("h{}", getpid()), true, true), 500);
    Side b(config_of(1, fmt::format("h{}", getpid()), true, true), 500);
    until_both_have_all(a, b);
    EXPECT_GT(held(), before + 2000);
    a.suspend();
    b.suspend();
    EXPECT_EQ(held(), before);
    a.stop();
    b.stop();
}

// With more ranks than processors, those who bring a peer back wait for one behind those who spin.
TEST(KernetSuspend, WaitForAbsentPeerYieldsProcessor) {
    const auto times_slept = [] {  // sched_yield() does not count
        rusage usage{};
        getrusage(RUSAGE_THREAD, &usage);
        return usage.ru_nvcsw;
    };
    auto alone = Endpoint::create(config_of(0, fmt::format("a{}", getpid()), true, true));
    ASSERT_TRUE(alone) << alone.error().message();
    StreamHub hub(**alone);
    hub.attach(1).send(Stream::Message(100));  // of whom nobody has heard
    const int64_t begin = ghost::monotonic_us(), slept = times_slept();
    while (ghost::monotonic_us() < begin + 300'000) hub.progress();
    EXPECT_GT(times_slept() - slept, 20);
}

// Spinning ranks would keep the processor from the one they wait for. Those of other nodes do not
// count.
TEST(KernetSuspend, RanksThatOutnumberTheProcessorsOfTheirNodeYield) {
    using Idle = kernet::DataPath::Idle;
    const auto job = fmt::format("y{}", getpid());
    const auto processors = static_cast<uint32_t>(sysconf(_SC_NPROCESSORS_ONLN));
    Idler one(config_of(0, job, true, true));
    std::vector<std::unique_ptr<Idler>> others;
    kernet::DataPath& data = one.endpoint().data();
    const auto idle_with = [&](bool shm) {
        const auto rank = static_cast<uint32_t>(others.size() + 1);
        others.push_back(std::make_unique<Idler>(config_of(rank, job, shm, true)));
        one.endpoint().set_location(others.back()->location());
        others.back()->endpoint().set_location(one.location());
        Stream& there = others.back()->hub().attach(0);
        one.hub().attach(rank).send(Stream::Message(8));
        Stream::Message got;
        const int64_t end = ghost::monotonic_us() + limit_us;
        while (!there.recv(got) && ghost::monotonic_us() < end) {
            one.hub().progress();
            others.back()->hub().progress();
        }
        kernet::Gate::Holder inside(data.gate());
        for (int pass = 0, quiet = 0; pass < 1'000'000 && quiet < 100; ++pass)
            quiet =
                data.progress_inside() == 0 && !data.attach(rank).expects_link() ? quiet + 1 : 0;
        return data.how_to_idle();
    };
    EXPECT_EQ(idle_with(false), Idle::spin);
    for (uint32_t local = 1; local < processors; ++local)
        EXPECT_EQ(idle_with(true), Idle::spin) << local;
    EXPECT_EQ(idle_with(true), Idle::yield);
}

Location end_of(Location location) {
    location.attached = false;
    location.ended = true;
    return location;
}

// What no link ever took can never arrive: whoever sent it must not wait for an answer.
TEST(KernetGone, FirstMessageToAPeerThatHasEndedIsUndeliverable) {
    const auto job = fmt::format("g{}", getpid());
    Idler sender(config_of(0, job, true, true));
    Stream& out = sender.hub().attach(1);
    kernet::DataPath& data = sender.endpoint().data();
    out.send(Stream::Message(100));  // it is still looked for
    kernet::Gate::Holder inside(data.gate());
    EXPECT_FALSE(data.registry().take_gone());
    EXPECT_TRUE(data.attach(1).expects_link());
    Location gone;
    gone.rank = 1;
    sender.endpoint().set_location(end_of(gone));
    EXPECT_TRUE(data.registry().take_gone());
    EXPECT_FALSE(data.registry().take_gone()) << "told once";
    EXPECT_TRUE(data.attach(1).gone());
    EXPECT_FALSE(data.attach(1).expects_link());
    ASSERT_NE(data.undeliverable(), nullptr);
    EXPECT_EQ(data.undeliverable()->peer(), 1u);
}

// What it sent before its end is read to the last message, and what it may have read is not called
// undeliverable.
TEST(KernetGone, LinkIsReadToItsEnd) {
    for (const bool shm : {true, false}) {
        const auto job = fmt::format("g{}{}", shm, getpid());
        Idler survivor(config_of(0, job, shm, true));
        auto other = std::make_unique<Idler>(config_of(1, job, shm, true));
        const Location where = other->location();
        survivor.endpoint().set_location(where);
        other->endpoint().set_location(survivor.location());
        Stream& here = survivor.hub().attach(1);
        Stream& there = other->hub().attach(0);
        here.send(Stream::Message(8, 1));
        Stream::Message got;
        const int64_t end = ghost::monotonic_us() + limit_us;
        const auto goes_on = [&](auto done) {
            while (!done() && ghost::monotonic_us() < end) survivor.hub().progress();
            return ghost::monotonic_us() < end;
        };
        ASSERT_TRUE(goes_on([&] { return other->hub().progress(), there.recv(got); }));
        for (uint8_t i = 0; i < 100; ++i) there.send(Stream::Message(100, i));
        ASSERT_TRUE(goes_on([&] { return other->hub().progress(), there.backlog() == 0; }));
        here.send(Stream::Message(8, 2));  // nobody reads it
        survivor.endpoint().set_location(end_of(where));
        EXPECT_FALSE(survivor.endpoint().data().attach(1).gone()) << "there is a link";
        for (uint8_t i = 0; i < 100; ++i) {
            ASSERT_TRUE(goes_on([&] { return here.recv(got); }));
            EXPECT_EQ(got, Stream::Message(100, i));
        }
        other.reset();
        kernet::DataPath& data = survivor.endpoint().data();
        ASSERT_TRUE(goes_on([&] {
            kernet::Gate::Holder inside(data.gate());
            return !data.attach(1).linked() || data.attach(1).gone();
        }));
        kernet::Gate::Holder inside(data.gate());
        EXPECT_EQ(data.undeliverable(), nullptr);
    }
}

// Who leaves for good, and whose peer may move, stays until the peer has read all of it: a peer
// that is suspended gives up the link as it is.
TEST(KernetGone, LastWordIsReadByAPeerThatMovesBeforeItReads) {
    using Drained = kernet::DataPath::Drained;
    for (const bool shm : {true, false}) {
        const auto job = fmt::format("w{}{}", shm, getpid());
        Idler reader(config_of(0, job, shm, true));
        Idler leaver(config_of(1, job, shm, true));
        reader.endpoint().set_location(leaver.location());
        leaver.endpoint().set_location(reader.location());
        Stream& here = reader.hub().attach(1);
        Stream& there = leaver.hub().attach(0);
        Stream::Message got;
        const int64_t end = ghost::monotonic_us() + limit_us;
        here.send(Stream::Message(8, 1));
        while (!there.recv(got) && ghost::monotonic_us() < end) {
            reader.hub().progress();
            leaver.hub().progress();
        }
        there.send(Stream::Message(100, 7));
        std::atomic<bool> left{false};
        bool arrived = false;
        std::thread leaving([&] {
            arrived = leaver.endpoint().data().drain(limit_us, Drained::acknowledged);
            leaver.endpoint().data().unattach_all();
            left = true;
        });
        const int64_t early = ghost::monotonic_us() + 200'000;
        while (!left && ghost::monotonic_us() < early) usleep(1000);
        EXPECT_FALSE(left) << "nobody has read it";
        reader.move_to("n1", 1, leaver.location());
        leaver.endpoint().set_location(reader.location());
        const int64_t back = ghost::monotonic_us() + (left ? 1'000'000 : limit_us);
        bool read = false;
        while (!read && ghost::monotonic_us() < back) {
            reader.hub().progress();
            read = here.recv(got);
        }
        EXPECT_TRUE(read && got == Stream::Message(100, 7)) << (shm ? "shm" : "tcp");
        while (!left) reader.hub().progress();
        leaving.join();
        EXPECT_TRUE(arrived);
    }
}

// Ranks come back from a snapshot one after the other: the first ones find nobody listening yet.
TEST(KernetSuspend, ReturnedNeighbourUsesSharedMemory) {
    const auto job = fmt::format("n{}", getpid());
    auto early = Endpoint::create(config_of(0, job, true, true));
    auto late = Endpoint::create(config_of(1, job, true, true));
    ASSERT_TRUE(early && late);
    const Location back = (*late)->location();
    (*early)->set_location(back);
    (*late)->close_gate();
    (*late)->suspend_all();
    StreamHub hub(**early), other(**late);
    hub.attach(1).send(Stream::Message(100, 7));
    const auto serve_for = [&](int64_t us, auto done) {
        const int64_t end = ghost::monotonic_us() + us;
        while (ghost::monotonic_us() < end && !done()) {
            hub.progress();
            (*early)->service();
            if ((*late)->service_fd() < 0) continue;
            other.progress();
            (*late)->service();
        }
    };
    serve_for(100'000, [] { return false; });
    // It has heard of nobody and does not connect by itself.
    auto woken = (*late)->wakeup_all(back.node, back.node_name, back.epoch, {});
    ASSERT_TRUE(woken) << woken.error().message();
    (*late)->open_gate();
    Stream::Message got;
    serve_for(10'000'000, [&] { return other.attach(0).recv(got); });
    EXPECT_EQ(got, Stream::Message(100, 7));
    kernet::Gate::Holder inside((*early)->data().gate());
    EXPECT_STREQ((*early)->data().attach(1).link_name(), "shm");
}

// Who sleeps on the descriptors of its links is woken by a message of any size: while nobody does,
// the links keep the kernel from telling of small ones.
TEST(KernetSleep, SmallTcpMessageWakesSleeper) {
    const std::string job = fmt::format("z{}", getpid());
    Idler sender(config_of(0, job, false, true)), receiver(config_of(1, job, false, true));
    sender.endpoint().set_location(receiver.location());
    receiver.endpoint().set_location(sender.location());
    Stream& out = sender.hub().attach(1);
    Stream& in = receiver.hub().attach(0);
    kernet::DataPath& data = receiver.endpoint().data();
    for (uint8_t round = 0; round < 3; ++round) {
        Stream::Message got;
        out.send(Stream::Message(8, round));
        const int64_t end = ghost::monotonic_us() + limit_us;
        while (!in.recv(got) && ghost::monotonic_us() < end) receiver.hub().progress();
        ASSERT_EQ(got, Stream::Message(8, round));
        std::vector<pollfd> readable;
        {
            kernet::Gate::Holder inside(data.gate());
            EXPECT_FALSE(data.has_quick());
            data.begin_sleep(readable);
        }
        ASSERT_EQ(readable.size(), 1u);
        out.send(Stream::Message(8, 'w'));
        EXPECT_EQ(poll(readable.data(), readable.size(), 10'000), 1);
        {
            kernet::Gate::Holder inside(data.gate());
            data.end_sleep();
        }
        while (!in.recv(got) && ghost::monotonic_us() < end) receiver.hub().progress();
        EXPECT_EQ(got, Stream::Message(8, 'w'));
    }
}

}  // namespace
