// SPDX-License-Identifier: BSD-3-Clause
// The rank agent against a fake node agent, a fake data path and a fake PMIx client.
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <bitset>
#include <chrono>
#include <condition_variable>
#include <csignal>
#include <fcntl.h>
#include <fstream>
#include <mutex>
#include <optional>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/wait.h>
#include <sys/syscall.h>
#include <thread>
#include <unistd.h>

#include "base/clock.hpp"
#include "base/control_socket.hpp"
#include "kernet-btl/agent/agent.hpp"
#include "kernet-btl/agent/agent_ports.hpp"
#include "kernet-btl/agent/agent_state.hpp"
#include "tests/json_packet.hpp"

namespace {

using ghost::Code;
using ghost::ControlListener;
using ghost::ControlSocket;
using ghost::Fd;
using ghost::Json;
using ghost::make_error;

using kernet::FromRank;
using kernet::Location;
using kernet::Result;
using kernet::Status;

constexpr int limit_ms = 10000;

// What the agent did, in order; shared by the fakes.
class Journal {
  public:
    void add(std::string line) {
        std::lock_guard lock(mutex_);
        lines_.push_back(std::move(line));
        changed_.notify_all();
    }
    std::vector<std::string> lines() {
        std::lock_guard lock(mutex_);
        return lines_;
    }
    bool wait_for(const std::string& line, size_t count = 1) {
        std::unique_lock lock(mutex_);
        return changed_.wait_for(lock, std::chrono::milliseconds(limit_ms), [&] {
            return static_cast<size_t>(std::count(lines_.begin(), lines_.end(), line)) >= count;
        });
    }
    size_t count(const std::string& line) {
        std::lock_guard lock(mutex_);
        return std::count(lines_.begin(), lines_.end(), line);
    }
    ptrdiff_t position(const std::string& line) {
        std::lock_guard lock(mutex_);
        return std::find(lines_.begin(), lines_.end(), line) - lines_.begin();
    }

  private:
    std::mutex mutex_;
    std::condition_variable changed_;
    std::vector<std::string> lines_;
};

struct Script {  // what the fakes answer; set before the step that needs it
    Journal journal;
    std::mutex mutex;
    std::optional<ghost::Error> gate_error;
    uint32_t gate_tag = 0;
    int attach_failures = 0;
    int wakeup_failures = 0;
    bool supported = true;
    bool stays = false;
    std::function<void(uint32_t)> unknown_location;
    Fd service{eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)};
};

class FakeData final : public kernet::DataPort {
  public:
    explicit FakeData(Script& script) : script_(script) {
        here_.rank = 3;
        here_.node = 1;
        here_.node_name = "gn1";
        here_.attached = true;
        here_.unix_name = "@here";
    }
    Location location() const override { return here_; }
    int service_fd() const override { return here_.attached ? script_.service.get() : -1; }
    void service() override {
        eventfd_t n = 0;
        eventfd_read(script_.service.get(), &n);
        if (n >= 100) script_.unknown_location(static_cast<uint32_t>(n) - 100);
        script_.journal.add("service");
    }
    void close_gate() override { script_.journal.add("close_gate"); }
    void open_gate() override { script_.journal.add("open_gate"); }
    bool stays() const override { return script_.stays; }
    void suspend_all() override {
        here_.attached = false;
        script_.journal.add("suspend_all");
    }
    Status begin_life(const std::string& life) override {
        script_.journal.add("begin_life " + life);
        return {};
    }
    Status wakeup_all(int node, const std::string& name, uint64_t epoch,
                      const std::vector<Location>& peers) override {
        if (script_.wakeup_failures > 0) {
            --script_.wakeup_failures;
            return make_error(Code::io, "listen");
        }
        here_.node = node;
        here_.node_name = name;
        here_.epoch = epoch;
        here_.attached = true;
        script_.journal.add("wakeup_all " + name + " peers " + std::to_string(peers.size()));
        return {};
    }
    void set_location(const Location& l) override {
        script_.journal.add("location of " + std::to_string(l.rank) + " epoch " +
                            std::to_string(l.epoch));
    }
    void on_unknown_location(std::function<void(uint32_t)> handler) override {
        script_.unknown_location = std::move(handler);
    }

