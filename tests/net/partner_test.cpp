// SPDX-License-Identifier: BSD-3-Clause
// Snapshots in the nodes' memory, and copies of them in that of other nodes, on a virtual cluster
// of four nodes: what a job recovers from when ranks and nodes are lost (ghost_checkpoint_to memory
// and partner, ghost_recover), and what becomes of copies that cannot be made.
//
//   GHOST_TEST_LOSSES=50 GHOST_TEST_SEED=7 tests/net/partner_test --gtest_filter=*Random*
//
// Needs root; without it every case is skipped.
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "tests/net/on_lab.hpp"
#include "tests/rounds.hpp"

namespace {

using nettest::Finished;
using nettest::goes_on;
using nettest::Job;
using nettest::program;
using nettest::Words;

class Partner : public nettest::OnLab {
  protected:
    static constexpr int ranks = 4;
    static constexpr const char* hosts = "gn1:2,gn2:2,gn3:2,gn4:2";

    static void SetUpTestSuite() { make_lab(4); }
    void TearDown() override {
        for (const char* node : {"gn1", "gn2", "gn3", "gn4"})
            (void)lab().as_root(node, {"sh", "-c", "rm -rf /dev/shm/ghost-snapshots-*"});
    }

    Words options(const std::string& to, const Words& more = {}) const {
        Words all{"--map-by",
                  "node",
                  "--mca",
                  "ghost_recover",
                  "all",
                  "--mca",
                  "ghost_checkpoint_to",
                  to,
                  "--mca",
                  "ghost_checkpoint_dir",
                  path("snapshots"),
                  "--mca",
                  "ghost_node_dead_after",
                  "2"};
        all.insert(all.end(), more.begin(), more.end());
        return all;
    }
    // Rank 0 on gn1, 1 on gn2, 2 on gn3, 3 on gn4; saved when it is asked for.
    std::unique_ptr<Job> job_of(const std::string& to, const Words& more = {}) {
        Words all = options(to, more);
        for (const std::string& word : endless("pattern")) all.push_back(word);
        auto job = std::make_unique<Job>(lab(), ranks, hosts, all);
        EXPECT_TRUE(job->wait_for("round 1:")) << job->mpirun().err();
        return job;
    }
    void save(Job& job, const Words& options = {}) {
        Words words{"ghost", "checkpoint"};
        words.insert(words.end(), options.begin(), options.end());
        const Finished saved = lab().on("gn1", words);
        ASSERT_EQ(saved.status, 0) << saved.err << job.mpirun().err();
    }
    void kill_rank_at(const std::string& node) {
        const auto pids = lab().pids(node, "^[^ ]*mpi/pattern ");
        ASSERT_FALSE(pids.empty());
        lab().kill(node, pids.front());
    }
    void expect_ended(Job& job, const std::string& why) {
        const Finished end = job.finish();
        EXPECT_NE(end.status, 0);
        EXPECT_NE(end.err.find(why), std::string::npos) << end.err;
    }
    // Names below the folder of snapshots in a node's memory.
    std::string memory_of(const std::string& node) {
        return lab()
            .as_root(node, {"sh", "-c", "cd /dev/shm/ghost-snapshots-* && find . -type f | sort"})
            .out;
    }
};

// While all nodes live each has its ranks' ghosts.
TEST_F(Partner, RankThatIsKilledComesBackFromMemory) {
    auto job = job_of("memory");
    save(*job);
    EXPECT_FALSE(std::filesystem::exists(path("snapshots")));
    kill_rank_at("gn2");
    ASSERT_NO_FATAL_FAILURE(expect_recovered(*job, "rank 1 was killed by SIGKILL on gn2"));
    save(*job);
    save(*job);
    kill_rank_at("gn1");
    ASSERT_NO_FATAL_FAILURE(expect_recovered(*job, "rank 0 was killed by SIGKILL on gn1", 2));
    expect_clean_end(*job, "pattern:");
}

// One that has moved since: its ghost is where it was.
TEST_F(Partner, GhostOfRankThatHasMovedFollows) {
    auto job = job_of("memory");
    save(*job);
    expect_moved(*job, 1, "gn3");
    kill_rank_at("gn4");
    ASSERT_NO_FATAL_FAILURE(expect_recovered(*job, "rank 3 was killed by SIGKILL on gn4"));
    EXPECT_EQ(job->node_of(1), "gn3");
    EXPECT_NE(memory_of("gn3").find("rank-1.ghost"), std::string::npos) << memory_of("gn3");
    expect_clean_end(*job, "pattern:");
}

// What is lost in memory may be on a disk; else the job ends, and says why.
TEST_F(Partner, LostMemory) {
    auto job = job_of("memory");
    save(*job, {"--to", path("disk")});
    save(*job);
    lab().switch_off("gn3");
    ASSERT_NO_FATAL_FAILURE(expect_recovered(*job, "node gn3 was lost"));
    EXPECT_NE(job->mpirun().err().find("-000001 of"), std::string::npos) << job->mpirun().err();
    save(*job);
    lab().as_root("gn2", {"sh", "-c", "rm -f /dev/shm/ghost-snapshots-*/*/rank-1.ghost*"});
    kill_rank_at("gn4");
    ASSERT_NO_FATAL_FAILURE(expect_recovered(*job, "rank 3 was killed by SIGKILL on gn4", 2));
    expect_clean_end(*job, "pattern:");

    lab().repair();
    std::filesystem::remove(path("stop"));
    auto other = job_of("memory");
    save(*other);
    lab().switch_off("gn2");
    expect_ended(*other, "and the job cannot go on from its snapshot: the ghosts of rank 1 in");
}

// The next node has a copy, and older snapshots go from both.
TEST_F(Partner, EveryGhostIsOnTwoNodes) {
    auto job = job_of("partner", {"--mca", "ghost_incremental", "0"});
    save(*job);
    const std::string first = memory_of("gn3");
    EXPECT_NE(first.find("-000001/rank-2.ghost"), std::string::npos) << first;
    EXPECT_NE(first.find("-000001/rank-1.ghost"), std::string::npos) << first;
    EXPECT_EQ(first.find("rank-0.ghost"), std::string::npos) << first;
    EXPECT_NE(memory_of("gn1").find("-000001/rank-3.ghost"), std::string::npos);
    save(*job);
    save(*job);
    for (const char* node : {"gn1", "gn2", "gn3", "gn4"}) {
        const auto there = [&] { return memory_of(node); };
        EXPECT_TRUE(nettest::poll_until(10, [&] {
            return there().find("-000001/") == std::string::npos;
        })) << there();
        EXPECT_EQ(nettest::count_of(there(), ".ghost"), 4U) << there();
        EXPECT_EQ(there().find(".copy"), std::string::npos) << there();
    }
    kill_rank_at("gn2");
    ASSERT_NO_FATAL_FAILURE(expect_recovered(*job, "rank 1 was killed by SIGKILL on gn2"));
    expect_clean_end(*job, "pattern:");
}

TEST_F(Partner, NodeThatIsLost) {
    auto job = job_of("partner");
    save(*job);
    save(*job);
    lab().switch_off("gn3");
    ASSERT_NO_FATAL_FAILURE(expect_recovered(*job, "node gn3 was lost"));
    save(*job);
    lab().switch_off("gn2");
    ASSERT_NO_FATAL_FAILURE(expect_recovered(*job, "node gn2 was lost", 2));
    save(*job);
    kill_rank_at("gn4");
    ASSERT_NO_FATAL_FAILURE(expect_recovered(*job, "was killed by SIGKILL on gn4", 3));
    expect_clean_end(*job, "pattern:");
}

// What was lost with one is copied again, so that another may be lost before the next snapshot.
TEST_F(Partner, CopiesAreMadeAgain) {
    auto job = job_of("partner");
    save(*job);
    lab().switch_off("gn3");
    ASSERT_NO_FATAL_FAILURE(expect_recovered(*job, "node gn3 was lost"));
    // Rank 1's was there, and is with gn4 now.
    EXPECT_TRUE(nettest::poll_until(20, [&] {
        return memory_of("gn4").find("-000001/rank-1.ghost") != std::string::npos;
    })) << memory_of("gn4");
    const Finished manifest =
        lab().as_root("gn1", {"sh", "-c", "cat /dev/shm/ghost-snapshots-*/*-000001/manifest.json"});
    EXPECT_EQ(manifest.out.find("\"copy\": \"gn3\""), std::string::npos) << manifest.out;
    lab().switch_off("gn2");
    ASSERT_NO_FATAL_FAILURE(expect_recovered(*job, "node gn2 was lost", 2));
    EXPECT_EQ(nettest::count_of(job->mpirun().err(), "-000001 of"), 2U) << job->mpirun().err();
    expect_clean_end(*job, "pattern:");
}

// Nobody has the ghosts of one rank any more.
TEST_F(Partner, NodeAndItsPartnerAreLost) {
    auto job = job_of("partner");
    save(*job, {"--to", path("disk")});
    save(*job);
    lab().switch_off("gn3");
    lab().switch_off("gn4");
    ASSERT_NO_FATAL_FAILURE(expect_recovered(*job, "node gn3 was lost"));
    EXPECT_NE(job->mpirun().err().find("-000001 of"), std::string::npos) << job->mpirun().err();
    expect_clean_end(*job, "pattern:");

    lab().repair();
    std::filesystem::remove(path("stop"));
    auto other = job_of("partner");
    save(*other);
    lab().switch_off("gn2");
    lab().switch_off("gn3");
    expect_ended(*other, "were on gn2 and gn3 only, and lost with");
}

// Its ranks run, and the snapshot before stays. gn4 has no rank, and copies of what gn3 has.
TEST_F(Partner, CopiesThatCannotBeMade) {
    const std::string unharmed = "; the job is unharmed and goes on";
    auto job = job_of("partner",
                      {"--mca", "ghost_spares", "1", "--mca", "ghost_checkpoint_copy_rate", "50M",
                       "--mca", "ghost_compress", "none", "--mca", "ghost_incremental", "0"});
    save(*job);
    const std::string before = memory_of("gn4");
    EXPECT_NE(before.find("-000001/rank-2.ghost"), std::string::npos) << before;
    const auto fails = [&](const std::function<void()>& how, const std::string& why) {
        auto saving = lab().start_on("gn1", {"ghost", "checkpoint"});
        how();
        const Finished end = saving.finish(60);
        EXPECT_NE(end.status, 0) << end.out;
        EXPECT_NE(end.err.find(why), std::string::npos) << end.err;
        EXPECT_NE(end.err.find(unharmed), std::string::npos) << end.err;
        EXPECT_TRUE(job->wait_for_more("round ", 2)) << job->mpirun().err();
        EXPECT_TRUE(nettest::poll_until(10, [&] { return memory_of("gn4") == before; }))
            << memory_of("gn4");
    };
    const auto limit = [&](const char* size) {
        const Finished done =
            lab().as_root("gn4", {"mount", "-o", std::string("remount,size=") + size, "/dev/shm"});
        EXPECT_EQ(done.status, 0) << done.err;
    };
    const auto copier_at = [&](const std::string& node) {
        std::vector<int> pids;
        (void)nettest::poll_until(20, [&] {
            pids = lab().pids(node, "ghost-wrapper --copy");
            return !pids.empty();
        });
        return pids.empty() ? 0 : pids.front();
    };
    fails([&] { limit("150M"); }, "the memory for snapshots of its node is full");
    limit("50%");
    fails([&] { lab().kill("gn4", copier_at("gn4")); }, "could not be copied to another node");
    fails([&] { lab().kill("gn3", copier_at("gn3")); }, "could not be copied to another node");
    save(*job);
    // A rank that is killed meanwhile, then the node.
    auto saving = lab().start_on("gn1", {"ghost", "checkpoint"});
    ASSERT_NE(copier_at("gn4"), 0);
    kill_rank_at("gn2");
    ASSERT_NO_FATAL_FAILURE(expect_recovered(*job, "rank 1 was killed by SIGKILL on gn2"));
    auto again = lab().start_on("gn1", {"ghost", "checkpoint"});
    ASSERT_NE(copier_at("gn4"), 0);
    lab().switch_off("gn4");
    EXPECT_NE(again.finish(60).status, 0);
    EXPECT_TRUE(job->wait_for_more("round ", 2)) << job->mpirun().err();
    save(*job);
    lab().switch_off("gn3");
    ASSERT_NO_FATAL_FAILURE(expect_recovered(*job, "node gn3 was lost", 2));
    expect_clean_end(*job, "pattern:");
}

// A node that leaves has copies: they are made again, and those that later snapshots are based on.
TEST_F(Partner, NodeThatLeavesInOrder) {
    auto job = job_of("partner", {"--mca", "ghost_spares", "1"});
    save(*job);
    save(*job);
    const auto left = verb({"drain", "gn4"});
    ASSERT_EQ(left.status, 0) << left.err;
    EXPECT_TRUE(nettest::poll_until(20, [&] {
        return memory_of("gn1").find("-000002/rank-2.ghost") != std::string::npos;
    })) << memory_of("gn1");
    save(*job);
    EXPECT_NE(memory_of("gn1").find("-000003/rank-2.ghost"), std::string::npos) << memory_of("gn1");
    lab().switch_off("gn3");
    ASSERT_NO_FATAL_FAILURE(expect_recovered(*job, "node gn3 was lost"));
    EXPECT_NE(job->mpirun().err().find("-000003 of"), std::string::npos) << job->mpirun().err();
    expect_clean_end(*job, "pattern:");
}

// There is no other: it is as memory.
TEST_F(Partner, OneNode) {
    Words words = options("partner");
    for (const std::string& word : endless("pattern")) words.push_back(word);
    Job job(lab(), 2, "gn1:2", words);
    ASSERT_TRUE(job.wait_for("round 1:")) << job.mpirun().err();
    const Finished saved = lab().on("gn1", {"ghost", "checkpoint", "--json"});
    ASSERT_EQ(saved.status, 0) << saved.err;
    EXPECT_NE(saved.out.find("\"level\": \"memory\""), std::string::npos) << saved.out;
    kill_rank_at("gn1");
    ASSERT_NO_FATAL_FAILURE(expect_recovered(job, "was killed by SIGKILL on gn1"));
    expect_clean_end(job, "pattern:");
}

// Every second one is on the disk too, and is what is left when two nodes are lost.
TEST_F(Partner, SomeGoToTheDisk) {
    auto job = job_of("partner", {"--mca", "ghost_checkpoint_disk_every", "2"});
    save(*job);
    EXPECT_FALSE(std::filesystem::exists(path("snapshots")));
    save(*job);
    save(*job);
    const Finished ps = lab().on("gn1", {"ghost", "ps"});
    EXPECT_NE(ps.out.find(", to partner, "), std::string::npos) << ps.out;
    EXPECT_NE(ps.out.find("copies of gn1 on gn2, gn2 on gn3, gn3 on gn4, gn4 on gn1"),
              std::string::npos)
        << ps.out;
    lab().switch_off("gn3");
    lab().switch_off("gn4");
    ASSERT_NO_FATAL_FAILURE(expect_recovered(*job, "node gn3 was lost"));
    EXPECT_NE(job->mpirun().err().find("-000002 of"), std::string::npos) << job->mpirun().err();
    expect_clean_end(*job, "pattern:");
}

// By hand, of a snapshot a part of which is on another node than its rank was.
TEST_F(Partner, IsGatheredAndRestarted) {
    auto job = job_of("partner");
    const Finished saved = lab().on("gn1", {"ghost", "checkpoint", "--then", "kill", "--json"});
    ASSERT_EQ(saved.status, 0) << saved.err;
    (void)job->finish();
    lab().switch_off("gn3");
    const Finished all = lab().on(
        "gn1", {"sh", "-c", "ghost gather /dev/shm/ghost-snapshots-* --to " + path("all")}, 120);
    ASSERT_EQ(all.status, 0) << all.err;
    const Finished end = restart(path("all"), {"--host", "gn1:2,gn2:2"});
    expect_clean(end, "pattern:");
}

// The files are byte for byte those of a run in which nothing is lost.
TEST_F(Partner, RandomLosses) {
    const auto losses = static_cast<int>(ghost::test::rounds("GHOST_TEST_LOSSES", 6, 6));
    std::mt19937_64 random(static_cast<uint64_t>(ghost::test::rounds("GHOST_TEST_SEED", 1, 1)));
    const int steps = 60 * losses;
    Job whole(lab(), ranks, hosts, ledger("whole", steps, 0, 16));
    const Finished right = whole.finish(120);
    ASSERT_EQ(right.status, 0) << right.err;
    Words words = options("partner", {"--mca", "ghost_checkpoint_interval", "2", "--mca",
                                      "ghost_recover_max", "1000"});
    for (const std::string& word : ledger("lost", steps, 50'000, 16)) words.push_back(word);
    Job job(lab(), ranks, hosts, words);
    // mpirun's stays, and slots for all ranks.
    std::vector<std::string> may_go{"gn2", "gn3", "gn4"};
    std::ranges::shuffle(may_go, random);
    may_go.pop_back();
    ASSERT_TRUE(nettest::poll_until(60, [&] { return !memory_of("gn1").empty(); }))
        << job.mpirun().err();
    for (int i = 0; i < losses && job.mpirun().running(); i++) {
        std::this_thread::sleep_for(std::chrono::milliseconds(2500 + random() % 4000));
        if (i % 3 == 1 && !may_go.empty()) {
            const std::string node = may_go.back();
            may_go.pop_back();
            random() % 2 == 0 ? lab().cut(node) : lab().switch_off(node);
            // Until the copies are made again another one must stay.
            std::this_thread::sleep_for(std::chrono::seconds(8));
            continue;
        }
        const std::string node = "gn" + std::to_string(1 + random() % 4);
        const auto pids = lab().pids(node, "^[^ ]*mpi/ledger ");
        if (!pids.empty()) lab().kill(node, pids.front());
    }
    const Finished end = job.finish(120 + 10 * losses);
    EXPECT_EQ(end.status, 0) << end.out << end.err;
    expect_same_ledgers("lost", "whole", ranks);
    std::printf("%zu recoveries\n", nettest::count_of(end.err, goes_on));
}

}  // namespace

int main(int argc, char** argv) {
    return nettest::run_suites(argc, argv);
}
