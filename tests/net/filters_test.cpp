// Jobs whose messages go through filters (docs/FILTERS.md), on a virtual cluster: while ranks move,
// over a restart, and as somebody on the network sees them. Needs root; else every case is skipped.
#include <gtest/gtest.h>

#include <filesystem>
#include <memory>

#include "tests/net/lab.hpp"
#include "tests/unit/kernet_filters.hpp"

namespace {

using nettest::Background;
using nettest::Finished;
using nettest::Job;
using nettest::Lab;
using nettest::Scratch;
using nettest::Words;

// Says once whether any packet a node's interfaces carry contains the text, after so many bytes of
// TCP have passed.
const char* const listener = R"(
import socket, sys
text, enough = sys.argv[1].encode(), int(sys.argv[2])
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.ntohs(3))
s.settimeout(20)
print("listening", flush=True)
seen, found = 0, False
while seen < enough and not found:
    packet = s.recv(1 << 17)
    if len(packet) > 34 and packet[12:14] == b"\x08\x00" and packet[23] == 6:
        seen += len(packet)
        found = text in packet
print("found" if found else "nothing", seen, flush=True)
)";

class FiltersOnNodes : public ::testing::Test {
  protected:
    static void SetUpTestSuite() {
        reason_ = nettest::why_no_lab();
        if (reason_.empty()) lab_ = std::make_unique<Lab>(3);
    }
    static void TearDownTestSuite() { lab_.reset(); }
    void SetUp() override {
        if (!reason_.empty()) GTEST_SKIP() << reason_;
        lab_->repair();
        scratch_ = std::make_unique<Scratch>();
    }

    Lab& lab() { return *lab_; }
    std::string path(const std::string& name) const { return scratch_->path(name); }
    // The program's words behind what the list asks for.
    Words filtered(const std::string& filters, const std::string& name, const Words& options = {}) {
        Words words{"--mca",        "ghost_filters",
                    filters,        std::filesystem::current_path().string() + "/tests/mpi/" + name,
                    "--until-file", path("stop")};
        words.insert(words.end(), options.begin(), options.end());
        return words;
    }
    void stop() { nettest::touch(path("stop")); }
    void expect_clean(const Finished& end, const std::string& last_line_start) {
        EXPECT_EQ(end.status, 0) << end.out << end.err;
        const size_t at = end.out.rfind(last_line_start);
        ASSERT_NE(at, std::string::npos) << end.out << end.err;
        EXPECT_NE(end.out.substr(at).find(" 0 errors"), std::string::npos) << end.out;
    }
    void expect_moved(Job& job, int rank, const std::string& node) {
        nettest::Move move = job.migrate(rank, node);
        ASSERT_EQ(move.status, 0) << move.err << job.mpirun().err();
        EXPECT_EQ(job.node_of(rank), node);
    }
    void expect_refused(const Words& mpirun, const std::string& because) {
        Words words{"mpirun"};
        words.insert(words.end(), mpirun.begin(), mpirun.end());
        const Finished end = lab().on("gn1", words);
        EXPECT_NE(end.status, 0);
        EXPECT_NE(end.err.find(because), std::string::npos) << end.err;
        EXPECT_EQ(end.out.find("pattern:"), std::string::npos) << end.out;
    }

    static inline std::string reason_;
    static inline std::unique_ptr<Lab> lab_;
    std::unique_ptr<Scratch> scratch_;
};

TEST_F(FiltersOnNodes, FollowTheRanks) {
    Job job(lab(), 2, "gn1:2,gn2:1,gn3:1", filtered("crypto,compress", "pattern"));
    ASSERT_TRUE(job.wait_for("round 0:")) << job.mpirun().err();
    // Between nodes, on one node, and apart again.
    for (auto [rank, node] : {std::pair{1, "gn3"}, {1, "gn1"}, {0, "gn2"}, {1, "gn3"}}) {
        expect_moved(job, rank, node);
        ASSERT_TRUE(job.wait_for_more("round ", 2)) << job.mpirun().err();
    }
    stop();
    expect_clean(job.finish(), "pattern:");
}

// The user's own and a backup: what both ends wrote down is the same, however often they moved.
TEST_F(FiltersOnNodes, BackupsAreComplete) {
    const std::string folder = path("backup");
    Job job(
        lab(), 2, "gn1:1,gn2:1,gn3:1",
        filtered("backup=" + folder + ",so:" + kernettest::checked_filter() + "=9", "pingpong"));
    ASSERT_TRUE(job.wait_for("pingpong: started")) << job.mpirun().err();
    expect_moved(job, 1, "gn3");
    expect_moved(job, 0, "gn2");
    stop();
    expect_clean(job.finish(), "pingpong:");

    using kernet::filter::BackupKind;
    std::vector<std::vector<kernettest::Backed>> ends(2);
    for (const auto& file : std::filesystem::directory_iterator(folder)) {
        auto records = kernettest::read_backup(file.path());
        ASSERT_FALSE(records.empty());
        ends.at(records.front().head.rank) = std::move(records);
    }
    for (size_t from : {0U, 1U}) {
        std::vector<const kernettest::Backed*> out, in;
        for (const auto& record : ends[from])
            if (record.head.kind == BackupKind::sent) out.push_back(&record);
        for (const auto& record : ends[1 - from])
            if (record.head.kind == BackupKind::received) in.push_back(&record);
        ASSERT_GT(in.size(), 100U);
        // The last ones were acknowledged, or never needed.
        ASSERT_GE(out.size(), in.size());
        for (size_t i = 0; i < in.size(); ++i) {
            ASSERT_EQ(in[i]->head.number, i + 1);
            ASSERT_EQ(out[i]->head.number, i + 1);
            ASSERT_EQ(in[i]->bytes, out[i]->bytes) << i;
        }
    }
}

