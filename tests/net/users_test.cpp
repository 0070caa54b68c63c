// SPDX-License-Identifier: BSD-3-Clause
// Jobs of an ordinary user, who has no privilege on any node: ranks move, are saved and begin
// again. The suite makes the user and removes him. Needs root, for the cluster and the user;
// without it every case is skipped.
#include <gtest/gtest.h>

#include <filesystem>
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
    // Whatever thread of whatever process on the node matches: none may do what root may.
    void expect_no_capabilities(const std::string& node, const std::string& pattern) {
        const auto pids = lab().pids(node, pattern);
        EXPECT_FALSE(pids.empty()) << pattern;
        for (const int pid : pids) {
            const std::string look =
                "grep -hE '^Cap(Eff|Prm|Amb):' /proc/" + std::to_string(pid) + "/task/*/status";
            const Finished said = lab().on(node, {"sh", "-c", look + " | sort -u"});
            EXPECT_EQ(said.out,
                      "CapAmb:\t0000000000000000\nCapEff:\t0000000000000000\n"
                      "CapPrm:\t0000000000000000\n")
                << pattern << " on " << node;
        }
    }
    // A rank's processes, and the one above them.
    void expect_no_privilege(const std::string& node) {
        expect_no_capabilities(node, "^/[^ ]*tests/mpi/pattern");
        expect_no_capabilities(node, "^ghost-init");
    }
    // Of a program without MPI: `ghost run` has made it, or another verb again.
    void expect_program_without_privilege(const std::string& node) {
        expect_no_capabilities(node, "^sleep " + seconds);
        expect_no_capabilities(node, "^ghost-init");
    }
    Finished good(const std::string& node, const Words& words) {
        Finished done = lab().on(node, words);
        EXPECT_EQ(done.status, 0) << words[1] << ": " << done.err;
        return done;
    }
    // `ghost run --detach` of a program, whose output is a file of its own; its number.
    std::string program_on(const std::string& node) {
        const std::string run = "ghost run --detach -- sleep " + seconds;
        const std::string said =
            good(node, {"sh", "-c", run + " > $0 2>&1; cat $0", path("said")}).out;
        EXPECT_TRUE(nettest::poll_until(
            10, [&] { return !lab().pids(node, "^sleep " + seconds).empty(); }));
        return said.substr(0, said.find('\n'));
    }
    void end_program(const std::string& node) {
        for (const int pid : lab().pids(node, "^sleep " + seconds)) lab().kill(node, pid);
    }
    // A job that begins again as these words say has no privilege.
    void expect_none_after(const Words& words, const std::string& node) {
        Job again(lab(), words);
        ASSERT_TRUE(again.wait_for("round ", 2)) << again.mpirun().err();
        expect_no_privilege(node);
        expect_clean_end(again, "pattern:");
        std::filesystem::remove(path("stop"));
    }

    const std::string seconds = "31415926";
};

TEST_F(Users, AreNobodyElse) {
    EXPECT_EQ(lab().on("gn1", {"id", "-un"}).out, std::string(name) + "\n");
    EXPECT_NE(lab().on("gn1", {"id", "-u"}).out, "0\n");
}

TEST_F(Users, MoveTheirRanks) {
    Job job(lab(), 3, "gn1:3,gn2:3,gn3:3", endless("pattern"));
    ASSERT_TRUE(job.wait_for("round ")) << job.mpirun().err();
    expect_no_privilege("gn1");
    for (int i = 0; i < 9 && !HasFatalFailure(); ++i) {
        const std::string here = job.node_of(i % 3);
        expect_moved(job, i % 3, here == "gn1" ? "gn2" : here == "gn2" ? "gn3" : "gn1");
        ASSERT_TRUE(job.wait_for_more("round ")) << job.mpirun().err();
    }
    for (const int rank : {0, 1, 2}) expect_no_privilege(job.node_of(rank));
    expect_clean_end(job, "pattern:");
}

TEST_F(Users, SaveAndRestartTheirJobs) {
    Job job(lab(), 2, "gn1:2,gn2:2,gn3:2", endless("pattern"));
    expect_restart(job, "pattern:");
}

TEST_F(Users, HaveNoPrivilegeAfterARestart) {
    const std::string folder = path("snapshots");
    Job job(lab(), 2, "gn1:2", endless("pattern"));
    ASSERT_TRUE(job.wait_for("round 1:")) << job.mpirun().err();
    expect_no_privilege("gn1");
    good("gn1", {"ghost", "checkpoint", "--to", "memory"});
    good("gn1", {"ghost", "checkpoint", "--to", folder});
    Job instead(lab(), {"ghost", "restart", folder, "--replace"});
    ASSERT_TRUE(instead.wait_for("round ", 2)) << instead.mpirun().err();
    EXPECT_NE(job.finish().status, 0);
    expect_no_privilege("gn1");
    good("gn1", {"ghost", "checkpoint", "--to", folder, "--then", "kill"});
    EXPECT_EQ(instead.finish().status, 85);
    expect_none_after({"ghost", "restart", folder}, "gn1");
    expect_none_after({"ghost", "restart", folder, "--host", "gn2:2"}, "gn2");
    expect_none_after({"ghost", "restart", "--from", "memory"}, "gn1");
}