  private:
    Script& script_;
    Location here_;
};

class FakePmix final : public kernet::PmixPort {
  public:
    explicit FakePmix(Script& script) : script_(script) {}
    Status supported() override {
        if (script_.supported) return {};
        return make_error(Code::unsupported, "use the PMIx client", "libpmix 5.0.0");
    }
    Result<uint32_t> gate() override {
        script_.journal.add("pmix gate");
        std::lock_guard lock(script_.mutex);
        if (script_.gate_error) return *script_.gate_error;
        return script_.gate_tag;
    }
    Status ungate() override {
        script_.journal.add("pmix ungate");
        return {};
    }
    Status close() override {
        script_.journal.add("pmix close");
        return {};
    }
    Status attach(const std::string& uri, bool resend,
                  const std::function<void()>& meanwhile) override {
        meanwhile();
        script_.journal.add("pmix attach " + uri + (resend ? " resend" : ""));
        std::lock_guard lock(script_.mutex);
        if (script_.attach_failures > 0) {
            --script_.attach_failures;
            return make_error(Code::internal, "PMIx attach", uri);
        }
        return {};
    }
    Status recommit() override {
        script_.journal.add("pmix recommit");
        return {};
    }
    void forked() override {}

  private:
    Script& script_;
};

std::optional<FromRank> type_of(const Json& body) {
    return ghost::type_of<FromRank>(kernet::from_rank, body);
}

Location place(uint32_t rank, uint64_t epoch) {
    Location l;
    l.rank = rank;
    l.epoch = epoch;
    l.node = 2;
    l.node_name = "gn2";
    l.attached = true;
    l.unix_name = "@ghost/0/1/r" + std::to_string(rank);
    return l;
}

class AgentTest : public ::testing::Test {
  protected:
    void SetUp() override {
        static std::atomic<int> number{0};
        config_.job = "77";
        config_.rank = 3;
        config_.secret = std::string(64, 'a');
        config_.life = "11fe";
        config_.node_socket =
            "@ghost-agent-test/" + std::to_string(getpid()) + "/" + std::to_string(++number);
        config_.wait_slice_ms = 20;
        config_.silent_slices = 3;
        config_.gone_looks = 3;
        config_.connect_pause_ms = 5;
        config_.connect_limit_ms = 500;
        config_.reconnect_pause_ms = 20;
        open_node_agent();
    }

    // A gated agent opens, a suspended one gives up, and then it can stop.
    void TearDown() override {
        close_node_agent();
        agent_.reset();
    }

    void open_node_agent() {
        auto listener = ControlListener::listen(config_.node_socket);
        ASSERT_TRUE(listener.ok()) << listener.error().message();
        listener_ = std::move(*listener);
    }

    void close_node_agent() {
        control_.close();
        listener_.close();
    }

    void start_agent() {
        kernet::AgentPorts ports;
        ports.data = std::make_unique<FakeData>(script_);
        ports.pmix = std::make_unique<FakePmix>(script_);
        ports.give_up = [this](int status) {
            script_.journal.add("give up " + std::to_string(status));
        };
        auto agent = kernet::RankAgent::start(std::move(ports), config_);
        ASSERT_TRUE(agent.ok()) << agent.error().message();
        agent_ = std::move(*agent);
    }

    bool somebody_connects() {
        pollfd p{listener_.fd(), POLLIN, 0};
        return ::poll(&p, 1, limit_ms) == 1;
    }

    // Takes the agent's connection and returns its hello. One that has waited long for its signal
    // may have asked already, and be gone again.
    Json accept_hello() {
        while (somebody_connects()) {
            auto socket = listener_.accept();
            if (!socket) break;
            auto message = socket->receive(limit_ms);
            if (!message && message.error().code == Code::peer_lost) continue;
            control_ = std::move(*socket);
            EXPECT_TRUE(message.ok()) << message.error().message();
            return message ? body_of(*message) : Json::object();
        }
        return {};
    }

    Json receive() {
        auto message = control_.receive(limit_ms);
        EXPECT_TRUE(message.ok()) << message.error().message();
        return message ? body_of(*message) : Json::object();
    }

