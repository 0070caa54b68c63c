// SPDX-License-Identifier: BSD-3-Clause
// Arithmetic and parsing of the figures of RR-4987 and of what jobs hold.
#include "benchmarks/figures/report.hpp"

#include <gtest/gtest.h>

#include "benchmarks/start_up/footprint.hpp"

namespace ghost::bench {
namespace {

TEST(FiguresLine, PingAndDrainAreParsed) {
    const auto sample = parse_ping("{\"size\": 4096, \"us\": 12.5}");
    ASSERT_TRUE(sample);
    EXPECT_EQ(sample->bytes, 4096);
    EXPECT_DOUBLE_EQ(sample->usec, 12.5);
    const auto come = parse_drain("{\"at_us\": 7000000, \"bytes\": 65536}");
    ASSERT_TRUE(come);
    EXPECT_EQ(come->at_us, 7000000);
    EXPECT_DOUBLE_EQ(come->bytes, 65536);
}

TEST(FiguresLine, OtherLinesAreNot) {
    for (const char* line : {"", "{", "[1]", "kernetd: ready", "{\"size\": 3}", "{\"bytes\": 3}"}) {
        EXPECT_FALSE(parse_ping(line)) << line;
        EXPECT_FALSE(parse_drain(line)) << line;
    }
}

TEST(FiguresRatios, CountFromTheirSmallestMessage) {
    Curves curves;
    curves[Kind::kernet_mpi] = {{1, 1.0}, {4096, 10.0}, {8192, 20.0}};
    curves[Kind::raw] = {{1, 100.0}, {4096, 10.0}, {8192, 5.0}};
    const auto ratios = pair_ratios(curves);
    ASSERT_EQ(ratios.size(), 1u);
    EXPECT_EQ(ratios[0].ratios, (Curve{{4096, 1.0}, {8192, 0.25}}));
    EXPECT_DOUBLE_EQ(geometric_mean(ratios[0].ratios), 0.5);
    EXPECT_EQ(slowest(ratios[0].ratios), "0.25 at 8192 bytes");
    EXPECT_EQ(slowest({}), "not measured");
}

TEST(FiguresWires, ShareOfRateAndPossibleKinds) {
    ASSERT_EQ(all_wires().size(), 4u);
    const Wire &one_node = all_wires()[0], &gigabit = all_wires()[2];
    EXPECT_TRUE(is_possible(Kind::unix_socket, one_node));
    EXPECT_FALSE(is_possible(Kind::unix_socket, gigabit));
    EXPECT_FALSE(is_possible(Kind::tcp_reno, one_node));
    // 125 bytes in a microsecond are a gigabit in a second
    EXPECT_DOUBLE_EQ(share_of_rate(gigabit, 125'000, 1000), 1.0);
    EXPECT_EQ(share_of_rate(one_node, 125'000, 1000), 0);
    EXPECT_NEAR(payload_limit(), 0.956, 0.001);
}

TEST(FiguresFairness, CountsOnlyTheTimeTogether) {
    // the first runs from 0 to 10 s at 8 Mbit/s, the second from 5 to 15 s at 16, from 6 s on
    const std::vector<Come> first{{0, 0}, {10'000'000, 10e6}};
    const std::vector<Come> second{{5'000'000, 0}, {6'000'000, 0}, {15'000'000, 18e6}};
    const auto rates = rates_together({first, second});
    ASSERT_EQ(rates.size(), 2u);
    EXPECT_NEAR(rates[0], 8, 1e-9);
    EXPECT_NEAR(rates[1], 16, 1e-9);
    EXPECT_TRUE(rates_together({}).empty());
    EXPECT_TRUE(rates_together({first, {}}).empty());
    EXPECT_TRUE(rates_together({first, {{20'000'000, 0}, {21'000'000, 5}}}).empty());
}

TEST(FiguresReport, HasRatiosSharesAndFairness) {
    FiguresReport report;
    WireReport wire{all_wires()[2], {}};
    wire.curves[Kind::kernet_mpi] = {{1 << 20, 9000.0}};
    wire.curves[Kind::stock_mpi] = {{1 << 20, 18000.0}};
    report.wires.push_back(wire);
    report.fairness.push_back({"Gigabit Ethernet", {Kind::kernet, Kind::tcp}, {300, 600}});
    const auto json = to_json(report);
    EXPECT_DOUBLE_EQ(json["wires"][0]["ratios"][0]["geometric_mean"], 2.0);
    EXPECT_NEAR(json["wires"][0]["share_of_rate"]["KerNet MPI"], 0.932, 0.001);
    EXPECT_NEAR(json["fairness"][0]["streams"][1]["share"], 0.667, 0.001);
    const std::string table = to_table(report);
    EXPECT_NE(table.find("KerNet MPI / stock MPI"), std::string::npos);
    EXPECT_NE(table.find("2.00  slowest 2.00 at 1048576 bytes"), std::string::npos);
    EXPECT_NE(table.find("KerNet streams 300.0 Mbit/s (0.33)"), std::string::npos);
}

TEST(Footprint, RollupAndInitLines) {
    const auto holds = parse_rollup(
        "55d4-7ffc ---p 00000000 00:00 0    [rollup]\nRss:  9000 kB\nPss:  4453 kB\n"
        "Pss_Dirty: 2900 kB\nPrivate_Clean:  16 kB\nPrivate_Dirty:  2904 kB\n");
    ASSERT_TRUE(holds);
    EXPECT_DOUBLE_EQ(holds->pss_kb, 4453);
    EXPECT_DOUBLE_EQ(holds->private_kb, 2920);
    EXPECT_FALSE(parse_rollup(""));
    EXPECT_DOUBLE_EQ(parse_init("init 12 1700000000.5").value_or(0), 1700000000.5);
    EXPECT_FALSE(parse_init("ready 12"));
    EXPECT_DOUBLE_EQ(parse_ready("ready 12 4096").value_or(0), 4);
    EXPECT_FALSE(parse_ready("ready 12"));
}

TEST(Footprint, MedianAndGrowth) {
    EXPECT_DOUBLE_EQ(median(std::vector<Holds>{{1, 5, 3}, {9, 1, 3}, {2, 3, 4}}).private_kb, 3);
    EXPECT_DOUBLE_EQ(median(std::vector<Holds>{}).fds, 0);
    EXPECT_DOUBLE_EQ(growth_per_rank({{2, 10}, {8, 22}, {64, 134}}), 2);
    EXPECT_DOUBLE_EQ(growth_per_rank({{2, 10}, {64, 10}}), 0);
    EXPECT_EQ(growth_per_rank({{2, 10}}), 0);
}

TEST(Footprint, FindsMarkedProcesses) {
    EXPECT_TRUE(marked_processes("of nobody").empty());
}

}  // namespace
}  // namespace ghost::bench
