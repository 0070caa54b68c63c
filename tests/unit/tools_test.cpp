// SPDX-License-Identifier: BSD-3-Clause
// The `ghost` command against a small coordinator of our own: which job is meant, what is asked,
// what is printed, exit status. Runs the built program, as a user would.
#include "base/file.hpp"
#include "tests/json_packet.hpp"
#include "tests/unit/fake_coordinator.hpp"
#include "tools/job_client.hpp"

#include <atomic>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <thread>

#include "base/clock.hpp"
#include "tools/paths.hpp"
#include "tools/process.hpp"
#include "tools/terminal.hpp"

namespace ghost::tools {
namespace {

Json row(int rank, bool moved) {
    return {{"rank", rank},      {"from", "gn2"}, {"to", "gn3"},          {"mode", "stop"},
            {"bytes", 11534336}, {"rounds", 1},   {"downtime_us", 52000}, {"total_us", 87000},
            {"epoch", 5},        {"moved", moved}};
}

struct Outcome {
    int exit = -1;
    std::string out, err;
    Json json() const { return Json::parse(out, nullptr, false); }
};

class GhostCommand : public testing::Test {
  protected:
    void SetUp() override {
        folder_ = fmt::format("{}ghost-tools-{}", testing::TempDir(), ::getpid());
        std::filesystem::create_directories(folder_);
        ::setenv("OMPI_MCA_orte_tmpdir_base", folder_.c_str(), 1);
    }
    void TearDown() override { std::filesystem::remove_all(folder_); }

    // Runs ./tools/ghost; standard output and error apart.
    Outcome ghost(const std::string& arguments) {
        Outcome outcome;
        std::string err = folder_ + "/stderr";
        auto end = run_program({"sh", "-c", "./tools/ghost " + arguments + " 2>" + err});
        EXPECT_TRUE(end.ok());
        outcome.exit = WEXITSTATUS(end->status);
        outcome.out = end->output;
        outcome.err = *read_file(err);
        return outcome;
    }
    static FakeCoordinator::Reply answers(Json answer) {
        return [answer](const ControlSocket& client, const Json&) {
            (void)send_json(client, {{"t", "progress"},
                                     {"rank", 1},
                                     {"phase", "transferring"},
                                     {"bytes", 7},
                                     {"total", 9}});
            (void)send_json(client, answer);
        };
    }
    static Json done() {
        return {{"t", "result"}, {"exit", 0}, {"result", Json::array({row(1, true)})}};
    }