    void send(const Json& body) { ASSERT_TRUE(send_json(control_, body).ok()); }

    void start_attached() {
        start_agent();
        Json hello = accept_hello();
        ASSERT_EQ(type_of(hello), FromRank::hello);
        tid_ = hello.value("tid", 0);
        send({{"t", "welcome"},
              {"node", 1},
              {"node_name", "gn1"},
              {"life", "11fe"},
              {"epoch", 0},
              {"state", "started"},
              {"seq", 0},
              {"uri", ""},
              {"resend", false},
              {"peers", Json::array()}});
    }

    // Up to the end of file that means "ready".
    void suspend(int seq) {
        send({{"t", "gate"}, {"seq", seq}});
        Json gated = receive();
        ASSERT_EQ(gated.value("rc", -9), 0) << gated.dump();
        send({{"t", "close"}, {"seq", seq}});
        auto end = control_.receive(limit_ms);
        ASSERT_FALSE(end.ok());
        ASSERT_EQ(end.error().code, Code::peer_lost);
    }

    // Once more than it has opened until now.
    bool opens_within(int ms) {
        const size_t before = script_.journal.count("open_gate");
        const int64_t end = ghost::monotonic_us() + ms * 1000;
        while (script_.journal.count("open_gate") == before && ghost::monotonic_us() < end)
            usleep(1000);
        return script_.journal.count("open_gate") != before;
    }

    void wake() { ASSERT_EQ(syscall(SYS_tgkill, getpid(), tid_, SIGRTMAX - 2), 0); }

    Json welcome(int seq, const char* state, bool resend) {
        return {{"t", "welcome"},
                {"node", 2},
                {"node_name", "gn2"},
                {"life", "11fe"},
                {"epoch", 5},
                {"state", state},
                {"seq", seq},
                {"uri", "n.0;tcp4://127.0.0.1:1"},
                {"resend", resend},
                {"peers", Json::array({to_json(place(0, 4)), to_json(place(1, 4))})}};
    }

    Script script_;
    kernet::AgentConfig config_;
    ControlListener listener_;
    ControlSocket control_;
    std::unique_ptr<kernet::RankAgent> agent_;
    pid_t tid_ = 0;
};

TEST_F(AgentTest, HelloSaysWhoAndWhere) {
    start_agent();
    Json hello = accept_hello();
    EXPECT_EQ(hello.value("role", ""), "rank");
    EXPECT_EQ(hello.value("job", ""), "77");
    EXPECT_EQ(hello.value("rank", 0), 3);
    EXPECT_EQ(hello.value("secret", ""), config_.secret);
    EXPECT_EQ(hello.value("pid", 0), getpid());
    EXPECT_EQ(hello["location"].value("unix", ""), "@here");
    EXPECT_TRUE(hello["location"].value("attached", false));
    // The thread that the wake-up signal is sent to, and nothing of the application's reaches it.
    std::ifstream status("/proc/self/task/" + std::to_string(hello.value("tid", 0)) + "/status");
    std::string line, blocked;
    while (std::getline(status, line)) {
        if (line.starts_with("SigBlk:")) blocked = line.substr(8);
    }
    uint64_t mask = std::stoull("0" + blocked, nullptr, 16);
    for (int signal : {SIGTERM, SIGUSR1, SIGCHLD, SIGRTMAX - 2}) {
        EXPECT_TRUE(mask >> (signal - 1) & 1) << signal;
    }
}

TEST_F(AgentTest, RefusesForeignPmix) {
    script_.supported = false;
    kernet::AgentPorts ports;
    ports.data = std::make_unique<FakeData>(script_);
    ports.pmix = std::make_unique<FakePmix>(script_);
    auto agent = kernet::RankAgent::start(std::move(ports), config_);
    ASSERT_FALSE(agent.ok());
    EXPECT_EQ(agent.error().code, Code::unsupported);
    EXPECT_NE(agent.error().message().find("5.0.0"), std::string::npos);
}

