// SPDX-License-Identifier: BSD-3-Clause
// When snapshots are made, how far apart they are, and of which kind, under the simulated runtime.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "pmix-plugin/coordinator/interval.hpp"
#include "pmix-plugin/coordinator/job_files.hpp"
#include "pmix-plugin/runtime/sim/cluster.hpp"
#include "tests/unit/plugin_checks.hpp"

namespace ghost::plugin::sim {
namespace {

TEST(Schedule, EveryIntervalAndRotation) {
    Cluster c(14, 2, {0, 1}, 0, {},
              {{"ghost_checkpoint_interval", "10"}, {"ghost_checkpoint_keep", "3"}});
    EXPECT_GT(c.ps()["next_snapshot_us"], 0);
    c.run(55 * second);
    auto all = snapshots(c);
    ASSERT_EQ(all.size(), 3u);
    EXPECT_EQ(all[0].name, "4711-000005");
    EXPECT_EQ(all[2].name, "4711-000003");
    expect_whole_folder(c);
    expect_sound(c);
    // A line for its begin and its end, and for the start of the job.
    std::ifstream in(events_file(c.folder(), "4711"));
    std::vector<std::string> events;
    for (std::string line; std::getline(in, line);) events.push_back(Json::parse(line)["event"]);
    ASSERT_EQ(events.size(), 11u);
    EXPECT_EQ(events[0], "started");
    EXPECT_EQ(events[9], "snapshotting");
    EXPECT_EQ(events[10], "snapshot");
    EXPECT_TRUE(c.said.empty());
}

// Numbers by hand: cost 5 min, failures a day apart: sqrt(2*300*86400) = 7200 s, times
// 1 + sqrt(300/172800)/3 + 300/172800/9 = 1.0140817, less 300.
TEST(Interval, IsDalysFormula) {
    EXPECT_NEAR(static_cast<double>(daly_work_us(300 * second, 86'400 * second)), 7001.389e6, 2e3);
    EXPECT_EQ(daly_work_us(20 * second, 10 * second), 10 * second);  // no snapshot pays
    EXPECT_EQ(daly_work_us(21 * second, 10 * second), 10 * second);
    EXPECT_EQ(daly_work_us(0, second), 0);
    EXPECT_EQ(daly_work_us(second, 0), 0);
}

TEST(Interval, MedianAndBounds) {
    IntervalChoice choice(86'400 * second);
    EXPECT_EQ(choice.interval_us(), IntervalChoice::first_us);
    EXPECT_FALSE(choice.cost_us());
    choice.measured(second, 11 * second);
    EXPECT_EQ(choice.cost_us(), 2 * second);
    EXPECT_EQ(choice.interval_us(), daly_work_us(2 * second, 86'400 * second) + 2 * second);
    choice.measured(second, 11 * second);
    choice.measured(100 * second, 900 * second);  // one that is out of line
    EXPECT_EQ(choice.cost_us(), 2 * second);
    IntervalChoice often(60 * second);
    often.measured(1000, 2000);
    EXPECT_EQ(often.interval_us(), IntervalChoice::least_us);
    IntervalChoice slow(60 * second);
    slow.measured(second, 40 * second);
    EXPECT_EQ(slow.interval_us(), 400 * second);
}

TEST(Schedule, AutoIsShorterForSmallerMtbf) {
    const auto interval = [](const char* mtbf) {
        Cluster c(14, 2, {0, 1}, 0, {},
                  {{"ghost_checkpoint_interval", "auto"}, {"ghost_mtbf", mtbf}});
        c.chance.write_us = second;
        EXPECT_EQ(c.ps()["interval"]["us"], IntervalChoice::first_us);
        c.run(35 * second);
        EXPECT_EQ(snapshots(c).size(), 1u);
        const Json ps = c.ps();
        EXPECT_GT(ps["interval"]["cost_us"], 0);
        EXPECT_LE(ps["next_snapshot_us"], ps["interval"]["us"]);
        EXPECT_GT(ps["next_snapshot_us"], ps["interval"]["us"].get<int64_t>() - 6 * second);
        expect_sound(c);
        return ps["interval"]["us"].get<int64_t>();
    };
    EXPECT_LT(interval("2h"), interval("2d"));
}

TEST(Schedule, EarlyTimerTakesNoSecondSnapshot) {
    Cluster c(14, 2, {0, 1}, 0, {},
              {{"ghost_checkpoint_interval", "10"}, {"ghost_checkpoint_keep", "10"}});
    c.chance.early_us = 4'000;
    c.chance.write_us = second;
    testing::internal::CaptureStderr();
    c.run(95 * second);
    EXPECT_EQ(testing::internal::GetCapturedStderr().find("left out"), std::string::npos);
    EXPECT_EQ(snapshots(c).size(), 9u);
    EXPECT_TRUE(c.said.empty()) << c.said[0];
    expect_whole_folder(c);
    expect_sound(c);
}

TEST(Schedule, FailedSnapshotIsLoggedAndNextTried) {
    Cluster c(15, 2, {0, 1}, 0, {}, {{"ghost_checkpoint_interval", "10s"}});
    c.chance.fail_stage = Stage::write;
    c.run(15 * second);
    ASSERT_EQ(c.said.size(), 1u);
    EXPECT_NE(c.said[0].find("rank 0 at gn0: write: no luck"), std::string::npos) << c.said[0];
    EXPECT_EQ(c.said[0].find('\n'), std::string::npos);
    c.chance.fail_stage.reset();
    c.run(10 * second);
    auto all = snapshots(c);
    ASSERT_EQ(all.size(), 1u);
    expect_whole_folder(c);
    expect_sound(c);
}

TEST(Schedule, SlowSnapshotDelaysNext) {
    Cluster c(16, 2, {0, 1}, 0, {}, {{"ghost_checkpoint_interval", "10s"}});
    c.chance.write_us = 25 * second;
    c.run(38 * second);
    EXPECT_EQ(snapshots(c).size(), 1u);
    c.run(30 * second);
    EXPECT_EQ(snapshots(c).size(), 2u);
    EXPECT_TRUE(c.said.empty()) << c.said[0];
    expect_sound(c);
}

TEST(Schedule, FullSnapshotEveryN) {
    Cluster c(17, 2, {0, 1}, 0, {},
              {{"ghost_checkpoint_interval", "10s"},
               {"ghost_full_every", "3"},
               {"ghost_checkpoint_keep", "9"}});
    c.chance.incremental = true;
    c.run(75 * second);
    auto all = snapshots(c);
    ASSERT_EQ(all.size(), 7u);
    EXPECT_EQ(kinds_of(all), "fiiifii");
    expect_sound(c);
}

// What somebody removes by hand is no parent of later ones.
TEST(Schedule, FullSnapshotAfterParentRemoved) {
    Cluster c(24, 2, {0, 1}, 0, {},
              {{"ghost_checkpoint_interval", "10s"}, {"ghost_checkpoint_keep", "9"}});
    c.chance.incremental = true;
    c.run(35 * second);
    ASSERT_EQ(kinds_of(snapshots(c)), "fii");
    std::filesystem::remove_all(c.folder() + "/4711-000002");
    c.run(20 * second);
    auto all = snapshots(c);
    ASSERT_EQ(kinds_of(all), "ffi");  // the third was based on it, and has gone with it
    EXPECT_TRUE(all[0].whole) << all[0].why;
    EXPECT_TRUE(all[1].whole) << all[1].why;
    EXPECT_TRUE(c.said.empty()) << c.said[0];
    expect_sound(c);
}

// One that is under way when that happens is given up and said so: it could never be restarted.
TEST(Schedule, ParentRemovedMeanwhile) {
    Cluster c(25, 2, {0, 1}, 0, {},
              {{"ghost_checkpoint_interval", "10s"}, {"ghost_checkpoint_keep", "9"}});
    c.chance.incremental = true;
    c.chance.write_us = 4 * second;
    c.run(22 * second);
    ASSERT_EQ(kinds_of(snapshots(c)), "f");  // and one that is written
    std::filesystem::remove_all(c.folder() + "/4711-000001");
    c.run(5 * second);
    EXPECT_TRUE(snapshots(c).empty());
    ASSERT_EQ(c.said.size(), 1u);
    EXPECT_NE(c.said[0].find("4711-000001"), std::string::npos) << c.said[0];
    EXPECT_NE(c.said[0].find("the job is unharmed"), std::string::npos) << c.said[0];
    c.run(20 * second);
    EXPECT_EQ(kinds_of(snapshots(c)), "fi");
    expect_whole_folder(c);
    expect_sound(c);
}

}  // namespace
}  // namespace ghost::plugin::sim