    std::string folder_;
};

TEST_F(GhostCommand, MigrateJsonPrintsOneObject) {
    FakeCoordinator c(folder_, 4711, "33", answers(done()));
    Outcome o = ghost("migrate --rank 1 --to gn3 --mode stop --json");
    EXPECT_EQ(o.exit, 0) << o.err;
    ASSERT_EQ(c.requests().size(), 1u);
    EXPECT_EQ(c.requests()[0],
              Json({{"t", "migrate"}, {"ranks", {1}}, {"to", "gn3"}, {"mode", "stop"}}));
    for (const char* field : {"rank", "from", "to", "mode", "bytes", "rounds", "downtime_us",
                              "total_us", "epoch", "moved"}) {
        EXPECT_TRUE(o.json().contains(field)) << field;
    }
    EXPECT_EQ(o.json()["downtime_us"], 52000);
    EXPECT_EQ(o.err, "");  // no bar where there is no terminal
}

TEST_F(GhostCommand, MigratePrintsForPeople) {
    FakeCoordinator c(folder_, 4711, "33", answers(done()));
    Outcome o = ghost("migrate 4711 --rank 1 --to gn3");
    EXPECT_EQ(o.exit, 0);
    EXPECT_EQ(o.out,
              "rank 1: gn2 -> gn3 (stop)  11.0 MiB in 1 rounds  downtime 52.0 ms  total "
              "87.0 ms  epoch 5\n");
    EXPECT_FALSE(c.requests()[0].contains("mode"));
}

TEST_F(GhostCommand, MigrateVerboseSaysWhyAutoChose) {
    Json stopped = row(1, true), live = row(2, true);
    stopped["not_live"] = "it has a timer";
    live["mode"] = "live";
    live["memory"] = uint64_t{64} << 20;
    FakeCoordinator c(folder_, 4711, "33",
                      answers({{"t", "result"},
                               {"exit", 0},
                               {"result", Json::array({stopped, live, row(3, true)})}}));
    EXPECT_EQ(ghost("migrate --rank 1,2,3 --to gn3").err, "");
    EXPECT_EQ(ghost("migrate --rank 1,2,3 --to gn3 --verbose").err,
              "ghost: rank 1 moves by stop, not live: it has a timer\n"
              "ghost: rank 2 moves live: it has 64.0 MiB of memory, and can\n");
}

TEST_F(GhostCommand, MigrateOfSeveralRanksIsOneRequest) {
    Json rows = Json::array({row(1, true), row(2, true)});
    FakeCoordinator c(folder_, 4711, "33",
                      answers({{"t", "result"}, {"exit", 0}, {"result", rows}}));
    Outcome o = ghost("migrate --rank 1,2 --to gn3 33 --json");
    EXPECT_EQ(o.exit, 0) << o.err;
    EXPECT_EQ(c.requests()[0]["ranks"], Json({1, 2}));
    EXPECT_EQ(o.json()["moves"].size(), 2u);
}

TEST_F(GhostCommand, RanksAreNamedByRangesOrByTheirNode) {
    const Json rows = {{"t", "result"}, {"exit", 0}, {"result", Json::array({row(1, true)})}};
    FakeCoordinator c(folder_, 4711, "33", answers(rows));
    EXPECT_EQ(ghost("migrate --rank 1,4-6 --to gn3").exit, 0);
    EXPECT_EQ(c.requests()[0]["ranks"], Json({1, 4, 5, 6}));
    const Outcome o = ghost("migrate --all-from gn2 --json");
    EXPECT_EQ(c.requests()[1]["all_from"], "gn2");
    EXPECT_EQ(o.json()["moves"].size(), 1u) << o.out;
    for (const char* wrong :
         {"--rank 4-1", "--rank -1", "--rank 1-", "--rank 1 --all-from gn2", ""})
        EXPECT_EQ(ghost(std::string("migrate --to gn3 ") + wrong).exit, 2) << wrong;
}

TEST_F(GhostCommand, DrainTellsWhoStays) {
    const Json result = {{"moves", {row(1, true)}},
                         {"stay", {{{"rank", 2}, {"why", "it is full"}}}},
                         {"drained", false},
                         {"left", false}};
    FakeCoordinator c(folder_, 4711, "33",
                      answers({{"t", "result"}, {"exit", 1}, {"result", result}, {"error", "no"}}));
    const Outcome o = ghost("drain 33 gn2 --to gn1,gn3");
    EXPECT_EQ(o.exit, 1);
    EXPECT_EQ(c.requests()[0], Json({{"t", "drain"}, {"node", "gn2"}, {"to", {"gn1", "gn3"}}}));
    EXPECT_NE(o.out.find("rank 2 stays: it is full"), std::string::npos) << o.out;
    EXPECT_NE(o.out.find("rank 1: gn2 -> gn3"), std::string::npos) << o.out;
    const Json json = ghost("drain gn2 --json").json();
    EXPECT_EQ(json["node"], "gn2");
    EXPECT_EQ(json["stay"].size(), 1u);
    EXPECT_EQ(json["error"], "no");
    EXPECT_EQ(ghost("drain").exit, 2);
}

TEST_F(GhostCommand, GrowNamesANodeAndItsSlots) {
    const Json result = {{"node", "gn4"}, {"slots", 2}, {"joined", true}, {"total_us", 1'500'000}};
    FakeCoordinator c(folder_, 4711, "33",
                      answers({{"t", "result"}, {"exit", 0}, {"result", result}}));
    const Outcome o = ghost("grow 33 gn4:2");
    EXPECT_EQ(o.exit, 0);
    EXPECT_EQ(c.requests()[0], Json({{"t", "grow"}, {"node", "gn4"}, {"slots", 2}}));
    EXPECT_NE(o.out.find("node gn4 has joined the job in 1.5 s"), std::string::npos) << o.out;
    EXPECT_EQ(ghost("grow gn4 --json").json()["joined"], true);
    EXPECT_EQ(c.requests()[1]["slots"], 1);
    for (const char* wrong : {"grow", "grow gn4:", "grow gn4:0", "grow gn4:-1", "grow gn4:2x"})
        EXPECT_EQ(ghost(wrong).exit, 2) << wrong;
}

TEST_F(GhostCommand, CancelTakesAJobOrANumberOrBoth) {
    const Json rows = Json::array({{{"id", 2}, {"what", "move of rank 1"}, {"undone", true}}});
    FakeCoordinator c(folder_, 4711, "33",
                      answers({{"t", "result"}, {"exit", 0}, {"result", rows}}));
    EXPECT_EQ(ghost("cancel").out, "2 move of rank 1: cancelled\n");
    EXPECT_EQ(ghost("cancel 2").exit, 0);
    EXPECT_EQ(ghost("cancel 33").exit, 0);
    EXPECT_EQ(ghost("cancel 33 7 --json").json()["cancelled"], rows);
    const Json all = {{"t", "cancel"}};
    EXPECT_EQ(c.requests()[0], all);
    EXPECT_EQ(c.requests()[1], Json({{"t", "cancel"}, {"id", 2}}));
    EXPECT_EQ(c.requests()[2], all);
    EXPECT_EQ(c.requests()[3], Json({{"t", "cancel"}, {"id", 7}}));
    EXPECT_EQ(ghost("cancel 33 seven").exit, 2);
    EXPECT_EQ(ghost("cancel seven").exit, 1);
}

TEST_F(GhostCommand, ExitStatusIsCoordinatorsAnswer) {
    for (int exit : {1, 3}) {
        FakeCoordinator c(folder_, 4711, "33",
                          answers({{"t", "result"},
                                   {"exit", exit},
                                   {"result", Json::array({row(1, false)})},
                                   {"error", "node gn3 has no slot left"}}));
        Outcome o = ghost("migrate --rank 1 --to gn3 --json");
        EXPECT_EQ(o.exit, exit);
        EXPECT_NE(o.err.find("node gn3 has no slot left"), std::string::npos);
        EXPECT_EQ(o.json()["error"], "node gn3 has no slot left");
        EXPECT_EQ(o.json()["moved"], false);
    }
}

TEST_F(GhostCommand, RefusalOfARankIsSaidOnce) {
    FakeCoordinator c(folder_, 4711, "33",
                      answers({{"t", "result"},
                               {"exit", 1},
                               {"result", Json::array({row(1, false)})},
                               {"error", "node gn3 has no slot left"}}));
    Outcome o = ghost("migrate --rank 1 --to gn3");
    EXPECT_EQ(o.err, "ghost: node gn3 has no slot left\n");
    EXPECT_EQ(o.out, "");
}

TEST_F(GhostCommand, JobIsChosenOrAskedFor) {
    EXPECT_EQ(ghost("migrate --rank 1 --to gn3").exit, 1);
    EXPECT_NE(ghost("migrate --rank 1 --to gn3").err.find("no `mpirun --mca ghost 1`"),
              std::string::npos);
    FakeCoordinator a(folder_, 4711, "33", answers(done()));
    FakeCoordinator b(folder_, 4712, "34", answers(done()));
    Outcome several = ghost("migrate --rank 1 --to gn3");
    EXPECT_EQ(several.exit, 2);
    EXPECT_NE(several.err.find("4711 (job 33), 4712 (job 34)"), std::string::npos) << several.err;
    Outcome unknown = ghost("migrate 99 --rank 1 --to gn3");
    EXPECT_EQ(unknown.exit, 1);
    EXPECT_NE(unknown.err.find("find job 99: it has ended, or is of another node or user; running "
                               "are 4711 (job 33), 4712 (job 34)"),
              std::string::npos)
        << unknown.err;
    EXPECT_EQ(ghost("migrate 34 --rank 1 --to gn3").exit, 0);
    EXPECT_EQ(a.requests().size(), 0u);
    EXPECT_EQ(b.requests().size(), 1u);
    EXPECT_EQ(ghost("ps --json").json()["jobs"].size(), 2u);
}

// What is left of a job that was killed: its socket, at which nobody listens.
void leave_socket(const std::string& folder, pid_t mpirun) {
    std::string dead = fmt::format("{}/ompi.somewhere.{}/pid.{}", folder, ::geteuid(), mpirun);
    std::filesystem::create_directories(dead);
    {
        auto listener = ControlListener::listen(dead + "/ghost.sock");
        ASSERT_TRUE(listener.ok());
        // It cannot unlink what has another name when it closes.
        std::filesystem::rename(dead + "/ghost.sock", dead + "/kept");
    }
    std::filesystem::rename(dead + "/kept", dead + "/ghost.sock");
}

TEST_F(GhostCommand, SocketOfDeadJobIsIgnored) {
    leave_socket(folder_, 1);
    EXPECT_NE(ghost("migrate --rank 1 --to gn3").err.find("no `mpirun --mca ghost 1` of yours"),
              std::string::npos);
    FakeCoordinator c(folder_, 4711, "33", answers(done()));
    EXPECT_EQ(ghost("migrate --rank 1 --to gn3").exit, 0);
    EXPECT_EQ(ghost("ps").exit, 0);
    // Its number is another process's by now, which nobody takes for the job.
    EXPECT_NE(ghost("checkpoint 1").err.find("process"), std::string::npos);
}

// One sentence and one status, whoever finds it out.
void expect_told_that_it_has_ended(const Outcome& o) {
    EXPECT_EQ(o.exit, 1);
    EXPECT_EQ(o.err, "ghost: the job has ended\n");
}

TEST_F(GhostCommand, JobThatWasKilledHasEnded) {
    const pid_t mpirun = 0x7ffffff0;
    leave_socket(folder_, mpirun);
    FakeCoordinator c(folder_, 4711, "33", answers(done()));
    for (const char* request : {"migrate {} --rank 1 --to gn3", "checkpoint {}", "ps {}",
                                "drain {} gn2", "grow {} gn2", "cancel {}"})
        expect_told_that_it_has_ended(ghost(fmt::format(fmt::runtime(request), mpirun)));
    EXPECT_EQ(c.requests().size(), 0u);
}

// mpirun is at its end when it is asked: it takes what comes, and closes it.
TEST_F(GhostCommand, JobThatEndsWhileItIsAskedHasEnded) {
    FakeCoordinator c(folder_, ::getpid(), "33");
    for (const char* request :
         {"migrate {} --rank 1 --to gn3", "checkpoint {}", "drain {} gn2", "grow {} gn2",
          "cancel {}", "ps {}", "migrate --rank 1 --to gn3", "checkpoint", "drain gn2"})
        expect_told_that_it_has_ended(ghost(fmt::format(fmt::runtime(request), ::getpid())));
}

// The coordinator has closed, and mpirun may need long for what is left.
TEST_F(GhostCommand, JobWhoseMpirunEndsSlowlyHasEnded) {
    const auto socket =
        fmt::format("{}/ompi.somewhere.{}/pid.{}/ghost.sock", folder_, ::geteuid(), ::getpid());
    for (const char* request : {"migrate --rank 1 --to gn3", "checkpoint 33"}) {
        FakeCoordinator c(folder_, ::getpid(), "33", [&](const ControlSocket&, const Json&) {
            std::filesystem::remove(socket);
        });
        expect_told_that_it_has_ended(ghost(request));
    }
}

// One that ends in order answers first.
TEST_F(GhostCommand, CoordinatorGoneMidWayWithMpirun) {
    FakeCoordinator c(folder_, 0x7ffffff0, "33", [](const ControlSocket& client, const Json&) {
        (void)send_json(
            client,
            {{"t", "progress"}, {"rank", 1}, {"phase", "gating"}, {"bytes", 0}, {"total", 0}});
    });
    Outcome o = ghost("migrate --rank 1 --to gn3 --json");
    EXPECT_EQ(o.exit, 3);
    EXPECT_NE(o.err.find("rank 1 was last heard of in phase \"gating\""), std::string::npos)
        << o.err;
    EXPECT_NE(o.err.find("was killed, or has crashed, and its job with it"), std::string::npos)
        << o.err;
}

// The request came when the job was over: it was never begun.
TEST_F(GhostCommand, CoordinatorGoneBeforeItBegan) {
    FakeCoordinator c(folder_, 0x7ffffff0, "33", [](const ControlSocket&, const Json&) {});
    for (const char* request : {"migrate --rank 1 --to gn3", "checkpoint 33"}) {
        const Outcome o = ghost(request);
        expect_told_that_it_has_ended(o);
    }
}

TEST_F(GhostCommand, CoordinatorGoneMidWayButMpirunLives) {
    FakeCoordinator c(folder_, ::getpid(), "33", [](const ControlSocket&, const Json&) {});
    Outcome o = ghost("migrate --rank 1 --to gn3");
    EXPECT_EQ(o.exit, 1);
    EXPECT_NE(o.err.find("the job runs on"), std::string::npos) << o.err;
}

TEST_F(GhostCommand, CoordinatorGoneInASnapshot) {
    FakeCoordinator c(folder_, 0x7ffffff0, "33", [](const ControlSocket& client, const Json&) {
        (void)send_json(client,
                        {{"t", "progress"}, {"phase", "gating"}, {"bytes", 0}, {"total", 0}});
    });
    Outcome o = ghost("checkpoint 33 --json");
    EXPECT_EQ(o.exit, 3);
    EXPECT_NE(o.err.find("the snapshot was last heard of in phase \"gating\""), std::string::npos)
        << o.err;
}

TEST_F(GhostCommand, TopPrintsOneFrameWhereThereIsNoTerminal) {
    const Outcome none = ghost("top --once");
    EXPECT_EQ(none.exit, 1);
    EXPECT_NE(none.err.find("none with `--mca ghost 1` of yours"), std::string::npos) << none.err;
    EXPECT_EQ(none.out, "");
    const Outcome json = ghost("top --json");
    EXPECT_EQ(json.exit, 1);
    EXPECT_EQ(json.json()["exit"], 1);
    FakeCoordinator c(folder_, 4711, "33", answers(done()));
    FakeCoordinator d(folder_, 4712, "34", answers(done()));
    const Outcome all = ghost("top --once");
    EXPECT_EQ(all.exit, 0) << all.err;
    EXPECT_EQ(all.out.find("mpirun 4711  job 33  running  2 of 2 ranks run  2 nodes  epoch 4\n"),
              0u)
        << all.out;
    EXPECT_NE(all.out.find("\nmpirun 4712"), std::string::npos) << all.out;
    EXPECT_EQ(all.out.find('\x1b'), std::string::npos);
    EXPECT_EQ(ghost("top --json").json()["jobs"].size(), 2u);
    EXPECT_EQ(ghost("top 34 --once --json").json()["jobs"][0]["pid"], 4712);
    EXPECT_EQ(ghost("top 35 --once").exit, 1);
    EXPECT_TRUE(c.requests().empty());
}

TEST_F(GhostCommand, TopRefusesWhatItCannotShow) {
    FakeCoordinator c(folder_, 4711, "33", answers(done()));
    const Outcome piped = ghost("top");
    EXPECT_EQ(piped.exit, 2);
    EXPECT_NE(piped.err.find("standard output: it is no terminal; --once prints one frame"),
              std::string::npos)
        << piped.err;
    for (const char* wrong : {"0", "3601", "-1", "99999999999", "x", "1.5", ""}) {
        const Outcome o = ghost(fmt::format("top --once --every '{}'", wrong));
        EXPECT_EQ(o.exit, 2) << wrong << o.err;
        EXPECT_EQ(o.out, "") << wrong;
    }
    EXPECT_NE(ghost("top --once --every 0").err.find("--every takes 1 to 3600 seconds"),
              std::string::npos);
    EXPECT_EQ(ghost("top --once --every 3600").exit, 0);
}

// A coordinator in a process of its own, as one that is stopped has.
class StoppedCoordinator {
  public:
    // It stops before it hears anything, or when it is asked for something.
    StoppedCoordinator(const std::string& folder, bool at_once) : pid_(::fork()) {
        if (pid_ != 0) return;
        FakeCoordinator c(folder, ::getpid(), "33", [](const ControlSocket& client, const Json&) {
            (void)send_json(
                client,
                {{"t", "progress"}, {"rank", 1}, {"phase", "gating"}, {"bytes", 0}, {"total", 0}});
            ::raise(SIGSTOP);
        });
        if (at_once) ::raise(SIGSTOP);
        for (;;) ::pause();
    }
    ~StoppedCoordinator() {
        ::kill(pid_, SIGKILL);
        ::waitpid(pid_, nullptr, 0);
    }
    void wait_stopped() const { ::waitpid(pid_, nullptr, WUNTRACED); }
    std::string cure() const { return fmt::format("`kill -CONT {}`", pid_); }
    pid_t pid() const { return pid_; }