TEST_F(AgentTest, GateOpensAgainOnUngate) {
    start_attached();
    script_.gate_tag = 104;
    send({{"t", "gate"}, {"seq", 8}});
    Json gated = receive();
    EXPECT_EQ(gated, (Json{{"t", "gated"}, {"seq", 8}, {"rc", 0}, {"tag", 104}, {"busy", false}}));
    EXPECT_EQ(script_.journal.count("open_gate"), 0U);
    send({{"t", "ungate"}, {"seq", 8}});
    EXPECT_EQ(receive(), (Json{{"t", "ungated"}, {"seq", 8}}));
    std::vector<std::string> expected{"close_gate", "pmix gate", "pmix ungate", "open_gate"};
    EXPECT_EQ(script_.journal.lines(), expected);
}

TEST_F(AgentTest, RankThatStaysIsBusy) {
    start_attached();
    script_.stays = true;
    send({{"t", "gate"}, {"seq", 9}});
    const Json gated = receive();
    EXPECT_EQ(gated.value("rc", 0), 1);
    EXPECT_TRUE(gated.value("busy", false));
    const std::vector<std::string> expected{"close_gate", "open_gate"};
    EXPECT_EQ(script_.journal.lines(), expected);
    script_.stays = false;
    send({{"t", "gate"}, {"seq", 10}});  // the retry
    EXPECT_EQ(receive().value("rc", -9), 0);
}

TEST_F(AgentTest, BusyPmixKeepsDataPathOpen) {
    start_attached();
    script_.gate_error = make_error(Code::busy, "PMIx gate", "2 PMIx calls in flight");
    send({{"t", "gate"}, {"seq", 9}});
    Json gated = receive();
    EXPECT_EQ(gated.value("rc", 0), 1);
    EXPECT_TRUE(gated.value("busy", false));
    std::vector<std::string> expected{"close_gate", "pmix gate", "open_gate"};
    EXPECT_EQ(script_.journal.lines(), expected);
    {
        std::lock_guard lock(script_.mutex);
        script_.gate_error.reset();
    }
    send({{"t", "gate"}, {"seq", 10}});  // the retry
    EXPECT_EQ(receive().value("rc", -9), 0);
}

TEST_F(AgentTest, MoveInOrder) {
    start_attached();
    suspend(12);
    std::vector<std::string> closed{"close_gate", "pmix gate", "suspend_all", "pmix close"};
    EXPECT_EQ(script_.journal.lines(), closed);
    wake();
    Json hello = accept_hello();
    EXPECT_EQ(hello.value("tid", 0), tid_);
    EXPECT_FALSE(hello["location"].value("attached", true));
    send(welcome(12, "restored", true));
    Json attached = receive();
    EXPECT_EQ(type_of(attached), FromRank::attached);
    EXPECT_EQ(attached.value("seq", 0), 12);
    EXPECT_EQ(attached.value("rc", -9), 0);
    EXPECT_EQ(attached["location"].value("node_name", ""), "gn2");
    EXPECT_EQ(attached["location"].value("epoch", 0), 5);
    EXPECT_TRUE(attached["location"].value("attached", false));
    ASSERT_TRUE(script_.journal.wait_for("pmix recommit"));
    Journal& j = script_.journal;
    auto wakeup = j.position("wakeup_all gn2 peers 2");
    auto open = j.position("open_gate");
    auto attach = j.position("pmix attach n.0;tcp4://127.0.0.1:1 resend");
    EXPECT_LT(wakeup, open);
    EXPECT_LT(open, attach);  // the links do not wait for PMIx
    EXPECT_LT(attach, j.position("pmix recommit"));
    // And it can move again.
    suspend(13);
}

// The rank was saved, and the job restarted: before any link is made it is of the new life.
TEST_F(AgentTest, RestartBeginsAnotherLife) {
    start_attached();
    suspend(3);
    wake();
    EXPECT_EQ(accept_hello().value("life", ""), "11fe");
    Json restarted = welcome(3, "restored", true);
    restarted["life"] = "2e";
    send(restarted);
    EXPECT_EQ(receive().value("rc", -9), 0);
    Journal& j = script_.journal;
    EXPECT_LT(j.position("begin_life 2e"), j.position("wakeup_all gn2 peers 2"));
    suspend(4);
    wake();
    EXPECT_EQ(accept_hello().value("life", ""), "2e");
    restarted["seq"] = 4;
    send(restarted);
    EXPECT_EQ(receive().value("rc", -9), 0);
    EXPECT_EQ(j.count("begin_life 2e"), 1U);
}

