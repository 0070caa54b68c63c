// SPDX-License-Identifier: BSD-3-Clause
// Links chosen by measurement (`auto`): the trial of one link, what is remembered of trials, and
// endpoints that change to the better link while messages go, after a move, and with peers that
// have other links or have never heard of trials.
#include <gtest/gtest.h>

#include <algorithm>
#include <arpa/inet.h>
#include <atomic>
#include <fmt/format.h>
#include <fstream>
#include <functional>
#include <iterator>
#include <sstream>
#include <sys/socket.h>
#include <unistd.h>

#include "base/doorway.hpp"
#include "base/log.hpp"
#include "kernet-btl/transport/choice.hpp"
#include "kernet-btl/link/loop.hpp"
#include "kernet-btl/link/net.hpp"
#include "kernet-btl/link/netdevice.hpp"
#include "kernet-btl/link/trial.hpp"
#include "tests/contract/kernet_ends.hpp"

namespace {

using namespace kernet_test;
using kernet::FaultPlan;
using kernet::LinkChoices;
using kernet::LoopHub;
using kernet::Trial;
using kernet::TrialFigures;
using kernet::wire::LinkKind;

// --- a trial ---

// Time that goes by as the ends look at it, whatever else the processors do.
int64_t looked_at_ns = 0;
int64_t ticking() {
    return looked_at_ns += 200;
}

// Both ends of one, over a pair of sockets and link loop.
struct Trying {
    explicit Trying(const std::string& faults, Trial::Role role = Trial::Role::asks_long_too) {
        int pair[2];
        EXPECT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair), 0);
        for (int i = 0; i < 2; i++) {
            connections[i].reset(pair[i]);
            drivers[i] = kernet::make_faulty(hub->make(), *FaultPlan::parse(faults));
        }
        EXPECT_TRUE(drivers[0]->connect(drivers[1]->address(), 1).ok());
        EXPECT_TRUE(drivers[1]->connect(drivers[0]->address(), 2).ok());
        const kernet::PacketKeys keys{{2, 20, 0}, {1, 10, 0}};
        asks = std::make_unique<Trial>(connections[0], *drivers[0], keys, role, ticking);
        answers = std::make_unique<Trial>(connections[1], *drivers[1],
                                          kernet::PacketKeys{keys.in, keys.out},
                                          Trial::Role::answers, ticking);
    }
    // Until whoever asks has done; the other end's state.
    Trial::State run() {
        const int64_t end = ghost::monotonic_us() + limit_us;
        while (asks->step() == Trial::State::going && ghost::monotonic_us() < end) answers->step();
        return answers->step();
    }
    std::shared_ptr<LoopHub> hub = std::make_shared<LoopHub>();
    ghost::Fd connections[2];
    std::unique_ptr<kernet::PacketDriver> drivers[2];
    std::unique_ptr<Trial> asks, answers;
};

TEST(KernetTrial, TrialMeasuresBothDirections) {
    Trying trying("seed=1");
    EXPECT_EQ(trying.run(), Trial::State::going);
    EXPECT_EQ(trying.asks->step(), Trial::State::done);
    const TrialFigures figures = trying.asks->figures();
    EXPECT_GT(figures.packets, 0);
    EXPECT_GT(figures.connection, 0);
    EXPECT_GT(figures.long_packets, 0);
    EXPECT_GT(figures.long_connection, 0);
    EXPECT_GT(figures.sent, 32U);
    EXPECT_EQ(figures.lost, 0U) << figures.text();
    EXPECT_GT(figures.ratio(), 0);
    trying.asks->tell(LinkKind::udp);
    EXPECT_EQ(trying.answers->step(), Trial::State::done);
    EXPECT_EQ(trying.answers->told(), LinkKind::udp);
}

TEST(KernetTrial, TrialCountsLoss) {
    Trying trying("seed=1,drop=2000,duplicate=1000,corrupt=500");
    trying.run();
    const TrialFigures figures = trying.asks->figures();
    EXPECT_GT(figures.lost, figures.sent / 8) << figures.text();
    EXPECT_LT(figures.lost, figures.sent) << figures.text();
    EXPECT_TRUE(figures.lossy());
    EXPECT_EQ(figures.ratio(), 0);
}

