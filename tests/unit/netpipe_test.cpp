// SPDX-License-Identifier: BSD-3-Clause
// The NetPIPE runner's own arithmetic and parsing, on output taken from real runs.
#include "benchmarks/netpipe/report.hpp"

#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sched.h>
#include <sys/socket.h>
#include <thread>
#include <unistd.h>

#include "base/clock.hpp"
#include "base/fd.hpp"

namespace ghost::bench {
namespace {

TEST(NetpipeLine, LineIsParsedWithRatePrecision) {
    auto sample =
        parse_line("  7:      16 bytes   5021 times -->    122.07 Mbps in       1.00 usec");
    ASSERT_TRUE(sample);
    EXPECT_EQ(sample->bytes, 16);
    EXPECT_NEAR(sample->usec, 1.0, 0.001);
}

TEST(NetpipeLine, OtherLinesAreNot) {
    EXPECT_FALSE(parse_line("Now starting the main loop"));
    EXPECT_FALSE(parse_line("  7:      16 bytes   5021 times -->"));
    EXPECT_FALSE(parse_line(""));
}

TEST(NetpipeCurves, MedianTakesCommonSizes) {
    const Curve result = median({{{1, 5.0}, {2, 9.0}}, {{1, 1.0}, {2, 7.0}}, {{1, 2.0}}});
    EXPECT_EQ(result, (Curve{{1, 2.0}}));
    EXPECT_EQ(median({{{1, 1.0}}, {{1, 2.0}}}), (Curve{{1, 1.5}}));
    EXPECT_TRUE(median({}).empty());
    EXPECT_EQ(least({{{1, 5.0}, {2, 9.0}}, {{1, 1.0}}}), (Curve{{1, 1.0}}));
}

TEST(NetpipeCurves, RatioAboveOneIsFaster) {
    const Curve ratios = speedup({{1, 1.0}, {2, 4.0}, {3, 1.0}}, {{1, 4.0}, {2, 4.0}});
    EXPECT_EQ(ratios, (Curve{{1, 4.0}, {2, 1.0}}));
    EXPECT_DOUBLE_EQ(geometric_mean(ratios), 2.0);
    EXPECT_EQ(geometric_mean({}), 0);
}

TEST(NetpipeCurve, TurnsAreComparedWithTheirOwnReference) {
    // slow from the second turn's begin to the middle of the third
    const std::vector<Curve> references{{{1, 10.0}}, {{1, 30.0}}, {{1, 30.0}}};
    const std::vector<Curve> curves{{{1, 10.0}}, {{1, 30.0}}, {{1, 10.0}}};
    EXPECT_EQ(speedup_in_turns(curves, references), (Curve{{1, 1.0}}));
    EXPECT_EQ(speedup(median(curves), median(references)), (Curve{{1, 3.0}}));
}

TEST(NetpipeCommand, RepeatsAreGivenOnlyWhenChosen) {
    EXPECT_EQ(netpipe_options({1, 64, 0}),
              (std::vector<std::string>{"-p", "0", "-l", "1", "-u", "64", "-o", "/dev/null"}));
    const auto words = mpi_command({"x", {"--mca", "ghost", "1"}}, {1, 64, 9});
    EXPECT_EQ(words.front(), "mpirun");
    EXPECT_EQ(words.back(), "9");
}

TEST(NetpipeCommand, StreamsGoOneWay) {
    EXPECT_EQ(mpi_command({"x", {}, "", Pattern::stream}, {1, 64, 9}).back(), "-s");
}

TEST(NetpipeReport, StreamsAreHeldAgainstStreams) {
    Report report;
    report.curves = {{"ghost, same node", {{8, 1.0}}},
                     {"UCX, same node", {{8, 2.0}}},
                     {"ghost, same node, stream", {{8, 1.0}}},
                     {"UCX, same node, stream", {{8, 0.5}}}};
    const auto speeds = to_json(report)["speeds"];
    EXPECT_EQ(speeds.size(), 2);
    EXPECT_EQ(speeds["ghost, same node / UCX, same node"], 2.0);
    EXPECT_EQ(speeds["ghost, same node, stream / UCX, same node, stream"], 0.5);
}

TEST(ClusterTraffic, DaemonPortsAreFound) {
    const char* sockets =
        "LISTEN 0 128 0.0.0.0:22 0.0.0.0:* users:((\"sshd\",pid=3,fd=3))\n"
        "ESTAB 0 0 10.77.0.2:41233 10.77.0.1:1024 users:((\"orted\",pid=9,fd=21))\n"
        "ESTAB 0 0 10.77.0.2:5000 10.77.0.1:5001 users:((\"NPopenmpi\",pid=10,fd=4))\n"
        "LISTEN 0 128 [::]:22 [::]:* users:((\"sshd\",pid=3,fd=4))\n";
    EXPECT_EQ(daemon_ports(sockets), (std::vector<int>{22, 41233}));
}

// Both ends of a connection of loopback, and what the rules count of it: each packet goes out and
// in.
class Counted {
  public:
    Counted() : listener_(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
        sockaddr_in where{};
        where.sin_family = AF_INET;
        where.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        socklen_t size = sizeof where;
        auto* address = reinterpret_cast<sockaddr*>(&where);
        EXPECT_EQ(bind(listener_.get(), address, size), 0);
        EXPECT_EQ(listen(listener_.get(), 1), 0);
        EXPECT_EQ(getsockname(listener_.get(), address, &size), 0);
        one_.reset(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
        EXPECT_EQ(connect(one_.get(), address, size), 0);
        other_.reset(accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
    }
    void say(const std::string& text) {
        std::string got(text.size(), ' ');
        EXPECT_EQ(write(one_.get(), text.data(), text.size()), ssize_t(text.size()));
        EXPECT_EQ(recv(other_.get(), got.data(), got.size(), MSG_WAITALL), ssize_t(text.size()));
        EXPECT_EQ(got, text);
    }
    void end() {
        one_.reset();
        char none = 0;
        EXPECT_EQ(read(other_.get(), &none, 1), 0);
        other_.reset();
    }

  private:
    Fd listener_, one_, other_;
};

TEST(ClusterTraffic, ConnectionEndIsToldFromData) {
    bool possible = false;
    std::thread own([&] {  // a thread's network is its own, and its children's
        possible =
            unshare(CLONE_NEWNET) == 0 &&
            run({"sh", "-c", "ip link set lo up && ip link add eth0 type veth peer name eth1"}, 10)
                    ->status == 0;
        if (!possible) return;
        Counted old, lasting;
        auto made = run({"nft", traffic_rules({22})}, 10);
        ASSERT_TRUE(made.ok());
        ASSERT_EQ(made->status, 0) << made->output;
        old.end();
        auto ended = traffic_of({});
        ASSERT_TRUE(ended.ok()) << ended.error().message();
        EXPECT_EQ(ended->other, 0);
        EXPECT_GT(ended->ending, 0);
        lasting.say("12345678");  // no longer with its header than an answer with all options
        auto sent = traffic_of({});
        ASSERT_TRUE(sent.ok()) << sent.error().message();
        EXPECT_EQ(sent->other, 2 * (20 + 32 + 8));
        Counted another;  // asks, and is answered
        auto opened = traffic_of({});
        ASSERT_TRUE(opened.ok()) << opened.error().message();
        EXPECT_EQ(opened->other - sent->other, 4 * (20 + 40));
        EXPECT_EQ(opened->control, 0);
    });
    own.join();
    if (!possible) GTEST_SKIP() << "no network of its own: needs root and iproute2";
}

TEST(Command, LinesStatusAndTimeLimit) {
    auto ended = run({"sh", "-c", "echo a; echo b >&2; printf c; exit 3"}, 10);
    ASSERT_TRUE(ended.ok()) << ended.error().message();
    EXPECT_EQ(ended->status, 3);
    EXPECT_EQ(ended->output, "a\nb\nc\n");
    const int64_t begin = monotonic_us();
    auto late = run({"sleep", "60"}, 1);
    ASSERT_FALSE(late.ok());
    EXPECT_EQ(late.error().code, Code::timeout);
    EXPECT_LT(monotonic_us() - begin, 10'000'000);
    EXPECT_FALSE(run({"/nonexistent/program"}, 1).ok());
}

TEST(Command, FollowEndsWhenStopped) {
    auto command = Command::start({"sh", "-c", "echo one; echo two; sleep 60"});
    ASSERT_TRUE(command.ok());
    std::string seen;
    auto ended = command->follow(
        [&](const std::string& line) {
            seen = line;
            return line != "two";
        },
        monotonic_us() + 10'000'000);
    ASSERT_TRUE(ended.ok());
    EXPECT_FALSE(*ended);
    EXPECT_EQ(seen, "two");
}

TEST(Report, ReportHasContractFields) {
    Report report;
    report.curves["vader"] = {{1, 2.0}};
    report.curves["ghost, same node"] = {{1, 1.0}};
    MoveReport moved;
    moved.move = all_moves().back();
    moved.ratios = {{8, 0.5}, {16, 2.0}};
    moved.best_ratios = {{8, 2.0}, {16, 2.0}};
    moved.downtimes_us = {5678, 1234, 99};
    moved.run.netpipe_exit = 0;
    moved.run.traffic_counted = true;
    report.moves.push_back(moved);
    const auto json = to_json(report);
    EXPECT_EQ(json["netpipe_exit"], 0);
    EXPECT_EQ(json["downtime_us"], 1234);
    EXPECT_DOUBLE_EQ(json["after_over_before"], 1.0);
    EXPECT_DOUBLE_EQ(json["after_over_before_best"], 2.0);
    EXPECT_DOUBLE_EQ(json["ghost_over_stock_same_node"], 2.0);
    EXPECT_EQ(json["ghost_over_stock_separate_nodes"], 0);
    EXPECT_EQ(json["old_node_bytes_after"], 0);
    EXPECT_NE(to_table(report).find("1.23 ms"), std::string::npos);
    EXPECT_NE(to_table(report).find("2.00 at 1 bytes"), std::string::npos);
}

}  // namespace
}  // namespace ghost::bench
