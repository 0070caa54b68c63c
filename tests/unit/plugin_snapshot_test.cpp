// SPDX-License-Identifier: BSD-3-Clause
// Snapshots and restarts of a job under the simulated runtime: the ordinary life, refusals,
// folders. The schedule is in plugin_schedule_test.cpp, faults are in
// plugin_snapshot_faults_test.cpp.
#include <gtest/gtest.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "base/log.hpp"
#include "base/own_file.hpp"
#include "pmix-plugin/coordinator/job_files.hpp"
#include "pmix-plugin/coordinator/operations/snapshot.hpp"
#include "pmix-plugin/snapshots/folder.hpp"
#include "pmix-plugin/runtime/sim/cluster.hpp"
#include "tests/unit/plugin_checks.hpp"

namespace ghost::plugin::sim {
namespace {

// OMPI_MCA_ghost_verbose=4 shows what happens.
[[maybe_unused]] const bool logs = (log::setup("sim", log::level_from_environment()), true);

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
                                       "gating",  "freezing",  "writing", "completing"};
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

// What the manifest says of file /f, of which two ranks say this.
std::optional<Manifest::File> file_of(SeenFile one, SeenFile other, bool all_files = true) {
    SnapshotRun run;
    for (SeenFile* file : {&one, &other}) {
        file->path.text = "/f";
        Written& row = run.written.written.emplace_back();
        row.rank = static_cast<RankId>(run.written.written.size() - 1);
        row.files = {*file};
    }
    run.written.written.back().all_files = all_files;
    const Manifest m = manifest_of(run, "1", 1);
    if (m.files.size() != 1) return {};
    return m.files[0];
}

std::optional<Manifest::File::Copy> copy_of(SeenFile one, SeenFile other, bool all_files = true) {
    const auto file = file_of(std::move(one), std::move(other), all_files);
    return file ? file->copy : std::nullopt;
}

TEST(Snapshots, LastRankToFreezeGivesFileContents) {
    const auto said = [](int64_t changed, int64_t taken, const char* hash, const char* file = "1") {
        return SeenFile{{}, static_cast<uint64_t>(taken), file, changed, taken, hash, ""};
    };
    auto copy = copy_of(said(5, 20, "a"), said(5, 21, "b"));
    ASSERT_TRUE(copy);
    EXPECT_EQ(copy->rank, 1u);
    EXPECT_EQ(copy->hash, "b");
    EXPECT_EQ(copy->size, 21u);
    EXPECT_EQ(copy_of(said(5, 22, "a"), said(5, 21, "b"))->rank, 0u);
    // The clocks of two nodes: the file's own knows better.
    EXPECT_EQ(copy_of(said(6, 20, "a"), said(5, 21, "b"))->rank, 0u);
    EXPECT_EQ(copy_of(said(5, 20, "a"), said(6, 11, "b"))->rank, 1u);
    // Too large when the last one looked: an older copy is wrong.
    EXPECT_FALSE(copy_of(said(5, 20, "a"), said(6, 21, "")));
    EXPECT_EQ(copy_of(said(7, 22, "a"), said(6, 21, ""))->rank, 0u);
    // Two nodes have a file of that name; there may be a newer one that is not listed.
    EXPECT_FALSE(copy_of(said(5, 20, "a", "1:2"), said(5, 21, "b", "1:3")));
    EXPECT_FALSE(copy_of(said(5, 20, "a"), said(5, 21, "b"), false));
    EXPECT_TRUE(copy_of(said(5, 20, "a"), said(5, 21, "b"), true));
    // What is not in a ghost has to begin as the last one saw it.
    const auto begin = [](SeenFile one, SeenFile other, bool all_files = true) {
        const auto file = file_of(std::move(one), std::move(other), all_files);
        return file && file->begin ? file->begin->hash : "none";
    };
    const auto large = [&said](int64_t changed, int64_t taken, const char* hash) {
        auto out = said(changed, taken, "");
        out.begin = hash;
        return out;
    };
    EXPECT_EQ(begin(large(5, 20, "a"), large(6, 21, "b")), "b");
    EXPECT_EQ(begin(large(7, 20, "a"), large(6, 21, "b")), "a");
    EXPECT_EQ(begin(large(5, 20, "a"), said(6, 21, "b")), "none");
    EXPECT_EQ(begin(large(5, 20, "a"), large(6, 21, "b"), false), "none");
    // Nothing is known but sizes.
    EXPECT_FALSE(copy_of({{}, 1, "", 0, 0, "", ""}, {{}, 2, "", 0, 0, "", ""}));
}

TEST(Snapshots, MoveWaitsForSnapshot) {
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
    EXPECT_EQ(all[0].manifest->job.epoch, 1u);
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
    c.end_mpirun();
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

// Most refuse for the same reason: whoever mends only the first one asks as often as there are
// ranks.
TEST(Snapshots, EveryRankThatRefusesIsNamed) {
    std::vector<NodeId> nodes(12);
    for (size_t i = 0; i < nodes.size(); ++i) nodes[i] = static_cast<NodeId>(i % 10);
    Cluster c(6, 10, nodes);
    c.chance.fail_stage = Stage::prepare;
    Client& user = c.client();
    const auto said = [&](std::set<RankId> who) {
        c.chance.fail_ranks = std::move(who);
        user.results.clear();
        user.ask(checkpoint());
        EXPECT_TRUE(c.run(60 * second, [&] { return !user.results.empty(); }));
        return user.results.empty() ? Json() : user.results[0];
    };
    const std::string three = said({1, 6, 9})["error"];
    for (const RankId rank : {1, 6, 9})
        EXPECT_NE(three.find(fmt::format("rank {0} at gn{0}: prepare: no luck", rank)),
                  std::string::npos)
            << three;
    const std::string many = said({0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11})["error"];
    EXPECT_NE(many.find("; and 4 more ranks"), std::string::npos) << many;
    expect_all_run(c);
    c.chance.fail_stage.reset();
    EXPECT_EQ(said({})["exit"], 0);
    expect_sound(c);
}

TEST(Snapshots, FailedSnapshotLeavesJobUnchanged) {
    for (const Stage stage : {Stage::prepare, Stage::freeze, Stage::write}) {
        Cluster c(5, 3, {0, 1, 2});
        c.chance.fail_stage = stage;
        c.chance.fail_ranks = {1};
        Client& user = c.client();
        user.ask(checkpoint());
        ASSERT_TRUE(c.run(60 * second, [&] { return !user.results.empty(); })) << name_of(stage);
        EXPECT_EQ(user.results[0]["exit"], 1);
        std::string error = user.results[0]["error"];
        EXPECT_NE(error.find("rank 1 at gn1: " + std::string(name_of(stage)) + ": no luck"),
                  std::string::npos)
            << error;
        EXPECT_NE(error.find("the job is unharmed"), std::string::npos) << error;
        expect_all_run(c);
        EXPECT_TRUE(snapshots(c).empty());
        expect_whole_folder(c);
        c.chance.fail_stage.reset();
        user.results.clear();
        user.ask(checkpoint());
        ASSERT_TRUE(c.run(60 * second, [&] { return !user.results.empty(); }));
        EXPECT_EQ(user.results[0]["exit"], 0) << user.results[0];
        expect_sound(c);
    }
}

// --- requests ---

TEST(Snapshots, Refusals) {
    Cluster c(6, 2, {0, 1});
    Client& user = c.client();
    auto says = [&](const Json& ask, const char* what) {
        user.results.clear();
        user.ask(ask);
        ASSERT_TRUE(c.run(90 * second, [&] { return !user.results.empty(); })) << what;
        EXPECT_EQ(user.results[0]["exit"], 1);
        std::string error = user.results[0]["error"];
        EXPECT_NE(error.find(what), std::string::npos) << error;
    };
    user.ask(checkpoint("dance"));
    ASSERT_TRUE(c.run(90 * second, [&] { return !user.errors.empty(); }));
    EXPECT_NE(user.errors[0].find("checkpoint: then is none of its values"), std::string::npos);
    std::vector<std::string> answers;
    c.job_control({.then = "dance"}, answers);
    ASSERT_TRUE(c.run(90 * second, [&] { return !answers.empty(); }));
    EXPECT_NE(answers[0].find("cannot follow a snapshot"), std::string::npos) << answers[0];
    says(checkpoint("continue", "/proc/nowhere"), "/proc/nowhere");
    c.end_rank(1);
    c.run(second);
    says(checkpoint(), "rank 1 has ended");
    EXPECT_EQ(c.holds, 0);
    expect_sound(c);
}

// Processes that ranks have spawned would be missing when the job is begun again.
TEST(Snapshots, SpawnedProcessesPreventSnapshot) {
    Cluster c(6, 2, {0, 1});
    Client& user = c.client();
    const auto refused = [&] {
        ASSERT_TRUE(c.run(90 * second, [&] { return !user.results.empty(); }));
        EXPECT_EQ(user.results[0]["exit"], 1);
        const std::string error = user.results[0]["error"];
        EXPECT_NE(error.find("2 processes that the job has spawned"), std::string::npos) << error;
        user.results.clear();
        expect_all_run(c);
        expect_whole_folder(c);
    };
    c.chance.guests = 2;
    user.ask(checkpoint());
    refused();
    EXPECT_EQ(c.holds, 0);
    // Spawned after the first look.
    c.chance.guests = 0;
    user.ask(checkpoint());
    ASSERT_TRUE(
        c.run(5 * second, [&] { return !user.phases.empty() && user.phases.back() == "gating"; }));
    c.chance.guests = 2;
    refused();
    EXPECT_EQ(c.holds, c.releases);
    c.chance.guests = 0;
    user.ask(checkpoint());
    ASSERT_TRUE(c.run(5 * second, [&] { return !user.results.empty(); }));
    EXPECT_EQ(user.results[0]["exit"], 0) << user.results[0];
    expect_sound(c);
}

TEST(Snapshots, BusyRanksAreTriedAgain) {
    Cluster c(7, 3, {0, 1, 1, 2});
    c.chance.busy_percent = 30;
    c.chance.fence_percent = 60;
    Client& user = c.client();
    user.ask(checkpoint());
    ASSERT_TRUE(c.run(20 * second, [&] { return !user.results.empty(); }));
    EXPECT_EQ(user.results[0]["exit"], 0) << user.results[0];
    expect_all_run(c);
    expect_sound(c);
}

TEST(Snapshots, BusyRanksDoNotKeepTheJobBehindFences) {
    Cluster c(7, 3, {0, 1, 1, 2});
    c.chance.waits_behind_fences = true;
    Client& user = c.client();
    user.ask(checkpoint());
    ASSERT_TRUE(c.run(second, [&] { return !user.results.empty(); }));
    EXPECT_EQ(user.results[0]["exit"], 0) << user.results[0];
    EXPECT_EQ(c.holds, 2);
    expect_all_run(c);
    expect_sound(c);
}

TEST(Snapshots, AlwaysBusyRankPutsSnapshotOff) {
    Cluster c(8, 3, {0, 1});
    c.chance.busy_percent = 100;
    Client& user = c.client();
    user.ask(checkpoint());
    ASSERT_TRUE(c.run(30 * second, [&] { return !user.results.empty(); }));
    EXPECT_EQ(user.results[0]["exit"], 1);
    std::string error = user.results[0]["error"];
    EXPECT_NE(error.find("put off: "), std::string::npos) << error;
    EXPECT_NE(error.find("the job is unharmed"), std::string::npos) << error;
    expect_all_run(c);
    expect_sound(c);
    expect_whole_folder(c);
}

TEST(Snapshots, RankThatHasLeftMpiIsToldAtOnce) {
    Cluster c(9, 2, {0, 1});
    c.say_bye(1);
    c.run(second);
    Client& user = c.client();
    user.ask(checkpoint());
    ASSERT_TRUE(c.run(second, [&] { return !user.results.empty(); }));
    EXPECT_EQ(user.results[0]["exit"], 1);
    std::string error = user.results[0]["error"];
    EXPECT_NE(error.find("rank 1 is in MPI_Finalize or past it"), std::string::npos) << error;
    EXPECT_EQ(c.holds, 0);
    expect_sound(c);
}

// In every phase: it is refused within seconds or made when they go on, and nothing is harmed.
TEST(Snapshots, RanksAreStoppedInEveryPhase) {
    for (const bool job : {false, true}) {
        for (const char* phase :
             {"", "preparing", "pinging", "holding", "gating", "freezing", "writing"}) {
            SCOPED_TRACE(fmt::format("\"{}\", the job: {}", phase, job));
            Cluster c(31, 3, {0, 1, 2});
            const auto stop = [&] {
                for (RankId rank = 0; rank < 3; rank++)
                    if (job || rank == 1) c.stop_rank(rank, job);
            };
            Client& user = c.client();
            user.on_phase = [&](const std::string& now) {
                if (now == phase) stop();
            };
            if (*phase == 0) stop();
            user.ask(checkpoint());
            c.run(8 * second, [&] { return !user.results.empty(); });
            ASSERT_FALSE(user.results.empty() && *phase == 0);
            if (!user.results.empty() && user.results[0]["exit"] != 0) {
                EXPECT_EQ(user.results[0]["exit"], 1) << user.results[0];
                const std::string error = user.results[0]["error"];
                EXPECT_NE(error.find(job ? " is suspended with its job" : "rank 1 is stopped"),
                          std::string::npos)
                    << error;
            }
            for (RankId rank = 0; rank < 3; rank++) c.continue_rank(rank);
            ASSERT_TRUE(c.run(60 * second, [&] { return !user.results.empty(); }));
            c.run(20 * second);
            user.on_phase = nullptr;
            user.ask(checkpoint());
            ASSERT_TRUE(c.run(20 * second, [&] { return user.results.size() == 2; }));
            EXPECT_EQ(user.results[1]["exit"], 0) << user.results[1];
            expect_all_run(c);
            expect_sound(c);
            expect_whole_folder(c);
        }
    }
}

// The schedule's snapshots of a suspended job are left out; why is said once, and then they go on.
TEST(Snapshots, ScheduleSaysOnceWhyItMakesNone) {
    Cluster c(32, 2, {0, 1}, 0, {}, {{"ghost_checkpoint_interval", "10"}});
    c.stop_rank(1, true);
    c.run(45 * second);
    EXPECT_EQ(snapshots(c).size(), 0u);
    ASSERT_EQ(c.said.size(), 1u);
    EXPECT_NE(c.said[0].find("rank 1 is suspended with its job"), std::string::npos) << c.said[0];
    c.continue_rank(1);
    c.run(11 * second);
    EXPECT_EQ(snapshots(c).size(), 1u);
    c.stop_rank(1, true);
    c.run(25 * second);
    EXPECT_EQ(c.said.size(), 2u);
    c.continue_rank(1);
    expect_sound(c);
}

TEST(Snapshots, BySignalAndByJobControl) {
    Cluster c(10, 2, {0, 1}, 0, {}, {{"ghost_checkpoint_signal", "USR2"}});
    std::vector<std::string> answers;
    c.signal(SIGUSR2);
    c.job_control({}, answers);
    ASSERT_TRUE(c.run(5 * second, [&] { return !answers.empty(); }));
    EXPECT_EQ(answers, std::vector<std::string>{""});
    EXPECT_EQ(snapshots(c).size(), 2u);
    c.chance.fail_stage = Stage::prepare;
    c.job_control({.then = "continue"}, answers);
    ASSERT_TRUE(c.run(60 * second, [&] { return answers.size() == 2; }));
    EXPECT_NE(answers[1].find("no luck"), std::string::npos);
    ASSERT_EQ(c.said.size(), 1u);
    EXPECT_NE(c.said[0].find("no luck"), std::string::npos);
    expect_sound(c);
}

TEST(Snapshots, ThenKillEndsTheJobWithEveryTreeFrozen) {
    Cluster c(11, 3, {0, 1, 2});
    Client& user = c.client();
    user.ask(checkpoint("kill"));
    ASSERT_TRUE(c.run(5 * second, [&] { return c.end_status != 0; }));
    EXPECT_EQ(c.end_status, 85);
    EXPECT_NE(c.abort_why.find("ended after its snapshot"), std::string::npos) << c.abort_why;
    c.run(10'000);
    ASSERT_EQ(user.results.size(), 1u);
    EXPECT_EQ(user.results[0]["exit"], 0) << user.results[0];
    for (RankId r : {0u, 1u, 2u}) EXPECT_EQ(c.running_copies(r), 0);
    EXPECT_EQ(snapshots(c).size(), 1u);
    expect_sound(c);
}

TEST(Snapshots, ThenKillThatFailsLetsTheJobGoOn) {
    for (const Stage stage : {Stage::freeze, Stage::write}) {
        Cluster c(12, 3, {0, 1, 2});
        c.chance.fail_stage = stage;
        c.chance.fail_ranks = {2};
        Client& user = c.client();
        user.ask(checkpoint("kill"));
        ASSERT_TRUE(c.run(60 * second, [&] { return !user.results.empty(); }));
        EXPECT_EQ(user.results[0]["exit"], 1) << user.results[0];
        c.run(second);
        EXPECT_EQ(c.end_status, 0);
        expect_all_run(c);
        expect_sound(c);
        expect_whole_folder(c);
    }
}

TEST(Snapshots, ThenStopUntilSigcont) {
    Cluster c(13, 2, {0, 1});
    Client& user = c.client();
    user.ask(checkpoint("stop"));
    ASSERT_TRUE(c.run(5 * second, [&] { return !user.results.empty(); }));
    EXPECT_EQ(user.results[0]["exit"], 0) << user.results[0];
    c.run(10'000);
    EXPECT_EQ(c.running_copies(0) + c.running_copies(1), 0) << "it runs on beyond what was saved";
    EXPECT_EQ(c.ps()["stopped"], true);
    user.ask(checkpoint());
    ASSERT_TRUE(c.run(5 * second, [&] { return user.results.size() == 2; }));
    EXPECT_EQ(user.results[1]["exit"], 1);
    c.signal(SIGCONT);
    c.run(10'000);
    expect_all_run(c);
    user.ask(checkpoint());
    ASSERT_TRUE(c.run(5 * second, [&] { return user.results.size() == 3; }));
    EXPECT_EQ(user.results[2]["exit"], 0) << user.results[2];
    expect_sound(c);
}

// --- the folder ---

// A snapshot on demand that ends so, and a second for what follows.
void ask_and_wait(Cluster& c, Client& user, int exit) {
    user.results.clear();
    user.ask(checkpoint());
    ASSERT_TRUE(c.run(60 * second, [&] { return !user.results.empty(); }));
    EXPECT_EQ(user.results[0]["exit"], exit) << user.results[0];
    c.run(second);
}

// What a signed one is based on has to be signed as well.
TEST(Schedule, SignedSnapshotsByCommandAndByParameter) {
    Cluster c(26, 2, {0, 1}, 0, {}, {{"ghost_checkpoint_keep", "9"}});
    c.chance.incremental = true;
    std::filesystem::create_directories(c.folder());
    const std::string path = c.folder() + "/key";
    const auto key = make_keys(path);
    ASSERT_TRUE(key.ok()) << key.error().message();
    Client& user = c.client();
    for (const char* sign : {"", "", path.c_str(), path.c_str(), ""}) {
        user.results.clear();
        Json order = checkpoint();
        order["sign"] = sign;
        user.ask(order);
        ASSERT_TRUE(c.run(60 * second, [&] { return !user.results.empty(); }));
        EXPECT_EQ(user.results[0]["exit"], 0) << user.results[0];
        c.run(second);
    }
    const auto all = snapshots(c);
    EXPECT_EQ(kinds_of(all), "fifii");
    for (const auto& one : all) EXPECT_TRUE(one.whole) << one.why;
    const auto by_signer = *list_snapshots(c.folder(), {}, *key);
    for (size_t i = 0; i < 5; ++i) EXPECT_EQ(by_signer[i].whole, i == 1 || i == 2) << i;
    // a key that cannot be had: nothing is begun
    std::filesystem::remove(path);
    user.results.clear();
    user.ask({{"t", "checkpoint"}, {"to", ""}, {"then", "continue"}, {"sign", path}});
    ASSERT_TRUE(c.run(60 * second, [&] { return !user.results.empty(); }));
    EXPECT_EQ(user.results[0]["exit"], 1);
    EXPECT_NE(user.results[0]["error"].get<std::string>().find(path), std::string::npos);
    EXPECT_EQ(snapshots(c).size(), 5u);
    expect_sound(c);
}

using Names = std::set<std::string>;

// The folders in a folder.
Names there(const std::string& folder) {
    Names names;
    std::error_code none;
    for (const auto& entry : std::filesystem::directory_iterator(folder, none)) {
        if (entry.is_directory()) names.insert(entry.path().filename());
    }
    return names;
}

// A node with a folder of its own, under the same name: other files.
TEST(Folder, SnapshotsInNodeLocalFolder) {
    Cluster c(22, 2, {0, 1}, 0, {}, {{"ghost_checkpoint_keep", "2"}});
    const std::string own = c.folder() + "-node1";
    c.bend = [&](NodeId to, Json& m) {
        if (to == 1 && m.contains("folder")) m["folder"] = own;
    };
    Client& user = c.client();
    auto ask = [&](int exit) { ask_and_wait(c, user, exit); };
    ask(0);
    EXPECT_EQ(there(own), Names{"4711-000001"});
    EXPECT_TRUE(std::filesystem::exists(own + "/4711-000001/rank-1.ghost"));
    EXPECT_FALSE(std::filesystem::exists(own + "/4711-000001/manifest.json"));
    EXPECT_FALSE(std::filesystem::exists(c.folder() + "/4711-000001/rank-1.ghost"));
    c.chance.fail_stage = Stage::write;
    ask(1);
    EXPECT_EQ(there(own), Names{"4711-000001"});
    // The order to end it is lost: the next one brings it.
    c.chance.fail_stage.reset();
    c.lose = [](NodeId, NodeId to, const Json& m) {
        return to == 1 && type_of(m) == DaemonMessage::snap_end;
    };
    ask(0);
    EXPECT_EQ(there(own), (Names{"4711-000001", partial_name("4711-000002", job_life)}));
    c.lose = nullptr;
    ask(0);
    EXPECT_EQ(there(own), (Names{"4711-000002", "4711-000003"}));
    EXPECT_EQ(there(c.folder()), there(own));
    expect_all_run(c);
    expect_sound(c);
}

// The simulated job's snapshots in this machine's memory, gone before and afterwards.
class InMemory {
  public:
    InMemory() { clear(); }
    ~InMemory() { clear(); }
    InMemory(const InMemory&) = delete;
    InMemory& operator=(const InMemory&) = delete;
    const std::string& folder() const { return folder_; }

  private:
    void clear() const {
        std::error_code none;
        for (const auto& entry : std::filesystem::directory_iterator(folder_, none))
            if (entry.path().filename().string().starts_with("4711"))
                std::filesystem::remove_all(entry.path(), none);
    }
    // found, and used, as the one there is
    std::string folder_ = shared_own_folder(memory_snapshots()).value();
};

TEST(Folder, SnapshotsOnDiskAndInMemory) {
    const InMemory memory;
    Cluster c(23, 2, {0, 1}, 0, {},
              {{"ghost_checkpoint_keep", "2"}, {"ghost_checkpoint_to", "both"}});
    c.chance.incremental = true;
    const std::string other = c.folder() + "-memory1";  // the other node's own
    c.bend = [&](NodeId to, Json& m) {
        if (to == 1 && m.contains("second")) m["second"] = other;
    };
    Client& user = c.client();
    auto ask = [&](int exit) { ask_and_wait(c, user, exit); };
    auto expect_everywhere = [&](const Names& names) {
        for (const auto& folder : {c.folder(), memory.folder(), other})
            EXPECT_EQ(there(folder), names) << folder;
    };
    ask(0);
    expect_everywhere({"4711-000001"});
    EXPECT_EQ(user.results[0]["result"]["snapshot"], c.folder() + "/4711-000001");
    EXPECT_EQ(user.results[0]["result"]["second"], memory.folder() + "/4711-000001");
    EXPECT_TRUE(std::filesystem::exists(memory.folder() + "/4711-000001/manifest.json"));
    EXPECT_TRUE(std::filesystem::exists(memory.folder() + "/4711-000001/rank-0.ghost"));
    EXPECT_TRUE(std::filesystem::exists(other + "/4711-000001/rank-1.ghost"));
    EXPECT_TRUE(std::filesystem::exists(c.folder() + "/4711-000001/rank-1.ghost"));
    // In both or in none.
    c.chance.fail_stage = Stage::write;
    ask(1);
    c.chance.fail_stage.reset();
    expect_everywhere({"4711-000001"});
    ask(0);
    EXPECT_EQ(kinds_of(snapshots(c)), "fi");
    // One that is gone from one of them has no children in either.
    std::filesystem::remove_all(memory.folder() + "/4711-000002");
    ask(0);
    EXPECT_EQ(snapshots(c).front().manifest->kind, "full");
    ask(0);
    ask(0);
    const Names kept{"4711-000003", "4711-000004", "4711-000005"};
    EXPECT_EQ(there(c.folder()), kept);
    EXPECT_EQ(there(memory.folder()), kept);
    expect_all_run(c);
    expect_sound(c);
}

// Parity that cannot be made costs that snapshot only; on one node there is none.
TEST(Folder, SnapshotsWithParity) {
    const InMemory memory;
    const std::map<std::string, std::string> parity{{"ghost_checkpoint_to", "xor:4"}};
    {
        Cluster alone(24, 1, {0, 0}, 0, {}, parity);
        Client& only = alone.client();
        ask_and_wait(alone, only, 0);
        EXPECT_EQ(only.results[0]["result"]["level"], "memory");
    }
    Cluster c(25, 2, {0, 1}, 0, {}, parity);
    Client& user = c.client();
    ask_and_wait(c, user, 1);
    const auto why = user.results[0]["error"].get<std::string>();
    EXPECT_NE(why.find("the parity of the ghosts of "), std::string::npos) << why;
    EXPECT_NE(why.find("the job is unharmed and goes on"), std::string::npos) << why;
    expect_all_run(c);
    expect_sound(c);
}

// A restart takes the lock before ORTE has told mpirun the job's life, and its first snapshot once
// more.
TEST(Folder, LockOfARestartIsTheJobs) {
    Cluster c(25, 1, {0});
    const auto folder = open_snapshot_folder(c.folder());
    ASSERT_TRUE(folder.ok());
    JobLock lock;
    for (const char* life : {"", "aa", "aa"}) {
        const Status taken = lock.take(*folder, "7", life);
        EXPECT_TRUE(taken.ok()) << taken.error().message();
    }
    EXPECT_EQ(JobLock().take(*folder, "7", "bb").error().code, Code::busy);
}

// mpirun was out of reach for so long that the job has been restarted: another one has its lock,
// and a snapshot by the number that is being completed here.
TEST(Folder, SnapshotOfAnotherLifeIsNotReplaced) {
    Cluster c(24, 2, {0, 1});
    Client& user = c.client();
    Result<Fd> theirs = make_error(Code::internal, "not taken");
    c.lose = [&](NodeId, NodeId, const Json& m) {
        if (type_of(m) != DaemonMessage::snap_up || m["step"] != "written" || theirs.ok())
            return false;
        std::filesystem::remove(c.folder() + "/4711.lock");
        theirs = lock_job(c.folder(), "4711", "mpirun 9 on gn9", "01d");
        std::filesystem::create_directory(c.folder() + "/4711-000001");
        return false;
    };
    ask_and_wait(c, user, 1);
    ASSERT_TRUE(theirs.ok());
    const std::string error = user.results[0]["error"];
    EXPECT_NE(error.find("it still runs: mpirun 9 on gn9"), std::string::npos) << error;
    EXPECT_EQ(there(c.folder()), Names{"4711-000001"});
    EXPECT_FALSE(std::filesystem::exists(c.folder() + "/4711-000001/manifest.json"));
    expect_all_run(c);
    expect_sound(c);
}

TEST(Folder, SnapshotsWithBackgroundThreads) {
    Cluster c(23, 2, {0, 1}, 0, {}, {{"sim_threads", "1"}, {"ghost_checkpoint_keep", "1"}});
    Client& user = c.client();
    for (int i = 0; i < 3; ++i) {
        user.results.clear();
        user.ask(checkpoint());
        ASSERT_TRUE(c.run_real([&] { return !user.results.empty(); }));
        EXPECT_EQ(user.results[0]["exit"], 0) << user.results[0];
    }
    user.ask(checkpoint());
    c.run(1000);  // the job ends in the middle of it
    for (const std::string& v : c.violations) ADD_FAILURE() << v;
}

}  // namespace
}  // namespace ghost::plugin::sim
