// SPDX-License-Identifier: BSD-3-Clause
// Ranks of running jobs are moved between the nodes of a virtual cluster; plain MPI programs that
// check themselves say whether anything was lost. Needs root; without it every case is skipped.
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <memory>
#include <regex>
#include <sstream>
#include <thread>

#include "tests/net/on_lab.hpp"
#include "tests/rounds.hpp"

namespace {

using nettest::Background;
using nettest::Finished;
using nettest::Job;
using nettest::Move;
using nettest::program;
using nettest::Words;

class Moves : public nettest::OnLab {
  protected:
    // Rank 0 on gn1, rank 1 on gn2, nothing on gn3.
    std::unique_ptr<Job> two_ranks(const Words& words, bool input = false) {
        return std::make_unique<Job>(lab(), 2, "gn1:1,gn2:1,gn3:1", words, "", input);
    }

    void there_and_back(int rank, const std::string& home) {
        auto job = two_ranks(endless("pattern"));
        ASSERT_TRUE(job->wait_for("round 0:")) << job->mpirun().err();
        expect_moved(*job, rank, "gn3");
        ASSERT_TRUE(job->wait_for_more("round ", 2)) << job->mpirun().err();
        expect_moved(*job, rank, home);
        ASSERT_TRUE(job->wait_for_more("round ", 2)) << job->mpirun().err();
        expect_clean_end(*job, "pattern:");
    }

