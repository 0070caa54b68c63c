// SPDX-License-Identifier: BSD-3-Clause
// The rank agent against a fake node agent, a fake data path and a fake PMIx client.
#include <gtest/gtest.h>

#include <csignal>
#include <fcntl.h>
#include <fstream>
#include <thread>
#include <unistd.h>

#include "base/await.hpp"
#include "kernet-btl/agent/agent_state.hpp"
#include "tests/contract/agent_fixture.hpp"

namespace agent_test {
namespace {

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
    setenv("GHOST_RANK", "7x", 1);
    EXPECT_EQ(kernet::AgentConfig::from_environment().error().code, Code::invalid);
    setenv("GHOST_RANK", "7", 1);
    setenv("GHOST_NODE_ID", "2", 1);
    auto config = kernet::AgentConfig::from_environment();
    ASSERT_TRUE(config.ok());
    EXPECT_EQ(config->rank, 7U);
    EXPECT_EQ(config->node, 2);
    for (const char* name : {"GHOST_JOB", "GHOST_NODE_SOCKET", "GHOST_RANK", "GHOST_NODE_ID"}) {
        unsetenv(name);
    }
}

// The node agent need not listen yet, and may be another job's.
TEST(AgentConfig, TheSecretIsAskedOfTheNodeAgent) {
    kernet::AgentConfig config;
    config.job = "12";
    config.node_socket = "@ghost-test/secret/" + std::to_string(getpid());
    EXPECT_FALSE(config.fetch_secret(50).ok());
    const std::string secret(64, 'c');
    std::thread node_agent([&] {
        usleep(50'000);  // a wait is what is tested
        auto listener = ghost::ControlListener::listen(config.node_socket);
        ASSERT_TRUE(listener.ok());
        for (int turn = 0; turn < 3; ++turn) {
            ASSERT_TRUE(ghost::await_readable(listener->fd(), 10'000));
            auto socket = listener->accept();
            ASSERT_TRUE(socket.ok());
            auto asked = socket->receive(10'000);
            ASSERT_TRUE(asked.ok());
            const auto question = ghost::schema::decode<kernet::AskSecret>(asked->text);
            ASSERT_TRUE(question.ok());
            EXPECT_EQ(question->job, "12");
            if (turn == 0) continue;  // it ends before it answers
            const std::string answer =
                turn == 1 ? ghost::schema::encode(kernet::TellSecret{secret})
                          : ghost::schema::encode(ghost::schema::Complaint{"another job"});
            ASSERT_TRUE(socket->send_text(answer).ok());
        }
    });
    const auto first = config.fetch_secret(10'000);
    EXPECT_TRUE(first.ok()) << first.error().message();
    EXPECT_EQ(config.secret, secret);
    const auto second = config.fetch_secret(10'000);
    EXPECT_EQ(second.error().code, Code::invalid);
    node_agent.join();
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
}  // namespace agent_test
