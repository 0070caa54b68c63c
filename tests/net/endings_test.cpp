// SPDX-License-Identifier: BSD-3-Clause
// Ranks, and whole jobs, that end: at any time of a move, of their own or of another rank's; that
// have not begun yet; and that cannot act. Needs root; without it every case is skipped.
#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <memory>
#include <string>
#include <sys/ptrace.h>
#include <unistd.h>

#include "tests/net/on_lab.hpp"

namespace {

using nettest::Background;
using nettest::Finished;
using nettest::Job;
using nettest::Move;
using nettest::program;
using nettest::Words;

class Endings : public nettest::OnLab {
  protected:
    // Ranks that end one by one, by end().
    std::unique_ptr<Job> enders(int ranks, const std::string& hosts, const Words& more = {}) {
        Words words{"--mca",    "orte_allowed_exit_without_sync", "1", program("ender"), "--end",
                    path("end")};
        words.insert(words.end(), more.begin(), more.end());
        auto job = std::make_unique<Job>(lab(), ranks, hosts, words);
        EXPECT_TRUE(job->wait_for("ender: rank ", static_cast<size_t>(ranks)))
            << job->mpirun().err();
        return job;
    }
    void end(int rank) const { nettest::touch(path("end." + std::to_string(rank))); }
    std::string ps() { return lab().on("gn1", {"ghost", "ps"}).out; }
    void expect_whole(Job& job, int ranks) {
        for (int rank = 0; rank < ranks; rank++) end(rank);
        const Finished over = job.finish();
        EXPECT_EQ(over.status, 0) << over.out << over.err;
        EXPECT_EQ(nettest::count_of(over.out, " ends, 0 errors"), static_cast<size_t>(ranks))
            << over.out;
    }

    void leave_after_move(const Words& how, int status);

