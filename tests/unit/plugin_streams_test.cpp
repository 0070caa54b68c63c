// SPDX-License-Identifier: BSD-3-Clause
// How the stream managers of a job's daemons begin: real ones on threads of their own, in daemons
// that are simulated (a queue of messages, addresses of their own in one process).
#include <gtest/gtest.h>

#include <deque>
#include <fmt/format.h>
#include <map>
#include <poll.h>
#include <set>

#include "base/clock.hpp"
#include "kernet-btl/streams/node.hpp"
#include "pmix-plugin/settings/job_settings.hpp"
#include "pmix-plugin/streams/node_streams.hpp"
#include "pmix-plugin/streams/stream_roster.hpp"
#include "tests/json_packet.hpp"

namespace {

using namespace ghost;
using namespace ghost::plugin;

constexpr int64_t limit_us = 20'000'000;

struct Job;

class Daemon final : public StreamsRuntime {
  public:
    Daemon(Job& job, NodeId id) : job_(job), id_(id) {}

    NodeId self() const override { return id_; }
    std::string job_name() const override { return "4711"; }
    std::vector<NodeInfo> nodes() const override;
    std::string secret() const override { return std::string(64, 'a'); }
    std::string life() const override { return "11fe"; }
    std::string rank_socket() const override;
    std::optional<std::string> parameter(const std::string& name) const override {
        if (name != "btl_kernet_if_include") return {};
        return interfaces;
    }
    void send(NodeId to, const std::string& packet) override;
    void broadcast(const std::string& packet) override;
    void on_message(DaemonInbox::Handler handler) override { inbox.add(std::move(handler)); }
    TimerId after(int64_t us, std::function<void()> action) override {
        timers[++last] = {monotonic_us() + us, std::move(action)};
        return last;
    }
    void cancel(TimerId timer) override { timers.erase(timer); }
    WatchId watch(int fd, std::function<void()> readable) override {
        watches[++last] = {fd, std::move(readable)};
        return last;
    }
    void unwatch(WatchId watch) override { watches.erase(watch); }

    void turn();

    std::string interfaces;
    DaemonInbox inbox{[] { return std::string(); }};
    std::map<uint64_t, std::pair<int64_t, std::function<void()>>> timers;
    std::map<uint64_t, std::pair<int, std::function<void()>>> watches;

  private:
    Job& job_;
    NodeId id_;
    uint64_t last = 0;
};

struct Job {
    explicit Job(NodeId count, int64_t answer_us = limit_us) {
        static int jobs = 0;
        number = ++jobs;
        for (NodeId id = 0; id < count; ++id) {
            daemons.push_back(std::make_unique<Daemon>(*this, id));
            streams.push_back(std::make_unique<NodeStreams>(*daemons[id], NodeStreamsSettings{}));
        }
        roster = std::make_unique<StreamRoster>(*daemons[0], StreamRosterSettings{answer_us});
    }
    ~Job() {
        for (auto& node : streams) node->stop();
        roster->stop();
    }
    void start() {
        roster->start();
        for (auto& node : streams) node->start();
    }
    bool run(const std::function<bool()>& until) {
        const int64_t end = monotonic_us() + limit_us;
        while (!until() && monotonic_us() < end) {
            for (auto& daemon : daemons) daemon->turn();
            for (auto mail = std::exchange(messages, {}); !mail.empty(); mail.pop_front()) {
                auto& [from, to, message] = mail.front();
                if (silent.contains(from) || silent.contains(to)) continue;
                daemons[to]->inbox.deliver(from, {}, message);
            }
            ::poll(nullptr, 0, 1);
        }
        return until();
    }
    bool all(StreamsState state, std::set<NodeId> nodes = {0, 1, 2}) const {
        for (NodeId node : nodes)
            if (streams[node]->state() != state) return false;
        return true;
    }
    // As a program of the node would; the job goes on meanwhile.
    std::unique_ptr<kernet::Node> open(NodeId node) {
        std::unique_ptr<kernet::Node> out;
        std::atomic<bool> done{false};
        std::thread program([&] {
            kernet::NodeConfig config;
            config.manager = stream_manager_address(daemons[node]->rank_socket());
            if (auto made = kernet::Node::open(config)) out = std::move(*made);
            done = true;
        });
        run([&] { return done.load(); });
        program.join();
        return out;
    }