TEST(KernetTrial, TrialOfDeadLinkIsShort) {
    Trying trying("drop=10000", Trial::Role::asks);
    const int64_t begun = looked_at_ns;
    trying.run();
    EXPECT_LT(looked_at_ns - begun, 200'000'000);  // the longest a trial takes is 300 ms
    const TrialFigures figures = trying.asks->figures();
    EXPECT_EQ(figures.packets, 0);
    EXPECT_GT(figures.connection, 0);
    EXPECT_EQ(figures.lost, figures.sent);
    EXPECT_EQ(figures.ratio(), 0);
}

TEST(KernetTrial, LostOrMalformedEndBreaksTrial) {
    Trying gone("seed=1");
    gone.asks->step();
    gone.connections[1].reset();
    EXPECT_EQ(gone.run(), Trial::State::broken);
    EXPECT_EQ(gone.asks->step(), Trial::State::broken);
    Trying odd("seed=1");
    const char nonsense[64] = "this is no message of a trial, whatever it may be";
    ASSERT_EQ(send(odd.connections[0].get(), nonsense, sizeof nonsense, 0), 64);
    EXPECT_EQ(odd.answers->step(), Trial::State::broken);
}

// --- what is remembered ---

TrialFigures figures_of(int64_t packets, int64_t connection, uint32_t lost = 0) {
    TrialFigures figures;
    figures.packets = packets;
    figures.connection = connection;
    figures.sent = 32;
    figures.lost = lost;
    return figures;
}

void tried(LinkChoices& choices, const TrialFigures& figures, int64_t now) {
    choices.tried("a b", figures, figures.ratio(), now);
}

TEST(KernetLinkChoices, BestClearlyBetterLinkIsChosen) {
    LinkChoices choices;
    choices.set_candidates({LinkKind::pair, LinkKind::netdevice, LinkKind::ofi});
    EXPECT_EQ(choices.kind("a b"), LinkKind::tcp);
    EXPECT_EQ(choices.next("a b", 1), LinkKind::pair);
    tried(choices, figures_of(900, 1000), 2);
    EXPECT_EQ(choices.next("a b", 3), LinkKind::netdevice);
    tried(choices, figures_of(800, 1000), 4);
    EXPECT_FALSE(choices.fresh("a b", 5));
    EXPECT_EQ(choices.kind("a b"), LinkKind::tcp) << "before it is decided";
    tried(choices, figures_of(500, 1000, 3), 6);  // loses too much
    EXPECT_TRUE(choices.fresh("a b", 7));
    EXPECT_FALSE(choices.next("a b", 7));
    EXPECT_EQ(choices.kind("a b"), LinkKind::netdevice);
    EXPECT_EQ(choices.kind("a c"), LinkKind::tcp);
}

TEST(KernetLinkChoices, MuchBetterLinkEndsSearch) {
    LinkChoices choices;
    choices.set_candidates({LinkKind::framepair, LinkKind::pair, LinkKind::ofi});
    EXPECT_EQ(choices.next("a b", 1), LinkKind::framepair);
    tried(choices, figures_of(600, 1000), 2);
    EXPECT_TRUE(choices.fresh("a b", 3));
    EXPECT_EQ(choices.kind("a b"), LinkKind::framepair);
}

TEST(KernetLinkChoices, TcpIsKeptUnlessAnotherIsClearlyBetter) {
    for (const TrialFigures& figures : {figures_of(970, 1000), figures_of(2000, 1000),
                                        figures_of(0, 1000, 32), figures_of(100, 1000, 8)}) {
        LinkChoices choices;
        choices.set_candidates({LinkKind::pair});
        ASSERT_EQ(choices.next("a b", 1), LinkKind::pair);
        tried(choices, figures, 2);
        EXPECT_TRUE(choices.fresh("a b", 3));
        EXPECT_EQ(choices.kind("a b"), LinkKind::tcp) << figures.text();
    }
    LinkChoices none;
    EXPECT_FALSE(none.next("a b", 1));
    EXPECT_EQ(none.kind("a b"), LinkKind::tcp);
}