TEST_F(FiltersOnNodes, NobodyOnTheWayReadsWhatIsSealed) {
    const std::string text = "what-only-the-ranks-may-read";
    for (const char* filters : {"none", "crypto", "crypto=aes256gcm,compress"}) {
        std::filesystem::remove(path("stop"));
        Job job(lab(), 2, "gn1:1,gn2:1",
                filtered(filters, "pingpong", {"--text", text, "--bytes", "200"}));
        ASSERT_TRUE(job.wait_for("pingpong: started")) << job.mpirun().err();
        Background ear = lab().start_on("gn2", {"python3", "-c", listener, text, "3000000"});
        ASSERT_TRUE(nettest::poll_until(20, [&] {
            return ear.out().find("found") != std::string::npos ||
                   ear.out().find("nothing") != std::string::npos || !ear.running();
        }));
        const std::string heard = ear.finish(10).out;
        stop();
        expect_clean(job.finish(), "pingpong:");
        EXPECT_NE(heard.find(std::string(filters) == "none" ? "found" : "nothing"),
                  std::string::npos)
            << filters << ": " << heard << ear.err();
    }
}

TEST_F(FiltersOnNodes, ARestartedJobHasThem) {
    const std::string shots = path("shots"), folder = path("backup");
    Job job(lab(), 2, "gn1:1,gn2:1", filtered("crypto,backup=" + folder, "pattern"));
    ASSERT_TRUE(job.wait_for("round 1:")) << job.mpirun().err();
    Finished taken =
        lab().on("gn1", {"ghost", "checkpoint", "--to", shots, "--then", "kill", "--json"});
    ASSERT_EQ(taken.status, 0) << taken.err << job.mpirun().err();
    job.finish();
    Background again = lab().start_on(
        "gn2", {"ghost", "restart", shots, "--bind-to", "none", "--host", "gn2:1,gn3:1"});
    ASSERT_TRUE(nettest::poll_until(60, [&] {
        return nettest::count_of(again.out(), "round ") > 2 || !again.running();
    })) << again.err();
    const Finished line =
        lab().on("gn2", {"sh", "-c", "tr '\\0' ' ' < /proc/$(pgrep -o mpirun)/cmdline"});
    EXPECT_NE(line.out.find("ghost_filters crypto,backup="), std::string::npos) << line.out;
    stop();
    expect_clean(again.finish(60), "pattern:");
    for (const auto& file : std::filesystem::directory_iterator(folder)) {
        size_t opened = 0;
        for (const auto& record : kernettest::read_backup(file.path()))
            opened += record.head.kind == kernet::filter::BackupKind::opened ? 1 : 0;
        EXPECT_GE(opened, 2U) << file.path();
    }
}

TEST_F(FiltersOnNodes, MistakesAreRefusedBeforeAnythingStarts) {
    auto words = [&](bool ghost, const std::string& filters) {
        Words all{"-np", "2", "--host", "gn1:1,gn2:1"};
        if (ghost) all.insert(all.end(), {"--mca", "ghost", "1"});
        const Words rest = filtered(filters, "pattern", {"--iterations", "1"});
        all.insert(all.end(), rest.begin(), rest.end());
        return all;
    };
    expect_refused(words(true, "crypto,zip"), "\"zip\"");
    expect_refused(words(true, "compress=rar"), "\"compress=rar\"");
    expect_refused(words(true, "backup=relative"), "\"backup=relative\"");
    expect_refused(words(false, "crypto"), "--mca ghost 1");
    // And what only the ranks can see, by the ranks.
    expect_refused(words(true, "so:/nowhere/filter.so"), "/nowhere/filter.so");
    expect_refused(words(true, "crypto,backup=/proc/nowhere"), "\"backup=/proc/nowhere\"");
}

}  // namespace

int main(int argc, char** argv) {
    ::testing::InitGoogleTest(&argc, argv);
    int failed = RUN_ALL_TESTS();
    const auto& all = *::testing::UnitTest::GetInstance();
    // What automake calls a skipped test: nothing could be tried at all.
    if (failed == 0 && all.skipped_test_count() > 0 && all.successful_test_count() == 0) {
        return 77;
    }
    return failed;
}