TEST_F(AgentTest, ResumedRankDoesNotSendItsFenceAgain) {
    start_attached();
    suspend(4);
    wake();
    accept_hello();
    send(welcome(4, "resumed", false));
    EXPECT_EQ(receive().value("rc", -9), 0);
    EXPECT_EQ(script_.journal.count("pmix attach n.0;tcp4://127.0.0.1:1"), 1U);
}

TEST_F(AgentTest, HoldsNoDescriptorWhileSuspended) {
    auto sockets_and_events = [] {
        int count = 0;
        for (int fd = 0; fd < 256; ++fd) count += fcntl(fd, F_GETFD) >= 0 ? 1 : 0;
        return count;
    };
    int before = sockets_and_events();
    start_attached();
    suspend(1);
    // The test's own end of the connection is still open.
    control_.close();
    EXPECT_EQ(sockets_and_events(), before);
    wake();
    accept_hello();
    send(welcome(1, "restored", true));
    receive();
}

TEST_F(AgentTest, LateCloseIsDropped) {
    start_attached();
    send({{"t", "gate"}, {"seq", 2}});
    receive();
    send({{"t", "close"}, {"seq", 1}});
    send({{"t", "ungate"}, {"seq", 2}});
    EXPECT_EQ(type_of(receive()), FromRank::ungated);
    send({{"t", "close"}, {"seq", 2}});  // not gated any more
    send({{"t", "gate"}, {"seq", 3}});
    EXPECT_EQ(receive().value("rc", -9), 0);
    EXPECT_EQ(script_.journal.count("suspend_all"), 0U);
}

TEST_F(AgentTest, LeftOverSignalDoesNotWake) {
    start_attached();
    wake();
    suspend(1);
    // Nothing connects although the signal was pending at the close.
    pollfd p{listener_.fd(), POLLIN, 0};
    EXPECT_EQ(::poll(&p, 1, 30), 0);
    wake();
    EXPECT_EQ(type_of(accept_hello()), FromRank::hello);
    send(welcome(1, "restored", true));
    EXPECT_EQ(receive().value("rc", -9), 0);
}

TEST_F(AgentTest, NodeAgentLostWhileAttached) {
    start_attached();
    send({{"t", "location"},
          {"rank", 1},
          {"epoch", 1},
          {"node", 2},
          {"node_name", "gn2"},
          {"attached", true},
          {"tcp", Json::array()},
          {"unix", ""}});
    ASSERT_TRUE(script_.journal.wait_for("location of 1 epoch 1"));
    close_node_agent();
    eventfd_write(script_.service.get(), 1);
    EXPECT_TRUE(script_.journal.wait_for("service"));  // data is still served
    open_node_agent();
    EXPECT_EQ(type_of(accept_hello()), FromRank::hello);
    EXPECT_EQ(script_.journal.count("close_gate"), 0U);
    EXPECT_EQ(script_.journal.count("give up 195"), 0U);
}

TEST_F(AgentTest, NodeAgentLostWhileGated) {
    start_attached();
    send({{"t", "gate"}, {"seq", 1}});
    receive();
    close_node_agent();
    EXPECT_TRUE(script_.journal.wait_for("pmix ungate"));
    EXPECT_TRUE(script_.journal.wait_for("open_gate"));
}

TEST_F(AgentTest, GivesUpWhenNodeAgentDiesWhileSuspended) {
    start_attached();
    suspend(1);
    close_node_agent();
    EXPECT_TRUE(script_.journal.wait_for("give up 195"));
}

