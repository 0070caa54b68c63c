// Snapshots and restarts of a job under the simulated runtime: the ordinary life, refusals, every
// fault in every state, and thousands of random interleavings.
#include <gtest/gtest.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "pmix-plugin/message.hpp"
#include "pmix-plugin/snapshot/folder.hpp"
#include "tests/unit/plugin_sim.hpp"

namespace ghost::plugin::sim {
namespace {

constexpr int64_t second = 1'000'000;

Json checkpoint(const std::string& then = "continue", const std::string& to = "") {
    return {{"t", "checkpoint"}, {"to", to}, {"then", then}};
}

void expect_sound(Cluster& c) {
    for (const std::string& v : c.violations) ADD_FAILURE() << v;
    EXPECT_EQ(c.held, 0);
    EXPECT_EQ(c.holds, c.releases + c.settles);
}

void expect_all_run(Cluster& c) {
    for (auto [rank, over] : c.ended) {
        if (over) continue;
        EXPECT_EQ(c.running_copies(rank), 1) << "rank " << rank;
        EXPECT_TRUE(c.rank_attached(rank)) << "rank " << rank;
    }
}

std::vector<Snapshot> snapshots(Cluster& c) {
    auto list = list_snapshots(c.folder());
    return list.ok() ? *list : std::vector<Snapshot>();
}

// What is there is whole, and nothing is left of what is not.
void expect_whole_folder(Cluster& c) {
    for (const Snapshot& s : snapshots(c)) EXPECT_TRUE(s.whole) << s.name << ": " << s.why;
    std::error_code none;
    for (const auto& entry : std::filesystem::directory_iterator(c.folder(), none)) {
        EXPECT_EQ(entry.path().string().find(".partial"), std::string::npos) << entry.path();
    }
}

// --- the ordinary life ---

TEST(Snapshots, HappyPath) {
    Cluster c(1, 3, {0, 1, 1});
    Client& user = c.client();
    user.ask(checkpoint());
    ASSERT_TRUE(c.run(5 * second, [&] { return !user.results.empty(); }));
    const Json& r = user.results[0];
    EXPECT_EQ(r["exit"], 0) << r;
    EXPECT_EQ(r["result"]["name"], "4711-000001");
    EXPECT_EQ(r["result"]["snapshot"], c.folder() + "/4711-000001");
    EXPECT_EQ(r["result"]["ranks"], 3);
    EXPECT_EQ(r["result"]["bytes"], 300);
    EXPECT_EQ(r["result"]["kind"], "full");
    EXPECT_GT(r["result"]["pause_us"], 0);
    EXPECT_GE(r["result"]["total_us"], r["result"]["pause_us"]);
    std::vector<std::string> phases = {"opening", "preparing", "pinging", "holding",
                                       "gating",  "standing",  "writing", "completing"};
    user.phases.erase(std::unique(user.phases.begin(), user.phases.end()), user.phases.end());
    EXPECT_EQ(user.phases, phases);
    EXPECT_EQ(c.holds, 1);
    EXPECT_EQ(c.releases, 1);
    auto all = snapshots(c);
    ASSERT_EQ(all.size(), 1u);
    ASSERT_TRUE(all[0].whole) << all[0].why;
    const Manifest& m = *all[0].manifest;
    EXPECT_EQ(m.ranks.size(), 3u);
    EXPECT_EQ(m.ranks[2].node, "gn1");
    EXPECT_EQ(m.ranks[2].binding, "0");
    ASSERT_EQ(m.files.size(), 1u);
    EXPECT_EQ(m.files[0].size, 12u);  // the largest any rank saw
    EXPECT_EQ(m.files[0].ranks, (std::vector<uint32_t>{0, 1, 2}));
    auto secret = read_secret(all[0].path);
    EXPECT_TRUE(secret.ok());
    Json ps = c.ps();
    EXPECT_EQ(ps["snapshot"]["name"], "4711-000001") << ps;
    EXPECT_FALSE(ps.contains("snapshotting"));
    c.run(second);
    expect_all_run(c);
    expect_sound(c);
    expect_whole_folder(c);
}

TEST(Snapshots, WhileOneIsMadeAMoveWaits) {
    Cluster c(2, 3, {0, 1});
    Client& first = c.client();
    Client& other = c.client();
    first.ask(checkpoint());
    c.run(100);
    other.ask({{"t", "migrate"}, {"ranks", {1}}, {"to", "gn2"}, {"mode", "stop"}});
    c.run(100);
    first.ask(checkpoint());
    ASSERT_TRUE(
        c.run(9 * second, [&] { return first.results.size() == 2 && !other.results.empty(); }));
    EXPECT_EQ(first.results[0]["exit"], 0) << first.results[0];
    EXPECT_EQ(first.results[1]["exit"], 0) << first.results[1];
    EXPECT_EQ(other.results[0]["exit"], 0) << other.results[0];
    EXPECT_EQ(c.node_of(1), 2u);
    auto all = snapshots(c);
    ASSERT_EQ(all.size(), 2u);
    EXPECT_EQ(all[0].manifest->epoch, 1u);
    EXPECT_EQ(all[0].manifest->ranks[1].node, "gn2");
    expect_all_run(c);
    expect_sound(c);
}

TEST(Snapshots, Restart) {
    Cluster c(3, 3, {0, 1});
    Client& user = c.client();
    user.ask(checkpoint());
    ASSERT_TRUE(c.run(5 * second, [&] { return !user.results.empty(); }));
    const std::string from = c.folder() + "/4711-000001";
    // On other nodes.
    Cluster again(4, 3, {2, 2}, 0, {},
                  {{"ghost_restart", from}, {"ghost_checkpoint_dir", c.folder()}});
    again.run(5 * second);
    expect_all_run(again);
    ASSERT_EQ(again.said.size(), 1u);
    EXPECT_NE(again.said[0].find("goes on from snapshot 4711-000001"), std::string::npos);
    Json ps = again.ps();
    EXPECT_EQ(ps["epoch"], 1);
    EXPECT_EQ(ps["ranks"][1]["epoch"], 1);
    EXPECT_FALSE(ps.contains("restarting"));
    // It can be saved and moved again.
    Client& next = again.client();
    next.ask(checkpoint());
    next.ask({{"t", "migrate"}, {"ranks", {1}}, {"to", "gn1"}, {"mode", "stop"}});
    ASSERT_TRUE(again.run(9 * second, [&] { return next.results.size() == 2; }));
    EXPECT_EQ(next.results[0]["exit"], 0) << next.results[0];
    EXPECT_EQ(next.results[0]["result"]["name"], "4711-000002");
    EXPECT_EQ(next.results[1]["exit"], 0) << next.results[1];
    EXPECT_EQ(next.results[1]["result"][0]["epoch"], 2);
    expect_all_run(again);
    expect_sound(again);
}

TEST(Snapshots, FailedOneLeavesTheJobAsItWas) {
    for (const char* stage : {"prepare", "stand", "write"}) {
        Cluster c(5, 3, {0, 1, 2});
        c.chance.fail_stage = stage;
        c.chance.fail_rank = 1;
        Client& user = c.client();
        user.ask(checkpoint());
        ASSERT_TRUE(c.run(60 * second, [&] { return !user.results.empty(); })) << stage;
        EXPECT_EQ(user.results[0]["exit"], 1);
        std::string error = user.results[0]["error"];
        EXPECT_NE(error.find("rank 1 at gn1: " + std::string(stage) + ": no luck"),
                  std::string::npos)
            << error;
        EXPECT_NE(error.find("the job is unharmed"), std::string::npos) << error;
        expect_all_run(c);
        EXPECT_TRUE(snapshots(c).empty());
        expect_whole_folder(c);
        c.chance.fail_stage.clear();
        user.results.clear();
        user.ask(checkpoint());
        ASSERT_TRUE(c.run(60 * second, [&] { return !user.results.empty(); }));
        EXPECT_EQ(user.results[0]["exit"], 0) << user.results[0];
        expect_sound(c);
    }
}

}  // namespace
}  // namespace ghost::plugin::sim
