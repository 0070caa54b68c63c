// SPDX-License-Identifier: BSD-3-Clause
// A job on a virtual cluster of four nodes whose snapshots are in the nodes' memory.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "tests/net/on_lab.hpp"
#include "tests/rounds.hpp"

namespace nettest {

class InMemory : public OnLab {
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
    // Of a node's memory, that snapshots may take.
    void limit(const std::string& node, const std::string& size) {
        const Finished done =
            lab().as_root(node, {"mount", "-o", "remount,size=" + size, "/dev/shm"});
        EXPECT_EQ(done.status, 0) << done.err;
    }
    // A process that sends or takes copies there, as soon as there is one; 0: there was none.
    int copier_at(const std::string& node) {
        std::vector<int> pids;
        (void)poll_until(20, [&] {
            pids = lab().pids(node, "ghost-wrapper --copy");
            return !pids.empty();
        });
        return pids.empty() ? 0 : pids.front();
    }
    // Names below the folder of snapshots in a node's memory.
    std::string memory_of(const std::string& node) {
        return lab()
            .as_root(node, {"sh", "-c", "cd /dev/shm/ghost-snapshots-* && find . -type f | sort"})
            .out;
    }
    // A snapshot that comes to nothing because of what `how` does after it has begun: its ranks
    // run, and the memory of gn4 is what it was.
    void expect_no_snapshot(Job& job, const std::string& before, const std::function<void()>& how,
                            const std::string& why) {
        auto saving = lab().start_on("gn1", {"ghost", "checkpoint"});
        how();
        const Finished end = saving.finish(60);
        EXPECT_NE(end.status, 0) << end.out;
        EXPECT_NE(end.err.find(why), std::string::npos) << end.err;
        EXPECT_NE(end.err.find("; the job is unharmed and goes on"), std::string::npos) << end.err;
        EXPECT_TRUE(job.wait_for_more("round ", 2)) << job.mpirun().err();
        EXPECT_TRUE(poll_until(10, [&] { return memory_of("gn4") == before; })) << memory_of("gn4");
    }
    // A job on one node: there is no other, it is as memory.
    void expect_memory_alone(const std::string& to) {
        Words words = options(to);
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
    // Ranks are killed and nodes lost at random (GHOST_TEST_LOSSES, GHOST_TEST_SEED): the job's
    // files are byte for byte those of a run in which nothing is.
    void expect_right_after_losses(const std::string& to) {
        const auto losses = static_cast<int>(ghost::test::rounds("GHOST_TEST_LOSSES", 6, 6));
        std::mt19937_64 random(static_cast<uint64_t>(ghost::test::rounds("GHOST_TEST_SEED", 1, 1)));
        const int steps = 60 * losses;
        Job whole(lab(), ranks, hosts, ledger("whole", steps, 0, 16));
        const Finished right = whole.finish(120);
        ASSERT_EQ(right.status, 0) << right.err;
        Words words = options(
            to, {"--mca", "ghost_checkpoint_interval", "2", "--mca", "ghost_recover_max", "1000"});
        for (const std::string& word : ledger("lost", steps, 50'000, 16)) words.push_back(word);
        Job job(lab(), ranks, hosts, words);
        // mpirun's stays, and slots for all ranks.
        std::vector<std::string> may_go{"gn2", "gn3", "gn4"};
        std::ranges::shuffle(may_go, random);
        may_go.pop_back();
        ASSERT_TRUE(poll_until(60, [&] { return !memory_of("gn1").empty(); }))
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
        std::printf("%zu recoveries\n", count_of(end.err, goes_on));
    }
};

}  // namespace nettest