TEST_F(AgentTest, WaitsSuspendedWhileNodeAgentSaysSo) {
    start_attached();
    suspend(1);
    for (int i = 0; i < 5; ++i) {  // asked again and again
        EXPECT_EQ(type_of(accept_hello()), FromRank::hello);
        send({{"t", "error"}, {"why", "the rank is not meant to run now"}});
        control_.close();
    }
    EXPECT_EQ(script_.journal.count("open_gate"), 0U);
    EXPECT_EQ(script_.journal.count("give up 195"), 0U);
    wake();
    while (type_of(accept_hello()) == FromRank::hello) {
        ASSERT_TRUE(send_json(control_, welcome(1, "resumed", false)).ok());
        auto answer = control_.receive(limit_ms);
        if (!answer) continue;  // that was the last of those that asked
        EXPECT_EQ(type_of(body_of(*answer)), FromRank::attached);
        break;
    }
    EXPECT_EQ(script_.journal.count("open_gate"), 1U);
}

// Its signal does not come: the request has failed, and nobody knows of this rank any more.
TEST_F(AgentTest, ResumesWithoutSignalWhenNodeAgentWelcomesIt) {
    start_attached();
    suspend(1);
    EXPECT_EQ(type_of(accept_hello()), FromRank::hello);
    send(welcome(0, "started", false));
    EXPECT_EQ(type_of(receive()), FromRank::attached);
    EXPECT_EQ(script_.journal.count("open_gate"), 1U);
    suspend(2);  // and it can be asked again
}

TEST_F(AgentTest, OpensGatesWhenNoOrderFollows) {
    config_.gate_limit_ms = 30;
    start_attached();
    send({{"t", "gate"}, {"seq", 8}});
    EXPECT_EQ(receive().value("rc", -9), 0);
    EXPECT_TRUE(script_.journal.wait_for("open_gate"));
    EXPECT_EQ(script_.journal.count("pmix ungate"), 1U);
    send({{"t", "close"}, {"seq", 8}});  // too late
    send({{"t", "gate"}, {"seq", 9}});
    EXPECT_EQ(receive().value("rc", -9), 0);
    EXPECT_EQ(script_.journal.count("suspend_all"), 0U);
}

// What a rank publishes after it woke is due 20 ms later.
TEST_F(AgentTest, GateSoonAfterWakeStaysClosed) {
    start_attached();
    suspend(1);
    wake();
    accept_hello();
    send(welcome(1, "resumed", false));
    EXPECT_EQ(type_of(receive()), FromRank::attached);
    send({{"t", "gate"}, {"seq", 2}});
    EXPECT_EQ(receive().value("rc", -9), 0);
    EXPECT_FALSE(opens_within(100));
    send({{"t", "close"}, {"seq", 2}});
    EXPECT_EQ(control_.receive(limit_ms).error().code, Code::peer_lost);
}

// A peer that asks PMIx for what this rank has not published at its new server yet waits until it
// has, and cannot be gated: both would stand if this one were gated first.
TEST_F(AgentTest, GateSoonAfterWakeComesAfterTheRecommit) {
    start_attached();
    suspend(1);
    wake();
    accept_hello();
    send(welcome(1, "restored", true));
    EXPECT_EQ(type_of(receive()), FromRank::attached);
    suspend(2);
    Journal& j = script_.journal;
    EXPECT_EQ(j.count("pmix gate"), 2U);
    const auto lines = j.lines();
    const auto second = std::find(lines.rbegin(), lines.rend(), "pmix gate");
    EXPECT_NE(std::find(second, lines.rend(), "pmix recommit"), lines.rend());
}

// A child made by fork() has copies of all that is open here, and no thread that serves it.
TEST_F(AgentTest, ForkedChildHoldsNoDescriptor) {
    std::bitset<256> inherited;  // by this program, and what gtest has open
    control_.close(), listener_.close(), script_.service.reset();
    for (int fd = 0; fd < 256; ++fd) inherited[fd] = fcntl(fd, F_GETFD) >= 0;
    script_.service.reset(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    open_node_agent();
    start_attached();
    int told[2], end[2];
    ASSERT_EQ(pipe2(told, O_CLOEXEC), 0);
    ASSERT_EQ(pipe2(end, O_CLOEXEC), 0);
    const pid_t child = fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
        close(end[1]);
        uint8_t open = 0;
        for (int fd = 3; fd < 256; ++fd) {
            const bool mine = fd == told[0] || fd == told[1] || fd == end[0];
            if (!mine && !inherited[fd] && fcntl(fd, F_GETFD) >= 0) open++;
        }
        agent_->stop();  // as the child's exit() would
        if (write(told[1], &open, 1) != 1) _exit(1);
        char none = 0;
        _exit(read(end[0], &none, 1) == 0 ? 0 : 2);
    }
    uint8_t open = 255;
    ASSERT_EQ(read(told[0], &open, 1), 1);
    EXPECT_EQ(open, 0);
    suspend(5);  // says that it is ready, though the child lives
    close(end[1]);
    int status = -1;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    EXPECT_EQ(status, 0);
    close(told[0]), close(told[1]), close(end[0]);
}