TEST(KernetLinkChoices, LongAndShortMessagesCountAlike) {
    TrialFigures figures = figures_of(500, 1000);
    figures.long_connection = 10'000;
    EXPECT_EQ(figures.ratio(), 0) << "they do not come across";
    figures.long_packets = 40'000;
    EXPECT_GT(figures.ratio(), 1);
    figures.long_packets = 10'000;
    EXPECT_LT(figures.ratio(), 0.8);
}

TEST(KernetLinkChoices, MeasurementExpires) {
    LinkChoices choices;
    choices.set_candidates({LinkKind::pair});
    ASSERT_TRUE(choices.next("a b", 1));
    tried(choices, figures_of(500, 1000), 1);
    const int64_t later = 2 + LinkChoices::fresh_us;
    EXPECT_FALSE(choices.fresh("a b", later));
    EXPECT_EQ(choices.next("a b", later), LinkKind::pair);
    EXPECT_EQ(choices.kind("a b"), LinkKind::pair) << "until there is another";
    tried(choices, figures_of(1000, 1000), later);
    EXPECT_EQ(choices.kind("a b"), LinkKind::tcp);
}

TEST(KernetLinkChoices, UntriableLinkIsGivenUp) {
    LinkChoices choices;
    choices.set_candidates({LinkKind::pair, LinkKind::udp});
    int attempts = 0;
    while (choices.next("a b", 1) == LinkKind::pair && attempts < 100) {
        choices.failed("a b", "test", true, 1);
        attempts++;
    }
    EXPECT_GT(attempts, 1);
    EXPECT_LT(attempts, 10);
    EXPECT_EQ(choices.next("a b", 1), LinkKind::udp);
    choices.failed("a b", "test", false, 1);
    EXPECT_TRUE(choices.fresh("a b", 2));
    EXPECT_EQ(choices.kind("a b"), LinkKind::tcp);
    choices.told("a b", LinkKind::pair, 3);
    EXPECT_EQ(choices.kind("a b"), LinkKind::pair);
}

// What was measured while a job began may have been about that.
TEST(KernetLinkChoices, KeptConnectionIsReexamined) {
    LinkChoices choices;
    choices.set_candidates({LinkKind::pair});
    int64_t now = 1, after = LinkChoices::first_doubt_us;
    ASSERT_TRUE(choices.next("a b", now));
    tried(choices, figures_of(2000, 1000), now);
    for (int i = 0; i < LinkChoices::most_doubts; i++) {
        EXPECT_EQ(choices.doubted("a b"), i > 0);
        ASSERT_EQ(choices.doubt_at("a b"), now + after) << i;
        EXPECT_TRUE(choices.fresh("a b", std::min(now + after, now + LinkChoices::fresh_us) - 1));
        now += after;
        after *= LinkChoices::doubt_later;
        EXPECT_FALSE(choices.fresh("a b", now));
        ASSERT_EQ(choices.next("a b", now), LinkKind::pair);
        EXPECT_TRUE(choices.doubted("a b"));
        tried(choices, figures_of(2000, 1000), now);
    }
    EXPECT_EQ(choices.doubt_at("a b"), 0);
    EXPECT_TRUE(choices.fresh("a b", now + LinkChoices::fresh_us - 1));
    // one that is old, as after a new link, is measured as at first
    now += LinkChoices::fresh_us;
    ASSERT_TRUE(choices.next("a b", now));
    EXPECT_FALSE(choices.doubted("a b"));
    tried(choices, figures_of(2000, 1000), now);
    now = choices.doubt_at("a b");
    ASSERT_TRUE(choices.next("a b", now));
    tried(choices, figures_of(500, 1000), now);
    EXPECT_EQ(choices.kind("a b"), LinkKind::pair);
    EXPECT_EQ(choices.doubt_at("a b"), 0);
}

