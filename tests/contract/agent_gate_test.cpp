// SPDX-License-Identifier: BSD-3-Clause
// The rank agent at its gate, and children of its process.
#include <gtest/gtest.h>

#include <bitset>
#include <fcntl.h>
#include <sys/wait.h>

#include "tests/contract/agent_fixture.hpp"

namespace agent_test {
namespace {

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

TEST_F(AgentTest, ProgramThatHoldsIsBusyAndNothingIsClosed) {
    script_.program = script_.holds = true;
    start_attached();
    send({{"t", "gate"}, {"seq", 9}});
    const Json gated = receive();
    EXPECT_EQ(gated.value("rc", 0), 1);
    EXPECT_TRUE(gated.value("busy", false));
    EXPECT_NE(gated.value("why", "").find("asked not to be stopped"), std::string::npos) << gated;
    EXPECT_TRUE(script_.journal.lines().empty());
    {
        std::lock_guard lock(script_.mutex);
        script_.holds = false;
    }
    send({{"t", "gate"}, {"seq", 10}});  // the retry
    EXPECT_EQ(receive().value("rc", -9), 0);
    send({{"t", "ungate"}, {"seq", 10}});
    EXPECT_EQ(type_of(receive()), FromRank::ungated);
    const std::vector<std::string> expected{"program begin", "close_gate", "pmix gate",
                                            "pmix ungate",   "open_gate",  "program end"};
    EXPECT_EQ(script_.journal.lines(), expected);
}

// Whoever holds waits for it: whatever keeps the rank from being stopped, the stop is over.
TEST_F(AgentTest, ProgramHearsThatStopIsOff) {
    script_.program = script_.stays = true;
    start_attached();
    send({{"t", "gate"}, {"seq", 9}});
    EXPECT_EQ(receive().value("rc", 0), 1);
    script_.stays = false;
    {
        std::lock_guard lock(script_.mutex);
        script_.gate_error = make_error(Code::busy, "PMIx gate", "2 PMIx calls in flight");
    }
    send({{"t", "gate"}, {"seq", 10}});
    EXPECT_EQ(receive().value("rc", 0), 1);
    EXPECT_EQ(script_.journal.count("program begin"), 2U);
    EXPECT_EQ(script_.journal.count("program end"), 2U);
}

TEST_F(AgentTest, ProgramIsCalledBeforeAndAfterStop) {
    script_.program = true;
    start_attached();
    int seq = 1;
    for (const auto& [arrival, after] :
         {std::pair{"resumed", "program after"}, {"restored", "program after, elsewhere"}}) {
        suspend(seq);
        wake();
        accept_hello();
        send(welcome(seq, arrival, true));
        EXPECT_EQ(receive().value("rc", -9), 0);
        ASSERT_TRUE(script_.journal.wait_for("program end", static_cast<size_t>(seq)));
        EXPECT_EQ(script_.journal.count(after), 1U);
        ++seq;
    }
    Journal& j = script_.journal;
    EXPECT_LT(j.position("pmix gate"), j.position("program before"));
    EXPECT_LT(j.position("program before"), j.position("suspend_all"));
    EXPECT_LT(j.position("wakeup_all gn2 peers 2"), j.position("program after"));
    EXPECT_LT(j.position("program after"), j.position("program end"));
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

}  // namespace
}  // namespace agent_test