    // Whoever asks for something is told within seconds, with the reason; nothing is harmed.
    void expect_refused(Job& job, const std::string& why) {
        const Move move = job.migrate(1, "gn3", 5);
        EXPECT_EQ(move.status, 1) << move.err;
        EXPECT_NE(move.err.find(why), std::string::npos) << move.err;
        const Finished saved = lab().on("gn1", {"ghost", "checkpoint", "--to", path("shots")}, 5);
        EXPECT_EQ(saved.status, 1) << saved.err;
        EXPECT_NE(saved.err.find(why), std::string::npos) << saved.err;
    }
    // Then it can do everything again.
    void expect_alive(Job& job) {
        expect_moved(job, 1, "gn3");
        const Finished saved = lab().on("gn1", {"ghost", "checkpoint", "--to", path("shots")});
        EXPECT_EQ(saved.status, 0) << saved.err;
        expect_whole(job, 2);
    }
    // Of the only rank there.
    std::string rank_pid(const std::string& node) {
        std::string pid = lab().on(node, {"pgrep", "-x", "ender"}).out;
        return pid.substr(0, pid.find('\n'));
    }
    std::string mpirun_pid() {
        std::string pid = lab().on("gn1", {"pgrep", "-x", "mpirun"}).out;
        return pid.substr(0, pid.find('\n'));
    }
    bool ps_shows(const std::string& text) {
        return nettest::poll_until(10, [&] { return ps().find(text) != std::string::npos; });
    }
};

// --- before MPI_Init ---

// A script that stages files first, and the program it runs then.
TEST_F(Endings, RankBeforeMpiInitIsRefusedAtOnce) {
    const std::string script = "while [ ! -e " + path("begin") + " ]; do sleep 0.05; done; exec " +
                               program("ender") + " --end " + path("end");
    Job job(lab(), 2, "gn1:1,gn2:1,gn3:1",
            {"--mca", "orte_allowed_exit_without_sync", "1", "sh", "-c", script});
    ASSERT_TRUE(nettest::poll_until(20, [&] {
        return ps().find("ranks 1 (not in MPI yet)") != std::string::npos;
    })) << ps();
    const std::string said = job.mpirun().err();  // of ssh, by a user without a home
    const Move move = job.migrate(1, "gn3", 10);
    EXPECT_EQ(move.status, 1);
    EXPECT_NE(move.err.find("rank 1 is not in MPI yet"), std::string::npos) << move.err;
    const Finished saved = lab().on("gn1", {"ghost", "checkpoint", "--to", path("shots")});
    EXPECT_EQ(saved.status, 1);
    EXPECT_NE(saved.err.find("is not in MPI yet"), std::string::npos) << saved.err;
    EXPECT_EQ(job.mpirun().err(), said) << "what is refused concerns who asked";
    nettest::touch(path("begin"));
    ASSERT_TRUE(job.wait_for("ender: rank ", 2)) << job.mpirun().err();
    expect_moved(job, 1, "gn3");
    expect_whole(job, 2);
}

// --- that cannot act ---

TEST_F(Endings, StoppedRankIsRefusedAtOnce) {
    auto job = enders(2, "gn1:1,gn2:1,gn3:1");
    const std::string pid = rank_pid("gn2");
    lab().on("gn2", {"kill", "-STOP", pid});
    expect_refused(*job, "rank 1 is stopped (SIGSTOP or SIGTSTP): `kill -CONT " + pid + "` on gn2");
    EXPECT_TRUE(ps_shows("ranks 1 (stopped)")) << ps();
    lab().on("gn2", {"kill", "-CONT", pid});
    expect_alive(*job);
}

// By SIGTSTP to mpirun, which stops the ranks; a batch system's SIGSTOP stops mpirun itself.
TEST_F(Endings, SuspendedJobIsRefusedAtOnce) {
    auto job = enders(2, "gn1:1,gn2:1,gn3:1");
    const std::string mpirun = mpirun_pid();
    lab().on("gn1", {"kill", "-TSTP", mpirun});
    ASSERT_TRUE(ps_shows("ranks 1 (suspended)")) << ps();
    expect_refused(*job, " is suspended with its job");
    lab().on("gn1", {"kill", "-STOP", mpirun});
    expect_refused(*job, "mpirun " + mpirun + " is suspended (SIGSTOP or SIGTSTP): `kill -CONT");
    lab().on("gn1", {"kill", "-CONT", mpirun});
    ASSERT_TRUE(nettest::poll_until(10, [&] { return ps().find("(") == std::string::npos; }))
        << ps();
    expect_alive(*job);
}

TEST_F(Endings, TracedRankIsRefusedAtOnceAndByWhom) {
    auto job = enders(2, "gn1:1,gn2:1,gn3:1");
    Background tracer = lab().start_on(
        "gn2", {std::filesystem::read_symlink("/proc/self/exe"), "--trace", rank_pid("gn2")});
    ASSERT_TRUE(
        nettest::poll_until(10, [&] { return tracer.out().find("traces") != std::string::npos; }));
    expect_refused(*job, "rank 1 is traced by endings_test ");
    EXPECT_TRUE(ps_shows("ranks 1 (traced by endings_test ")) << ps();
    lab().on("gn2", {"pkill", "-x", "endings_test"});
    tracer.finish(10);
    expect_alive(*job);
}

TEST_F(Endings, RankThatHasLeftMpiIsRefusedAtOnce) {
    auto job = enders(2, "gn1:1,gn2:1,gn3:1", {"--leave", "1"});
    ASSERT_TRUE(job->wait_for("has left MPI", 2));
    expect_refused(*job, " is in MPI_Finalize or past it");
    EXPECT_TRUE(ps_shows("ranks 1 (after MPI_Finalize)")) << ps();
    expect_whole(*job, 2);
}

// --- of a node's last rank ---

TEST_F(Endings, NodeWhoseRanksHaveEndedIsATarget) {
    auto job = enders(2, "gn1:1,gn2:1,gn3:1");
    end(1);
    ASSERT_TRUE(nettest::poll_until(20, [&] { return ps().find("(ended)") != std::string::npos; }))
        << ps();
    expect_moved(*job, 0, "gn2");
    expect_moved(*job, 0, "gn3");
    expect_moved(*job, 0, "gn2");
    expect_whole(*job, 2);
}

// The target's link is slow, so that its own rank's end meets the transfer.
TEST_F(Endings, LastRankOfTheTargetEndsWhileAnotherArrives) {
    auto job = enders(2, "gn1:1,gn2:2,gn3:1", {"--memory", "64"});
    lab().shape("gn2", "fast-ethernet");
    const uint64_t before = lab().received("gn2");
    Background migrate = job->start_migrate(0, "gn2");
    ASSERT_TRUE(nettest::poll_until(
        20, [&] { return !migrate.running() || lab().received("gn2") > before + (4 << 20); }));
    ASSERT_TRUE(migrate.running()) << migrate.err();
    end(1);
    const Move move = nettest::move_of(migrate.finish(60));
    EXPECT_EQ(move.status, 0) << move.err << job->mpirun().err();
    expect_whole(*job, 2);
}

// --- of the whole job ---

// At any moment of a move, all ranks return: the job ends well, and whoever asked for the move is
// told what came of it.
TEST_F(Endings, JobEndsWhileItsRankMoves) {
    for (useconds_t moment = 0; moment < 12; moment++) {
        SCOPED_TRACE(moment);
        const std::string now = path("now." + std::to_string(moment));
        Job job(lab(), 2, "gn1:2,gn2:2,gn3:2",
                {program("leaver"), "--rank", "0", "--when-file", now});
        ASSERT_TRUE(job.wait_for("leaver: started")) << job.mpirun().err();
        ASSERT_TRUE(nettest::poll_until(20, [&] { return job.migrate(1, "gn2").status == 0; }));
        Background move = job.start_migrate(1, "gn3", {mpirun_pid()});
        usleep(moment * 12000);
        nettest::touch(now);
        const Finished over = job.finish();
        EXPECT_EQ(over.status, 0) << over.err;
        for (const char* word : {"route", "died", "harmed", "error"})
            EXPECT_EQ(over.err.find(word), std::string::npos) << over.err;
        const Move told = nettest::move_of(move.finish(20));
        if (told.status == 0) continue;
        EXPECT_EQ(told.status, 1) << told.err;
        EXPECT_TRUE(told.err.find("has ended") != std::string::npos ||
                    told.err.find("is in MPI_Finalize or past it") != std::string::npos)
            << told.err;
    }
}

// In the midst of a transfer its user ends mpirun: it answers before it goes.
TEST_F(Endings, JobIsEndedWhileItsRankMoves) {
    auto job = enders(2, "gn1:1,gn2:1,gn3:1", {"--memory", "64"});
    const std::string mpirun = mpirun_pid();
    lab().shape("gn3", "fast-ethernet");
    const uint64_t before = lab().received("gn3");
    Background move = job->start_migrate(1, "gn3", {mpirun});
    ASSERT_TRUE(nettest::poll_until(
        20, [&] { return !move.running() || lab().received("gn3") > before + (4 << 20); }));
    ASSERT_TRUE(move.running()) << move.err();
    lab().on("gn1", {"kill", "-TERM", mpirun});
    const Move told = nettest::move_of(move.finish(30));
    EXPECT_EQ(told.status, 1) << told.err;
    EXPECT_NE(told.err.find("the job has ended"), std::string::npos) << told.err;
    EXPECT_NE(job->finish().status, 0);
}

// --- right after the own move ---

void Endings::leave_after_move(const Words& how, int status) {
    Words words{program("leaver"), "--rank", "1", "--when-moved"};
    words.insert(words.end(), how.begin(), how.end());
    Job job(lab(), 2, "gn1:1,gn2:1,gn3:1", words);
    ASSERT_TRUE(job.wait_for("leaver: started")) << job.mpirun().err();
    const Move move = job.migrate(1, "gn3");
    ASSERT_EQ(move.status, 0) << move.err;
    const Finished end = job.finish();
    EXPECT_EQ(end.status, status) << end.out << end.err;
}

TEST_F(Endings, RankReturnsRightAfterMove) {
    leave_after_move({"--how", "return"}, 0);
}
TEST_F(Endings, RankExitCodeRightAfterMove) {
    leave_after_move({"--how", "return", "--status", "5"}, 5);
}
TEST_F(Endings, RankExitsWithoutFinalizeRightAfterMove) {
    leave_after_move({"--how", "_exit", "--status", "6"}, 6);
}
TEST_F(Endings, RankAbortsRightAfterMove) {
    leave_after_move({"--how", "mpi_abort", "--status", "9"}, 9);
}
TEST_F(Endings, RankCrashesRightAfterMove) {
    leave_after_move({"--how", "segv"}, 139);
}

// As many programs as ORTE would start by threads, with a PATH that takes long to look through: it
// arrives whole, and no end is lost.
TEST_F(Endings, FortyQuickProgramsHaveTheirPathAndEnd) {
    constexpr size_t programs = 40;
    std::string folders;
    for (int i = 0; i < 3000; i++) folders += ":/none";
    Words words{"sh",    "-c",    "WANTED=$PATH$0; PATH=$WANTED; export WANTED; exec mpirun \"$@\"",
                folders, "--mca", "ghost",
                "1"};
    for (size_t i = 0; i < programs; i++) {
        if (i > 0) words.emplace_back(":");
        for (const char* word : {"-np", "1", "--host", "gn1:40", "sh", "-c",
                                 "[ \"$PATH\" = \"$WANTED\" ] && echo whole"})
            words.emplace_back(word);
    }
    const Finished end = lab().on("gn1", words);
    EXPECT_EQ(end.status, 0) << end.err;
    EXPECT_EQ(nettest::count_of(end.out, "whole"), programs) << end.out << end.err;
}

}  // namespace

// Run on a node of the cluster, beside the rank.
static int trace(pid_t pid) {
    if (ptrace(PTRACE_SEIZE, pid, nullptr, nullptr) != 0) return 1;
    puts("traces");
    fflush(stdout);
    return pause();
}

int main(int argc, char** argv) {
    if (argc == 3 && strcmp(argv[1], "--trace") == 0) return trace(atoi(argv[2]));
    return nettest::run_suites(argc, argv);
}