TEST(KernetLinkChoices, PeersMeasurementIsReexaminedToo) {
    LinkChoices choices;
    choices.set_candidates({LinkKind::pair});
    choices.told("a b", LinkKind::tcp, 1);
    EXPECT_EQ(choices.doubt_at("a b"), 1 + LinkChoices::first_doubt_us);
    choices.told("a b", LinkKind::pair, 2);
    EXPECT_EQ(choices.doubt_at("a b"), 0);
    choices.set_candidates({LinkKind::framepair, LinkKind::pair});
    choices.told("a b", LinkKind::pair, 3);
    EXPECT_EQ(choices.doubt_at("a b"), 3 + LinkChoices::first_doubt_us) << "the second best";
    choices.lost("a b", "test", 4);
    EXPECT_EQ(choices.kind("a b"), LinkKind::tcp);
    EXPECT_EQ(choices.doubt_at("a b"), 0) << "it is known";
}

// --- endpoints ---

// What was logged while it exists, also by threads.
class Said {
  public:
    explicit Said(ghost::log::Level level = ghost::log::Level::info) {
        ghost::log::setup("test", level);
        testing::internal::CaptureStderr();
    }
    ~Said() {
        if (!over_) text();
    }
    // What has been said until now, all of which text() gives again.
    static std::string so_far() {
        std::ifstream file("/proc/self/fd/2");
        return {std::istreambuf_iterator<char>(file), {}};
    }
    std::string text() {
        over_ = true;
        const std::string out = testing::internal::GetCapturedStderr();
        ghost::log::setup("test", ghost::log::Level::warning);
        return out;
    }

  private:
    bool over_ = false;
};

int count_of(const std::string& text, const std::string& what) {
    int count = 0;
    for (size_t at = text.find(what); at != std::string::npos; at = text.find(what, at + 1)) {
        count++;
    }
    return count;
}

// The links that whoever speaks with that peer has taken, in turn, from what was logged.
std::vector<std::string> links_taken(const std::string& text, const std::string& peer) {
    std::vector<std::string> out;
    const std::string mark = fmt::format("kernet: {}: link ", peer);
    for (size_t at = text.find(mark); at != std::string::npos; at = text.find(mark, at)) {
        at += mark.size();
        out.push_back(text.substr(at, text.find(' ', at) - at));
    }
    return out;
}