    int number = 0;
    bool known = true;  // the job's number
    std::vector<std::unique_ptr<Daemon>> daemons;
    std::vector<std::unique_ptr<NodeStreams>> streams;
    std::unique_ptr<StreamRoster> roster;
    std::deque<std::tuple<NodeId, NodeId, std::string>> messages;
    std::set<NodeId> silent, dead;
    std::vector<DaemonMessage> sent;  // in order
};

std::vector<NodeInfo> Daemon::nodes() const {
    std::vector<NodeInfo> out;
    for (NodeId id = 0; id < job_.daemons.size(); ++id)
        out.push_back({id, "node" + std::to_string(id), !job_.dead.contains(id)});
    return out;
}
std::string Daemon::rank_socket() const {
    return job_.known ? fmt::format("@streams-test/{}/{}/{}", getpid(), job_.number, id_) : "";
}
void Daemon::send(NodeId to, const std::string& packet) {
    job_.sent.push_back(type_of<DaemonMessage>(between_daemons, Json::parse(packet)).value());
    job_.messages.emplace_back(id_, to, packet);
}
void Daemon::broadcast(const std::string& packet) {
    job_.sent.push_back(type_of<DaemonMessage>(between_daemons, Json::parse(packet)).value());
    for (NodeId to = 0; to < job_.daemons.size(); ++to) job_.messages.emplace_back(id_, to, packet);
}
void Daemon::turn() {
    const int64_t now = monotonic_us();
    for (const auto& [id, timer] : std::map(timers)) {
        if (timer.first > now || timers.erase(id) == 0) continue;
        timer.second();
    }
    for (const auto& [id, watch] : std::map(watches)) {
        pollfd fd{watch.first, POLLIN, 0};
        if (watches.contains(id) && ::poll(&fd, 1, 0) == 1) watch.second();
    }
}

// A stream between two nodes carries something.
void expect_streams(kernet::Node& one, kernet::Node& two) {
    auto stream = one.create(kernet::StreamClass{"test", kernet::StreamType::direct, 2, ""});
    ASSERT_TRUE(stream.ok()) << stream.error().message();
    auto out = one.attach(*stream), in = two.attach(*stream);
    ASSERT_TRUE(out.ok() && in.ok());
    char text[] = "through", got[sizeof text] = "";
    const iovec from{text, sizeof text}, to{got, sizeof got};
    size_t size = 0;
    EXPECT_TRUE(one.send(*out, &from, 1, limit_us).ok());
    EXPECT_TRUE(two.receive(*in, &to, 1, limit_us, size).ok());
    EXPECT_STREQ(got, text);
}

// A site's parameter files yield, and its users are told; what they keep out is no choice.
TEST(JobSettings, ChoicesOfParameterFilesYield) {
    const auto nothing = [](const std::string&) { return std::optional<std::string>(); };
    const auto file = [](const char* pml) {
        return [pml](const std::string& name) {
            return name == "pml" ? std::optional<std::string>(pml) : std::nullopt;
        };
    };
    EXPECT_EQ(decide(nothing, {}, file("ucx")).instead, "pml ucx: ob1 is taken instead");
    EXPECT_EQ(decide(nothing, {}, file("ucx")).refusal, "");
    EXPECT_EQ(decide(nothing, {}, file("^ucx")).instead, "");
    EXPECT_EQ(decide(nothing, {}, file("ob1")).instead, "");
}

TEST(JobStreams, ManagersStartOnFirstProcess) {
    Job job(3);
    job.known = false;
    job.start();
    EXPECT_TRUE(job.all(StreamsState::closed));
    job.known = true;
    ASSERT_TRUE(job.run([&] { return job.all(StreamsState::waiting); }));
    EXPECT_TRUE(job.sent.empty());
    auto one = job.open(2);
    ASSERT_TRUE(one);
    EXPECT_TRUE(job.run([&] { return job.all(StreamsState::managing); }));
    EXPECT_EQ(job.roster->state(), StreamRosterState::called);
    EXPECT_EQ(one->name(), "node2");
    auto two = job.open(0);
    ASSERT_TRUE(two);
    expect_streams(*one, *two);
}

TEST(JobStreams, TwoRequestsStartManagersOnce) {
    Job job(3);
    job.start();
    ASSERT_TRUE(job.run([&] { return job.all(StreamsState::waiting); }));
    auto first = ControlSocket::connect(stream_manager_address(job.daemons[1]->rank_socket()));
    auto second = ControlSocket::connect(stream_manager_address(job.daemons[2]->rank_socket()));
    ASSERT_TRUE(first.ok() && second.ok());
    EXPECT_TRUE(job.run([&] { return job.all(StreamsState::managing); }));
    EXPECT_EQ(std::count(job.sent.begin(), job.sent.end(), DaemonMessage::streams_open), 1);
    EXPECT_EQ(std::count(job.sent.begin(), job.sent.end(), DaemonMessage::streams_nodes), 1);
}

// A node that cannot have them is left out, and turns its processes away; the others do not wait.
TEST(JobStreams, NodeWithoutInterfaceRefusesProcesses) {
    Job job(3);
    job.daemons[1]->interfaces = "no-such-interface";
    job.start();
    auto one = job.open(0);
    ASSERT_TRUE(one);
    EXPECT_TRUE(job.run([&] { return job.all(StreamsState::managing, {0, 2}); }));
    EXPECT_EQ(job.streams[1]->state(), StreamsState::failed);
    EXPECT_FALSE(job.open(1));
    auto two = job.open(2);
    ASSERT_TRUE(two);
    expect_streams(*one, *two);
}

TEST(JobStreams, SilentNodeTimesOut) {
    Job job(3, 300'000);
    job.silent.insert(1);
    job.start();
    auto one = job.open(0), two = job.open(2);
    ASSERT_TRUE(one && two);
    expect_streams(*one, *two);
    EXPECT_EQ(job.streams[1]->state(), StreamsState::waiting);
    // It is heard again, and learns that they began without it.
    job.silent.clear();
    EXPECT_FALSE(job.open(1));
    EXPECT_EQ(job.streams[1]->state(), StreamsState::failed);
}

TEST(JobStreams, DeadNodeIsNotWaitedFor) {
    Job job(3);
    job.dead.insert(2);
    job.silent.insert(2);
    job.start();
    auto one = job.open(0), two = job.open(1);
    ASSERT_TRUE(one && two);
    expect_streams(*one, *two);
}

TEST(JobStreams, NodeLostBeforeAnswerIsDropped) {
    Job job(3);
    job.silent.insert(2);
    job.start();
    ASSERT_TRUE(job.run([&] { return job.all(StreamsState::waiting); }));
    auto first = ControlSocket::connect(stream_manager_address(job.daemons[1]->rank_socket()));
    ASSERT_TRUE(first.ok());
    ASSERT_TRUE(job.run([&] { return job.all(StreamsState::told, {0, 1}); }));
    job.daemons[0]->tell_all(NodeLost{2});
    EXPECT_TRUE(job.run([&] { return job.all(StreamsState::managing, {0, 1}); }));
}

// Of three managers one after the other is lost: by the coordinator's word the last one is not the
// smaller part of a cluster, but all there is.
TEST(JobStreams, LostNodesLeaveQuorum) {
    Job job(3);
    job.start();
    auto one = job.open(0);
    ASSERT_TRUE(one);
    ASSERT_TRUE(job.run([&] { return job.all(StreamsState::managing); }));
    for (NodeId node : {2, 1}) job.daemons[0]->tell_all(NodeLost{node});
    // They live on, in silence, and are not let in again.
    ASSERT_TRUE(job.run([&] { return job.messages.empty(); }));
    expect_streams(*one, *one);
    auto nodes = one->nodes();
    ASSERT_TRUE(nodes.ok());
    for (const auto& [name, state] : *nodes) EXPECT_EQ(state, name == "node0" ? "up" : "gone");
}

TEST(JobStreams, RosterListsNodesWithStreams) {
    Job job(2);
    job.start();
    EXPECT_EQ(job.streams[0]->why_tied(getpid()), "");
    auto one = job.open(0);
    ASSERT_TRUE(one);
    const auto tied = [&] { return !job.streams[0]->why_tied(getpid()).empty(); };
    EXPECT_TRUE(job.run(tied));
    EXPECT_NE(job.streams[0]->why_tied(getpid()).find("kernet_close"), std::string::npos);
    EXPECT_EQ(job.streams[1]->why_tied(getpid()), "");
    one.reset();
    EXPECT_TRUE(job.run([&] { return !tied(); }));
}

TEST(JobStreams, MalformedOrUnexpectedMessagesAreIgnored) {
    Job job(2);
    job.start();
    ASSERT_TRUE(job.run([&] { return job.all(StreamsState::waiting, {0, 1}); }));
    const auto say = [&](const Json& message) {
        job.daemons[0]->broadcast(message.dump());
        job.run([&] { return job.messages.empty(); });
    };
    say({{"t", "streams_nodes"}, {"nodes", Json::array()}});  // nobody has asked
    say({{"t", "node_lost"}});
    EXPECT_TRUE(job.all(StreamsState::waiting, {0, 1}));
    // From somebody who is not the coordinator.
    job.daemons[1]->tell(0, StreamsOpen{});
    job.daemons[1]->send(0, R"({"t":"streams_here","tcp":"nowhere"})");
    job.run([&] { return job.messages.empty(); });
    EXPECT_TRUE(job.all(StreamsState::waiting, {0, 1}));
    job.daemons[0]->tell(1, StreamsOpen{});
    ASSERT_TRUE(job.run([&] { return job.all(StreamsState::told, {1}); }));
    say({{"t", "streams_nodes"},
         {"nodes", {{{"id", 0}, {"tcp", {1, {{"port", 70000}}}}}, {{"id", 1}}}}});
    EXPECT_TRUE(job.all(StreamsState::told, {1}));
    // A list that this node is not in.
    job.daemons[0]->tell(1, StreamsNodes{{{0, "node0", {{"127.0.0.1", 7}}}}, {}});
    EXPECT_TRUE(job.run([&] { return job.all(StreamsState::failed, {1}); }));
}

}  // namespace
