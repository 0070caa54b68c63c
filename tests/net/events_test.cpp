// SPDX-License-Identifier: BSD-3-Clause
// What an operator is told of jobs on a virtual cluster: the event log of each job while it runs,
// when it has ended and when mpirun was killed, the history and the page that are made of it, and
// `ghost top` in a terminal. Needs root; without it every case is skipped.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "tests/net/on_lab.hpp"

namespace {

using nettest::Finished;
using nettest::Job;
using nettest::Json;
using nettest::Move;
using nettest::Words;

class Events : public nettest::OnLab {
  protected:
    // Whose logs are in this case's folder.
    Job job_of(int ranks, const std::string& hosts) {
        Words words = {"--mca", "ghost_events", path("logs")};
        const Words program = endless("pattern");
        words.insert(words.end(), program.begin(), program.end());
        return {lab(), ranks, hosts, words};
    }
    Finished ghost(const Words& words) {
        Words all = {"env", "OMPI_MCA_ghost_events=" + path("logs"), "ghost"};
        all.insert(all.end(), words.begin(), words.end());
        return lab().on("gn1", all);
    }
    Json json(const Words& words) {
        Words all = words;
        all.emplace_back("--json");
        const Finished said = ghost(all);
        EXPECT_EQ(said.status, 0) << said.err;
        return Json::parse(said.out, nullptr, false);
    }
    // What happened to the only job, by name.
    std::vector<std::string> names(const Json& history) {
        std::vector<std::string> out;
        for (const Json& event : history["events"]) out.push_back(event["event"]);
        return out;
    }
    static bool has(const std::vector<std::string>& names, const std::string& name) {
        return std::ranges::find(names, name) != names.end();
    }
    static std::string text_of(const std::string& file) {
        std::ifstream in(file);
        return {std::istreambuf_iterator<char>(in), {}};
    }
};

TEST_F(Events, LogHasWhatHappenedAndOutlivesTheJob) {
    Job job = job_of(3, "gn1:2,gn2:2,gn3:2");
    ASSERT_TRUE(job.wait_for("round ")) << job.mpirun().err();
    ASSERT_NO_FATAL_FAILURE(expect_moved(job, 1, "gn3"));
    EXPECT_EQ(job.migrate(1, "nowhere").status, 1);
    ASSERT_EQ(verb({"checkpoint", "--to", path("snapshots")}).status, 0);
    ASSERT_EQ(verb({"drain", "gn2"}).status, 0) << job.mpirun().err();
    ASSERT_EQ(verb({"grow", "gn2:2"}).status, 0) << job.mpirun().err();
    expect_goes_on(job);
    const Json jobs = json({"ps", "--history"})["jobs"];
    ASSERT_EQ(jobs.size(), 1u) << jobs;
    EXPECT_EQ(jobs[0]["state"], "running");
    expect_clean_end(job, "pattern:");

    const std::string name = jobs[0]["job"];
    const Json history = json({"ps", "--history", name});
    EXPECT_EQ(history["state"], "ended with status 0") << history;
    EXPECT_EQ(history["ranks"], 3);
    EXPECT_GE(history["moves"], 1);
    EXPECT_EQ(history["snapshots"], 1);
    EXPECT_EQ(history["unread"], 0);
    EXPECT_GT(history["longest_downtime_us"], 0);
    const auto told = names(history);
    EXPECT_EQ(told.front(), "started");
    EXPECT_EQ(told.back(), "ended");
    for (const char* one :
         {"asked", "moving", "move", "no_move", "snapshotting", "snapshot", "draining", "drained",
          "node_left", "joining", "node_joined", "ranks_ended"})
        EXPECT_TRUE(has(told, one)) << one << " " << history["events"];
    // The same beside the snapshots, from the beginning.
    const std::string beside = text_of(path("snapshots") + "/" + name + ".events");
    EXPECT_NE(beside.find("\"event\":\"started\""), std::string::npos) << beside;
    EXPECT_NE(beside.find("\"event\":\"ended\""), std::string::npos) << beside;

    const Finished report = ghost({"report", name, "--html", path("page.html")});
    ASSERT_EQ(report.status, 0) << report.err;
    const std::string page = text_of(path("page.html"));
    EXPECT_NE(page.find("rank 1 on gn3"), std::string::npos);
    EXPECT_NE(page.find("mpirun ends with status 0"), std::string::npos);
    const Finished words = ghost({"ps", "--history", name});
    EXPECT_NE(words.out.find("rank 1 from gn1 to gn3 moved, "), std::string::npos)
        << words.out << words.err;
    // A log that is given as a file, by somebody else.
    EXPECT_EQ(json({"report", history["log"]})["moves"], history["moves"]);
}

// In a terminal of its own, by script(1).
TEST_F(Events, TopShowsTheJobUntilItEnds) {
    Job job = job_of(2, "gn1:2,gn2:2,gn3:2");
    ASSERT_TRUE(job.wait_for("round ")) << job.mpirun().err();
    auto top = lab().start_on("gn1", {"env", "TERM=screen", "OMPI_MCA_ghost_events=" + path("logs"),
                                      "script", "-qec", "ghost top", "/dev/null"});
    ASSERT_TRUE(
        nettest::poll_until(20, [&] { return top.out().find("takes ranks") != std::string::npos; }))
        << top.out() << top.err();
    ASSERT_NO_FATAL_FAILURE(expect_moved(job, 1, "gn3"));
    const Json now = json({"top"})["jobs"];
    ASSERT_EQ(now.size(), 1u) << now;
    EXPECT_EQ(now[0]["ranks"][1]["node"], "gn3");
    const Finished frame = ghost({"top", "--once"});
    EXPECT_EQ(frame.status, 0) << frame.err;
    EXPECT_NE(frame.out.find("running  2 of 2 ranks run  3 nodes"), std::string::npos) << frame.out;
    EXPECT_TRUE(top.running());
    expect_clean_end(job, "pattern:");
    const Finished seen = top.finish(20);
    EXPECT_EQ(seen.status, 0) << seen.out << seen.err;
    const size_t left = seen.out.rfind("\x1b[?1049l");
    ASSERT_NE(left, std::string::npos) << seen.out;
    EXPECT_NE(seen.out.find("ended", left), std::string::npos) << seen.out;
    EXPECT_EQ(ghost({"top", "--once"}).status, 1);
}

TEST_F(Events, JobThatIsRestartedHasALogOfItsOwnThatNamesTheSnapshot) {
    Job job = job_of(2, "gn1:2,gn2:2");
    ASSERT_TRUE(job.wait_for("round ")) << job.mpirun().err();
    const Move saved = verb({"checkpoint", "--to", path("snapshots"), "--then", "kill"});
    ASSERT_EQ(saved.status, 0) << saved.err;
    EXPECT_EQ(job.finish().status, 85);
    const Finished again = restart(path("snapshots"), {"--mca", "ghost_events", path("logs")});
    EXPECT_EQ(again.status, 0) << again.err;
    const Json jobs = json({"ps", "--history"})["jobs"];
    ASSERT_EQ(jobs.size(), 2u) << jobs;
    EXPECT_EQ(jobs[0]["job"], jobs[1]["job"]);
    EXPECT_NE(std::string(jobs[0]["restarted_from"]).find("-000001"), std::string::npos) << jobs;
    EXPECT_EQ(jobs[1]["status"], 85);
}

TEST_F(Events, MpirunThatIsKilledLeavesALogThatSaysSo) {
    Job job = job_of(2, "gn1:2,gn2:2");
    ASSERT_TRUE(job.wait_for("round ")) << job.mpirun().err();
    const int pid = json({"ps"})["jobs"][0]["pid"];
    ASSERT_EQ(lab().on("gn1", {"kill", "-9", std::to_string(pid)}).status, 0);
    (void)job.finish();
    const Json jobs = json({"ps", "--history"})["jobs"];
    ASSERT_EQ(jobs.size(), 1u) << jobs;
    EXPECT_EQ(jobs[0]["state"], "mpirun was killed");
}

// The log cannot be written: that is said once, and the job does not mind.
TEST_F(Events, FullDiskHarmsNoJob) {
    if (std::getenv(nettest::user_variable) != nullptr) GTEST_SKIP() << "only root mounts";
    const std::string disk = path("logs");
    std::filesystem::create_directory(disk);
    std::filesystem::permissions(disk, std::filesystem::perms::owner_all);
    ASSERT_EQ(
        lab().on("gn1", {"mount", "-t", "tmpfs", "-o", "size=4k,mode=700", "none", disk}).status,
        0);
    ASSERT_EQ(lab().on("gn1", {"sh", "-c", "head -c 4096 /dev/zero > " + disk + "/full"}).status,
              0);
    Job job = job_of(2, "gn1:2,gn2:2");
    ASSERT_TRUE(job.wait_for("round ")) << job.mpirun().err();
    for (const char* node : {"gn2", "gn1"}) ASSERT_NO_FATAL_FAILURE(expect_moved(job, 0, node));
    expect_clean_end(job, "pattern:");
    EXPECT_EQ(nettest::count_of(job.mpirun().err(), "event log is not complete"), 1u)
        << job.mpirun().err();
    (void)lab().on("gn1", {"umount", disk});
}

}  // namespace

int main(int argc, char** argv) {
    return nettest::run_suites(argc, argv);
}
