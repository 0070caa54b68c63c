// SPDX-License-Identifier: BSD-3-Clause
// Jobs of an ordinary user, who has no privilege on any node: ranks move, are saved and begin
// again. The suite makes the user and removes him. Needs root, for the cluster and the user;
// without it every case is skipped.
#include <gtest/gtest.h>

#include <fstream>
#include <string>

#include "tests/net/on_lab.hpp"

namespace {

using nettest::Finished;
using nettest::Job;
using nettest::Words;

constexpr const char* name = "ghost-tester";

class Users : public nettest::OnLab {
  protected:
    static void SetUpTestSuite() {
        OnLab::SetUpTestSuite();
        if (geteuid() != 0) return;
        nettest::run({"userdel", name}, 30);
        // A locked account ("!") may not come by ssh.
        nettest::run(
            {"useradd", "--no-create-home", "--shell", "/bin/bash", "--password", "*", name}, 30);
        setenv(nettest::user_variable, name, 1);
    }
    static void TearDownTestSuite() {
        OnLab::TearDownTestSuite();
        if (geteuid() == 0) nettest::run({"userdel", name}, 30);
    }
    // What it may do, as /proc says, of every process on the node that matches.
    void expect_no_capabilities(const std::string& node, const std::string& pattern) {
        const auto pids = lab().pids(node, pattern);
        EXPECT_FALSE(pids.empty()) << pattern;
        for (const int pid : pids) {
            const Finished said = lab().on(node, {"grep", "-E", "^(CapEff|CapPrm|CapAmb):",
                                                  "/proc/" + std::to_string(pid) + "/status"});
            EXPECT_EQ(said.out,
                      "CapPrm:\t0000000000000000\nCapEff:\t0000000000000000\n"
                      "CapAmb:\t0000000000000000\n")
                << pattern;
        }
    }
};

TEST_F(Users, AreNobodyElse) {
    EXPECT_EQ(lab().on("gn1", {"id", "-un"}).out, std::string(name) + "\n");
    EXPECT_NE(lab().on("gn1", {"id", "-u"}).out, "0\n");
}

TEST_F(Users, MoveTheirRanks) {
    Job job(lab(), 3, "gn1:3,gn2:3,gn3:3", endless("pattern"));
    ASSERT_TRUE(job.wait_for("round ")) << job.mpirun().err();
    expect_no_capabilities("gn1", "^/[^ ]*tests/mpi/pattern");
    for (int i = 0; i < 9 && !HasFatalFailure(); ++i) {
        const std::string here = job.node_of(i % 3);
        expect_moved(job, i % 3, here == "gn1" ? "gn2" : here == "gn2" ? "gn3" : "gn1");
        ASSERT_TRUE(job.wait_for_more("round ")) << job.mpirun().err();
    }
    expect_no_capabilities(job.node_of(0), "^/[^ ]*tests/mpi/pattern");
    expect_no_capabilities(job.node_of(0), "^ghost-init");
    expect_clean_end(job, "pattern:");
}

TEST_F(Users, SaveAndRestartTheirJobs) {
    Job job(lab(), 2, "gn1:2,gn2:2,gn3:2", endless("pattern"));
    expect_restart(job, "pattern:");
}

TEST_F(Users, HaveNoPrivilegeAfterARestart) {
    const std::string folder = path("snapshots");
    Job job(lab(), 2, "gn1:2,gn2:2", endless("pattern"));
    ASSERT_TRUE(job.wait_for("round 1:")) << job.mpirun().err();
    const Finished saved =
        lab().on("gn1", {"ghost", "checkpoint", "--to", folder, "--then", "kill"});
    ASSERT_EQ(saved.status, 0) << saved.err;
    EXPECT_EQ(job.finish().status, 85);
    Job again(lab(), {"ghost", "restart", folder});
    ASSERT_TRUE(again.wait_for("round ", 2)) << again.mpirun().err();
    expect_no_capabilities("gn1", "^/[^ ]*tests/mpi/pattern");
    expect_no_capabilities("gn1", "^ghost-init");
    expect_clean_end(again, "pattern:");
}

// The one that comes is killed on its way: the rank goes on where it was.
TEST_F(Users, KeepARankWhoseMoveFails) {
    Job job(lab(), 2, "gn1:2,gn2:2,gn3:2", endless("pattern"));
    ASSERT_TRUE(job.wait_for("round ")) << job.mpirun().err();
    auto move = job.start_migrate(1, "gn3");
    for (int i = 0; i < 500 && move.running(); ++i) {
        const auto arriving = lab().pids("gn3", "ghost-wrapper --restore");
        if (arriving.empty()) continue;
        lab().kill("gn3", arriving.front());
        break;
    }
    const Finished end = move.finish(60);
    EXPECT_TRUE(end.status == 0 || end.status == 1) << end.status << end.err;
    EXPECT_TRUE(job.wait_for_more("round ", 2)) << job.mpirun().err();
    expect_clean_end(job, "pattern:");
}

}  // namespace

int main(int argc, char** argv) {
    return nettest::run_suites(argc, argv);
}
