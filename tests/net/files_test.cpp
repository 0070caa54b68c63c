// SPDX-License-Identifier: BSD-3-Clause
// Files beside the job: what it has open, mapped, locked or written is as it was after moves and
// restarts, or is named and nothing changes (tests/mpi/files). Needs root; without it every case is
// skipped.
#include <gtest/gtest.h>

#include <cstdlib>
#include <fcntl.h>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <sys/file.h>

#include "base/fd.hpp"
#include "tests/net/on_lab.hpp"

namespace {

using nettest::Finished;
using nettest::Job;
using nettest::Words;

constexpr const char* nodes = "gn1:2,gn2:2,gn3:2";

std::string bytes_of(const std::string& path) {
    std::ifstream in(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
}

ghost::Fd lock(const std::string& path, const std::string& way) {
    ghost::Fd out(::open(path.c_str(), O_RDWR | O_CLOEXEC));
    struct flock whole {};
    whole.l_type = F_WRLCK;
    EXPECT_EQ(way == "flock" ? ::flock(out.get(), LOCK_EX | LOCK_NB)
                             : ::fcntl(out.get(), F_OFD_SETLK, &whole),
              0);
    return out;
}

class Files : public nettest::OnLab {
  protected:
    Words way(const std::string& name) const {
        return endless("files", {"--way", name, "--file", path("file")});
    }
    // Another file of that name on one node, as where each node has its own.
    void put_over(const std::string& node, const std::string& other, const std::string& name) {
        const Finished done = lab().as_root(node, {"mount", "--bind", other, name});
        ASSERT_EQ(done.status, 0) << done.err;
    }
    void take_off(const std::string& node, const std::string& name) {
        EXPECT_EQ(lab().as_root(node, {"umount", name}).status, 0);
    }
    // The rank stays where it is and goes on; why it does is named.
    void expect_refused(Job& job, int rank, const std::string& node, const Words& why) {
        const auto before = job.node_of(rank);
        const auto move = job.migrate(rank, node);
        EXPECT_EQ(move.status, 1) << move.result.dump();
        for (const auto& part : why)
            EXPECT_NE(move.err.find(part), std::string::npos) << part << ": " << move.err;
        EXPECT_EQ(job.node_of(rank), before);
        ASSERT_TRUE(job.wait_for_more("round ", 2)) << job.mpirun().err();
    }
    // The job is saved, goes on, and ends.
    void save_and_end(Job& job) {
        ASSERT_TRUE(job.wait_for("round 1:")) << job.mpirun().err();
        const Finished saved = lab().on("gn1", {"ghost", "checkpoint", "--to", path("snapshots")});
        ASSERT_EQ(saved.status, 0) << saved.err;
        ASSERT_TRUE(job.wait_for_more("round ", 20)) << job.mpirun().err();
        const Finished ended =
            lab().on("gn1", {"ghost", "checkpoint", "--to", path("later"), "--then", "kill"});
        ASSERT_EQ(ended.status, 0) << ended.err;
        EXPECT_EQ(job.finish().status, 85);
    }
    Finished restart(const Words& options = {}) {
        return OnLab::restart(path("snapshots"), options);
    }
};

// The same name and size, as after one node's update, and another build id.
TEST_F(Files, ProgramOfAnotherBuildIsNotGoneOnIn) {
    const std::string program = path("files"), other = path("other");
    std::filesystem::copy_file(nettest::program("files"), program);
    std::string build = bytes_of(program);
    const size_t id = build.find(std::string("\x03\0\0\0GNU\0", 8));
    ASSERT_NE(id, std::string::npos);
    build[id + 8] = static_cast<char>(build[id + 8] ^ 1);
    std::ofstream(other, std::ios::binary) << build;
    std::filesystem::permissions(other, std::filesystem::status(program).permissions());

    Words words = way("none");
    words[0] = program;
    Job job(lab(), 2, nodes, words);
    ASSERT_TRUE(job.wait_for("round 1:")) << job.mpirun().err();
    put_over("gn3", other, program);
    expect_refused(job, 1, "gn3", {program, "build id"});
    expect_moved(job, 1, "gn2");
    take_off("gn3", program);
    expect_moved(job, 1, "gn3");
    expect_clean_end(job, "files:");
}

// What is the node's own is the same file only if the same is in it.
TEST_F(Files, FilesOfTheNodeAreLookedAt) {
    std::ofstream(path("file")) << "input 1";
    std::ofstream(path("other")) << "input 2";
    Job job(lab(), 2, nodes, way("read"));
    ASSERT_TRUE(job.wait_for("round 1:")) << job.mpirun().err();
    put_over("gn3", path("other"), path("file"));
    expect_refused(job, 1, "gn3", {path("file") + ": is different"});
    take_off("gn3", path("file"));
    expect_moved(job, 1, "gn3");
    expect_clean_end(job, "files:");
}

// Before the rank stands.
TEST_F(Files, FilesOfOneNodeOnlyAreNamedWithTheOther) {
    const std::string own = "/tmp/own", cannot = "gn3 cannot take it: " + own;
    Job job(lab(), 2, nodes, endless("files", {"--way", "overwrite", "--file", own}));
    ASSERT_TRUE(job.wait_for("round 1:")) << job.mpirun().err();
    expect_refused(job, 1, "gn3", {cannot + ": is missing"});
    for (const auto& [command, is] :
         {std::pair{"echo 1 >/tmp/own; chmod 640 /tmp/own", "mode 0640 instead of 0600"},
          std::pair{"chmod 600 /tmp/own", "bytes instead of"}}) {
        ASSERT_EQ(lab().on("gn3", {"sh", "-c", command}).status, 0);
        expect_refused(job, 1, "gn3", {cannot + ": is different, ", is});
    }
    expect_clean_end(job, "files:");
}

class FilesInUse : public Files, public ::testing::WithParamInterface<const char*> {};

TEST_P(FilesInUse, MoveWithTheirRank) {
    Job job(lab(), 2, nodes, way(GetParam()));
    ASSERT_TRUE(job.wait_for("round 1:")) << job.mpirun().err();
    for (const char* node : {"gn3", "gn2", "gn1"}) {
        expect_moved(job, 1, node);
        ASSERT_TRUE(job.wait_for_more("round ", 2)) << job.mpirun().err();
    }
    expect_clean_end(job, "files:");
}

TEST_P(FilesInUse, AreAsAtTheSnapshotAfterARestart) {
    Job job(lab(), 2, nodes, way(GetParam()));
    save_and_end(job);
    expect_clean(restart(), "files:");
}

INSTANTIATE_TEST_SUITE_P(Way, FilesInUse, ::testing::Values("follow", "mapped"),
                         [](const auto& info) { return std::string(info.param); });

// What a rank has written since it was saved cannot be there after a restart.
class FilesOverwritten : public Files, public ::testing::WithParamInterface<const char*> {};

TEST_P(FilesOverwritten, AreNamedAtARestart) {
    Job job(lab(), 2, nodes, way(GetParam()));
    save_and_end(job);
    const Finished end = restart();
    EXPECT_NE(end.status, 0) << end.out;
    EXPECT_NE(end.err.find(path("file")), std::string::npos) << end.err;
    EXPECT_NE(end.err.find("overwritten since"), std::string::npos) << end.err;
    EXPECT_EQ(end.out.find("round "), std::string::npos) << end.out;
}

INSTANTIATE_TEST_SUITE_P(Way, FilesOverwritten, ::testing::Values("overwrite", "patch"),
                         [](const auto& info) { return std::string(info.param); });

TEST_F(Files, OverwrittenFilesOfTheSizeAskedForAreCarried) {
    Words words{"--mca", "ghost_checkpoint_files", "8M"};
    const Words program = way("overwrite");
    words.insert(words.end(), program.begin(), program.end());
    Job job(lab(), 2, nodes, words);
    save_and_end(job);
    expect_clean(restart(), "files:");
}

TEST_F(Files, AnotherInputIsNamedAtARestart) {
    std::ofstream(path("file")) << "input 1";
    Job job(lab(), 2, nodes, way("read"));
    save_and_end(job);
    std::ofstream(path("file")) << "input 2";
    const Finished refused = restart();
    EXPECT_NE(refused.status, 0) << refused.out;
    EXPECT_NE(refused.err.find(path("file") + ": is different"), std::string::npos) << refused.err;
    std::ofstream(path("file")) << "input 1, and more since";
    expect_clean(restart(), "files:");
}

class Locks : public Files, public ::testing::WithParamInterface<const char*> {
  protected:
    Words holds() const { return way(GetParam()); }
};

// Not for a moment could another process have got it.
TEST_P(Locks, MoveWithTheirRank) {
    Words words = holds();
    words.emplace_back("--rival");
    Job job(lab(), 2, nodes, words);
    ASSERT_TRUE(job.wait_for("round 1:")) << job.mpirun().err();
    for (const char* node : {"gn3", "gn2", "gn1", "gn2"}) {
        expect_moved(job, 1, node);
        ASSERT_TRUE(job.wait_for_more("round ", 2)) << job.mpirun().err();
    }
    expect_clean_end(job, "files:");
}

// What others on the rank's node mean by the lock would be another one there.
TEST_P(Locks, ThatTheTargetDoesNotSeeKeepTheirRank) {
    Job job(lab(), 2, nodes, holds());
    ASSERT_TRUE(job.wait_for("round 1:")) << job.mpirun().err();
    std::filesystem::copy_file(path("file"), path("other"));
    std::filesystem::permissions(path("other"),
                                 std::filesystem::status(path("file")).permissions());
    put_over("gn3", path("other"), path("file"));
    expect_refused(job, 1, "gn3", {"gn3 cannot take it: ", path("file"), "is not seen here"});
    take_off("gn3", path("file"));
    expect_moved(job, 1, "gn3");
    expect_clean_end(job, "files:");
}

TEST_P(Locks, AreAsAtTheSnapshotAfterARestart) {
    Job job(lab(), 2, nodes, holds());
    save_and_end(job);
    expect_clean(restart(), "files:");
}

// Nothing waits for whoever has it now.
TEST_P(Locks, ThatOthersHaveByNowAreNamedAtARestart) {
    Job job(lab(), 2, nodes, holds());
    save_and_end(job);
    const ghost::Fd theirs = lock(path("file"), GetParam());
    const Finished end = restart();
    EXPECT_NE(end.status, 0) << end.out;
    EXPECT_NE(end.err.find(path("file") + ": somebody else has locked it"), std::string::npos)
        << end.err;
    EXPECT_EQ(end.out.find("round "), std::string::npos) << end.out;
}

INSTANTIATE_TEST_SUITE_P(Kind, Locks, ::testing::Values("flock", "fcntl", "ofd"),
                         [](const auto& info) { return std::string(info.param); });

// Of the last, or first, round that was said.
long round_in(const std::string& out, bool last) {
    const size_t at = last ? out.rfind("round ") : out.find("round ");
    return at == std::string::npos ? -1 : std::atol(out.c_str() + at + 6);
}

// What a rank says after it was saved would be said twice.
TEST_F(Files, RanksEndWhereTheyWereSaved) {
    Job job(lab(), 2, nodes, way("none"));
    ASSERT_TRUE(job.wait_for("round 20:")) << job.mpirun().err();
    const Finished saved =
        lab().on("gn1", {"ghost", "checkpoint", "--to", path("snapshots"), "--then", "kill"});
    ASSERT_EQ(saved.status, 0) << saved.err;
    const Finished end = job.finish();
    EXPECT_EQ(end.status, 85);
    const Finished again = restart();
    expect_clean(again, "files:");
    EXPECT_EQ(round_in(again.out, false), round_in(end.out, true) + 1);
}

// They run until all are back, and not while the snapshot is written, which takes seconds here.
TEST_F(Files, RanksThatAreToStopDoNotRunOn) {
    constexpr long few_rounds = 300;
    Words words{"--mca", "ghost_checkpoint_rate", "200000"};
    const Words program = way("none");
    words.insert(words.end(), program.begin(), program.end());
    Job job(lab(), 2, nodes, words);
    ASSERT_TRUE(job.wait_for("round 20:")) << job.mpirun().err();
    const Finished saved =
        lab().on("gn1", {"ghost", "checkpoint", "--to", path("snapshots"), "--then", "stop"});
    ASSERT_EQ(saved.status, 0) << saved.err;
    const Finished again = restart({"--replace"});
    expect_clean(again, "files:");
    EXPECT_LT(round_in(job.finish().out, true) - round_in(again.out, false), few_rounds);
}

}  // namespace

int main(int argc, char** argv) {
    return nettest::run_suites(argc, argv);
}