// Two endpoints and their applications, which the test drives. On a busy machine figures may be
// anything: unless they are what a test is about, packets that come across are taken to be better.
struct Two {
    Two(const std::string& links, const std::string& others, const std::string& faults = "",
        bool always_better = false, decltype(EndpointConfig::judge) judge = {})
        : given(std::move(judge)),
          a(config(0, links, faults, always_better)),
          b(config(1, others, faults, always_better)) {
        a.endpoint().set_location(b.location());
        b.endpoint().set_location(a.location());
    }
    EndpointConfig config(uint32_t rank, const std::string& links, const std::string& faults,
                          bool always_better) {
        EndpointConfig out = config_of(rank, fmt::format("c{}", getpid()), false, true);
        out.node_name = rank == 0 ? "n0" : "n1";
        out.links = links;
        out.loop = hub;
        out.faults = *FaultPlan::parse(faults);
        const bool judged = links.starts_with("auto") && links.find("udp") == links.npos;
        auto judge = given;
        if (!judge && (always_better || (faults.empty() && !judged))) {
            judge = [](LinkKind, const TrialFigures& figures) {
                return figures.packets > 0 ? 0.5 : 0;
            };
        }
        out.judge = judge;
        return out;
    }
    // One message each way, of any size: false if one does not come, or not as it was sent.
    bool exchange() {
        Stream::Message there(round % 7 == 0 ? 300'000 : 100, static_cast<uint8_t>(round)), got;
        Stream::Message back(200, static_cast<uint8_t>(round + 1));
        round++;
        const int64_t end = ghost::monotonic_us() + limit_us;
        const auto comes = [&](Idler& from, Idler& to, uint32_t who) {
            while (!to.hub().attach(who).recv(got) && ghost::monotonic_us() < end) {
                from.hub().progress();
                to.hub().progress();
            }
            return std::exchange(got, {});
        };
        a.hub().attach(1).send(Stream::Message(there));
        if (comes(a, b, 0) != there) return false;
        b.hub().attach(0).send(Stream::Message(back));
        return comes(b, a, 1) == back;
    }
    std::string link(Idler& of, uint32_t peer) {
        kernet::Gate::Holder inside(of.endpoint().data().gate());
        return of.endpoint().data().attach(peer).link_name();
    }
    // Messages go until both ends have that link.
    bool come_by(const std::string& name, int64_t us = 20'000'000) {
        const int64_t end = ghost::monotonic_us() + us;
        do {
            if (!exchange()) return false;
            if (link(a, 1) == name && link(b, 0) == name) return true;
        } while (ghost::monotonic_us() < end);
        return false;
    }
    // The same until both ends have the same link, which one has a moment before the other.
    bool agree() {
        return go_on_until([this] { return link(a, 1) == link(b, 0); });
    }
    // The same until something is true.
    bool go_on_until(const std::function<bool()>& reached) {
        const int64_t end = ghost::monotonic_us() + limit_us;
        while (!reached() && ghost::monotonic_us() < end) {
            if (!exchange()) return false;
        }
        return reached();
    }
    // The same for so long, whatever link there is.
    void go_on(int64_t us) {
        const int64_t end = ghost::monotonic_us() + us;
        while (ghost::monotonic_us() < end) ASSERT_TRUE(exchange());
    }
    // The same until both ends have said which link it is from now on, which one says later.
    bool go_on_until_decided() {
        return go_on_until([] { return count_of(Said::so_far(), "from now on") >= 2; });
    }
    std::shared_ptr<LoopHub> hub = std::make_shared<LoopHub>();
    decltype(EndpointConfig::judge) given;
    Idler a, b;
    uint32_t round = 0;
};

// Within a process link udp is better than any connection, and the first messages do not wait.
TEST(KernetMeasured, BetterLinkIsTakenByBothEnds) {
    Said said;
    {
        Two two("auto,udp", "auto,udp");
        ASSERT_TRUE(two.exchange());
        EXPECT_TRUE(two.come_by("udp")) << two.link(two.a, 1) << ' ' << two.link(two.b, 0);
        two.go_on(50'000);
        EXPECT_EQ(two.link(two.a, 1), "udp");
    }
    const std::string text = said.text();
    EXPECT_EQ(count_of(text, "link udp is better: there and back "), 1) << text;
    EXPECT_EQ(count_of(text, "link udp from now on"), 2) << text;  // both ends know
}

// One is measured against the other once for two nodes, whoever connects and however often.
TEST(KernetMeasured, MeasuredAgainAfterMoveOnly) {
    Said said;
    {
        Two two("auto,udp", "auto,udp");
        std::mt19937 random(1);
        ASSERT_TRUE(two.come_by("udp"));
        for (int i = 0; i < 5; i++) {
            cut_links(random);
            ASSERT_TRUE(two.exchange());
        }
        ASSERT_TRUE(two.come_by("udp"));
        two.b.move_to("n2", 1, two.a.location());
        two.a.endpoint().set_location(two.b.location());
        ASSERT_TRUE(two.exchange());
        EXPECT_TRUE(two.come_by("udp")) << "after a move";
        two.a.move_to("n3", 1, two.b.location());
        two.b.endpoint().set_location(two.a.location());
        EXPECT_TRUE(two.come_by("udp")) << "after a move of the other end";
    }
    const std::string text = said.text();
    EXPECT_EQ(count_of(text, "link udp is better: "), 3) << text;
    // Either end may be the first to connect again, which then measures.
    const auto measured = [&text](const char* one, const char* other) {
        return count_of(text, fmt::format("between {} and {}: link udp is better", one, other)) +
               count_of(text, fmt::format("between {} and {}: link udp is better", other, one));
    };
    EXPECT_EQ(measured("n2", "n0"), 1) << text;
    EXPECT_EQ(measured("n3", "n2"), 1) << text;
}

// A connection may break at any moment while a link is made by it, which says nothing of that link.
TEST(KernetMeasured, BrokenConnectionKeepsChosenLink) {
    Two two("auto,udp", "auto,udp");
    std::mt19937 random(1);
    ASSERT_TRUE(two.come_by("udp"));
    for (int round = 0; round < 100; round++) {
        for (const int64_t end = ghost::monotonic_us() + 10'000; ghost::monotonic_us() < end;) {
            cut_links(random);
            two.a.hub().progress();
            two.b.hub().progress();
        }
        ASSERT_TRUE(two.come_by("udp"))
            << round << ": " << two.link(two.a, 1) << ' ' << two.link(two.b, 0);
    }
}

TEST(KernetMeasured, EndMovesDuringMeasurement) {
    Two two("auto,udp", "auto,udp");
    for (uint64_t epoch = 1; epoch < 40; epoch++) {
        Idler& moves = epoch % 2 ? two.a : two.b;
        Idler& stays = epoch % 2 ? two.b : two.a;
        moves.move_to(fmt::format("n{}", 10 + epoch), epoch, stays.location());
        stays.endpoint().set_location(moves.location());
        // up to some time in the trial that begins 5 ms after the link
        two.go_on(4'000 + static_cast<int64_t>(mix(epoch) % 4'000));
    }
    EXPECT_TRUE(two.come_by("udp"));
}

TEST(KernetMeasured, LossyPacketLinkIsNotTaken) {
    for (const char* faults : {"drop=3000", "drop=10000"}) {
        Said said;
        {
            Two two("auto,pair", "auto,pair", faults);
            EXPECT_TRUE(two.go_on_until_decided());
            EXPECT_EQ(two.link(two.a, 1), "tcp");
            EXPECT_EQ(two.link(two.b, 0), "tcp");
        }
        const std::string text = said.text();
        EXPECT_EQ(count_of(text, "link pair loses too much: ") +
                      count_of(text, "link pair brings nothing across: "),
                  1)
            << text;
        EXPECT_EQ(count_of(text, "link tcp from now on"), 2) << text;
    }
}

// Figures that are bad at first, as where a job's start has the processors, are not the last word.
TEST(KernetMeasured, LinkThatImprovesIsTakenLater) {
    Said said;
    auto trials = std::make_shared<std::atomic<int>>(0);
    {
        Two two("auto,udp", "auto,udp", "", false, [trials](LinkKind, const TrialFigures& figures) {
            return trials->fetch_add(1) > 0 && figures.packets > 0 ? 0.5 : 2.0;
        });
        EXPECT_TRUE(two.go_on_until_decided());
        EXPECT_EQ(two.link(two.a, 1), "tcp");
        // at 2 s, or when that costs 1 % of the time
        EXPECT_TRUE(two.come_by("udp", 100'000'000));
    }
    const std::string text = said.text();
    // (the second: where a packet comes so late that it counts as lost)
    EXPECT_EQ(count_of(text, "link udp is not clearly better: ") +
                  count_of(text, "link udp loses too much: "),
              1)
        << text;
    EXPECT_EQ(count_of(text, "link udp from now on"), 2) << text;
    EXPECT_EQ(*trials, 2);
}

// What was lost only later: by the link itself first, and it is not taken again.
TEST(KernetMeasured, PacketLinkThatStartsLosingIsLeft) {
    Said said;
    {
        Two two("auto,pair", "auto,pair", "drop=2000", true);
        ASSERT_TRUE(two.come_by("pair"));
        std::mt19937 random(1);
        Stream::Message got;
        const int64_t end = ghost::monotonic_us() + limit_us;
        // (one that is cut before it has judged itself is followed by another)
        while (two.link(two.a, 1) != "tcp" && ghost::monotonic_us() < end) {
            for (uint32_t i = 0; i < 800; i++) {
                two.a.hub().attach(1).send(Stream::Message(1'000, static_cast<uint8_t>(i)));
            }
            for (uint32_t i = 0; i < 800 && ghost::monotonic_us() < end;) {
                two.a.hub().progress();
                two.b.hub().progress();
                if (!two.b.hub().attach(0).recv(got)) continue;
                ASSERT_EQ(got, Stream::Message(1'000, static_cast<uint8_t>(i++)));
            }
            cut_links(random);
            ASSERT_TRUE(two.exchange());
        }
        EXPECT_TRUE(two.come_by("tcp"));
    }
    const std::string text = said.text();
    EXPECT_NE(text.find("link tcp from now on: too many packets were lost"), std::string::npos)
        << text;
}

// `auto` alone: whichever it is here, both ends have it, and know why. On a busy machine it
// takes its time until both do, and where that is seconds there is more than one choice.
TEST(KernetMeasured, PairLinkAgainstTcp) {
    Said said;
    const auto ends_that_know = [](const std::string& text, const std::string& link) {
        return count_of(text, fmt::format("link {} from now on", link));
    };
    std::string link;
    bool doubted = false;  // where this takes seconds they are measured once more
    const int64_t begun = ghost::monotonic_us();
    {
        Two two("auto", "auto");
        const auto both_know = [&] {
            link = two.link(two.a, 1);
            return link == two.link(two.b, 0) && ends_that_know(Said::so_far(), link) >= 2;
        };
        EXPECT_TRUE(two.go_on_until(both_know));
        two.go_on(200'000);
        EXPECT_TRUE(two.go_on_until(both_know));
        doubted = ghost::monotonic_us() - begun >= LinkChoices::first_doubt_us;
    }
    const std::string text = said.text();
    const int ends = ends_that_know(text, link);
    const int measured = count_of(text, " packets lost");  // framepair and pair
    EXPECT_TRUE(doubted ? ends >= 2 : ends == 2) << text;
    EXPECT_TRUE(measured >= 1 && (doubted || measured <= 2)) << text;
    printf("%s", text.c_str());
}

// An end that does not have the link, and one that is not asked to measure, have a say.
TEST(KernetMeasured, PeersWithDifferentLinks) {
    for (const char* others : {"tcp", "pair,tcp", "auto"}) {
        Said said;
        {
            Two two("auto,udp", others);
            two.go_on(300'000);
            EXPECT_NE(two.link(two.a, 1), "udp");
            EXPECT_TRUE(two.agree());
        }
        const std::string text = said.text();
        EXPECT_EQ(count_of(text, "link udp is better"), 0) << text;
    }
    // It answers, and has the link where it would not measure.
    Two two("auto,udp", "udp");
    EXPECT_TRUE(two.come_by("udp"));
}

// A peer of before there were trials refuses them; it is asked some times, and left in peace.
TEST(KernetMeasured, PeerWithoutTrials) {
    using namespace kernet::wire;
    const auto listener = kernet::net::listen_tcp({});
    ASSERT_TRUE(listener.ok());
    ghost::Doorway door;
    const std::string job = fmt::format("c{}", getpid());
    const auto key = HandshakeKey::make(std::string(64, 'a'), job);
    std::vector<ghost::Fd> links;
    const std::string not_tried = "link pair was not tried: ";
    int trials = 0;
    Said said;
    {
        EndpointConfig config = config_of(0, job, false, true);
        config.links = "auto,pair";
        Idler one(config);
        Location there = one.location();
        there.rank = 1;
        there.node_name = "n1";
        there.tcp[0].port = listener->port;
        one.endpoint().set_location(there);
        one.hub().attach(1).send(Stream::Message(10));
        // until it has given up (however long that takes it), and has not asked for half a second
        bool given_up = false;
        int64_t since = ghost::monotonic_us();
        const int64_t end = since + limit_us;
        while (ghost::monotonic_us() < (given_up ? since + 500'000 : end)) {
            if (!given_up && count_of(Said::so_far(), not_tried) > 0) {
                given_up = true;
                since = ghost::monotonic_us();
            }
            one.hub().progress();
            auto came = door.accept(listener->fds[0].get(), ghost::monotonic_us());
            ghost::Fd* fd = came ? &came->fd : nullptr;
            Hello hello;
            pollfd readable{fd ? fd->get() : -1, POLLIN, 0};
            if (!fd || poll(&readable, 1, 1000) != 1) continue;
            ASSERT_EQ(recv(fd->get(), &hello, sizeof hello, 0), ssize_t{sizeof hello});
            ASSERT_EQ(check(hello, *key), nullptr);
            if (hello.purpose != Purpose::link) {
                since = ghost::monotonic_us();
                trials++;  // (an old one says "reserved field not zero" and closes)
                continue;
            }
            EXPECT_EQ(hello.kind, LinkKind::tcp);
            Welcome welcome;
            welcome.kind = hello.kind;
            welcome.nonce = random_nonce();
            seal(welcome, hello, *key);
            send(fd->get(), &welcome, sizeof welcome, MSG_NOSIGNAL);
            links.push_back(std::move(*fd));
        }
    }
    EXPECT_EQ(links.size(), 1U);
    EXPECT_GT(trials, 0);
    EXPECT_LT(trials, 6);
    const std::string text = said.text();
    EXPECT_EQ(count_of(text, not_tried), 1) << text;
}

// One that takes milliseconds to make takes the place of one that is there: no message waits for
// it, after a move no more than at first.
TEST(KernetMeasured, SlowLinkIsMadeBesideCurrentLink) {
    const kernet::LinkLine* line = kernet::find_link(LinkKind::framepair);
    ASSERT_TRUE(line->slow_to_make);
    if (const auto usable = line->usable(nullptr); !usable)
        GTEST_SKIP() << usable.error().message();
    Said said(ghost::log::Level::debug);
    {
        Two two("auto,framepair", "auto,framepair", "", true);
        ASSERT_TRUE(two.come_by("framepair"));
        for (uint64_t epoch = 1; epoch < 4; epoch++) {
            two.b.move_to("n1", epoch, two.a.location());
            two.a.endpoint().set_location(two.b.location());
            ASSERT_TRUE(two.come_by("framepair")) << "after move " << epoch;
        }
        two.go_on(100'000);
        EXPECT_EQ(two.link(two.a, 1), "framepair");
    }
    const std::string text = said.text();
    for (const char* peer : {"rank 0", "rank 1"}) {
        const std::vector<std::string> links = links_taken(text, peer);
        EXPECT_GE(std::count(links.begin(), links.end(), "framepair"), 4) << text;
        std::string before;  // the first one of each place is the connection
        for (const std::string& link : links) {
            EXPECT_TRUE(link == "tcp" || (link == "framepair" && before == "tcp")) << text;
            before = link;
        }
    }
}

// Every such socket of a node is shown every frame: where there are many already none is added, and
// when they have gone it is.
TEST(KernetMeasured, CrowdedInterfaceKeepsTcp) {
    const kernet::LinkLine* line = kernet::find_link(LinkKind::framepair);
    if (const auto usable = line->usable(nullptr); !usable)
        GTEST_SKIP() << usable.error().message();
    // As many as are enough, besides those of tests before, which the system is still closing.
    std::vector<ghost::Fd> others;
    while (others.size() < 64) {
        others.emplace_back(
            socket(AF_PACKET, SOCK_DGRAM | SOCK_CLOEXEC, htons(kernet::netdevice_type)));
        ASSERT_TRUE(others.back().valid());
    }
    ASSERT_TRUE(line->crowded(false));
    const int64_t end = ghost::monotonic_us() + limit_us;
    while (line->crowded(true) && ghost::monotonic_us() < end) usleep(1000);
    EXPECT_FALSE(line->crowded(true));
    Two two("auto,framepair", "auto,framepair", "", true);
    two.go_on(300'000);
    EXPECT_EQ(two.link(two.a, 1), "tcp");
    for (ghost::Fd& other : others) kernet::net::close_later(std::move(other));
    EXPECT_TRUE(two.come_by("framepair"));
}

TEST(KernetMeasured, SuspendClosesAllDescriptors) {
    const int before = held();
    std::mt19937 random(1);
    for (int turn = 0; turn < 8; turn++) {
        EndpointConfig configs[2];
        for (uint32_t rank : {0U, 1U}) {
            configs[rank] = config_of(rank, fmt::format("c{}", getpid()), false, true);
            configs[rank].links = "auto";
        }
        Side a(configs[0], 300), b(configs[1], 300);
        until_both_have_all(a, b);
        EXPECT_GT(held(), before);
        usleep(random() % 15'000);  // before, in and after the trial
        a.suspend();
        b.suspend();
        EXPECT_EQ(held(), before);
        a.stop();
        b.stop();
    }
}

}  // namespace