    void moves_during(const std::string& meetings);
    void two_at_once(const std::string& name, const Words& options, const std::string& goes_on);
    void expect_unharmed(Job& job, const Move& move);
    void criu_killed(const std::string& node, const std::string& verb, Job& job);
    void refuse(const Words& holding, int rank, const std::string& node,
                const std::string& message);
};

// --- where, who, in what situation ---

TEST_F(Moves, Rank0ThereAndBack) {
    there_and_back(0, "gn1");
}
TEST_F(Moves, Rank1ThereAndBack) {
    there_and_back(1, "gn2");
}

TEST_F(Moves, MoveWhileBothSidesSend) {
    auto job = two_ranks(endless("both_send"));
    ASSERT_TRUE(job->wait_for("round 1:")) << job->mpirun().err();
    for (auto [rank, node] : {std::pair{1, "gn3"}, {0, "gn2"}, {1, "gn1"}}) {
        expect_moved(*job, rank, node);
        ASSERT_TRUE(job->wait_for_more("round ")) << job->mpirun().err();
    }
    expect_clean_end(*job, "both_send:");
}

TEST_F(Moves, RankThatNeverCallsMpi) {
    auto job = two_ranks(endless("compute"));
    ASSERT_TRUE(job->wait_for("compute: started")) << job->mpirun().err();
    expect_moved(*job, 1, "gn3");
    expect_moved(*job, 0, "gn2");
    stop();
    Finished end = job->finish();
    EXPECT_EQ(end.status, 0) << end.err;
    // Where each rank found itself at the end, and that every result was right.
    EXPECT_NE(end.out.find(" 0 errors, ended on gn3"), std::string::npos) << end.out;
    EXPECT_NE(end.out.find(" 0 errors, ended on gn2"), std::string::npos) << end.out;
    EXPECT_EQ(nettest::count_of(end.out, " 0 errors,"), 2U) << end.out;
}

// Three ranks in a program that meets in the runtime again and again, late at random: moves find
// its calls in every state.
void Moves::moves_during(const std::string& meetings) {
    Job job(lab(), 3, "gn1:3,gn2:3,gn3:3", endless(meetings, {"--file", path("rounds")}));
    ASSERT_TRUE(job.wait_for(meetings + ": round 16")) << job.mpirun().err();
    const auto count = ghost::test::rounds("GHOST_TEST_MOVES", 6, 12);
    for (int i = 0; i < count; ++i) {
        const int rank = i % 3;
        const std::string here = job.node_of(rank);
        expect_moved(job, rank, here == "gn1" ? "gn2" : here == "gn2" ? "gn3" : "gn1");
    }
    expect_clean_end(job, meetings + ":");
}

TEST_F(Moves, MoveDuringFences) {
    moves_during("fencer");
}

// Calls of some processes by name, as MPI_Comm_accept makes them.
TEST_F(Moves, MoveDuringCallsOfSomeRanks) {
    moves_during("meeter");
}

// The others, one on its node and two elsewhere, wait in such a call for a rank that moves before
// it calls: to where nobody waits, to where somebody does, and back.
TEST_F(Moves, MoveWhileOthersWaitInFence) {
    for (const std::string kind : {"connect", "disconnect", "fence"}) {
        SCOPED_TRACE(kind);
        const auto go = path("go." + kind);
        Job job(lab(), 4, "gn1:2,gn2:3,gn3:1",
                {program("meeter"), "--call", kind, "--late", "1", "--file", path("met." + kind),
                 "--until-file", go});
        for (const char* rank : {"0", "2", "3"})
            ASSERT_TRUE(job.wait_for(std::string("rank ") + rank + " calls")) << job.mpirun().err();
        usleep(300000);  // from its line to the daemon
        const auto end_at = kind == "connect" ? "gn2" : kind == "disconnect" ? "gn3" : "gn1";
        for (const char* node : {"gn3", "gn2", "gn1", "gn2", "gn3"}) {
            expect_moved(job, 1, node);
            EXPECT_EQ(nettest::count_of(job.mpirun().out(), " met"), 0U);
        }
        if (job.node_of(1) != end_at) expect_moved(job, 1, end_at);
        std::ofstream(go) << "now";
        const Finished end = job.finish();
        EXPECT_EQ(end.status, 0) << end.err;
        EXPECT_EQ(nettest::count_of(end.out, " met"), 4U) << end.out;
        EXPECT_NE(end.out.find("meeter: 1 calls, 0 errors"), std::string::npos) << end.out;
    }
}

// PMIx_Connect of a process that does not exist: an error of the call, not of the job.
TEST_F(Moves, MoveAfterCallOfForeignProcess) {
    Job job(lab(), 3, "gn1:2,gn2:2,gn3:1",
            endless("meeter", {"--stranger", "--file", path("rounds")}));
    ASSERT_TRUE(job.wait_for("meeter: round 16")) << job.mpirun().err();
    expect_moved(job, 0, "gn3");
    ASSERT_TRUE(job.wait_for_more("meeter: round ")) << job.mpirun().err();
    expect_clean_end(job, "meeter:");
}

// Rank 0 waits in MPI_Finalize for rank 1, which moves meanwhile.
TEST_F(Moves, MoveWhileOthersFinalize) {
    auto job = two_ranks(
        {program("fencer"), "--file", path("rounds"), "--iterations", "16", "--slow-end", "4000"});
    ASSERT_TRUE(job->wait_for("fencer: 16 fences")) << job->mpirun().err();
    expect_moved(*job, 1, "gn3");
    expect_moved(*job, 1, "gn2");
    EXPECT_EQ(job->finish().status, 0) << job->mpirun().err();
}

TEST_F(Moves, SameRankTwiceInARow) {
    auto job = two_ranks(endless("pattern"));
    ASSERT_TRUE(job->wait_for("round 0:")) << job->mpirun().err();
    expect_moved(*job, 1, "gn3");
    expect_moved(*job, 1, "gn2");
    expect_moved(*job, 1, "gn3");
    Move again = job->migrate(1, "gn3");
    EXPECT_EQ(again.status, 0) << again.err;
    EXPECT_FALSE(again.result.value("moved", true));
    ASSERT_TRUE(job->wait_for_more("round ", 2)) << job->mpirun().err();
    expect_clean_end(*job, "pattern:");
}

TEST_F(Moves, TwoRanksBackOnOneNode) {
    Job job(lab(), 2, "gn1:1,gn2:2", endless("pattern"));
    ASSERT_TRUE(job.wait_for("round 0:")) << job.mpirun().err();
    expect_moved(job, 0, "gn2");
    ASSERT_TRUE(job.wait_for_more("round ", 3)) << job.mpirun().err();
    expect_clean_end(job, "pattern:");
}

TEST_F(Moves, PartnerSeesAShortGap) {
    auto job = two_ranks(endless("pingpong", {"--memory", "16"}));
    ASSERT_TRUE(job->wait_for("pingpong: started")) << job->mpirun().err();
    expect_moved(*job, 1, "gn3");
    expect_moved(*job, 1, "gn2");
    stop();
    Finished end = job->finish();
    EXPECT_EQ(end.status, 0) << end.err;
    EXPECT_EQ(nettest::count_of(end.out, " 0 errors"), 2U) << end.out;
    // The figure that counts is measured on an idle machine by the benchmarks; this one only says
    // that nothing waits for a time-out somewhere.
    std::istringstream words(end.out.substr(end.out.find("max ", end.out.find("rank 0:")) + 4));
    double max_us = 1e12;
    words >> max_us;
    EXPECT_LT(max_us, 2e6) << end.out;
}

// --- that sleep, and that have memory which is not there ---

// Moved again and again in the same sleep.
TEST_F(Moves, SleepTakesAsLongAsWithoutMoves) {
    auto job = two_ranks({program("sleeper"), "--seconds", "12"});
    ASSERT_TRUE(job->wait_for("sleeper: rank 1 sleeps")) << job->mpirun().err();
    const auto begun = std::chrono::steady_clock::now();
    int moves = 0;
    for (const char* node : {"gn3", "gn2", "gn3"}) {
        std::this_thread::sleep_until(begun + std::chrono::seconds(3 * ++moves));
        expect_moved(*job, 1, node);
    }
    const Finished end = job->finish();
    EXPECT_EQ(end.status, 0) << end.out << end.err;
    EXPECT_EQ(nettest::count_of(end.out, " s, 0 errors"), 2U) << end.out;
}

// 20 TB, of which 16 pages are there: what AddressSanitizer and some language runtimes have.
TEST_F(Moves, ReservedMemoryCostsASnapshotAndAMoveNothing) {
    std::map<std::string, double> seconds;
    for (const std::string gib : {"0", "20480"}) {
        const std::string end = path("end." + gib);
        auto job = two_ranks(
            {program("sleeper"), "--memory", "100", "--reserve", gib, "--until-file", end});
        ASSERT_TRUE(job->wait_for("sleeper: rank 1 sleeps")) << job->mpirun().err();
        seconds[gib] = 1e9;
        for (int i = 0; i < 3; i++) {
            const auto begun = std::chrono::steady_clock::now();
            const Move saved = verb({"checkpoint", "--to", path("shots." + gib)});
            EXPECT_EQ(saved.status, 0) << saved.err;
            const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begun;
            seconds[gib] = std::min(seconds[gib], took.count());
        }
        expect_moved(*job, 1, "gn3");
        nettest::touch(end);
        const Finished all = job->finish();
        EXPECT_EQ(all.status, 0) << all.out << all.err;
    }
    std::printf("    %.2f s for 100 MB, %.2f s with 20 TB reserved\n", seconds["0"],
                seconds["20480"]);
    EXPECT_LT(seconds["20480"], 2 * seconds["0"] + 1);
}

// --- output and input ---

TEST_F(Moves, MoveWhileOutputFlows) {
    auto job = two_ranks(endless("talk", {"--rank", "1"}));
    ASSERT_TRUE(job->wait_for("out 500 ")) << job->mpirun().err();
    expect_moved(*job, 1, "gn3");
    expect_moved(*job, 1, "gn2");
    stop();
    Finished end = job->finish();
    EXPECT_EQ(end.status, 0);
    EXPECT_EQ(nettest::check_talk(end.out, "out"), "complete");
    EXPECT_EQ(nettest::check_talk(end.err, "err"), "complete");
}

TEST_F(Moves, InputFollowsRank0) {
    auto job = two_ranks({program("talk"), "--stdin"}, true);
    expect_input_follows(*job, [&](const std::string& node) { expect_moved(*job, 0, node); });
}

// All of a file has been read by mpirun, and most of it by nobody else: it waits in the daemon of
// the rank, the end of it too, or in mpirun where the rank is on its node.
TEST_F(Moves, PendingInputFollowsRank) {
    Job job(lab(), 2, "gn1:1,gn2:2,gn3:1", {program("talk"), "--stdin", "--slow", "100"}, "", true);
    std::string text, expected;
    for (int i = 0; i < 30000; ++i) {
        const std::string line = "line " + std::to_string(i) + std::string(i % 100, '.') + "\n";
        text += line;
        expected += "in: " + line;
    }
    std::jthread feeder([&] { job.mpirun().feed(text, false); });
    int line = 0;
    for (const char* node : {"gn3", "gn2", "gn1", "gn3", "gn1"}) {
        line += 2000;
        ASSERT_TRUE(job.wait_for("in: line " + std::to_string(line))) << job.mpirun().err();
        expect_moved(job, 0, node);
    }
    const Finished end = job.finish();
    EXPECT_EQ(end.status, 0) << end.err;
    const auto all = expected + "in end 30000 " + std::to_string(text.size()) + "\n";
    const auto differ = std::mismatch(all.begin(), all.end(), end.out.begin(), end.out.end());
    EXPECT_EQ(end.out.size(), all.size());
    EXPECT_TRUE(end.out == all) << "from byte " << differ.first - all.begin() << " on: "
                                << std::string(differ.second, end.out.end()).substr(0, 100);
}

// The daemon has written all of it, and its end, into the pipe: who has not read as far as that is
// only the rank's wrapper.
TEST_F(Moves, EndOfInputFollowsRank) {
    Job job(lab(), 2, "gn1:1,gn2:2,gn3:1", {program("talk"), "--stdin", "--slow", "4000"}, "",
            true);
    std::string text, expected;
    for (int i = 0; i < 1600; ++i) {
        const std::string line = "line " + std::to_string(i) + std::string(i % 100, '.') + "\n";
        text += line;
        expected += "in: " + line;
    }
    job.mpirun().feed(text, false);
    int line = 0;
    for (const char* node : {"gn3", "gn2", "gn1", "gn3"}) {
        line += 30;
        ASSERT_TRUE(job.wait_for("in: line " + std::to_string(line))) << job.mpirun().err();
        expect_moved(job, 0, node);
    }
    const Finished end = job.finish();
    EXPECT_EQ(end.status, 0) << end.err;
    EXPECT_TRUE(end.out == expected + "in end 1600 " + std::to_string(text.size()) + "\n")
        << end.out.size() << " bytes";
}

// The wrapper too has written all of it, and closed the rank's pipe, which is full: what the rank
// has not read of that is nowhere else.
TEST_F(Moves, EndedInputFollowsRank) {
    Job job(lab(), 2, "gn1:1,gn2:2,gn3:1", {program("talk"), "--stdin", "--slow", "40000"}, "",
            true);
    std::string text, expected;
    for (int i = 0; i < 400; ++i) {
        const std::string line = "line " + std::to_string(i) + std::string(i % 100, '.') + "\n";
        text += line;
        expected += "in: " + line;
    }
    ASSERT_LT(text.size(), 65536U);
    job.mpirun().feed(text, false);
    ASSERT_TRUE(job.wait_for("in: line 5")) << job.mpirun().err();
    for (const char* node : {"gn3", "gn1"}) {
        expect_moved(job, 0, node);
        ASSERT_TRUE(job.wait_for_more("in: line ", 3)) << job.mpirun().err();
    }
    const Finished saved = lab().on("gn1", {"ghost", "checkpoint", "--to", path("snapshots")});
    EXPECT_EQ(saved.status, 0) << saved.err;  // it stays where it is
    const Finished end = job.finish();
    EXPECT_EQ(end.status, 0) << end.err;
    EXPECT_TRUE(end.out == expected + "in end 400 " + std::to_string(text.size()) + "\n")
        << end.out.size() << " bytes";
}

// mpirun reads all the time, also while the rank is switched.
TEST_F(Moves, ContinuousInputIsComplete) {
    auto job = two_ranks({program("talk"), "--stdin"}, true);
    std::string expected;
    size_t lines = 0, bytes = 0;
    std::atomic<bool> moving = true;
    std::jthread feeder([&] {
        while (moving) {
            std::string text;
            for (int i = 0; i < 100; ++i, ++lines) {
                const std::string line = "line " + std::to_string(lines) + "\n";
                text += line;
                expected += "in: " + line;
            }
            bytes += text.size();
            job->mpirun().feed(text, true);
            std::this_thread::sleep_for(std::chrono::microseconds(300));
        }
        job->mpirun().feed("", false);
    });
    EXPECT_TRUE(job->wait_for("in: line ")) << job->mpirun().err();
    for (const char* node : {"gn3", "gn1", "gn3", "gn1", "gn3", "gn1", "gn3"}) {
        expect_moved(*job, 0, node);
        EXPECT_TRUE(job->wait_for_more("in: line ")) << job->mpirun().err();
    }
    moving = false;
    feeder.join();
    const Finished end = job->finish();
    EXPECT_EQ(end.status, 0) << end.err;
    const auto all =
        expected + "in end " + std::to_string(lines) + " " + std::to_string(bytes) + "\n";
    const auto differ = std::mismatch(all.begin(), all.end(), end.out.begin(), end.out.end());
    EXPECT_EQ(end.out.size(), all.size());
    EXPECT_TRUE(end.out == all) << "from byte " << differ.first - all.begin() << " on: "
                                << std::string(differ.second, end.out.end()).substr(0, 100);
}

// What nobody's input is belongs to the shell; ranks that come to mpirun's node and leave it again
// change nothing.
TEST_F(Moves, InputWithoutReaderIsNotRead) {
    std::string command =
        "mpirun --mca ghost 1 --stdin none --host gn1:2,gn2:1,gn3:1 -n 2 "
        "--map-by node --bind-to none";
    for (const std::string& word : endless("compute")) command += " " + word;
    Background job = lab().start_on("gn1", {"sh", "-c", command + "; cat"}, "for the shell\n");
    ASSERT_TRUE(nettest::poll_until(30, [&] {
        return job.out().find("compute: started") != std::string::npos;
    })) << job.err();
    for (const char* node : {"gn1", "gn3"}) {
        const Finished moved =
            lab().on("gn1", nettest::migrate_words({"--rank", "1", "--to", node}));
        EXPECT_EQ(moved.status, 0) << moved.err;
    }
    stop();
    const Finished end = job.finish(60);
    EXPECT_EQ(end.status, 0) << end.err;
    EXPECT_NE(end.out.find("for the shell\n"), std::string::npos) << end.out;
}

// --- refusals ---

void Moves::refuse(const Words& words, int rank, const std::string& node,
                   const std::string& message) {
    auto job = two_ranks(words);
    ASSERT_TRUE(job->wait_for("holder: started")) << job->mpirun().err();
    std::string before = job->node_of(rank);
    Move move = job->migrate(rank, node);
    EXPECT_EQ(move.status, 1) << move.err;
    EXPECT_NE(move.err.find(message), std::string::npos) << move.err;
    EXPECT_EQ(job->node_of(rank), before);
    expect_clean_end(*job, "holder:");
}

TEST_F(Moves, RefusesAnUnknownNode) {
    refuse(endless("holder"), 1, "gn99", "gn99");
}
TEST_F(Moves, RefusesAnUnknownRank) {
    refuse(endless("holder"), 17, "gn3", "17");
}
// A contribution of a rank that has moved would be lost between; so would the job.
TEST_F(Moves, RefusesRoutedDaemons) {
    Words words = {"--mca", "routed_radix", "1"};
    const Words program = endless("holder");
    words.insert(words.end(), program.begin(), program.end());
    refuse(words, 1, "gn3", "routed_radix");
}
TEST_F(Moves, RefusesAFullTarget) {
    refuse(endless("holder"), 1, "gn1", "gn1");
}
TEST_F(Moves, RefusesAnIoUring) {
    refuse(endless("holder", {"--what", "io_uring", "--rank", "1"}), 1, "gn3", "io_uring");
}

// They are saved with what they share, each as it was when all of them stood still, and begin
// again with one memory, on any node, but on one.
TEST_F(Moves, RanksThatShareAWindowAreRestarted) {
    Job job(lab(), 3, "gn1:2,gn2:1,gn3:2", endless("holder", {"--what", "window"}));
    expect_restart(job, "holder: ");
    std::filesystem::remove(path("stop"));
    expect_clean(restart(path("snapshots"), {"--host", "gn3:2,gn2:1"}), "holder: ");
    const Finished apart = restart(path("snapshots"), {"--host", "gn1:1,gn2:1,gn3:1"});
    EXPECT_NE(apart.status, 0);
    EXPECT_NE(apart.err.find("ranks 0, 1 share memory"), std::string::npos) << apart.err;
}

// Ranks that share a window move as one: none without the others, and there they have one memory
// again. When it is freed they move alone, and then share none: they are apart.
TEST_F(Moves, RanksThatShareAWindowMoveTogether) {
    Job job(lab(), 3, "gn1:2,gn2:1,gn3:2",
            endless("holder", {"--what", "window", "--give-back", path("enough")}));
    ASSERT_TRUE(job.wait_for("holder: started")) << job.mpirun().err();
    const Move move = job.migrate(1, "gn3");
    EXPECT_EQ(move.status, 1) << move.err;
    EXPECT_NE(move.err.find("with rank 0: --with-sharers moves them together"), std::string::npos)
        << move.err;
    const Move full = job.migrate_with_sharers(1, "gn2");
    EXPECT_EQ(full.status, 1) << full.err;
    EXPECT_NE(full.err.find("node gn2 is full"), std::string::npos) << full.err;
    for (const std::string node : {"gn1", "gn3", "gn1"}) {
        const Move together = job.migrate_with_sharers(1, node);
        EXPECT_EQ(together.status, 0) << together.err << job.mpirun().err();
        EXPECT_EQ(job.node_of(0), node);
        EXPECT_EQ(job.node_of(1), node);
        ASSERT_TRUE(job.wait_for_more("round ", 2)) << job.mpirun().err();
    }
    expect_moved(job, 2, "gn3");  // one of its own
    nettest::touch(path("enough"));
    ASSERT_TRUE(job.wait_for("holder: given back")) << job.mpirun().err();
    expect_moved(job, 1, "gn3");
    stop();
    const Finished end = job.finish();
    EXPECT_NE(end.out.find("holder: not shared"), std::string::npos) << end.out << end.err;
    expect_clean(end, "holder: ");
}

// So do those that share a removed file without MPI. A memfd would become one for each of them.
TEST_F(Moves, RanksThatShareARemovedFileMoveTogetherAndAMemfdIsRefused) {
    for (const std::string what : {"shm", "memfd"}) {
        SCOPED_TRACE(what);
        std::filesystem::remove(path("stop"));
        Job job(lab(), 3, "gn1:2,gn2:1,gn3:2", endless("holder", {"--what", what}));
        ASSERT_TRUE(job.wait_for("round 1:")) << job.mpirun().err();
        const Move move = job.migrate_with_sharers(0, "gn3");
        EXPECT_EQ(move.status, what == "shm" ? 0 : 1) << move.err << job.mpirun().err();
        const bool said = move.err.find("it is memory shared with rank 1") != std::string::npos;
        EXPECT_EQ(said, what == "memfd") << move.err;
        ASSERT_TRUE(job.wait_for_more("round ", 2)) << job.mpirun().err();
        expect_clean_end(job, "holder: ");
    }
}

TEST_F(Moves, RefusesAForeignConnection) {
    Background listener = lab().start_as_root(
        "gn2", {"python3", "-c",
                "import socket\ns=socket.create_server(('',7777))\nprint('up',flush=True)\n"
                "c,_=s.accept()\nc.recv(1)"});
    ASSERT_TRUE(nettest::poll_until(10, [&] { return !listener.out().empty(); })) << listener.err();
    refuse(endless("holder", {"--what", "tcp", "--connect", "gn2:7777", "--rank", "1"}), 1, "gn3",
           "");
}

TEST_F(Moves, MoveAfterRefusedMove) {
    auto job = two_ranks(endless("pattern"));
    ASSERT_TRUE(job->wait_for("round 0:")) << job->mpirun().err();
    EXPECT_EQ(job->migrate(1, "gn1").status, 1);
    expect_moved(*job, 1, "gn3");
    ASSERT_TRUE(job->wait_for_more("round ")) << job->mpirun().err();
    expect_clean_end(*job, "pattern:");
}

// --- many ---

TEST_F(Moves, ManyMovesInARow) {
    Job job(lab(), 3, "gn1:2,gn2:2,gn3:2", endless("pattern"));
    ASSERT_TRUE(job.wait_for("round 0:")) << job.mpirun().err();
    std::map<int, std::string> where;
    for (int rank = 0; rank < 3; ++rank) where[rank] = job.node_of(rank);
    auto load = [&](const std::string& node) {
        int count = 0;
        for (const auto& [rank, here] : where) count += here == node ? 1 : 0;
        return count;
    };
    const auto count = static_cast<int>(ghost::test::rounds("GHOST_TEST_MOVES", 15, 50));
    for (int i = 0; i < count; ++i) {
        const int rank = i % 3;
        // The next node with a free place.
        std::string target = where[rank];
        do {
            target = "gn" + std::to_string(target.back() - '0' < 3 ? target.back() - '0' + 1 : 1);
        } while (load(target) >= 2 && target != where[rank]);
        ASSERT_NO_FATAL_FAILURE(expect_moved(job, rank, target)) << "move " << i;
        where[rank] = target;
        ASSERT_TRUE(job.wait_for_more("round ")) << "after move " << i << job.mpirun().err();
    }
    expect_clean_end(job, "pattern:");
}

// --- at the same time ---

// How often a second move began while one was under way, as mpirun reports it (ghost_verbose 2).
size_t overlaps(const std::string& log) {
    std::istringstream lines(log);
    int under_way = 0;
    size_t count = 0;
    for (std::string line; std::getline(lines, line);) {
        if (line.find(": checking -> preparing") != std::string::npos) count += ++under_way == 2;
        if (line.find(": going -> done") != std::string::npos) --under_way;
    }
    return count;
}

// Two of four ranks move at once, again and again: both ends of busy streams, from one node, to one
// node, and past each other.
void Moves::two_at_once(const std::string& name, const Words& options, const std::string& goes_on) {
    Words words = {"--mca", "ghost_migrate_at_once", "2", "--mca", "ghost_verbose", "2"};
    const Words program = endless(name, options);
    words.insert(words.end(), program.begin(), program.end());
    Job job(lab(), 4, "gn1:4,gn2:4,gn3:4", words);
    ASSERT_TRUE(job.wait_for(goes_on)) << job.mpirun().err();
    const auto another = [](const std::string& node, int further) {
        return "gn" + std::to_string((node.back() - '1' + 1 + further) % 3 + 1);
    };
    const auto count = static_cast<int>(ghost::test::rounds("GHOST_TEST_MOVES", 6, 12));
    for (int i = 0; i < count; ++i) {
        SCOPED_TRACE(i);
        const int one = i % 4, two = (one + 1 + i / 4) % 4;
        const auto to_one = another(job.node_of(one), i % 2), to_two = another(job.node_of(two), 0);
        Background first = job.start_migrate(one, to_one);
        const Move second = job.migrate(two, to_two);
        const Move moved = nettest::move_of(first.finish(60));
        ASSERT_EQ(moved.status, 0) << moved.err << job.mpirun().err();
        ASSERT_EQ(second.status, 0) << second.err << job.mpirun().err();
        EXPECT_EQ(job.node_of(one), to_one);
        EXPECT_EQ(job.node_of(two), to_two);
        ASSERT_TRUE(job.wait_for_more(goes_on)) << job.mpirun().err();
    }
    EXPECT_GE(overlaps(job.mpirun().err()), static_cast<size_t>(count) / 2) << job.mpirun().err();
    expect_clean_end(job, name + ":");
}

TEST_F(Moves, TwoRanksAtOnce) {
    two_at_once("pattern", {}, "round ");
}
TEST_F(Moves, TwoRanksAtOnceDuringFences) {
    two_at_once("fencer", {"--file", path("rounds")}, "fencer: round");
}
TEST_F(Moves, TwoRanksAtOnceDuringCallsOfSomeRanks) {
    two_at_once("meeter", {"--file", path("rounds")}, "meeter: round");
}

// A rank that comes and goes all week: its daemon keeps no piece of input (8 KiB) each time.
// libpmix's notion of a client that has left (1.7 KiB) it does keep.
TEST_F(Moves, DaemonMemoryDoesNotGrow) {
    const int warm = ghost::test::at_length() ? 20 : 10;
    const auto more =
        static_cast<int>(ghost::test::rounds("GHOST_TEST_MOVES", 30, 60));  // half to gn3
    auto job = two_ranks(endless("pattern"));
    ASSERT_TRUE(job->wait_for("round 0:")) << job->mpirun().err();
    const auto daemons = lab().pids("gn3", "orted");
    ASSERT_FALSE(daemons.empty());
    const auto resident = [&] {  // KiB
        const auto status =
            lab().on("gn3", {"cat", "/proc/" + std::to_string(daemons.back()) + "/status"});
        std::smatch found;
        const bool there = std::regex_search(status.out, found, std::regex("RssAnon:\\s+([0-9]+)"));
        EXPECT_TRUE(there) << status.out << status.err;
        return there ? std::stol(found[1]) : 0;
    };
    long before = 0;
    for (int i = 0; i < warm + more; ++i) {
        if (i == warm) before = resident();
        ASSERT_NO_FATAL_FAILURE(expect_moved(*job, 1, i % 2 ? "gn2" : "gn3")) << "move " << i;
    }
    EXPECT_LT(resident() - before, more / 2 * 5) << "KiB, from " << before;
    expect_clean_end(*job, "pattern:");
}

// What two ranks say to each other after a move goes by the nodes they are on alone: the old one's
// interfaces show what its daemon says now and then, and no more.
TEST_F(Moves, OldNodeCarriesNoTraffic) {
    constexpr uint64_t much = 64 << 20, daemons = 64 << 10;  // bytes
    auto job = two_ranks(endless("both_send"));
    ASSERT_TRUE(job->wait_for("round 1:")) << job->mpirun().err();
    const uint64_t untouched = lab().received("gn2");
    EXPECT_TRUE(nettest::poll_until(60, [&] { return lab().received("gn2") > untouched + much; }))
        << "the rank is there";
    expect_moved(*job, 1, "gn3");
    const uint64_t old_one = lab().received("gn2"), new_one = lab().received("gn3");
    EXPECT_TRUE(nettest::poll_until(60, [&] { return lab().received("gn3") > new_one + much; }));
    EXPECT_LT(lab().received("gn2") - old_one, daemons);
    expect_clean_end(*job, "both_send:");
}

// --- faults ---

TEST_F(Moves, OldNodeCutAfterMoveIsHarmless) {
    // mpirun on gn1, a rank on gn2 and one on gn3; gn2's rank goes to gn1.
    Job job(lab(), 2, "gn2:1,gn3:1,gn1:2", endless("pattern"));
    ASSERT_TRUE(job.wait_for("round 0:")) << job.mpirun().err();
    int moving = -1;
    for (int rank = 0; rank < 2; ++rank) moving = job.node_of(rank) == "gn2" ? rank : moving;
    if (moving < 0) {  // mapped to gn1 and gn3: make gn2 the old node all the same
        moving = job.node_of(0) == "gn1" ? 0 : 1;
        expect_moved(job, moving, "gn2");
    }
    expect_moved(job, moving, "gn1");
    lab().cut("gn2");
    ASSERT_TRUE(job.wait_for_more("round ", 4)) << job.mpirun().err();
    // The emptied daemon that cannot be reached is given up after its time (10 s).
    ASSERT_TRUE(job.wait_for_error("given up", 60)) << job.mpirun().err();
    ASSERT_TRUE(job.wait_for_more("round ", 2)) << job.mpirun().err();
    expect_clean_end(job, "pattern:");
}

// The move of rank 1 failed and says so, the rank is where it was, the program goes on to its end.
void Moves::expect_unharmed(Job& job, const Move& move) {
    EXPECT_EQ(move.status, 1) << move.err;
    EXPECT_EQ(job.node_of(1), "gn2");
    ASSERT_TRUE(job.wait_for_more("round ", 2)) << job.mpirun().err();
    expect_clean_end(job, "pattern:");
}

// A criu is there for some milliseconds only, at real-time priority: who kills it must be waiting
// for it, on the node, with that priority too, and misses one now and then. (By auto the move
// would be made by stop afterwards.)
void Moves::criu_killed(const std::string& node, const std::string& verb, Job& job) {
    const std::string loop = "until p=$(pgrep -o -f '[c]riu " + verb +
                             "') && kill -9 $p; do :; done 2>/dev/null; echo killed";
    Background killer =
        lab().start_as_root(node, {"timeout", "120", "chrt", "-r", "30", "sh", "-c", loop});
    Move move;
    for (int attempt = 0; attempt < 20; ++attempt) {
        move = nettest::move_of(job.start_migrate(1, "gn3", {"--mode", "stop"}).finish(60));
        if (move.status != 0) break;
        expect_moved(job, 1, "gn2");
    }
    EXPECT_NE(killer.finish(10).out.find("killed"), std::string::npos);
    expect_unharmed(job, move);
}

TEST_F(Moves, SourceCriuKilledInTheDump) {
    auto job = two_ranks(endless("pattern", {"--max-bytes", "70000"}));
    ASSERT_TRUE(job->wait_for("round 0:")) << job->mpirun().err();
    criu_killed("gn2", "dump", *job);
}

// The target's is through as soon as the tasks are made, long before the last pages are there: it
// is killed when it appears.
TEST_F(Moves, TargetCriuKilledInTheRestore) {
    auto job = two_ranks(endless("pattern", {"--memory", "64", "--max-bytes", "70000"}));
    ASSERT_TRUE(job->wait_for("round 0:")) << job->mpirun().err();
    lab().shape("gn3", "fast-ethernet");
    criu_killed("gn3", "restore", *job);
}

struct Victim {
    const char* name;
    const char* node;
    const char* pattern;
    bool all = true;  // of those that are found; else the first
};

class KilledBeforeTheSwitch : public Moves, public ::testing::WithParamInterface<Victim> {
  protected:
    // The target's link is slow, so that the kill meets the transfer. How the move was reported to
    // have ended, which is in time.
    void kill_in_transfer(Job& job, const Words& options, Move& move) {
        const Victim victim = GetParam();
        lab().shape("gn3", "fast-ethernet");
        const uint64_t before = lab().received("gn3");
        Background migrate = job.start_migrate(1, "gn3", options);
        ASSERT_TRUE(nettest::poll_until(
            20, [&] { return !migrate.running() || lab().received("gn3") > before + (4 << 20); }));
        ASSERT_TRUE(migrate.running())
            << migrate.err() << "the move ended before anyone was killed";
        std::vector<int> pids = lab().pids(victim.node, victim.pattern);
        ASSERT_FALSE(pids.empty()) << "no " << victim.pattern << " on " << victim.node;
        if (!victim.all) pids.resize(1);
        for (int pid : pids) lab().kill(victim.node, pid);
        move = nettest::move_of(migrate.finish(90));
    }
};

TEST_P(KilledBeforeTheSwitch, RankResumesAtSource) {
    auto job = two_ranks(endless("pattern", {"--memory", "64", "--max-bytes", "70000"}));
    ASSERT_TRUE(job->wait_for("round 0:")) << job->mpirun().err();
    Move move;
    ASSERT_NO_FATAL_FAILURE(kill_in_transfer(*job, {"--mode", "stop"}, move));
    expect_unharmed(*job, move);
}

INSTANTIATE_TEST_SUITE_P(
    Moves, KilledBeforeTheSwitch,
    ::testing::Values(Victim{"SourceWrapper", "gn2", "^[^ ]*ghost-wrapper .*pattern"},
                      Victim{"TargetWrapper", "gn3", "^[^ ]*ghost-wrapper .*--restore"},
                      Victim{"TargetDaemon", "gn3", "^[^ ]*orted( |$)"}),
    [](const auto& info) { return info.param.name; });

class SharersKilledBeforeTheSwitch : public KilledBeforeTheSwitch {};

// None of them is left alone: all resume, on the node they were on and with one memory.
TEST_P(SharersKilledBeforeTheSwitch, AllResumeAtSource) {
    Job job(lab(), 3, "gn1:1,gn2:2,gn3:2",
            endless("holder", {"--what", "window", "--memory", "64"}));
    ASSERT_TRUE(job.wait_for("round 1:")) << job.mpirun().err();
    Move move;
    ASSERT_NO_FATAL_FAILURE(kill_in_transfer(job, {"--with-sharers"}, move));
    EXPECT_EQ(move.status, 1) << move.err;
    for (const int rank : {1, 2}) EXPECT_EQ(job.node_of(rank), "gn2");
    ASSERT_TRUE(job.wait_for_more("round ", 2)) << job.mpirun().err();
    expect_clean_end(job, "holder: ");
}

INSTANTIATE_TEST_SUITE_P(
    Moves, SharersKilledBeforeTheSwitch,
    ::testing::Values(Victim{"OneSourceWrapper", "gn2", "^[^ ]*ghost-wrapper .*holder", false},
                      Victim{"SourceWrappers", "gn2", "^[^ ]*ghost-wrapper .*holder"},
                      Victim{"OneTargetWrapper", "gn3", "^[^ ]*ghost-wrapper .*--restore", false},
                      Victim{"TargetDaemon", "gn3", "^[^ ]*orted( |$)"}),
    [](const auto& info) { return info.param.name; });

}  // namespace

int main(int argc, char** argv) {
    return nettest::run_suites(argc, argv);
}