// A rank whose wrapper is killed gets another one, which moves it too.
TEST_F(Users, HaveNoPrivilegeUnderAnotherWrapper) {
    Job job(lab(), 2, "gn1:2,gn2:2,gn3:2", endless("pattern"));
    ASSERT_TRUE(job.wait_for("round ")) << job.mpirun().err();
    const std::string here = job.node_of(1);
    const auto wrappers = lab().pids(here, "^[^ ]*ghost-wrapper");
    ASSERT_FALSE(wrappers.empty());
    lab().kill(here, wrappers.back());
    ASSERT_TRUE(job.wait_for_more("round ", 2)) << job.mpirun().err();
    expect_no_privilege(here);
    expect_moved(job, 1, "gn3");
    expect_no_privilege("gn3");
    expect_clean_end(job, "pattern:");
}

TEST_F(Users, HaveNoPrivilegeAfterImportAndRestartOfAProgram) {
    const std::string number = program_on("gn1"), folder = path("snapshots"), ghost = path("ghost");
    expect_program_without_privilege("gn1");
    good("gn1", {"ghost", "checkpoint", number, "--to", "memory"});
    good("gn1", {"ghost", "checkpoint", number, "--to", folder});
    good("gn1", {"ghost", "export", number, "--to", ghost, "--then", "kill"});
    for (const Words& words :
         {Words{"import", ghost}, Words{"restart", folder}, Words{"restart", "memory:" + number}}) {
        SCOPED_TRACE(words[0] + words[1]);
        Words all{"ghost", words[0], "--detach"};
        all.insert(all.end(), words.begin() + 1, words.end());
        good("gn1", all);
        expect_program_without_privilege("gn1");
        end_program("gn1");
    }
    good("gn1", {"ghost", "holder", "--stop"});
    good("gn2", {"ghost", "import", "--detach", ghost});
    expect_program_without_privilege("gn2");
    end_program("gn2");
}

TEST_F(Users, HaveNoPrivilegeAfterAMoveOfAProgram) {
    for (const std::string mode : {"stop", "live"}) {
        SCOPED_TRACE(mode);
        const std::string number = program_on("gn1");
        good("gn1", {"ghost", "dup", number, "--to", "gn2", "--then", "kill", "--mode", mode});
        expect_program_without_privilege("gn2");
        end_program("gn2");
    }
    const std::string number = program_on("gn1");
    good("gn1", {"ghost", "dup", number, "--to", "gn2"});
    expect_program_without_privilege("gn2");
    expect_program_without_privilege("gn1");
    end_program("gn1");
    end_program("gn2");
}

// Neither can see what the other has mapped, and nobody but root could open it: their daemon sees
// it, and it is saved where it is mapped.
TEST_F(Users, MoveAndSaveRanksThatShareMemory) {
    for (const std::string what : {"window", "shm"}) {
        SCOPED_TRACE(what);
        Job job(lab(), 3, "gn1:2,gn2:1,gn3:2", endless("holder", {"--what", what}));
        ASSERT_TRUE(job.wait_for("round 1:")) << job.mpirun().err();
        const nettest::Move alone = job.migrate(1, "gn3");
        EXPECT_EQ(alone.status, 1);
        EXPECT_NE(alone.err.find("--with-sharers moves them together"), std::string::npos)
            << alone.err;
        for (const std::string node : {"gn3", "gn1"}) {
            const nettest::Move together = job.migrate_with_sharers(1, node);
            EXPECT_EQ(together.status, 0) << together.err << job.mpirun().err();
            for (const int rank : {0, 1}) EXPECT_EQ(job.node_of(rank), node);
            ASSERT_TRUE(job.wait_for_more("round ", 2)) << job.mpirun().err();
        }
        const Finished saved =
            lab().on("gn1", {"ghost", "checkpoint", "--to", path(what), "--then", "kill"});
        EXPECT_EQ(saved.status, 0) << saved.err << job.mpirun().err();
        EXPECT_EQ(job.finish().status, 85);
        expect_clean(restart(path(what), {"--host", "gn3:2,gn2:1"}), "holder: ");
        std::filesystem::remove(path("stop"));
    }
}

// criu would make a memfd for each of them: they go on.
TEST_F(Users, KeepRanksThatShareAMemfd) {
    Job job(lab(), 3, "gn1:2,gn2:1,gn3:2", endless("holder", {"--what", "memfd"}));
    ASSERT_TRUE(job.wait_for("round 1:")) << job.mpirun().err();
    const nettest::Move move = job.migrate(1, "gn3");
    const nettest::Move together = job.migrate_with_sharers(1, "gn3");
    const Finished saved = lab().on("gn1", {"ghost", "checkpoint", "--to", path("saved")});
    for (const std::string& said : {move.err, together.err, saved.err})
        EXPECT_NE(said.find("it is memory shared with rank "), std::string::npos) << said;
    EXPECT_EQ(move.status, 1);
    EXPECT_EQ(together.status, 1);
    EXPECT_EQ(saved.status, 1);
    ASSERT_TRUE(job.wait_for_more("round ", 2)) << job.mpirun().err();
    expect_clean_end(job, "holder: ");
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
