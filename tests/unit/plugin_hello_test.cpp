// SPDX-License-Identifier: BSD-3-Clause
// Who may speak to a node agent under the simulated runtime: what a rank's first message must have,
// and who is told the job's secret.
#include <gtest/gtest.h>

#include "pmix-plugin/runtime/sim/cluster.hpp"
#include "tests/json_packet.hpp"
#include "tests/unit/plugin_checks.hpp"

namespace ghost::plugin::sim {
namespace {

TEST(Hello, ArrivalsWithWrongHelloAreRefused) {
    Cluster c(13, 2, {0, 1});
    kernet::RankHello hello;
    hello.job = "4711";
    hello.rank = 1;
    hello.secret = job_secret;
    hello.life = job_life;
    const Json good = Json::parse(schema::encode(hello));
    struct Case {
        const char* key;
        Json value;
        const char* says;
    } cases[] = {
        {"t", "attached", "unknown message attached"},
        {"role", "king", "role is none of its values"},
        {"role", 3, "role is none of its values"},
        {"job", "1", "hello of another job"},
        {"job", 4711, "job is no text"},
        {"secret", "5ec2e8", "wrong secret"},
        {"secret", "", "wrong secret"},
        {"secret", 1, "secret is no text"},
        {"life", "01d", "hello of another life"},
        {"life", "", "hello of another life"},
        {"rank", -1, "rank is no whole number"},
        {"rank", "1", "rank is no whole number"},
        {"version", 2, "the rank's KerNet speaks version 2 of the protocol"},
        {"version", "0.9", "version is no whole number"},
        {"location", nullptr, "location is no object"},
    };
    for (const Case& one : cases) {
        Json m = good;
        m[one.key] = one.value;
        auto arrival = ControlSocket::connect(c.socket_of(1));
        ASSERT_TRUE(arrival.ok());
        ASSERT_TRUE(send_json(*arrival, m).ok());
        c.run(1000);
        auto answer = arrival->receive(0);
        ASSERT_TRUE(answer.ok()) << m;
        const auto complaint = schema::decode<schema::Complaint>(answer->text);
        ASSERT_TRUE(complaint.ok()) << answer->text;
        const std::string why = complaint->why;
        EXPECT_NE(why.find(one.says), std::string::npos) << why;
        EXPECT_EQ(arrival->receive(0).error().code, Code::peer_lost);
    }
    EXPECT_TRUE(c.rank_attached(1));
    expect_sound(c);
}

TEST(Hello, TheSecretIsToldToWhoAsksForThatOfThisJob) {
    Cluster c(13, 2, {0, 1});
    auto arrival = ControlSocket::connect(c.socket_of(1));
    ASSERT_TRUE(arrival.ok());
    for (const std::string job : {"1", "4711"}) {
        ASSERT_TRUE(arrival->send_text(schema::encode(kernet::AskSecret{job})).ok());
        c.run(1000);
        auto answer = arrival->receive(0);
        ASSERT_TRUE(answer.ok());
        const auto told = schema::decode<kernet::TellSecret>(answer->text);
        EXPECT_EQ(told.ok(), job == "4711") << answer->text;
        EXPECT_TRUE(!told.ok() || told->secret == job_secret);
    }
    // That was no hello: it is still limited, as any that is not known.
    c.run(20 * second);
    EXPECT_EQ(arrival->receive(0).error().code, Code::peer_lost);
    expect_sound(c);
}

// Its rank asks again.
TEST(Hello, ADaemonThatHasNotBeenToldTheSecretAnswersNobodyWhoAsks) {
    Cluster c(13, 2, {0, 1});
    const auto ask = [&c] {
        auto arrival = ControlSocket::connect(c.socket_of(1));
        EXPECT_TRUE(arrival.ok());
        EXPECT_TRUE(arrival->send_text(schema::encode(kernet::AskSecret{"4711"})).ok());
        c.run(1000);
        return arrival->receive(0);
    };
    c.without_secret.insert(1);
    EXPECT_EQ(ask().error().code, Code::peer_lost);
    c.without_secret.clear();
    const auto answer = ask();
    ASSERT_TRUE(answer.ok());
    EXPECT_TRUE(schema::decode<kernet::TellSecret>(answer->text).ok());
    expect_sound(c);
}

}  // namespace
}  // namespace ghost::plugin::sim
