// SPDX-License-Identifier: BSD-3-Clause
// What a rank's wrapper reads of a ghost's metadata: of older ones, and of what nobody has written.
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>

#include "base/json_text.hpp"
#include "ghost-core/format/writer.hpp"
#include "ghost-core/resource/file.hpp"
#include "pmix-plugin/wrapper/ghost_source.hpp"

namespace ghost::plugin {
namespace {

namespace fs = std::filesystem;

// As wrappers have written it from the beginning.
const char* const rank_text = R"({
  "agent": {"pid": 2, "tid": 7}, "job": "7", "rank": 1, "seq": 9, "snapshot": "7-000001",
  "files": [{"path": "/srv/out", "size": 5},
            {"path_hex": "2f612f80", "size": 6, "mode": 420, "owner": 0, "group": 4294967295,
             "contents": "aGVsbG8h"}],
  "shared": {"ranks": [0, 1],
             "memory": [{"id": "1a-2", "key": "file[5:1a]", "size": 4096, "mode": 384}]},
  "stdio": {"stdin": {"kind": "pipe", "key": "pipe:[3]"}, "stdout": {"kind": "direct"},
            "stderr": {"kind": "direct"}, "stdin_open": true, "stdin_bytes": 12, "unread": "YWI="}
})";

Result<RankMetadata> read(const std::string& text) {
    return rank_metadata_in(parse_json(text));
}

TEST(RankMetadata, OlderIsReadAndWrittenAsItIsNow) {
    const auto metadata = read(rank_text);
    ASSERT_TRUE(metadata.ok()) << metadata.error().message();
    EXPECT_EQ(metadata->agent->tid, 7);
    EXPECT_EQ(path_of(metadata->files.at(1)), "/a/\x80");
    EXPECT_EQ(contents_of(metadata->files[1]), (core::FileContents{"hello!", 0644, 0, ~0U}));
    EXPECT_EQ(metadata->shared->memory.at(0).mode, 0600U);
    EXPECT_EQ(metadata->stdio->unread.data, "ab");
    EXPECT_EQ(metadata->stdio->taken, 12);
    EXPECT_EQ(metadata->stdio->input.kind, StdStream::pipe);
    const auto text = schema::encode(*metadata);
    const auto again = read(text);
    ASSERT_TRUE(again.ok()) << again.error().message();
    EXPECT_EQ(schema::encode(*again), text);
    for (const char* none : {"{}", R"({"agent": null, "stdio": null})"}) {
        const auto empty = read(none);
        ASSERT_TRUE(empty.ok()) << none << empty.error().message();
        EXPECT_FALSE(empty->agent);
    }
}

TEST(RankMetadata, NamesAndContentsOfFilesAreAnyBytes) {
    core::WrittenFile plain, odd;
    plain.path = "/b";
    odd.path = "/a/\x80";
    odd.contents = core::FileContents{std::string("\0\xff!", 3), 0600, 1, 2};
    const RankMetadata written{.files = files_for_ghost({plain, odd})};
    const auto back = read(schema::encode(written));
    ASSERT_TRUE(back.ok()) << back.error().message();
    ASSERT_EQ(back->files.size(), 2U);
    EXPECT_EQ(back->files[0].path, "/b");
    EXPECT_FALSE(back->files[0].contents);
    EXPECT_EQ(path_of(back->files[1]), odd.path);
    EXPECT_EQ(contents_of(back->files[1]), *odd.contents);
}

// Every byte as another one, and every length.
TEST(RankMetadata, DamagedAnywhereIsReadOrRefused) {
    const std::string text = rank_text;
    size_t refused = 0;
    const auto take = [&](const std::string& damaged) {
        const auto metadata = read(damaged);
        if (!metadata) return void(++refused);
        const auto again = read(schema::encode(*metadata));
        ASSERT_TRUE(again.ok()) << damaged << again.error().message();
    };
    for (size_t i = 0; i < text.size(); ++i) {
        take(text.substr(0, i));
        for (const char other : {'\0', '0', '"', '-', '[', '}', '\xff'}) {
            std::string damaged = text;
            damaged[i] = other;
            take(damaged);
        }
    }
    EXPECT_GT(refused, text.size());
}

