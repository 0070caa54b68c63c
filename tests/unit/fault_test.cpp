// SPDX-License-Identifier: BSD-3-Clause
// What a planted fault does to who passes its point, to one process, once.
#include "base/fault.hpp"

#include <chrono>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <gtest/gtest.h>
#include <set>
#include <sstream>
#include <sys/wait.h>
#include <unistd.h>

#include "base/addresses.hpp"

namespace ghost::fault {
namespace {

constexpr Point point = Point::pages_sent_first;

class Fault : public ::testing::Test {
  protected:
    Fault() { EXPECT_NE(::mkdtemp(folder_.data()), nullptr); }
    ~Fault() override { std::filesystem::remove_all(folder_); }

    std::string file(Point where = point, const std::string& node = host_name()) const {
        return folder_ + "/" + points[static_cast<size_t>(where)].title() + "@" + node;
    }
    void plant(const std::string& what) const { std::ofstream(file()) << what << "\n"; }
    // What the file says of who was struck.
    std::string struck() const {
        std::ifstream in(file() + ".struck");
        std::ostringstream out;
        out << in.rdbuf();
        return out.str();
    }

    // The variable is read once: each process is one of its own. What it came to, as of wait(2).
    int in_process(const std::function<int()>& passes, bool with_variable = true) {
        const pid_t pid = start(passes, with_variable);
        int status = 0;
        EXPECT_EQ(::waitpid(pid, &status, WUNTRACED), pid);
        return status;
    }
    pid_t start(const std::function<int()>& passes, bool with_variable = true) {
        const pid_t pid = ::fork();
        if (pid != 0) return last_ = pid;
        with_variable ? ::setenv("GHOST_FAULTS", folder_.c_str(), 1) : ::unsetenv("GHOST_FAULTS");
        ::_exit(passes());
    }

    std::string folder_ = std::filesystem::temp_directory_path() / "ghost-fault.XXXXXX";
    pid_t last_ = 0;
};

// Exit statuses of who passes.
constexpr int fine = 0, failed = 1;

int pass_it() {
    return pass(point) ? fine : failed;
}

bool exited(int status, int code) {
    return WIFEXITED(status) && WEXITSTATUS(status) == code;
}

TEST_F(Fault, NobodyIsStruckWithoutTheVariable) {
    plant("die");
    EXPECT_TRUE(exited(in_process(pass_it, false), fine));
    EXPECT_TRUE(std::filesystem::exists(file()));
}

TEST_F(Fault, NobodyIsStruckWhereNothingIsPlanted) {
    EXPECT_TRUE(exited(in_process(pass_it), fine));
    std::ofstream(file(point, "another-node")) << "die\n";
    std::ofstream(file(Point::pages_sent_last)) << "die\n";
    EXPECT_TRUE(exited(in_process(pass_it), fine));
}

TEST_F(Fault, ErrorNamesThePointAndComesOnce) {
    plant("error");
    EXPECT_TRUE(exited(in_process([] {
                           const Status first = pass(point);
                           const bool named = !first && first.error().code == Code::io &&
                                              first.error().object == "pages:sent-first";
                           return named && pass(point) ? fine : failed;
                       }),
                       fine));
    EXPECT_EQ(struck(), "error\n" + std::to_string(last_) + "\n");
    EXPECT_FALSE(std::filesystem::exists(file()));
}

TEST_F(Fault, FailingStepIsToldWhy) {
    plant("error");
    EXPECT_TRUE(exited(in_process([] {
                           std::string why;
                           const bool went = passes(point, [&](const std::string& w) { why = w; });
                           const bool told = why.find("pages:sent-first") != std::string::npos;
                           return !went && told ? fine : failed;
                       }),
                       fine));
}

TEST_F(Fault, DyingIsByAKill) {
    plant("die");
    const int status = in_process(pass_it);
    EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) << status;
}

TEST_F(Fault, HangingGoesOnAfterASignal) {
    plant("hang");
    const int status = in_process(pass_it);
    ASSERT_TRUE(WIFSTOPPED(status)) << status;
    ::kill(last_, SIGCONT);
    int end = 0;
    ASSERT_EQ(::waitpid(last_, &end, 0), last_);
    EXPECT_TRUE(exited(end, fine));
}

TEST_F(Fault, CutIsDoneByWhoHasTheConnection) {
    const auto cuts = [] {
        bool cut = false;
        return pass(point, [&] { cut = true; }) && cut ? fine : failed;
    };
    EXPECT_TRUE(exited(in_process(cuts), failed));
    plant("cut");
    EXPECT_TRUE(exited(in_process(cuts), fine));
    plant("cut");
    EXPECT_TRUE(exited(in_process(pass_it), fine));  // it has none
}

TEST_F(Fault, SlowTakesAsLongAsIsSaid) {
    plant("slow 50");
    EXPECT_TRUE(exited(in_process([] {
                           const auto begun = std::chrono::steady_clock::now();
                           const Status went = pass(point);
                           const auto took = std::chrono::steady_clock::now() - begun;
                           const bool slow = took >= std::chrono::milliseconds(50) &&
                                             took < std::chrono::seconds(2);
                           return went && slow ? fine : failed;
                       }),
                       fine));
}

TEST_F(Fault, AnotherProcessIsStruckInPlaceOfTheCaller) {
    const pid_t other = start([] { return ::pause(); });
    plant("die");
    EXPECT_TRUE(
        exited(in_process([&] { return pass(point, Process{other}) ? fine : failed; }), fine));
    int status = 0;
    ASSERT_EQ(::waitpid(other, &status, 0), other);
    EXPECT_TRUE(WIFSIGNALED(status));
    EXPECT_EQ(struck(), "die\n" + std::to_string(other) + "\n");
}

TEST_F(Fault, UnknownKindStrikesNobody) {
    for (const char* kind : {"", "dies", "d", "slowly"}) {
        plant(kind);
        EXPECT_TRUE(exited(in_process(pass_it), fine)) << kind;
    }
}

TEST_F(Fault, FolderThatOthersMayWriteToIsIgnored) {
    plant("die");
    std::filesystem::permissions(folder_, std::filesystem::perms::all);
    EXPECT_TRUE(exited(in_process(pass_it), fine));
    EXPECT_TRUE(std::filesystem::exists(file()));
}

TEST(FaultTable, TitlesAreOnePerPointAndEveryPointMayDieHangAndBeSlow) {
    std::set<std::string> titles;
    for (const PointRow& row : points) {
        EXPECT_TRUE(titles.insert(row.title()).second) << row.title();
        EXPECT_TRUE(row.has(Kind::die) && row.has(Kind::hang) && row.has(Kind::slow))
            << row.title();
        EXPECT_EQ(std::string(row.kinds).find_first_not_of("dhecs"), std::string::npos);
    }
}

}  // namespace
}  // namespace ghost::fault
