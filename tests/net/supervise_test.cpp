// SPDX-License-Identifier: BSD-3-Clause
// `ghost supervise` on a virtual cluster: mpirun, a rank, a node and the supervisor itself are lost
// under a self-checking program, which ends right all the same; what ends by itself has ended.
// Needs root; without it every case is skipped.
#include <gtest/gtest.h>

#include "tests/net/on_lab.hpp"

namespace {

using nettest::Background;
using nettest::Finished;
using nettest::Job;
using nettest::Words;

const std::string goes_on = ": it goes on from ";

class Supervise : public nettest::OnLab {
  protected:
    static constexpr const char* hosts = "gn1:2,gn2:2,gn3:2";

    // Rank 0 on gn1, rank 1 on gn2.
    Words command(const Words& program, const Words& options = {}) const {
        Words words{"ghost", "supervise"};
        words.insert(words.end(), options.begin(), options.end());
        for (const std::string& word :
             {std::string("--"), std::string("mpirun"), std::string("-np"), std::string("2"),
              std::string("--map-by"), std::string("node"), std::string("--host"),
              std::string(hosts), std::string("--mca"), std::string("ghost"), std::string("1"),
              std::string("--mca"), std::string("ghost_events"), path("events"),
              std::string("--mca"), std::string("ghost_checkpoint_dir"), path("snapshots")})
            words.push_back(word);
        words.insert(words.end(), program.begin(), program.end());
        return words;
    }
    void save(Job& job) {
        const Finished saved = lab().on("gn1", {"ghost", "checkpoint"});
        ASSERT_EQ(saved.status, 0) << saved.err << job.mpirun().err();
    }
    std::unique_ptr<Job> saved_job(const Words& options = {}) {
        auto job = std::make_unique<Job>(lab(), command(endless("pattern"), options));
        EXPECT_TRUE(job->wait_for("round 1:")) << job->mpirun().err();
        save(*job);
        return job;
    }
    void kill_mpirun() {
        for (const int pid : lab().pids("gn1", "^mpirun ")) lab().kill("gn1", pid);
    }
    void expect_goes_on_again(Job& job, const std::string& why, size_t times = 1) {
        ASSERT_TRUE(nettest::poll_until(60, [&] {
            return nettest::count_of(job.mpirun().err(), goes_on) >= times;
        })) << job.mpirun().err();
        EXPECT_NE(job.mpirun().err().find(why), std::string::npos) << job.mpirun().err();
        ASSERT_TRUE(job.wait_for_more("round ", 3)) << job.mpirun().err();
    }
};

TEST_F(Supervise, WhatEndsByItselfHasEnded) {
    const Finished right =
        lab().on("gn1", command({nettest::program("pattern"), "--iterations", "2"}, {"--json"}));
    expect_clean(right, "pattern:");
    EXPECT_NE(right.out.find("\"lives\": ["), std::string::npos) << right.out;
    const Finished wrong = lab().on("gn1", command({"sh", "-c", "exit 7"}));
    EXPECT_EQ(wrong.status, 7) << wrong.err;
    EXPECT_EQ(wrong.err.find("ghost: "), std::string::npos) << wrong.err;
    auto job = saved_job();
    const Finished ended = lab().on("gn1", {"ghost", "checkpoint", "--then", "kill"});
    EXPECT_EQ(ended.status, 0) << ended.err;
    const Finished end = job->finish();
    EXPECT_EQ(end.status, 85) << end.err;
    EXPECT_EQ(end.err.find(goes_on), std::string::npos) << end.err;
}

TEST_F(Supervise, JobOutlivesItsMpirunARankAndANode) {
    auto job = saved_job();
    kill_mpirun();
    ASSERT_NO_FATAL_FAILURE(expect_goes_on_again(*job, "its mpirun was lost"));
    save(*job);
    const auto ranks = lab().pids("gn2", "^[^ ]*pattern ");
    ASSERT_FALSE(ranks.empty());
    lab().kill("gn2", ranks.back());
    ASSERT_NO_FATAL_FAILURE(expect_goes_on_again(*job, "was lost with status 137", 2));
    save(*job);
    lab().switch_off("gn2");
    ASSERT_NO_FATAL_FAILURE(expect_goes_on_again(*job, "node gn2 was lost", 3));
    EXPECT_TRUE(lab().pids("gn3", "pattern").size() + lab().pids("gn1", "pattern").size() > 1);
    expect_clean_end(*job, "pattern:");
}

// With its node, or its batch system ends both: whoever is started next, on another node, goes on.
TEST_F(Supervise, TheNextSupervisorGoesOn) {
    auto job = saved_job();
    const Words same = command(endless("pattern"));
    const Finished second = lab().on("gn2", same);
    EXPECT_EQ(second.status, 1) << second.out;
    EXPECT_NE(second.err.find("is supervised already"), std::string::npos) << second.err;
    for (const int pid : lab().pids("gn1", "^ghost supervise ")) lab().kill("gn1", pid);
    const Finished beside = lab().on("gn1", same);
    EXPECT_EQ(beside.status, 1) << beside.out;
    EXPECT_NE(beside.err.find("still runs"), std::string::npos) << beside.err;
    kill_mpirun();
    job->finish();
    Background next = lab().start_on("gn2", same);
    ASSERT_TRUE(nettest::poll_until(60, [&] {
        return nettest::count_of(next.out(), "round ") > 2 || !next.running();
    })) << next.err();
    EXPECT_NE(next.err().find("its mpirun was lost" + goes_on), std::string::npos) << next.err();
    for (const int pid : lab().pids("gn2", "^ghost supervise "))
        lab().as_root("gn2", {"kill", "-TERM", std::to_string(pid)});
    const Finished asked = next.finish(30);
    EXPECT_NE(asked.status, 0) << asked.err;
    EXPECT_EQ(nettest::count_of(asked.err, goes_on), 1U) << asked.err;
    Job last(lab(), same);
    ASSERT_TRUE(last.wait_for("round ", 2)) << last.mpirun().err();
    EXPECT_NE(last.mpirun().err().find("it was ended by a signal" + goes_on), std::string::npos)
        << last.mpirun().err();
    expect_clean_end(last, "pattern:");
}

TEST_F(Supervise, JobThatIsLostAtTheSamePointIsGivenUp) {
    auto job = saved_job();
    for (const size_t times : {1, 2}) {  // the first time it had been saved meanwhile
        kill_mpirun();
        ASSERT_NO_FATAL_FAILURE(expect_goes_on_again(*job, "its mpirun was lost", times));
    }
    kill_mpirun();
    const Finished end = job->finish(60);
    EXPECT_EQ(end.status, 137) << end.err;
    EXPECT_NE(end.err.find("twice within a minute of the same point: it is given up; `ghost "
                           "restart "),
              std::string::npos)
        << end.err;
}

TEST_F(Supervise, Refusals) {
    const auto refused = [&](const Words& words, int status, const std::string& why) {
        Words all{"ghost", "supervise"};
        all.insert(all.end(), words.begin(), words.end());
        const Finished end = lab().on("gn1", all);
        EXPECT_EQ(end.status, status) << end.err;
        EXPECT_NE(end.err.find(why), std::string::npos) << end.err;
    };
    refused({}, 2, "name a command");
    refused({"--", "mpirun", "hostname"}, 2, "without --mca ghost 1");
    refused({"--", "mpirun", "--mca", "ghost", "1", "--mca", "ghost_events", "none", "hostname"}, 2,
            "leave ghost_events out");
    refused({"--", "./script", "--mca", "ghost", "1"}, 2, "name mpirun itself");
    refused({"--", "no-such-folder/mpirun", "--mca", "ghost", "1", "--mca", "ghost_events",
             path("events")},
            1, "no-such-folder/mpirun");
}

}  // namespace

int main(int argc, char** argv) {
    return nettest::run_suites(argc, argv);
}
