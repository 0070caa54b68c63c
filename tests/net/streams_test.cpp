// SPDX-License-Identifier: BSD-3-Clause
// Programs of a job that use kernet.h, without any kernetd: the daemons have the stream managers
// (docs/KERNET.md, "In a job"). On a virtual cluster of three nodes. Needs root; without it every
// case is skipped.
#include <gtest/gtest.h>

#include <filesystem>
#include <sstream>

#include "tests/net/on_lab.hpp"

namespace {

using nettest::Background;
using nettest::Finished;
using nettest::Job;
using nettest::poll_until;
using nettest::program;
using nettest::Words;

const std::string nodes[] = {"gn1", "gn2", "gn3"};
constexpr const char* of_a_job = "mpirun|orted|ghost-wrapper|ghost-init|tests/mpi/";

class StreamsInJobs : public nettest::OnLab {
  protected:
    // What a job would leave on a node; "" if there is nothing. A checkout that lies below /tmp is
    // another file system there.
    std::string left_on(const std::string& node) {
        std::string left;
        for (int pid : lab().pids(node, of_a_job)) left += "process " + std::to_string(pid) + "\n";
        left += lab().on(node, {"sh", "-c", "grep -a '@ghost/\\|@kernet/' /proc/net/unix"}).out;
        left += lab()
                    .on(node, {"sh", "-c",
                               "find /tmp /dev/shm -xdev -name '*kernet*' -o -name '*streams*'"})
                    .out;
        return left;
    }
    void expect_nothing_left() {
        for (const std::string& node : nodes) {
            std::string left;
            EXPECT_TRUE(poll_until(20, [&] { return (left = left_on(node)).empty(); }))
                << node << ":\n"
                << left;
        }
    }
    // How many entries a folder of the node's daemon has: "task", "fd".
    int count_of_daemon(const std::string& node, const std::string& what) {
        const auto pids = lab().pids(node, "orted");
        if (pids.size() != 1) return -1;
        std::istringstream out(
            lab()
                .on(node,
                    {"sh", "-c", "ls /proc/" + std::to_string(pids[0]) + "/" + what + " | wc -l"})
                .out);
        int count = -1;
        out >> count;
        return count;
    }
    Words streams(const Words& options = {}) { return endless("streams", options); }
};

TEST_F(StreamsInJobs, StreamsBetweenRanksAndTheirChildren) {
    Job job(lab(), 4, "gn1:2,gn2:1,gn3:1", {program("streams"), "--iterations", "12"});
    expect_clean(job.finish(), "streams:");
    expect_nothing_left();
}

TEST_F(StreamsInJobs, JobsDoNotShareStreams) {
    Job job(lab(), 3, "gn1:1,gn2:1,gn3:1", streams());
    Background other =
        lab().start_on("gn2", {"mpirun", "-np", "3", "--host", "gn1:1,gn2:1,gn3:1", "--mca",
                               "ghost", "1", program("streams"), "--iterations", "6"});
    ASSERT_TRUE(job.wait_for("round 4:")) << job.mpirun().err();
    expect_clean(other.finish(60), "streams:");
    ASSERT_TRUE(job.wait_for_more("round ", 2)) << job.mpirun().err();
    expect_clean_end(job, "streams:");
}

// A job that has no streams has an address more to listen at, and no thread more.
TEST_F(StreamsInJobs, UnusedStreamsCostNothing) {
    int tasks[2], fds[2];
    for (int on : {0, 1}) {
        std::filesystem::remove(path("stop"));
        Words words{"--mca", "ghost_streams", std::to_string(on)};
        const Words rest = endless("holder");
        words.insert(words.end(), rest.begin(), rest.end());
        Job job(lab(), 2, "gn1:1,gn2:1", words);
        ASSERT_TRUE(job.wait_for("holder: started")) << job.mpirun().err();
        tasks[on] = count_of_daemon("gn2", "task");
        fds[on] = count_of_daemon("gn2", "fd");
        expect_clean_end(job, "holder:");
    }
    EXPECT_GT(tasks[0], 0);
    EXPECT_EQ(tasks[1], tasks[0]);
    EXPECT_EQ(fds[1], fds[0] + 1);
}

TEST_F(StreamsInJobs, StreamsSwitchedOff) {
    Job job(lab(), 2, "gn1:1,gn2:1", {"--mca", "ghost_streams", "0", program("streams"), "--none"});
    expect_clean(job.finish(), "streams: no manager");
}

// Refused before anything is done to the rank, with the reason; after kernet_close it moves, and
// has streams again where it is.
TEST_F(StreamsInJobs, RankWithStreamsIsNotMoved) {
    const std::string closed = path("closed");
    Job job(lab(), 3, "gn1:1,gn2:2,gn3:2", streams({"--closed-file", closed}));
    ASSERT_TRUE(job.wait_for("round 2:")) << job.mpirun().err();
    const nettest::Move move = job.migrate(1, "gn3");
    EXPECT_EQ(move.status, 1) << move.err;
    EXPECT_NE(move.err.find("kernet_close"), std::string::npos) << move.err;
    EXPECT_EQ(job.node_of(1), "gn2");
    const Finished taken = lab().on("gn1", {"ghost", "checkpoint", "--to", path("shots")});
    EXPECT_NE(taken.status, 0) << taken.out;
    EXPECT_NE((taken.out + taken.err).find("kernet_close"), std::string::npos)
        << taken.out << taken.err;
    ASSERT_TRUE(job.wait_for_more("round ", 2)) << job.mpirun().err();
    nettest::touch(closed);
    ASSERT_TRUE(job.wait_for("closed 2")) << job.mpirun().err();
    expect_moved(job, 1, "gn3");
    std::filesystem::remove(closed);
    ASSERT_TRUE(job.wait_for_more("round ", 4)) << job.mpirun().err();
    expect_clean_end(job, "streams:");
    expect_nothing_left();
}

// --- what is lost ---

TEST_F(StreamsInJobs, DaemonKilled) {
    Job job(lab(), 2, "gn1:1,gn2:1,gn3:1", streams());
    ASSERT_TRUE(job.wait_for("round 3:")) << job.mpirun().err();
    const auto daemons = lab().pids("gn3", "orted");
    ASSERT_EQ(daemons.size(), 1U);
    lab().kill("gn3", daemons[0]);
    ASSERT_TRUE(job.wait_for_more("round ", 8)) << job.mpirun().err();
    expect_clean_end(job, "streams:");
    expect_nothing_left();
}

// Two of three, one after the other: what is left is less than half, and knows that it is all.
TEST_F(StreamsInJobs, NodesAreCutOff) {
    Job job(lab(), 2, "gn1:2,gn2:1,gn3:1", streams());
    ASSERT_TRUE(job.wait_for("round 3:")) << job.mpirun().err();
    for (const char* node : {"gn2", "gn3"}) {
        lab().cut(node);
        ASSERT_TRUE(job.wait_for_error(std::string(node) + " cannot be reached", 30))
            << job.mpirun().err();
        ASSERT_TRUE(job.wait_for_more("round ", 8)) << job.mpirun().err();
    }
    expect_clean_end(job, "streams:");
    // A daemon that was given up ends when TCP tells it of its loneliness, in minutes.
    for (const char* node : {"gn2", "gn3"})
        for (int pid : lab().pids(node, "orted")) lab().kill(node, pid);
    expect_nothing_left();
}

TEST_F(StreamsInJobs, DaemonWithRanksKilled) {
    Job job(lab(), 3, "gn1:1,gn2:1,gn3:1", streams());
    ASSERT_TRUE(job.wait_for("round 3:")) << job.mpirun().err();
    const auto daemons = lab().pids("gn2", "orted");
    ASSERT_EQ(daemons.size(), 1U);
    lab().kill("gn2", daemons[0]);
    EXPECT_NE(job.finish(60).status, 0);
    expect_nothing_left();
}

TEST_F(StreamsInJobs, MpirunKilled) {
    Job job(lab(), 3, "gn1:1,gn2:1,gn3:1", streams());
    ASSERT_TRUE(job.wait_for("round 3:")) << job.mpirun().err();
    for (const std::string& node : nodes)
        EXPECT_NE(left_on(node).find("/streams"), std::string::npos) << node;
    const auto mpirun = lab().pids("gn1", "^mpirun");
    ASSERT_EQ(mpirun.size(), 1U);
    lab().kill("gn1", mpirun[0]);
    job.finish(60);
    expect_nothing_left();
}

}  // namespace

int main(int argc, char** argv) {
    return nettest::run_suites(argc, argv);
}