  private:
    pid_t pid_;
};

// A suspended job, as a batch system has it: said within two seconds, and nothing is asked of it.
TEST_F(GhostCommand, StoppedMpirunIsToldAtOnce) {
    const StoppedCoordinator c(folder_, true);
    c.wait_stopped();
    const std::string named = fmt::format("checkpoint {} --then kill", c.pid());
    for (const char* request : {"migrate --rank 1 --to gn3", "checkpoint", named.c_str(), "ps",
                                "migrate 2147483641 --rank 1 --to gn3", "checkpoint 2147483641",
                                "checkpoint 2147483641 --then kill --json"}) {
        SCOPED_TRACE(request);
        const int64_t begun = monotonic_us();
        const Outcome o = ghost(request);
        EXPECT_LT(monotonic_us() - begun, 3'000'000);
        EXPECT_EQ(o.exit, 1);
        EXPECT_NE(o.err.find("is suspended"), std::string::npos) << o.err;
        EXPECT_NE(o.err.find(c.cure()), std::string::npos) << o.err;
    }
}

TEST_F(GhostCommand, MpirunStoppedMidWayIsTold) {
    const StoppedCoordinator c(folder_, false);
    while (ghost("ps").out.find("job 33") == std::string::npos) continue;
    const int64_t begun = monotonic_us();
    const Outcome o = ghost("migrate --rank 1 --to gn3");
    EXPECT_LT(monotonic_us() - begun, 3'000'000);
    EXPECT_EQ(o.exit, 1);
    EXPECT_NE(o.err.find(c.cure()), std::string::npos) << o.err;
    EXPECT_NE(o.err.find("may still be done"), std::string::npos) << o.err;
}

// It lives, and says nothing any more.
TEST_F(GhostCommand, SilentMpirunIsGivenUp) {
    std::atomic<bool> over = false;
    FakeCoordinator c(folder_, 4711, "33",
                      [&](const ControlSocket&, const Json&) { over.wait(false); });
    const Outcome o = ghost("migrate --rank 1 --to gn3");
    over = true;
    over.notify_all();
    EXPECT_EQ(o.exit, 1);
    EXPECT_NE(o.err.find("mpirun 4711 has said nothing for 10 s"), std::string::npos) << o.err;
}

// It has much to do, or gets little of the processors.
TEST_F(GhostCommand, BusyMpirunIsWaitedFor) {
    constexpr int64_t longer_than_silence_us = 13'000'000;
    FakeCoordinator c(folder_, 4711, "33", [&](const ControlSocket& client, const Json&) {
        const int64_t begun = monotonic_us();
        while (monotonic_us() - begun < longer_than_silence_us) continue;
        (void)send_json(client, done());
    });
    const Outcome o = ghost("migrate --rank 1 --to gn3");
    EXPECT_EQ(o.exit, 0) << o.err;
    EXPECT_EQ(o.err.find("said nothing"), std::string::npos) << o.err;
}

// Nobody waits for ever for an answer that has come and cannot be read.
TEST_F(GhostCommand, CoordinatorThatIsNotUnderstood) {
    const std::pair<Json, const char*> cases[] = {
        {{{"t", "result"}, {"exit", "0"}}, "result: exit is no whole number"},
        {{{"t", "result"}}, "result: exit is missing"},
        {{{"t", "progress"}, {"bytes", 1}, {"total", 1}}, "progress: phase is missing"},
        {{{"t", "dance"}}, "unknown message dance"},
        {{{"t", "error"}, {"why", "unknown message migrate"}},
         "did not understand: unknown message migrate"},
    };
    for (const auto& [answer, says] : cases) {
        FakeCoordinator c(folder_, 4711, "33", answers(answer));
        Outcome o = ghost("migrate --rank 1 --to gn3");
        EXPECT_EQ(o.exit, 1);
        EXPECT_NE(o.err.find(says), std::string::npos) << o.err;
    }
}

// A coordinator of another version, say.
TEST_F(GhostCommand, MembersOfOtherKindsAreNotShown) {
    const Json odd = {{"rank", "one"}, {"moved", 1}, {"bytes", {1}}, {"from", 2}, {"mode", "stop"}};
    FakeCoordinator c(folder_, 4711, "33",
                      answers({{"t", "result"}, {"exit", 0}, {"result", {odd, 7, nullptr}}}));
    const Outcome o = ghost("migrate --rank 1 --to gn3");
    EXPECT_EQ(o.exit, 0) << o.err;
    EXPECT_EQ(o.out, "rank -1: not moved\nrank -1: not moved\nrank -1: not moved\n");
}

TEST_F(GhostCommand, PsForPeople) {
    FakeCoordinator c(folder_, 4711, "33", answers(done()));
    Outcome o = ghost("ps");
    EXPECT_EQ(o.exit, 0);
    EXPECT_EQ(o.out,
              "mpirun 4711  job 33  running  2 ranks on 2 nodes  epoch 4\n"
              "  gn1              ranks 0\n  gn2              ranks 1\n");
}

TEST_F(GhostCommand, Usage) {
    Outcome verb = ghost("migrat --rank 1");
    EXPECT_EQ(verb.exit, 2);
    EXPECT_NE(verb.err.find("did you mean \"migrate\""), std::string::npos) << verb.err;
    EXPECT_EQ(ghost("migrate --to gn3").exit, 2);
    EXPECT_EQ(ghost("migrate --rank 1 --to gn3 --mode slow").exit, 2);
    EXPECT_EQ(ghost("migrate --rank one --to gn3").exit, 2);
    EXPECT_EQ(ghost("").exit, 2);
    EXPECT_EQ(ghost("--help").exit, 0);
    for (const char* name : {"ps", "migrate", "env", "lab", "lab up", "lab exec"}) {
        EXPECT_EQ(ghost(std::string(name) + " --help").exit, 0) << name;
    }
}

TEST_F(GhostCommand, EnvSurvivesAShell) {
    auto end = run_program({"sh", "-c", "eval \"$(./tools/ghost env)\" && command -v ghost"});
    std::string here = std::filesystem::current_path().string();
    EXPECT_EQ(end->output, here + "/tools/ghost\n");
    Json env = ghost("env --json").json();
    EXPECT_EQ(env["GHOST_PMIX_COMPONENTS"], here + "/components/pmix");
    EXPECT_EQ(env["GHOST_WRAPPER"], here + "/pmix-plugin/wrapper/ghost-wrapper");
}

TEST(Paths, ComponentFolderIsNamedOnlyWhenItIsThere) {
    Paths paths;
    paths.ompi_components = "/nonexistent";
    paths.open_mpi_components = "/usr";
    // mpirun finds no component at all when a folder of the list is missing.
    EXPECT_NE(ghost_environment(paths)[0].first, "OMPI_MCA_mca_base_component_path");
    paths.ompi_components = "/";
    EXPECT_EQ(ghost_environment(paths)[0].second, "/:/usr");
}

TEST(Paths, QuotesForTheShell) {
    EXPECT_EQ(shell_quote("a'b $c"), "'a'\\''b $c'");
}

TEST(Terminal, Units) {
    EXPECT_EQ(bytes_text(1023), "1023 B");
    EXPECT_EQ(bytes_text(1536), "1.5 KiB");
    EXPECT_EQ(time_text(999), "999 µs");
    EXPECT_EQ(time_text(12345), "12.3 ms");
}

TEST(Process, ReusedPidIsAnotherProcess) {
    auto self = identify(::getpid());
    ASSERT_TRUE(self.ok());
    EXPECT_TRUE(is_alive(*self));
    ProcessId other{self->pid, self->start + 1};
    EXPECT_FALSE(is_alive(other));
    EXPECT_TRUE(kill_process(other, 100).ok());  // nobody to kill: this test goes on
    EXPECT_FALSE(open_process(other).ok());
}

}  // namespace
}  // namespace ghost::tools