TEST_F(AgentTest, GivesUpWhenNoNodeAgentAfterWakeup) {
    start_attached();
    suspend(1);
    close_node_agent();
    wake();
    EXPECT_TRUE(script_.journal.wait_for("give up 195"));
}

TEST_F(AgentTest, ReconnectsWhenWokenBeforeNodeAgent) {
    start_attached();
    suspend(1);
    wake();
    accept_hello();
    send({{"t", "error"}, {"why", "rank is being exported"}});
    control_.close();
    EXPECT_EQ(type_of(accept_hello()), FromRank::hello);
    send(welcome(1, "resumed", false));
    EXPECT_EQ(receive().value("rc", -9), 0);
}

TEST_F(AgentTest, RetriesListenersAndPmix) {
    start_attached();
    suspend(1);
    script_.wakeup_failures = 2;
    script_.attach_failures = 2;
    wake();
    accept_hello();
    send(welcome(1, "restored", true));
    EXPECT_EQ(receive().value("rc", -9), 0);
    EXPECT_EQ(script_.journal.count("pmix attach n.0;tcp4://127.0.0.1:1 resend"), 3U);
    EXPECT_EQ(script_.journal.count("open_gate"), 1U);
}

TEST_F(AgentTest, ReportsThatPmixCannotBeReached) {
    start_attached();
    suspend(1);
    script_.attach_failures = 1 << 20;
    wake();
    accept_hello();
    send(welcome(1, "restored", true));
    Json attached = receive();
    EXPECT_EQ(attached.value("rc", 0), -1);
    EXPECT_NE(attached.value("error", ""), "");
    EXPECT_TRUE(script_.journal.wait_for("give up 195"));
}

TEST_F(AgentTest, StopSaysBye) {
    start_attached();
    send({{"t", "gate"}, {"seq", 1}});
    receive();
    send({{"t", "ungate"}, {"seq", 1}});
    receive();
    agent_->stop();
    EXPECT_EQ(receive(), (Json{{"t", "bye"}}));
    EXPECT_EQ(control_.receive(limit_ms).error().code, Code::peer_lost);
}

TEST_F(AgentTest, StopWithoutNodeAgentDoesNotWait) {
    close_node_agent();
    start_agent();
    agent_->stop();
    SUCCEED();
}

TEST_F(AgentTest, StopDuringMoveCompletesMove) {
    start_attached();
    suspend(1);
    std::atomic<bool> stopped{false};
    std::thread finalize([&] {
        agent_->stop();
        stopped = true;
    });
    wake();
    accept_hello();
    EXPECT_FALSE(stopped);
    send(welcome(1, "restored", true));
    EXPECT_EQ(type_of(receive()), FromRank::attached);
    EXPECT_EQ(type_of(receive()), FromRank::bye);
    finalize.join();
    EXPECT_EQ(script_.journal.count("pmix recommit"), 1U);
}

TEST_F(AgentTest, AsksForAnUnknownPeerOnce) {
    start_attached();
    const int64_t begin = ghost::monotonic_us();
    eventfd_write(script_.service.get(), 100 + 7);
    EXPECT_EQ(receive(), (Json{{"t", "locate"}, {"peer", 7}}));
    eventfd_write(script_.service.get(), 100 + 7);  // the endpoint asks on
    // before the answer, after which it would be a new question
    ASSERT_TRUE(script_.journal.wait_for("service", 2));
    const bool late = ghost::monotonic_us() - begin > 150'000;  // after 200 ms it may ask again
    Json answer = to_json(place(7, 3));
    answer["t"] = "location";
    send(answer);
    ASSERT_TRUE(script_.journal.wait_for("location of 7 epoch 3"));
    send({{"t", "gate"}, {"seq", 1}});
    Json next = receive();
    if (late && type_of(next) == FromRank::locate) next = receive();
    EXPECT_EQ(type_of(next), FromRank::gated);  // and no second locate before it
}

