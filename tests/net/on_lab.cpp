// SPDX-License-Identifier: BSD-3-Clause
#include "tests/net/on_lab.hpp"

#include <cstdlib>
#include <filesystem>
#include <pwd.h>
#include <stdexcept>
#include <unistd.h>

namespace nettest {

std::string program(const std::string& name) {
    return std::filesystem::current_path().string() + "/tests/mpi/" + name;
}

void OnLab::make_lab(int nodes) {
    reason_ = why_no_lab();
    if (reason_.empty()) lab_ = std::make_unique<Lab>(nodes);
}

void OnLab::TearDownTestSuite() {
    lab_.reset();
}

void OnLab::SetUp() {
    if (!reason_.empty()) GTEST_SKIP() << reason_;
    lab_->repair();
    scratch_ = std::make_unique<Scratch>();
    const char* user = std::getenv(user_variable);
    const passwd* known = user != nullptr ? ::getpwnam(user) : nullptr;
    if (known != nullptr && ::chown(path(".").c_str(), known->pw_uid, known->pw_gid) != 0)
        throw std::runtime_error("cannot give a folder to the user");
}

Words OnLab::endless(const std::string& name, const Words& options) const {
    Words words{program(name), "--until-file", path("stop")};
    words.insert(words.end(), options.begin(), options.end());
    return words;
}

Move OnLab::verb(const Words& words, double seconds) {
    Words all = {"ghost"};
    all.insert(all.end(), words.begin(), words.end());
    all.emplace_back("--json");
    return move_of(lab().on("gn1", all, seconds));
}

void OnLab::expect_goes_on(Job& job, size_t rounds) {
    ASSERT_TRUE(job.wait_for_more("round ", rounds)) << job.mpirun().err();
}

void OnLab::expect_moved(Job& job, int rank, const std::string& node) {
    const Move move = job.migrate(rank, node);
    ASSERT_EQ(move.status, 0) << move.err << job.mpirun().err();
    EXPECT_EQ(move.result.value("to", ""), node);
    EXPECT_TRUE(move.result.value("moved", false)) << move.result.dump();
    EXPECT_GT(move.result.value("bytes", uint64_t{0}), 0U);
    EXPECT_GT(move.result.value("downtime_us", int64_t{0}), 0);
    EXPECT_EQ(job.node_of(rank), node);
}

void OnLab::expect_gone(const std::string& node, const std::string& pattern) {
    EXPECT_TRUE(poll_until(30, [&] { return lab().pids(node, pattern).empty(); }))
        << pattern << " on " << node;
}

size_t OnLab::recoveries(Job& job) {
    return count_of(job.mpirun().err(), goes_on);
}

void OnLab::expect_recovered(Job& job, const std::string& why, size_t times) {
    ASSERT_TRUE(poll_until(60, [&] { return recoveries(job) >= times || !job.mpirun().running(); }))
        << job.mpirun().err();
    EXPECT_NE(job.mpirun().err().find(why), std::string::npos) << job.mpirun().err();
    ASSERT_TRUE(job.wait_for_more("round ", 2)) << job.mpirun().err();
}

Words OnLab::ledger(const std::string& folder, int steps, int pause_us, int memory_mb) const {
    std::filesystem::create_directory(path(folder));
    return {program("ledger"),
            "--dir",
            path(folder),
            "--steps",
            std::to_string(steps),
            "--pause",
            std::to_string(pause_us),
            "--memory",
            std::to_string(memory_mb)};
}

void OnLab::expect_same_ledgers(const std::string& a, const std::string& b, int ranks) const {
    for (int rank = 0; rank < ranks; rank++) {
        const std::string file = "/rank-" + std::to_string(rank);
        EXPECT_EQ(contents(path(a) + file), contents(path(b) + file)) << rank;
    }
}

void OnLab::expect_input_follows(Job& job, const std::function<void(const std::string&)>& move) {
    std::string expected;
    size_t bytes = 0;
    const auto feed = [&](int first, int last, bool more) {
        std::string text;
        for (int i = first; i < last; ++i) {
            const std::string line = "line " + std::to_string(i) + "\n";
            text += line;
            expected += "in: " + line;
        }
        bytes += text.size();
        job.mpirun().feed(text, more);
    };
    feed(0, 2000, true);
    ASSERT_TRUE(job.wait_for("in: line 1000\n")) << job.mpirun().err();
    move("gn3");
    feed(2000, 4000, true);
    ASSERT_TRUE(job.wait_for("in: line 3999\n")) << job.mpirun().err();
    move("gn1");
    feed(4000, 6000, false);
    const Finished end = job.finish();
    EXPECT_EQ(end.status, 0) << end.err;
    EXPECT_EQ(end.out, expected + "in end 6000 " + std::to_string(bytes) + "\n");
}

void OnLab::expect_restart(Job& job, const std::string& last_line_start) {
    ASSERT_TRUE(job.wait_for("round 1:")) << job.mpirun().err();
    const std::string folder = path("snapshots");
    const Finished saved = lab().on("gn1", {"ghost", "checkpoint", "--to", folder});
    EXPECT_EQ(saved.status, 0) << saved.err;
    ASSERT_TRUE(job.wait_for_more("round ", 2)) << job.mpirun().err();
    const Finished killed =
        lab().on("gn1", {"ghost", "checkpoint", "--to", folder, "--then", "kill"});
    EXPECT_EQ(killed.status, 0) << killed.err;
    EXPECT_EQ(job.finish().status, 85);
    expect_clean(restart(folder), last_line_start);
}

Finished OnLab::restart(const std::string& folder, const Words& options) {
    Words words{"ghost", "restart", folder};
    words.insert(words.end(), options.begin(), options.end());
    Job again(lab(), words);
    if (again.wait_for("round ", 2)) stop();
    return again.finish();
}

void OnLab::expect_clean(const Finished& end, const std::string& last_line_start) {
    constexpr size_t shown = 2000;
    EXPECT_EQ(end.status, 0) << end.out.substr(end.out.size() < shown ? 0 : end.out.size() - shown)
                             << end.err;
    const size_t at = end.out.rfind(last_line_start);
    ASSERT_NE(at, std::string::npos) << end.out << end.err;
    const std::string line = end.out.substr(at, end.out.find('\n', at) - at);
    EXPECT_NE(line.find(" 0 errors"), std::string::npos) << line << "\n" << end.err;
}

void OnLab::expect_clean_end(Job& job, const std::string& last_line_start) {
    stop();
    expect_clean(job.finish(), last_line_start);
}

int run_suites(int argc, char** argv) {
    ::testing::InitGoogleTest(&argc, argv);
    const int failed = RUN_ALL_TESTS();
    const auto& all = *::testing::UnitTest::GetInstance();
    const bool none = all.skipped_test_count() > 0 && all.successful_test_count() == 0;
    return failed == 0 && none ? 77 : failed;
}

}  // namespace nettest
