// SPDX-License-Identifier: BSD-3-Clause
// Snapshots in the nodes' memory with parity over groups of them, on a virtual cluster of four
// nodes (ghost_checkpoint_to xor:N): what a job recovers from when nodes are lost, what parity
// takes, and what becomes of parity that cannot be made.
//
//   GHOST_TEST_LOSSES=50 GHOST_TEST_SEED=7 tests/net/xor_test --gtest_filter=*Random*
//
// Needs root; without it every case is skipped.
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "tests/net/in_memory.hpp"

namespace {

using nettest::Finished;
using nettest::goes_on;
using nettest::Job;
using nettest::Words;

class Xor : public nettest::InMemory {
  protected:
    // Bytes of the files of the newest snapshot in a node's memory whose names begin so.
    uint64_t bytes_of(const std::string& node, const std::string& begin) {
        const Finished found = lab().as_root(
            node, {"sh", "-c",
                   "cd /dev/shm/ghost-snapshots-* && cd $(ls -d *-?????? | tail -n 1) && "
                   "stat -c %s " +
                       begin + "*"});
        std::istringstream in(found.out);
        uint64_t sum = 0;
        for (uint64_t size = 0; in >> size;) sum += size;
        return sum;
    }
};

// Of one snapshot each node has its own ranks' ghosts, and a third of the largest as parity.
TEST_F(Xor, ParityIsAThirdOfTheLargest) {
    auto job = job_of("xor:4", {"--mca", "ghost_incremental", "0"});
    save(*job);
    uint64_t largest = 0;
    for (const char* node : {"gn1", "gn2", "gn3", "gn4"}) {
        largest = std::max(largest, bytes_of(node, "rank-"));
        EXPECT_EQ(nettest::count_of(memory_of(node), ".ghost"), 1U) << memory_of(node);
        EXPECT_EQ(nettest::count_of(memory_of(node), "/parity-"), 1U) << memory_of(node);
        EXPECT_EQ(memory_of(node).find(".copy"), std::string::npos) << memory_of(node);
    }
    constexpr uint64_t head = 4096;
    for (const char* node : {"gn1", "gn2", "gn3", "gn4"}) {
        EXPECT_LE(bytes_of(node, "parity-"), (largest + 2) / 3 + head) << node;
        EXPECT_GE(bytes_of(node, "parity-"), largest / 4) << node;
    }
    save(*job);
    save(*job);
    for (const char* node : {"gn1", "gn2", "gn3", "gn4"})
        EXPECT_TRUE(nettest::poll_until(10, [&] {
            return memory_of(node).find("-000001/") == std::string::npos;
        })) << memory_of(node);
    const Finished wrong = lab().on("gn1", {"ghost", "checkpoint", "--to", "xor:1"});
    EXPECT_NE(wrong.status, 0);
    EXPECT_NE(wrong.err.find("xor:N has groups of 2 to 64 nodes"), std::string::npos) << wrong.err;
    const Finished ps = lab().on("gn1", {"ghost", "ps"});
    EXPECT_NE(ps.out.find(", to xor, "), std::string::npos) << ps.out;
    EXPECT_NE(ps.out.find("parity over gn1, gn2, gn3, gn4"), std::string::npos) << ps.out;
    kill_rank_at("gn2");
    ASSERT_NO_FATAL_FAILURE(expect_recovered(*job, "rank 1 was killed by SIGKILL on gn2"));
    expect_clean_end(*job, "pattern:");
}

// What was lost is made of parity, and parity is made again: a second node may be lost before the
// next snapshot.
TEST_F(Xor, NodesThatAreLostOneAfterTheOther) {
    auto job = job_of("xor:4");
    save(*job);
    save(*job);
    lab().switch_off("gn3");
    ASSERT_NO_FATAL_FAILURE(expect_recovered(*job, "node gn3 was lost"));
    EXPECT_NE(job->mpirun().err().find("-000002 of"), std::string::npos) << job->mpirun().err();
    EXPECT_TRUE(nettest::poll_until(20, [&] {
        const Finished ps = lab().on("gn1", {"ghost", "ps"});
        return ps.out.find("parity over gn1, gn2, gn4\n") != std::string::npos;
    })) << lab().on("gn1", {"ghost", "ps"}).out;
    lab().switch_off("gn2");
    ASSERT_NO_FATAL_FAILURE(expect_recovered(*job, "node gn2 was lost", 2));
    EXPECT_EQ(nettest::count_of(job->mpirun().err(), "-000002 of"), 2U) << job->mpirun().err();
    save(*job);
    kill_rank_at("gn4");
    ASSERT_NO_FATAL_FAILURE(expect_recovered(*job, "was killed by SIGKILL on gn4", 3));
    expect_clean_end(*job, "pattern:");
}

// Without its connections being reset, and with two ranks; the other group has lost nothing.
TEST_F(Xor, NodeThatIsCutOff) {
    Words words = options("xor:3");
    for (const std::string& word : endless("pattern")) words.push_back(word);
    Job job(lab(), 5, "gn1:1,gn4:2,gn2:3,gn3:3", words);
    ASSERT_TRUE(job.wait_for("round 1:")) << job.mpirun().err();
    ASSERT_EQ(job.node_of(1), "gn4");
    ASSERT_EQ(job.node_of(4), "gn4");
    save(job);
    const Finished ps = lab().on("gn1", {"ghost", "ps"});
    EXPECT_NE(ps.out.find("parity over gn1, gn4\n"), std::string::npos) << ps.out;
    EXPECT_NE(ps.out.find("parity over gn2, gn3\n"), std::string::npos) << ps.out;
    lab().cut("gn4");
    ASSERT_NO_FATAL_FAILURE(expect_recovered(job, "node gn4 was lost"));
    expect_clean_end(job, "pattern:");
}

// One of each group may be, at once.
TEST_F(Xor, NodesOfTwoGroupsAreLost) {
    auto job = job_of("xor:2");
    save(*job);
    lab().switch_off("gn2");
    lab().switch_off("gn3");
    ASSERT_NO_FATAL_FAILURE(expect_recovered(*job, "node gn2 was lost"));
    EXPECT_NE(job->mpirun().err().find("-000001 of"), std::string::npos) << job->mpirun().err();
    EXPECT_NE(job->mpirun().err().find("node gn3 was lost"), std::string::npos);
    expect_clean_end(*job, "pattern:");
}

// Nobody has the ghosts any more.
TEST_F(Xor, TwoNodesOfAGroupAreLost) {
    auto job = job_of("xor:4", {"--mca", "ghost_checkpoint_disk_every", "2"});
    save(*job);
    save(*job);
    save(*job);
    lab().switch_off("gn3");
    lab().switch_off("gn4");
    ASSERT_NO_FATAL_FAILURE(expect_recovered(*job, "node gn3 was lost"));
    EXPECT_NE(job->mpirun().err().find("-000002 of"), std::string::npos) << job->mpirun().err();
    expect_clean_end(*job, "pattern:");

    lab().repair();
    std::filesystem::remove(path("stop"));
    std::filesystem::remove_all(path("snapshots"));
    auto other = job_of("xor:4");
    save(*other);
    lab().switch_off("gn2");
    lab().switch_off("gn3");
    expect_ended(*other, "more than one node of a group for parity, and lost with it");
}

// Its ranks run, and the snapshot before stays.
TEST_F(Xor, ParityThatCannotBeMade) {
    auto job = job_of("xor:4", {"--mca", "ghost_checkpoint_copy_rate", "20M", "--mca",
                                "ghost_compress", "none", "--mca", "ghost_incremental", "0"});
    save(*job);
    save(*job);
    const std::string before = memory_of("gn4");
    EXPECT_NE(before.find("-000002/parity-"), std::string::npos) << before;
    const auto fails = [&](const std::function<void()>& how, const std::string& why) {
        expect_no_snapshot(*job, before, how, why);
    };
    // Room for the ghost of its rank, which may be some more than the last, but not for parity.
    const uint64_t used = std::stoull(
        lab().as_root("gn4", {"sh", "-c", "df --output=used -B1 /dev/shm | tail -n 1"}).out);
    const uint64_t room = used + bytes_of("gn4", "rank-") + bytes_of("gn4", "parity-") * 3 / 4;
    limit("gn4", std::to_string(room));
    fails([] {}, "the memory for snapshots of its node is full");
    limit("gn4", "50%");
    fails([&] { lab().kill("gn4", copier_at("gn4")); }, "the parity of the ghosts of ");
    save(*job);
    // A rank that is killed meanwhile, then a node.
    auto saving = lab().start_on("gn1", {"ghost", "checkpoint"});
    ASSERT_NE(copier_at("gn4"), 0);
    kill_rank_at("gn2");
    ASSERT_NO_FATAL_FAILURE(expect_recovered(*job, "rank 1 was killed by SIGKILL on gn2"));
    EXPECT_NE(saving.finish(60).status, 0);
    auto again = lab().start_on("gn1", {"ghost", "checkpoint"});
    ASSERT_NE(copier_at("gn4"), 0);
    lab().switch_off("gn4");
    EXPECT_NE(again.finish(60).status, 0);
    ASSERT_NO_FATAL_FAILURE(expect_recovered(*job, "node gn4 was lost", 2));
    save(*job);
    lab().switch_off("gn3");
    ASSERT_NO_FATAL_FAILURE(expect_recovered(*job, "node gn3 was lost", 3));
    expect_clean_end(*job, "pattern:");
}

// Parity that is damaged is not used: an older snapshot is, or the job ends and says why.
TEST_F(Xor, DamagedParity) {
    auto job = job_of("xor:4");
    save(*job);
    lab().as_root("gn2", {"sh", "-c",
                          "for f in /dev/shm/ghost-snapshots-*/*/parity-*; do "
                          "printf x | dd of=$f bs=1 seek=5000 conv=notrunc; done"});
    lab().switch_off("gn3");
    expect_ended(*job, "use the parity: its checksum is another");
}

// A rank that has moved: its ghost is where it was, which leaves the job.
TEST_F(Xor, NodeThatLeavesInOrder) {
    auto job = job_of("xor:4");
    save(*job);
    save(*job);
    const auto left = verb({"drain", "gn4"});
    ASSERT_EQ(left.status, 0) << left.err;
    EXPECT_TRUE(nettest::poll_until(20, [&] {
        const Finished ps = lab().on("gn1", {"ghost", "ps"});
        return ps.out.find("parity over gn1, gn2, gn3\n") != std::string::npos;
    })) << lab().on("gn1", {"ghost", "ps"}).out;
    lab().switch_off("gn3");
    ASSERT_NO_FATAL_FAILURE(expect_recovered(*job, "node gn3 was lost"));
    EXPECT_NE(job->mpirun().err().find("-000002 of"), std::string::npos) << job->mpirun().err();
    expect_clean_end(*job, "pattern:");
}

TEST_F(Xor, OneNode) {
    expect_memory_alone("xor:4");
}

// By hand, with all nodes and without one of them.
TEST_F(Xor, IsGatheredAndRestarted) {
    auto job = job_of("xor:4");
    save(*job);
    const Finished saved = lab().on("gn1", {"ghost", "checkpoint", "--then", "kill", "--json"});
    ASSERT_EQ(saved.status, 0) << saved.err;
    (void)job->finish();
    const auto gather = [&](const std::string& to) {
        return lab().on(
            "gn1", {"sh", "-c", "ghost gather /dev/shm/ghost-snapshots-* --to " + path(to)}, 120);
    };
    const Finished all = gather("all");
    ASSERT_EQ(all.status, 0) << all.err;
    lab().switch_off("gn3");
    const Finished rest = gather("rest");
    ASSERT_EQ(rest.status, 0) << rest.err;
    const Finished end = restart(path("rest"), {"--host", "gn1:2,gn2:2"});
    expect_clean(end, "pattern:");
    lab().switch_off("gn4");
    const Finished none = gather("none");
    EXPECT_NE(none.status, 0);
    EXPECT_NE(none.err.find("gn"), std::string::npos) << none.err;
}

TEST_F(Xor, RandomLosses) {
    expect_right_after_losses("xor:4");
}

}  // namespace

int main(int argc, char** argv) {
    return nettest::run_suites(argc, argv);
}