TEST_F(AgentTest, MalformedMessagesDoNoHarm) {
    start_attached();
    const std::pair<Json, const char*> cases[] = {
        {{{"t", "location"}, {"rank", "x"}}, "location: rank is no whole number"},
        {{{"t", "gate"}, {"seq", "one"}}, "gate: seq is no whole number"},
        {{{"t", "gate"}}, "gate: seq is missing"},
        {{{"t", "frobnicate"}, {"seq", 5}}, "unknown message frobnicate"},
    };
    for (const auto& [message, says] : cases) {
        send(message);
        Json answer = receive();
        EXPECT_EQ(answer.value("t", ""), ghost::schema::Complaint::table.name);
        EXPECT_NE(answer.value("why", "").find(says), std::string::npos) << answer;
    }
    send({{"t", "error"}, {"why", "never answered"}});
    send({{"t", "ungate"}, {"seq", 3}});
    EXPECT_EQ(receive(), (Json{{"t", "ungated"}, {"seq", 3}}));
    EXPECT_TRUE(script_.journal.lines().empty());
}

TEST_F(AgentTest, GivesUpOnAWelcomeThatCannotBeRead) {
    start_attached();
    suspend(1);
    wake();
    accept_hello();
    Json bad = welcome(1, "restored", true);
    bad["state"] = "reborn";
    send(bad);
    EXPECT_TRUE(script_.journal.wait_for("give up 195"));
    EXPECT_EQ(script_.journal.count("open_gate"), 0U);
}

TEST_F(AgentTest, ConfigurationFromEnvironment) {
    EXPECT_EQ(kernet::AgentConfig::from_environment().error().code, Code::not_found);
    setenv("GHOST_JOB", "12", 1);
    EXPECT_EQ(kernet::AgentConfig::from_environment().error().code, Code::invalid);
    setenv("GHOST_NODE_SOCKET", "@ghost/0/12", 1);
    setenv("GHOST_SECRET", std::string(64, '0').c_str(), 1);
    setenv("GHOST_RANK", "7x", 1);
    EXPECT_EQ(kernet::AgentConfig::from_environment().error().code, Code::invalid);
    setenv("GHOST_RANK", "7", 1);
    setenv("GHOST_NODE_ID", "2", 1);
    auto config = kernet::AgentConfig::from_environment();
    ASSERT_TRUE(config.ok());
    EXPECT_EQ(config->rank, 7U);
    EXPECT_EQ(config->node, 2);
    for (const char* name :
         {"GHOST_JOB", "GHOST_NODE_SOCKET", "GHOST_SECRET", "GHOST_RANK", "GHOST_NODE_ID"}) {
        unsetenv(name);
    }
}

TEST(AgentState, AllowsOnlyListedTransitions) {
    using S = kernet::AgentState;
    int steps = 0;
    for (const auto& from : kernet::agent_states) {
        for (const auto& next : kernet::agent_states) {
            steps += kernet::agent_states.allows(from.state, next.state) ? 1 : 0;
        }
    }
    EXPECT_EQ(steps, 13);
    // What is held cannot be stopped or lost half way.
    EXPECT_FALSE(kernet::agent_states.allows(S::gated, S::finalizing));
    EXPECT_FALSE(kernet::agent_states.allows(S::suspended, S::attached));
    EXPECT_FALSE(kernet::agent_states.allows(S::waking, S::starting));
    EXPECT_FALSE(kernet::agent_states.allows(S::gated, S::starting));
    EXPECT_FALSE(kernet::agent_states.allows(S::attached, S::suspended));
    EXPECT_TRUE(kernet::agent_states.is_final(S::finalizing));
}

}  // namespace