TEST(RankMetadata, MoreThanANodeHasIsRefused) {
    std::string ranks = "0";
    for (int i = 0; i < 1 << 16; ++i) ranks += ",0";
    const auto many = read(R"({"shared": {"ranks": [)" + ranks + "]}}");
    ASSERT_FALSE(many.ok());
    EXPECT_EQ(many.error().code, Code::corrupt);
}

// A snapshot of a rank on disk, of which the wrapper is to make one.
class DamagedGhost : public testing::Test {
  protected:
    void SetUp() override {
        std::string name = (fs::temp_directory_path() / "rank-metadata-XXXXXX").string();
        ASSERT_NE(mkdtemp(name.data()), nullptr);
        folder_ = name;
        Manifest manifest;
        manifest.name = "7-000001";
        manifest.time = "2026-01-01T00:00:00Z";
        manifest.kind = "full";
        manifest.job.name = "7";
        manifest.runtime.name = "Open MPI";
        manifest.apps = {{{"/bin/one"}, 1, "/"}};
        manifest.mpirun.argv = {"mpirun"};
        manifest.mpirun.cwd = "/";
        manifest.nodes = {{0, "here", 1}};
        manifest.ranks.emplace_back();
        manifest.ranks[0].node = "here";
        manifest.ranks[0].file = "rank-0.ghost";
        manifest.ranks[0].kind = "full";
        manifest.ranks[0].digest = "00";
        const Status written = write_manifest(folder_, manifest);
        ASSERT_TRUE(written.ok()) << written.error().message();
    }
    void TearDown() override { fs::remove_all(folder_); }

    Status look(const std::string& host, const std::string& metadata) {
        core::FileResource file(folder_ + "/rank-0.ghost", core::Use::write);
        core::GhostWriter writer(file);
        GHOST_TRY(file.init());
        GHOST_TRY(writer.head(host, metadata));
        GHOST_TRY(writer.skeleton_end(0));
        GHOST_TRY(writer.end());
        GHOST_TRY(file.finalize());
        SnapshotSource source(folder_, 0, "", "");
        Worker worker;
        GHOST_TRY(source.look(worker));
        (void)source.ready(1);
        return {};
    }

    std::string folder_;
};

TEST_F(DamagedGhost, IsRefusedByWhatItSaysOfItsRank) {
    const std::string rank = R"({"rank": 0, "snapshot": "7-000001")", host = R"({"flags": []})";
    const Status whole = look(host, rank + "}");
    ASSERT_TRUE(whole.ok()) << whole.error().message();
    for (const char* damage :
         {R"("files": {"a": 1})", R"("files": [{"size": 1}])", R"("files": [{"path": 1}])",
          R"("files": [{"path": "/a", "size": "b"}])", R"("files": [{"path_hex": "0"}])",
          R"("files": [{"path": "/a", "contents": "?"}])", R"("shared": [1])",
          R"("shared": {"memory": [{"id": 1}]})", R"("shared": {"ranks": "all"})",
          R"("shared": {"memory": [{"id": "a", "key": "b", "size": -1, "mode": 0}]})",
          R"("stdio": {"stdin": 1})", R"("stdio": {"stdin": {"kind": 2}})"}) {
        const Status read = look(host, rank + ", " + damage + "}");
        ASSERT_FALSE(read.ok()) << damage;
        EXPECT_EQ(read.error().code, Code::corrupt) << read.error().message();
    }
    for (const char* other : {"[]", "7", R"({"rank": "0", "snapshot": "7-000001"})",
                              R"({"rank": 0, "snapshot": 7})", R"({"rank": 0})"}) {
        const Status read = look(host, other);
        ASSERT_FALSE(read.ok()) << other;
        EXPECT_EQ(read.error().code, Code::corrupt) << read.error().message();
    }
}

TEST_F(DamagedGhost, IsRefusedByWhatItSaysOfFilesInUse) {
    for (const char* host :
         {R"({"flags": [], "files": [{"path": 1}]})", R"({"flags": [], "files": {"path": "/"}})"})
        EXPECT_FALSE(look(host, R"({"rank": 0, "snapshot": "7-000001"})").ok()) << host;
}

}  // namespace
}  // namespace ghost::plugin
