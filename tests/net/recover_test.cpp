// SPDX-License-Identifier: BSD-3-Clause
// ghost_recover on a virtual cluster of four nodes: ranks and nodes are lost, at any moment of
// whatever else is done, and the job goes on from its newest snapshot under the same mpirun, with
// the result and the files that it has without. What ends by itself has ended as ever.
//
//   GHOST_TEST_LOSSES=50 GHOST_TEST_SEED=7 tests/net/recover_test --gtest_filter=*Random*
//
// Needs root; without it every case is skipped.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <functional>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "tests/net/on_lab.hpp"
#include "tests/rounds.hpp"

namespace {

using nettest::Background;
using nettest::Finished;
using nettest::goes_on;
using nettest::Job;
using nettest::program;
using nettest::Words;

class Recover : public nettest::OnLab {
  protected:
    static constexpr int ranks = 4;
    static constexpr const char* hosts = "gn1:2,gn2:2,gn3:2,gn4:2";
    // Long enough to see that ranks have ended before others take their place.
    const Words a_while = {"--mca", "ghost_node_dead_after", "2"};

    static void SetUpTestSuite() { make_lab(4); }

    // Rank 0 on gn1, 1 on gn2, 2 on gn3, 3 on gn4. Saved when it is asked for, or by `more`.
    std::unique_ptr<Job> job_of(const Words& words, const Words& more = {}) {
        return std::make_unique<Job>(lab(), ranks, hosts, command(words, more));
    }
    Words command(const Words& words, const Words& more = {}) const {
        Words all{"--map-by",
                  "node",
                  "--mca",
                  "ghost_recover",
                  "all",
                  "--mca",
                  "ghost_checkpoint_dir",
                  path("snapshots")};
        all.insert(all.end(), more.begin(), more.end());
        all.insert(all.end(), words.begin(), words.end());
        return all;
    }
    std::unique_ptr<Job> saved_job(const Words& more = {}) {
        auto job = job_of(endless("pattern"), more);
        EXPECT_TRUE(job->wait_for("round 1:")) << job->mpirun().err();
        save(*job);
        return job;
    }
    void save(Job& job) {
        const Finished saved = lab().on("gn1", {"ghost", "checkpoint"});
        ASSERT_EQ(saved.status, 0) << saved.err << job.mpirun().err();
    }
    // One process of a rank's tree at most; none if there is none just now.
    bool kill_rank_at(const std::string& node, const std::string& name,
                      const char* signal = "KILL") {
        const auto pids = lab().pids(node, "^[^ ]*mpi/" + name + " ");
        if (pids.empty()) return false;
        lab().as_root(node, {"kill", std::string("-") + signal, std::to_string(pids.front())});
        return true;
    }
    void kill_daemon_at(const std::string& node) {
        for (const int pid : lab().pids(node, "^[^ ]*orted ")) lab().kill(node, pid);
    }
    void signal_daemon_at(const std::string& node, const char* signal) {
        for (const int pid : lab().pids(node, "^[^ ]*orted "))
            lab().as_root(node, {"kill", std::string("-") + signal, std::to_string(pid)});
    }
    bool has_snapshot() const {
        std::error_code none;
        for (const auto& one : std::filesystem::directory_iterator(path("snapshots"), none))
            if (one.path().extension().empty() &&
                std::filesystem::exists(one.path() / "manifest.json"))
                return true;
        return false;
    }
    // As Open MPI ends it, and by itself.
    void expect_stock_end(const Words& words, int status) {
        auto job = job_of(words);
        const Finished end = job->finish();
        EXPECT_EQ(end.status, status) << end.err;
        EXPECT_EQ(end.err.find(goes_on), std::string::npos) << end.err;
    }
    bool one_loss(const std::string& name, std::mt19937_64& random, std::string& away);
    void bring_back(Job& job, std::string& away);
    void expect_output_once(int rank, const std::string& home);
    void expect_input_again(int rank, const std::string& home);
};

TEST_F(Recover, RanksThatAreKilled) {
    auto job = saved_job();
    ASSERT_TRUE(kill_rank_at("gn2", "pattern"));
    ASSERT_NO_FATAL_FAILURE(expect_recovered(*job, "rank 1 was killed by SIGKILL on gn2"));
    save(*job);
    ASSERT_TRUE(kill_rank_at("gn1", "pattern", "BUS"));
    ASSERT_NO_FATAL_FAILURE(expect_recovered(*job, "rank 0 was killed by SIGBUS on gn1", 2));
    expect_moved(*job, 2, "gn1");  // all goes on as before
    save(*job);
    ASSERT_TRUE(kill_rank_at("gn1", "pattern"));
    (void)kill_rank_at("gn4", "pattern");  // if it is not gone yet
    ASSERT_NO_FATAL_FAILURE(expect_recovered(*job, "was killed by SIGKILL on gn1", 3));
    // No wrapper takes itself for forgotten.
    EXPECT_EQ(job->mpirun().err().find("given up this wrapper"), std::string::npos)
        << job->mpirun().err();
    expect_clean_end(*job, "pattern:");
}

TEST_F(Recover, NodesThatAreLost) {
    auto job = saved_job({"--mca", "ghost_events", path("events")});
    kill_daemon_at("gn4");
    ASSERT_NO_FATAL_FAILURE(expect_recovered(*job, "node gn4 was lost"));
    EXPECT_NE(job->node_of(3), "gn4");
    save(*job);
    lab().switch_off("gn3");
    ASSERT_NO_FATAL_FAILURE(expect_recovered(*job, "node gn3 was lost", 2));
    EXPECT_NE(job->node_of(2), "gn3");
    // They come back, as any other node would join.
    lab().repair();
    for (const char* node : {"gn3", "gn4"}) {
        const auto grown = verb({"grow", std::string(node) + ":2"});
        EXPECT_EQ(grown.status, 0) << grown.err << job->mpirun().err();
        expect_moved(*job, 2, node);
        EXPECT_TRUE(
            nettest::poll_until(10, [&] { return lab().pids(node, "ghost-keeper ").size() == 1; }));
    }
    EXPECT_EQ(job->mpirun().err().find("[warn]"), std::string::npos) << job->mpirun().err();
    save(*job);
    kill_daemon_at("gn4");
    ASSERT_NO_FATAL_FAILURE(expect_recovered(*job, "node gn4 was lost", 3));
    expect_clean_end(*job, "pattern:");
    const Finished report = lab().on("gn1", {"sh", "-c", "cat " + path("events") + "/*"});
    EXPECT_EQ(nettest::count_of(report.out, "\"event\":\"recovered\""), 3U) << report.out;
    EXPECT_EQ(nettest::count_of(report.out, "\"redone_us\":"), 3U) << report.out;
}

// Its ranks end before others take their place, and its files are not written to any more.
TEST_F(Recover, NodeThatIsCutOffAndComesBack) {
    auto job = saved_job(a_while);
    lab().cut("gn3");
    ASSERT_TRUE(nettest::poll_until(30, [&] { return lab().pids("gn3", "mpi/pattern ").empty(); }));
    EXPECT_EQ(recoveries(*job), 0U) << job->mpirun().err();
    ASSERT_NO_FATAL_FAILURE(expect_recovered(*job, "node gn3 was lost"));
    lab().repair();
    ASSERT_TRUE(job->wait_for_more("round ", 3)) << job->mpirun().err();
    EXPECT_TRUE(lab().pids("gn3", "mpi/pattern ").empty());
    expect_clean_end(*job, "pattern:");
}

// By SIGSTOP, as by a debugger: its connection is sound, and nobody there looks at anything.
TEST_F(Recover, DaemonThatIsStopped) {
    auto job = saved_job(a_while);
    signal_daemon_at("gn3", "STOP");
    ASSERT_NO_FATAL_FAILURE(expect_recovered(*job, "node gn3 was lost"));
    EXPECT_TRUE(lab().pids("gn3", "mpi/pattern |^[^ ]*orted ").empty());
    save(*job);
    signal_daemon_at("gn4", "STOP");
    lab().cut("gn4");
    ASSERT_TRUE(nettest::poll_until(30, [&] { return lab().pids("gn4", "mpi/pattern ").empty(); }));
    EXPECT_EQ(recoveries(*job), 1U) << job->mpirun().err();
    ASSERT_NO_FATAL_FAILURE(expect_recovered(*job, "node gn4 was lost", 2));
    lab().repair();
    expect_clean_end(*job, "pattern:");
}

TEST_F(Recover, WhatEndsByItselfHasEnded) {
    const Words leaver{program("leaver"), "--rank", "1", "--after", "1", "--how"};
    const auto how = [&](const Words& more) {
        Words words = leaver;
        words.insert(words.end(), more.begin(), more.end());
        return words;
    };
    expect_stock_end(how({"_exit", "--status", "7"}), 7);
    expect_stock_end(how({"mpi_abort", "--status", "9"}), 9);
    expect_stock_end(how({"segv"}), 139);
    auto job = job_of(endless("pattern"));  // no snapshot yet
    ASSERT_TRUE(job->wait_for("round 1:")) << job->mpirun().err();
    ASSERT_TRUE(kill_rank_at("gn2", "pattern"));
    const Finished end = job->finish();
    EXPECT_EQ(end.status, 137) << end.err;
    EXPECT_NE(end.err.find("rank 1 was killed by SIGKILL on gn2, and the job cannot go on from its "
                           "snapshot: it has no snapshot yet"),
              std::string::npos)
        << end.err;
}

// Also of a rank that has not yet come to where it was, that has moved, and whose node is lost with
// what was on its way.
void Recover::expect_output_once(int rank, const std::string& home) {
    auto job = job_of(endless("talk", {"--rank", std::to_string(rank), "--pause", "4000"}));
    const auto goes_on = [&](size_t times, const std::string& line) {
        ASSERT_TRUE(nettest::poll_until(60, [&] { return recoveries(*job) >= times; }))
            << job->mpirun().err();
        ASSERT_TRUE(job->wait_for(line)) << job->mpirun().err();
    };
    ASSERT_TRUE(job->wait_for("out 100 ")) << job->mpirun().err();
    save(*job);
    ASSERT_TRUE(job->wait_for("out 300 ")) << job->mpirun().err();
    ASSERT_TRUE(kill_rank_at(home, "talk"));
    ASSERT_NO_FATAL_FAILURE(goes_on(1, "out 700 "));
    ASSERT_TRUE(kill_rank_at(home, "talk"));
    ASSERT_TRUE(nettest::poll_until(60, [&] { return recoveries(*job) >= 2; }));
    kill_daemon_at("gn4");  // before it has come to where it was
    ASSERT_NO_FATAL_FAILURE(goes_on(3, "out 900 "));
    expect_moved(*job, rank, "gn3");
    ASSERT_TRUE(job->wait_for("out 1100 ")) << job->mpirun().err();
    save(*job);
    ASSERT_TRUE(job->wait_for("out 1300 ")) << job->mpirun().err();
    kill_daemon_at("gn3");
    ASSERT_NO_FATAL_FAILURE(goes_on(4, "out 1500 "));
    stop();
    const Finished end = job->finish();
    EXPECT_EQ(end.status, 0) << end.err;
    EXPECT_EQ(nettest::check_talk(end.out, "out"), "complete");
    for (int number = 0; number < 1500; number++)
        EXPECT_EQ(nettest::count_of(end.err, "err " + std::to_string(number) + " "), 1U) << number;
    EXPECT_EQ(end.err.find("may be shown twice"), std::string::npos) << end.err;
}

TEST_F(Recover, OutputBesideMpirunIsShownOnce) {
    expect_output_once(0, "gn1");
}

TEST_F(Recover, OutputFromElsewhereIsShownOnce) {
    expect_output_once(1, "gn2");
}

// What a rank was given after the snapshot, and what is on its way to it, is given again: it is
// beside mpirun or elsewhere, is killed once more before it has read all of that, and at the end of
// the input.
void Recover::expect_input_again(int rank, const std::string& home) {
    const std::string number = std::to_string(rank);
    Job job(lab(), ranks, "gn1:4,gn2:2,gn3:2,gn4:2",
            command({program("talk"), "--stdin", "--rank", number, "--slow", "500"},
                    {"--stdin", number}),
            "", true);
    std::string expected;
    size_t lines = 0, bytes = 0;
    const auto feed = [&](size_t more, bool open) {
        std::string text;
        for (const size_t all = lines + more; lines < all; ++lines) {
            const std::string line =
                "line " + std::to_string(lines) + std::string(lines % 100, '.') + "\n";
            text += line;
            expected += "in: " + line;
        }
        bytes += text.size();
        job.mpirun().feed(text, open);
    };
    const auto comes_to = [&](size_t line) {
        return job.wait_for("in: line " + std::to_string(line));
    };
    size_t times = 0;
    const auto loses = [&](const std::function<void()>& lose) {
        lose();
        ++times;
        ASSERT_TRUE(nettest::poll_until(60, [&] { return recoveries(job) >= times; }))
            << job.mpirun().err();
    };
    const auto killed = [&] { ASSERT_TRUE(kill_rank_at(home, "talk")); };
    feed(8000, true);
    ASSERT_TRUE(comes_to(500)) << job.mpirun().err();
    save(job);
    ASSERT_TRUE(comes_to(1000)) << job.mpirun().err();
    ASSERT_NO_FATAL_FAILURE(loses(killed));
    feed(2000, true);
    ASSERT_TRUE(comes_to(4000)) << job.mpirun().err();
    ASSERT_NO_FATAL_FAILURE(loses(killed));
    ASSERT_NO_FATAL_FAILURE(loses([&] { kill_daemon_at("gn4"); }));
    ASSERT_TRUE(comes_to(4500)) << job.mpirun().err();
    save(job);
    feed(2000, false);
    if (rank != 0) {
        ASSERT_NO_FATAL_FAILURE(loses([&] { kill_daemon_at(home); }));
    }
    ASSERT_TRUE(comes_to(10500)) << job.mpirun().err();
    ASSERT_NO_FATAL_FAILURE(loses([&] { kill_daemon_at("gn3"); }));
    const Finished end = job.finish();
    EXPECT_EQ(end.status, 0) << end.err;
    EXPECT_TRUE(end.out == expected + "in end 12000 " + std::to_string(bytes) + "\n")
        << end.out.size() << " bytes\n"
        << end.err;
}

TEST_F(Recover, InputBesideMpirunIsGivenAgain) {
    expect_input_again(0, "gn1");
}

TEST_F(Recover, InputElsewhereIsGivenAgain) {
    expect_input_again(1, "gn2");
}

// All ranks read it, each at its own pace.
TEST_F(Recover, InputForAllRanksCannotBeGivenAgain) {
    Job job(lab(), ranks, hosts,
            command({program("talk"), "--stdin", "--rank", "1"}, {"--stdin", "all"}),
            "line\nline\n", true);
    ASSERT_TRUE(job.wait_for("in: line")) << job.mpirun().err();
    save(job);
    ASSERT_TRUE(kill_rank_at("gn1", "talk"));
    const Finished end = job.finish();
    EXPECT_EQ(end.status, 137) << end.err;
    EXPECT_NE(end.err.find("was given standard input that cannot be given again"),
              std::string::npos)
        << end.err;
}

// A file is read again, by a job that was restarted from a snapshot too, and restarted again.
TEST_F(Recover, InputOfFileIsReadAgain) {
    std::string text, expected;
    for (int i = 0; i < 100000; ++i) {
        const std::string line = "line " + std::to_string(i) + "\n";
        text += line;
        expected += "in: " + line;
    }
    std::ofstream(path("input")) << text;
    std::string line = "exec mpirun -np 4 --host " + std::string(hosts) + " --mca ghost 1";
    for (const std::string& word : command({program("talk"), "--stdin", "--slow", "100"}))
        line += " " + word;
    std::string out;
    const auto run = [&](const Words& words, int from, bool to_end) {
        Job job(lab(), words);
        const auto comes_to = [&](int at) {
            return job.wait_for("in: line " + std::to_string(from + at) + "\n");
        };
        ASSERT_TRUE(comes_to(2000)) << job.mpirun().err();
        if (from > 0) kill_rank_at("gn1", "talk");
        ASSERT_TRUE(comes_to(8000)) << job.mpirun().err();
        save(job);
        ASSERT_TRUE(comes_to(12000)) << job.mpirun().err();
        ASSERT_TRUE(kill_rank_at("gn1", "talk"));
        ASSERT_TRUE(comes_to(16000)) << job.mpirun().err();
        EXPECT_EQ(recoveries(job), from > 0 ? 3U : 1U) << job.mpirun().err();
        if (!to_end) {
            const Finished killed = lab().on("gn1", {"ghost", "checkpoint", "--then", "kill"});
            ASSERT_EQ(killed.status, 0) << killed.err;
        }
        const Finished end = job.finish();
        EXPECT_EQ(end.status, to_end ? 0 : 85) << end.err;
        EXPECT_EQ(end.err.find("may be shown twice"), std::string::npos) << end.err;
        out += end.out;
    };
    const auto so_far = [&] { return static_cast<int>(nettest::count_of(out, "in: line ")); };
    ASSERT_NO_FATAL_FAILURE(run({"sh", "-c", line + " < " + path("input")}, 0, false));
    const Words again{"ghost", "restart", path("snapshots")};
    ASSERT_NO_FATAL_FAILURE(run(again, so_far(), false));
    ASSERT_NO_FATAL_FAILURE(run(again, so_far(), true));
    expected += "in end 100000 " + std::to_string(text.size()) + "\n";
    const auto differ = std::mismatch(expected.begin(), expected.end(), out.begin(), out.end());
    EXPECT_TRUE(out == expected) << "from byte " << differ.first - expected.begin()
                                 << " on: " << std::string(differ.second, out.end()).substr(0, 100);
}

// The loss of a node may show in whatever mpirun reads from it or writes to it just then; ORTE
// would end the job.
TEST_F(Recover, ConnectionThatFails) {
    for (const char* how : {"FAIL_WRITE", "FAIL_READ"}) {
        SCOPED_TRACE(how);
        const std::string trigger = path(how);
        const std::string preload =
            std::filesystem::absolute("tests/net/.libs/failing_connection.so").string();
        Words words{"env",
                    "LD_PRELOAD=" + preload,
                    how + ("=" + trigger),
                    "mpirun",
                    "-np",
                    "4",
                    "--host",
                    hosts,
                    "--mca",
                    "ghost",
                    "1"};
        for (const std::string& word : command(endless("pattern"))) words.push_back(word);
        Job job(lab(), words);
        ASSERT_TRUE(job.wait_for("round 1:")) << job.mpirun().err();
        save(job);
        std::ofstream(trigger) << "now";
        ASSERT_NO_FATAL_FAILURE(expect_recovered(job, " was lost"));
        EXPECT_FALSE(std::filesystem::exists(trigger));
        expect_clean_end(job, "pattern:");
        std::filesystem::remove(path("stop"));
    }
}

// The first after half a minute; then, as a loss is expected every minute, as often as is sensible.
TEST_F(Recover, IntervalIsChosen) {
    auto job =
        job_of(endless("pattern"), {"--mca", "ghost_checkpoint_interval", "auto", "--mca",
                                    "ghost_mtbf", "60", "--mca", "ghost_events", path("events")});
    ASSERT_TRUE(job->wait_for("round 1:")) << job->mpirun().err();
    const auto ps = [&] {
        const auto all = nlohmann::json::parse(lab().on("gn1", {"ghost", "ps", "--json"}).out);
        return all.at("jobs").at(0);
    };
    EXPECT_EQ(ps()["interval"]["us"], 30'000'000);
    EXPECT_EQ(ps()["interval"]["mtbf_us"], 60'000'000);
    ASSERT_TRUE(nettest::poll_until(60, [&] { return ps()["interval"].contains("cost_us"); }));
    EXPECT_GT(ps()["interval"]["cost_us"], 0);
    EXPECT_GE(ps()["interval"]["us"], 10'000'000);
    EXPECT_NE(lab().on("gn1", {"ghost", "ps"}).out.find("a loss expected every 60.00 s"),
              std::string::npos);
    ASSERT_TRUE(kill_rank_at("gn2", "pattern"));
    ASSERT_NO_FATAL_FAILURE(expect_recovered(*job, "rank 1 was killed by SIGKILL on gn2"));
    const auto name = ps()["snapshot"]["name"];
    ASSERT_TRUE(nettest::poll_until(90, [&] { return ps()["snapshot"]["name"] != name; }));
    expect_clean_end(*job, "pattern:");
    const Finished events = lab().on("gn1", {"sh", "-c", "cat " + path("events") + "/*"});
    EXPECT_GE(nettest::count_of(events.out, "\"event\":\"interval\""), 1U) << events.out;
}

TEST_F(Recover, RankThatDiesAtTheSamePointIsGivenUp) {
    auto job = saved_job();
    ASSERT_TRUE(kill_rank_at("gn2", "pattern"));
    ASSERT_TRUE(nettest::poll_until(60, [&] { return recoveries(*job) == 1; }))
        << job->mpirun().err();
    for (int times = 0; times < 8 && job->mpirun().running(); times++) {
        const size_t before = recoveries(*job);
        if (!kill_rank_at("gn2", "pattern")) continue;
        (void)nettest::poll_until(
            30, [&] { return recoveries(*job) > before || !job->mpirun().running(); });
    }
    const Finished end = job->finish();
    EXPECT_EQ(end.status, 137) << end.err;
    EXPECT_NE(end.err.find("rank 1 has ended twice after the same time of computing"),
              std::string::npos)
        << end.err;
}

// Others stand in the runtime's own fences, or in MPI_Finalize, just then.
TEST_F(Recover, FencesWaitForWhoeverComesBack) {
    auto job = job_of({program("fencer"), "--file", path("fences"), "--until-file", path("stop"),
                       "--slow-end", "4000"});
    ASSERT_TRUE(job->wait_for("fencer: round 2")) << job->mpirun().err();
    save(*job);
    for (size_t times = 1; times <= 3; times++) {
        ASSERT_TRUE(nettest::poll_until(20, [&] { return kill_rank_at("gn3", "fencer"); }));
        ASSERT_TRUE(nettest::poll_until(60, [&] { return recoveries(*job) >= times; }))
            << job->mpirun().err();
        ASSERT_TRUE(job->wait_for_more("fencer: round ", 1)) << job->mpirun().err();
        save(*job);
    }
    stop();
    ASSERT_TRUE(nettest::poll_until(20, [&] { return kill_rank_at("gn2", "fencer"); }));
    const Finished end = job->finish();
    EXPECT_EQ(end.status, 0) << end.err;
    EXPECT_NE(end.out.find(" 0 errors"), std::string::npos) << end.out << end.err;
}

// By Ctrl-C: nothing is left of it.
TEST_F(Recover, IsEndedByTheUser) {
    for (const int ms : {10, 300}) {
        auto job = saved_job();
        ASSERT_TRUE(kill_rank_at("gn2", "pattern"));
        std::this_thread::sleep_for(std::chrono::milliseconds(ms));
        for (const int pid : lab().pids("gn1", "^mpirun "))
            lab().as_root("gn1", {"kill", "-INT", std::to_string(pid)});
        const Finished end = job->finish(30);
        EXPECT_GT(end.status, 0) << end.err;  // -1: it has not ended
        for (const char* node : {"gn1", "gn2", "gn3", "gn4"})
            for (const char* what : {"mpi/pattern ", "ghost-wrapper", "orted "})
                expect_gone(node, what);
        std::filesystem::remove_all(path("snapshots"));
    }
}

// False: there is nothing to lose there.
bool Recover::one_loss(const std::string& name, std::mt19937_64& random, std::string& away) {
    const std::string node = "gn" + std::to_string(1 + random() % 4);
    const uint64_t kind = random() % 10;
    std::optional<Background> beside;  // what else is under way
    if (away.empty() && random() % 8 == 0) {
        away = "gn" + std::to_string(2 + random() % 3);
        beside.emplace(lab().start_on("gn1", {"ghost", "drain", away}));
    } else if (random() % 2 == 0)
        beside.emplace(lab().start_on("gn1", {"ghost", "checkpoint"}));
    else if (random() % 2 == 0)
        beside.emplace(
            lab().start_on("gn1", {"ghost", "migrate", "--rank", std::to_string(random() % 4),
                                   "--to", "gn" + std::to_string(1 + random() % 4)}));
    std::this_thread::sleep_for(std::chrono::milliseconds(random() % 400));
    const bool has_ranks = !lab().pids(node, "^[^ ]*mpi/" + name + " ").empty();
    if (kind > 3 || node == "gn1" || !away.empty() || !has_ranks) return kill_rank_at(node, name);
    away = node;
    if (kind < 2)
        kill_daemon_at(node);
    else
        kind == 2 ? lab().cut(node) : lab().switch_off(node);
    return true;
}

// It has no ranks and no daemon, and becomes part of the job again.
void Recover::bring_back(Job& job, std::string& away) {
    if (away.empty()) return;
    lab().repair();
    const auto back = [&] {
        const Finished grown = lab().on("gn1", {"ghost", "grow", away + ":2"});
        return grown.status == 0 || grown.err.find("already") != std::string::npos ||
               !job.mpirun().running();
    };
    EXPECT_TRUE(nettest::poll_until(60, back)) << away << job.mpirun().err();
    away.clear();
}

// The files are byte for byte those of a run in which nothing is lost.
TEST_F(Recover, RandomLosses) {
    const auto losses = static_cast<int>(ghost::test::rounds("GHOST_TEST_LOSSES", 6, 6));
    std::mt19937_64 random(static_cast<uint64_t>(ghost::test::rounds("GHOST_TEST_SEED", 1, 1)));
    const int steps = 500 * losses;
    Job whole(lab(), ranks, hosts, ledger("whole", steps, 0, 64));
    const Finished right = whole.finish(120 + 20 * losses);
    ASSERT_EQ(right.status, 0) << right.err;
    auto job = job_of(ledger("lost", steps, 20'000, 64), {"--mca", "ghost_checkpoint_interval", "2",
                                                          "--mca", "ghost_recover_max", "1000"});
    std::string away;             // a node that is lost, or drained
    std::vector<double> seconds;  // from a loss until the job went on
    for (int left = losses; left > 0 && job->mpirun().running();) {
        const auto saved = [&] { return has_snapshot(); };
        ASSERT_TRUE(nettest::poll_until(60, saved)) << job->mpirun().err();
        std::this_thread::sleep_for(std::chrono::milliseconds(1500 + random() % 3000));
        const size_t before = recoveries(*job);
        const auto begun = std::chrono::steady_clock::now();
        if (!one_loss("ledger", random, away)) continue;
        left--;
        if (random() % 4 == 0) continue;  // the next one may come in the middle
        const bool back = nettest::poll_until(
            20, [&] { return recoveries(*job) > before || !job->mpirun().running(); });
        const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begun;
        if (back) seconds.push_back(took.count());
        bring_back(*job, away);
    }
    EXPECT_TRUE(job->mpirun().running());  // all of them have been
    const Finished end = job->finish(120 + 20 * losses);
    EXPECT_EQ(end.status, 0) << end.out << end.err;
    expect_same_ledgers("lost", "whole", ranks);
    const auto last = [](const std::string& out) { return out.substr(out.rfind("ledger: ")); };
    EXPECT_EQ(last(end.out), last(right.out));
    std::ranges::sort(seconds);
    std::printf("%zu recoveries, after", nettest::count_of(end.err, goes_on));
    for (const double took : seconds) std::printf(" %.1f", took);
    std::printf(" s\n");
}

}  // namespace

int main(int argc, char** argv) {
    return nettest::run_suites(argc, argv);
}
