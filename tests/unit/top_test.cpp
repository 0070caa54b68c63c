// SPDX-License-Identifier: BSD-3-Clause
// `ghost top`: what a frame has of jobs of any version, with rates and the time that is left; and
// the built program in a terminal of its own, against a small coordinator: keys, size, signals, the
// end of the job, and how the terminal is left.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>

#include "base/json_text.hpp"
#include "tests/unit/fake_coordinator.hpp"
#include "tests/unit/pty_program.hpp"
#include "tools/top_frame.hpp"

namespace ghost::tools {
namespace {

using testing::HasSubstr;
using testing::Not;

constexpr int64_t second = 1'000'000;  // us
constexpr uint64_t mib = 1 << 20;
constexpr pid_t no_process = 0x7ffffff0;

std::string text_of(const std::vector<FrameLine>& lines) {
    std::string out;
    for (const FrameLine& line : lines) out += line.text + "\n";
    return out;
}

std::string frame_of(const Json& job) {
    return text_of(TopFrames().frame(Json::array({job}), 0));
}

Json job_that_moves(const Json& bytes, const Json& total) {
    const Json move = {{"rank", 1},      {"from", "gn1"},           {"to", "gn2"},
                       {"mode", "stop"}, {"phase", "transferring"}, {"bytes", bytes},
                       {"total", total}};
    return {{"job", "33"},
            {"pid", 4711},
            {"running", true},
            {"epoch", 4},
            {"nodes", {{{"name", "gn1"}, {"alive", true}, {"slots", 2}, {"used", 1}}}},
            {"ranks", {{{"rank", 1}, {"node", "gn1"}, {"running", true}, {"epoch", 4}}}},
            {"moves", {move}}};
}

// --- frames ---

TEST(TopFrame, SaysWhatRunsAndWhatIsUnderWay) {
    Json job = job_that_moves(mib, 4 * mib);
    job["queue"] = {{{"id", 7}, {"what", "move of rank 0"}}};
    job["snapshotting"] = {{"name", "33-000001"}, {"phase", "gating"}};
    job["next_snapshot_us"] = 90 * second;
    job["nodes"].push_back({{"name", "gn3"}, {"alive", false}});
    const auto lines = TopFrames().frame(Json::array({job}), 0);
    const std::string text = text_of(lines);
    for (const char* part :
         {"mpirun 4711  job 33  running  1 of 1 ranks run  2 nodes  epoch 4",
          "rank 1 gn1 -> gn2  stop  transferring [#####...............] 1.0 MiB of 4.0 MiB\n",
          "snapshot 33-000001  gating", "waits: move of rank 0 (request 7)",
          "next snapshot in 90.00 s", "moves to gn2",
          "gn3                       0      0  does "
          "not answer"})
        EXPECT_THAT(text, HasSubstr(part));
    EXPECT_EQ(lines.front().style, LineStyle::title);
    EXPECT_EQ(std::ranges::count(lines, LineStyle::bad, &FrameLine::style), 1);
    EXPECT_TRUE(TopFrames().frame(Json::array(), 0).empty());
}

TEST(TopFrame, RateAndTimeLeftComeOfTwoFrames) {
    TopFrames frames;
    const auto move_at = [&](uint64_t bytes, int64_t at) {
        const Json jobs = Json::array({job_that_moves(bytes, 10 * mib)});
        return frames.json(jobs, at)["jobs"][0]["moves"][0];
    };
    EXPECT_FALSE(move_at(mib, 0).contains("bytes_per_s"));
    const Json second_one = move_at(3 * mib, second / 2);
    EXPECT_EQ(second_one["bytes_per_s"], 4 * mib);
    EXPECT_EQ(second_one["left_us"], second * 7 / 4);
    EXPECT_FALSE(move_at(3 * mib, second).contains("left_us")) << "it stands";
    EXPECT_FALSE(move_at(mib, 2 * second).contains("bytes_per_s")) << "it has begun again";
    EXPECT_FALSE(move_at(2 * mib, 2 * second).contains("bytes_per_s")) << "no time has passed";
    EXPECT_FALSE(move_at(9 * mib, second).contains("bytes_per_s")) << "a clock that goes back";
    const Json last = move_at(11 * mib, 2 * second);
    EXPECT_EQ(last["bytes_per_s"], 2 * mib);
    EXPECT_FALSE(last.contains("left_us")) << "it has more than it was to have";
    (void)frames.frame(Json::array({job_that_moves(0, 10 * mib)}), 3 * second);
    EXPECT_THAT(text_of(frames.frame(Json::array({job_that_moves(2 * mib, 10 * mib)}), 4 * second)),
                HasSubstr("2.0 MiB of 10.0 MiB, 2.0 MiB/s, 4.00 s left"));
    (void)frames.json(Json::array(), 5 * second);
    EXPECT_FALSE(move_at(4 * mib, 6 * second).contains("bytes_per_s")) << "it was gone between";
}

// Each job has its own ranks.
TEST(TopFrame, RatesOfTwoJobsAreApart) {
    TopFrames frames;
    Json a = job_that_moves(mib, 10 * mib), b = job_that_moves(5 * mib, 10 * mib);
    b["pid"] = 4712;
    (void)frames.json(Json::array({a, b}), 0);
    a["moves"][0]["bytes"] = 2 * mib;
    b["moves"][0]["bytes"] = 8 * mib;
    const Json out = frames.json(Json::array({b, a}), second)["jobs"];
    EXPECT_EQ(out[0]["moves"][0]["bytes_per_s"], 3 * mib);
    EXPECT_EQ(out[1]["moves"][0]["bytes_per_s"], mib);
}

// Numbers that no job has are shown somehow, and nothing is undefined.
TEST(TopFrame, HugeAndOddNumbersHarmNobody) {
    constexpr auto most = std::numeric_limits<uint64_t>::max();
    const std::vector<Json> odd = {0,
                                   -1,
                                   most,
                                   std::numeric_limits<int64_t>::min(),
                                   1e300,
                                   -1e300,
                                   0.5,
                                   std::numeric_limits<double>::infinity(),
                                   "many",
                                   nullptr,
                                   true,
                                   Json::array({1}),
                                   Json::object()};
    for (const Json& bytes : odd)
        for (const Json& total : odd) {
            TopFrames frames;
            (void)frames.frame(Json::array({job_that_moves(0, total)}), 0);
            const Json jobs = Json::array({job_that_moves(bytes, total)});
            EXPECT_FALSE(frames.frame(jobs, 1).empty());
            EXPECT_TRUE(frames.json(jobs, 2).contains("jobs"));
        }
    TopFrames frames;
    (void)frames.json(Json::array({job_that_moves(most - 2, most)}), 0);
    const Json slow =
        frames.json(Json::array({job_that_moves(most - 1, most)}), second)["jobs"][0]["moves"][0];
    EXPECT_EQ(slow.value("bytes_per_s", 1u), 1u);
    (void)frames.json(Json::array({job_that_moves(0, most)}), second);
    const Json fast =
        frames.json(Json::array({job_that_moves(most, most)}), second + 1)["jobs"][0]["moves"][0];
    EXPECT_EQ(fast["bytes_per_s"], uint64_t{1'000'000'000'000'000'000});
    (void)frames.json(Json::array({job_that_moves(0, most)}), 0);
    const Json ages =
        frames.json(Json::array({job_that_moves(1, most)}), second)["jobs"][0]["moves"][0];
    EXPECT_EQ(ages["left_us"], int64_t{1'000'000'000'000'000'000});
}

// What an older, a newer or no coordinator says: any member may be missing, or be of another kind.
TEST(TopFrame, ForeignMembersHarmNobody) {
    for (const char* text :
         {"{}", "[]", "null", "7", R"("x")", R"([[]])", R"({"nodes":{},"ranks":7,"moves":"x"})",
          R"({"nodes":[7,null,"x",[]],"ranks":[{},[],1.5],"moves":[null,3,{"rank":"one"}]})",
          R"({"snapshotting":[],"restarting":"x","queue":{"a":1},"snapshot":3,"stopped":"yes"})",
          R"({"job":7,"pid":"x","epoch":-1.5,"running":"maybe","next_snapshot_us":"soon"})",
          R"({"pid":99999999999999999999,"moves":[{"left_us":"x","bytes":{}}]})"})
        EXPECT_THAT(frame_of(parse_json(text)), HasSubstr("mpirun")) << text;
    Json job = job_that_moves(1, 2);
    job["warp"] = 9;
    job["ranks"][0]["state"] = "beamed";
    job["ranks"].push_back({{"rank", 2}, {"state", "beamed"}});
    EXPECT_THAT(frame_of(job), HasSubstr("beamed"));
    EXPECT_EQ(TopFrames().json(Json::array({job}), 0)["jobs"][0]["warp"], 9);
    EXPECT_THAT(frame_of(parse_json(R"({"next_snapshot_us":"soon"})")),
                Not(HasSubstr("next snapshot")));
}

TEST(TopFrame, NoControlCharacterIsInALine) {
    const std::string evil =
        "e\x1b]0;t\x07v\r\ni\x7f\xc2\x9b"
        "31ml";
    Json job = job_that_moves(1, 2);
    job["job"] = evil;
    job["nodes"][0]["name"] = evil;
    job["ranks"][0]["state"] = evil;
    job["moves"][0]["phase"] = evil;
    job["queue"] = {{{"what", evil}}};
    job["snapshot"] = {{"snapshot", evil}, {"time", evil}};
    job["restarting"] = {{"snapshot", evil}, {"phase", evil}};
    for (const FrameLine& line : TopFrames().frame(Json::array({job}), 0)) {
        EXPECT_TRUE(std::ranges::none_of(line.text, [](char c) {
            return static_cast<unsigned char>(c) < ' ' || c == 0x7f;
        })) << line.text;
        EXPECT_THAT(line.text, Not(HasSubstr("\xc2\x9b")));
    }
}

TEST(TopFrame, ManyRanksTakeLittleTime) {
    Json job = job_that_moves(1, 2);
    const Json rank = job["ranks"][0], move = job["moves"][0];
    for (int i = 0; i < 20'000; ++i) job["ranks"].push_back(rank);
    for (int i = 0; i < 1'000; ++i) job["moves"].push_back(move);
    const int64_t before = monotonic_us();
    EXPECT_GT(TopFrames().frame(Json::array({job}), 0).size(), 20'000u);
    EXPECT_LT(monotonic_us() - before, 20 * second);
}

// --- in a terminal ---

// terminfo's "screen": of an alternate screen, without the repetition of characters.
constexpr const char* enter_screen = "\x1b[?1049h";
constexpr const char* leave_screen = "\x1b[?1049l";
constexpr const char *key_up = "\x1bOA", *key_down = "\x1bOB", *key_home = "\x1b[1~",
                     *key_end = "\x1b[4~", *key_page_down = "\x1b[6~";

class TopInTerminal : public testing::Test {
  protected:
    TopInTerminal() {
        std::string made = "/tmp/ghost-top-test.XXXXXX";
        folder_ = ::mkdtemp(made.data());
        ::setenv("OMPI_MCA_orte_tmpdir_base", folder_.c_str(), 1);
        ::setenv("OMPI_MCA_ghost_events", (folder_ + "/events").c_str(), 1);
    }
    ~TopInTerminal() override {
        ::unsetenv("OMPI_MCA_ghost_events");
        std::filesystem::remove_all(folder_);
    }
    static PtyProgram top(const std::string& arguments = "", const std::string& term = "screen") {
        return {"./tools/ghost top " + arguments, term};
    }
    std::string socket_of(pid_t mpirun) const {
        return fmt::format("{}/ompi.somewhere.{}/pid.{}/ghost.sock", folder_, ::geteuid(), mpirun);
    }
    // The program has left the screen, last of all, and the terminal is set as it was.
    static void expect_left(PtyProgram& program) {
        const std::string& shown = program.shown();
        const size_t entered = shown.rfind(enter_screen), left = shown.rfind(leave_screen);
        EXPECT_NE(entered, std::string::npos) << shown;
        EXPECT_NE(left, std::string::npos) << shown;
        EXPECT_GT(left, entered) << shown;
        EXPECT_NE(shown.find("\x1b[?25h", entered), std::string::npos) << "no cursor";
        EXPECT_TRUE(program.is_as_before());
    }
    std::string folder_;
};

TEST_F(TopInTerminal, KeyEndsIt) {
    for (const char* key : {"q", "Q"}) {
        FakeCoordinator c(folder_, 4711, "33", [](const ControlSocket&, const Json&) {});
        PtyProgram program = top();
        ASSERT_TRUE(program.shows("gn2")) << program.shown();
        EXPECT_FALSE(program.is_as_before()) << "keys come one by one, and are not shown";
        program.type("x");
        program.type(key);
        EXPECT_EQ(program.finish(), 0) << program.shown();
        expect_left(program);
    }
}

TEST_F(TopInTerminal, SignalsEndItAsIfTheyWereNotCaught) {
    FakeCoordinator c(folder_, 4711, "33", [](const ControlSocket&, const Json&) {});
    for (const int signum : {SIGTERM, SIGINT, SIGHUP, SIGQUIT}) {
        PtyProgram program = top("--every 3600");
        ASSERT_TRUE(program.shows("gn2")) << program.shown();
        program.signal(signum);
        EXPECT_EQ(program.finish(), 128 + signum);
        expect_left(program);
    }
    PtyProgram program = top("--every 3600");
    ASSERT_TRUE(program.shows("gn2")) << program.shown();
    program.type("\x03");
    EXPECT_EQ(program.finish(), 128 + SIGINT);
    expect_left(program);
}

// The answer of a job that does not come is not waited for.
TEST_F(TopInTerminal, SignalEndsItWhileAJobIsAsked) {
    FakeCoordinator c(folder_, 4711, "33", [](const ControlSocket&, const Json&) {});
    PtyProgram program = top();
    ASSERT_TRUE(program.shows("gn2")) << program.shown();
    std::filesystem::create_directories(std::filesystem::path(socket_of(4712)).parent_path());
    auto mute = ControlListener::listen(socket_of(4712));
    ASSERT_TRUE(mute.ok());
    ASSERT_TRUE(await_readable(mute->fd(), PtyProgram::limit_ms)) << "it is asked";
    program.signal(SIGTERM);
    EXPECT_EQ(program.finish(2000), 128 + SIGTERM);
    expect_left(program);
}

TEST_F(TopInTerminal, TerminalThatIsGoneEndsIt) {
    FakeCoordinator c(folder_, 4711, "33", [](const ControlSocket&, const Json&) {});
    PtyProgram program = top("--every 3600");
    ASSERT_TRUE(program.shows("gn2")) << program.shown();
    program.unplug();
    EXPECT_EQ(program.finish(), 128 + SIGHUP);
}

// No letter of it is at the same place as in its neighbours: ncurses writes what differs.
std::string node_name(int number) {
    std::string out;
    for (int at = 0; at < 10; ++at)
        out += static_cast<char>('a' + (number * 7 + at * (5 + 2 * (number / 26))) % 26);
    return out;
}

TEST_F(TopInTerminal, ArrowsScrollAndSizeIsFollowed) {
    FakeCoordinator c(folder_, 4711, "33", [](const ControlSocket&, const Json&) {});
    Json nodes = Json::array();
    for (int i = 0; i < 70; ++i) nodes.push_back({{"name", node_name(i)}});
    c.say({{"nodes", nodes}, {"ranks", Json::array()}});
    PtyProgram program = top("--every 3600");
    // 24 lines: the job's, a heading, 21 nodes, the status.
    ASSERT_TRUE(program.shows("arrows scroll")) << program.shown();
    EXPECT_TRUE(program.shows(node_name(20))) << program.shown();
    EXPECT_FALSE(program.shows(node_name(21), 0));
    const auto shows_after = [&](const std::string& keys, int node) {
        program.forget();
        program.type(keys);
        return program.shows(node_name(node));
    };
    EXPECT_TRUE(shows_after(key_down, 21));
    EXPECT_TRUE(shows_after(std::string(key_down) + key_down, 23));
    EXPECT_TRUE(shows_after(key_up, 0)) << "the third line is on top";
    EXPECT_TRUE(shows_after(key_page_down, 45));
    // The nodes, and the heading of ranks.
    EXPECT_TRUE(shows_after(key_end, 69));
    EXPECT_TRUE(shows_after(key_home, 0));
    EXPECT_TRUE(shows_after(std::string(key_up) + key_down, 21)) << "not above the first";
    program.forget();
    program.resize(50, 100);
    EXPECT_TRUE(program.shows(node_name(47))) << program.shown();
    program.resize(1, 1);
    program.type(std::string(key_down) + key_end + "\x0c");
    program.resize(5, 30);
    program.type("q");
    EXPECT_EQ(program.finish(), 0);
    expect_left(program);
}

TEST_F(TopInTerminal, FramesFollowTheJobs) {
    FakeCoordinator c(folder_, 4711, "33", [](const ControlSocket&, const Json&) {});
    PtyProgram program = top();
    ASSERT_TRUE(program.shows("gn2")) << program.shown();
    c.say({{"moves", {{{"rank", 1}, {"to", "zephyr"}, {"phase", "transferring"}}}}});
    EXPECT_TRUE(program.shows("transferring")) << program.shown();
    EXPECT_TRUE(program.shows("zephyr")) << program.shown();
    program.type("q");
    EXPECT_EQ(program.finish(), 0);
}

TEST_F(TopInTerminal, EndOfTheLastJobIsSaid) {
    for (const char* wanted : {"", "33"}) {
        std::optional<FakeCoordinator> c;
        c.emplace(folder_, no_process, "33", [](const ControlSocket&, const Json&) {});
        PtyProgram program = top(wanted);
        ASSERT_TRUE(program.shows("gn2")) << program.shown();
        c.reset();
        EXPECT_EQ(program.finish(), 0) << program.shown();
        expect_left(program);
        const size_t left = program.shown().rfind(leave_screen);
        EXPECT_NE(
            program.shown().find(fmt::format("job 33 of mpirun {} has ended", no_process), left),
            std::string::npos)
            << program.shown();
    }
}

// A socket at which nobody listens is what is left of it.
TEST_F(TopInTerminal, EndOfAJobThatWasKilledIsSaid) {
    std::optional<FakeCoordinator> c;
    c.emplace(folder_, no_process, "33", [](const ControlSocket&, const Json&) {});
    PtyProgram program = top(std::to_string(no_process));
    ASSERT_TRUE(program.shows("gn2")) << program.shown();
    const std::string path = socket_of(no_process), kept = path + ".kept";
    std::filesystem::create_hard_link(path, kept);
    c.reset();
    std::filesystem::rename(kept, path);
    EXPECT_EQ(program.finish(), 0) << program.shown();
    EXPECT_THAT(program.shown(), HasSubstr("has ended"));
    expect_left(program);
}

TEST_F(TopInTerminal, NamesOfOthersDoNotActOnIt) {
    const std::string evil =
        "e\x1b]0;title\x07v\x1b[2Ji\xc2\x9b"
        "31ml";
    std::optional<FakeCoordinator> c;
    c.emplace(folder_, 4711, evil, [](const ControlSocket&, const Json&) {});
    c->say({{"nodes", {{{"name", evil}}}}, {"queue", {{{"what", evil}}}}});
    PtyProgram program = top();
    ASSERT_TRUE(program.shows("waits:")) << program.shown();
    c.reset();
    EXPECT_EQ(program.finish(), 0);
    for (const char* never : {"\x1b]", "\x07", "\x1b[2J", "\xc2\x9b"})
        EXPECT_THAT(program.shown(), Not(HasSubstr(never)));
    EXPECT_THAT(program.shown(), HasSubstr("has ended"));
}

TEST_F(TopInTerminal, TerminalsWithoutAScreenAreLeftAlone) {
    FakeCoordinator c(folder_, 4711, "33", [](const ControlSocket&, const Json&) {});
    for (const char* term : {"", "dumb", "no-such-terminal", "../../etc/passwd"}) {
        PtyProgram program = top("", term);
        EXPECT_EQ(program.finish(), 1) << term;
        EXPECT_THAT(program.shown(), HasSubstr("--once prints as plain text"));
        EXPECT_THAT(program.shown(), Not(HasSubstr("\x1b")));
        EXPECT_TRUE(program.is_as_before());
    }
}

TEST_F(TopInTerminal, WithoutAJobThereIsNoScreen) {
    PtyProgram program = top();
    EXPECT_EQ(program.finish(), 1);
    EXPECT_THAT(program.shown(), HasSubstr("none with `--mca ghost 1` of yours"));
    EXPECT_THAT(program.shown(), Not(HasSubstr("\x1b")));
}

}  // namespace
}  // namespace ghost::tools
