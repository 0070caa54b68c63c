// SPDX-License-Identifier: BSD-3-Clause
// Snapshots of jobs on disk: what a manifest must say to be believed, and that a snapshot is
// complete or absent.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sys/file.h>
#include <sys/stat.h>

#include "config.h"
#include "pmix-plugin/settings/parameters.hpp"
#include "pmix-plugin/snapshots/folder.hpp"
#include "pmix-plugin/snapshots/manifest.hpp"

namespace ghost::plugin {
namespace {

namespace fs = std::filesystem;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

const std::string secret(64, 'a');

class Folder : public testing::Test {
  protected:
    void SetUp() override {
        std::string pattern = (fs::temp_directory_path() / "snapshot-test-XXXXXX").string();
        ASSERT_NE(mkdtemp(pattern.data()), nullptr);
        folder = pattern;
    }
    void TearDown() override { fs::remove_all(folder); }

    void put(const std::string& name, const std::string& text) {
        fs::create_directories((fs::path(folder) / name).parent_path());
        std::ofstream(fs::path(folder) / name) << text;
    }
    // A complete snapshot of two ranks whose ghosts have `bytes` bytes and are based on `parents`.
    void make(const std::string& name, const std::vector<std::string>& parents = {});
    bool exists(const std::string& name) { return fs::exists(fs::path(folder) / name); }

    std::string folder;
};

Manifest sample(const std::string& name, const std::vector<std::string>& parents = {}) {
    Manifest m;
    m.name = name;
    m.time = utc_now();
    m.kind = parents.empty() ? "full" : "incremental";
    m.pause_us = 1234;
    m.bytes = 20;
    m.job.name = parse_snapshot_name(name) ? parse_snapshot_name(name)->job : "7";
    m.job.epoch = 3;
    m.job.uid = 1000;
    m.runtime.name = "Open MPI";
    m.apps = {{{"/bin/one", "a b", "\xff\xfe"}, 1, "/home"}, {{"two"}, 1, "/tmp"}};
    m.mpirun.argv = {"mpirun", "--mca", "ghost", "1"};
    m.mpirun.cwd = "/home";
    m.mpirun.parameters = {{"ghost_checkpoint_interval", "10m"}};
    m.input = {0, "/home/input", 17};
    m.nodes = {{0, "gn1", 2}};
    for (uint32_t rank = 0; rank < 2; ++rank) {
        Manifest::Rank row;
        row.rank = rank;
        row.app = rank;
        row.node = "gn1";
        row.file = rank_file(rank);
        row.kind = m.kind;
        for (const auto& parent : parents) row.chain.push_back(parent + "/" + row.file);
        row.digest = "00112233";
        row.bytes = 10;
        row.memory = uint64_t{5} << 40;
        m.ranks.push_back(row);
    }
    m.files = {{"/home/out-\xc3\xa4-\x80", 99, {0, 1}}};
    return m;
}

void Folder::make(const std::string& name, const std::vector<std::string>& parents) {
    auto partial = create_partial(folder, name);
    ASSERT_TRUE(partial.ok()) << partial.error().message();
    for (uint32_t rank = 0; rank < 2; ++rank)
        put(partial_name(name) + "/" + rank_file(rank), "0123456789");
    ASSERT_TRUE(write_secret(*partial, secret).ok());
    ASSERT_TRUE(write_manifest(*partial, sample(name, parents)).ok());
    const Status done = commit_snapshot(folder, name);
    ASSERT_TRUE(done.ok()) << done.error().message();
}

std::string refusal(Json object) {
    auto read = manifest_from(object);
    return read.ok() ? "" : read.error().message();
}

// A manifest with one thing changed and its digest made right again.
std::string refusal_with(void (*change)(Manifest&)) {
    Manifest m = sample("7-000001");
    change(m);
    return refusal(manifest_json(m));
}

TEST(SnapshotManifest, ManifestSurvivesEncoding) {
    const Manifest m = sample("7-000001", {"7-000000"});
    auto back = manifest_from(manifest_json(m));
    ASSERT_TRUE(back.ok()) << back.error().message();
    EXPECT_EQ(manifest_json(*back), manifest_json(m));
    EXPECT_EQ(back->apps[0].argv, m.apps[0].argv);  // any bytes
    EXPECT_EQ(back->files[0].path, m.files[0].path);
    EXPECT_EQ(back->ranks[1].memory, m.ranks[1].memory);
    EXPECT_THAT(back->ranks[1].chain, ElementsAre("7-000000/rank-1.ghost"));
    EXPECT_EQ(back->input.offset, 17u);
    ASSERT_NE(back->find(1), nullptr);
    EXPECT_EQ(back->find(2), nullptr);
}

TEST(SnapshotManifest, ParityLeadsNowhereElse) {
    Manifest m = sample("7-000001");
    const ParitySet right{
        "17.0", "7-000001", {{0, "gn1", {{"7-000001/rank-0.ghost", 10}}}, {1, "gn2", {}}}};
    m.parity = {{right}};
    const auto back = manifest_from(manifest_json(m));
    ASSERT_TRUE(back.ok()) << back.error().message();
    EXPECT_EQ(manifest_json(*back), manifest_json(m));
    m.parity->groups[0].snapshot = "../7-000001";
    EXPECT_NE(refusal(manifest_json(m)).find("parity is outside"), std::string::npos);
    m.parity = {{right}};
    m.parity->groups[0].members.pop_back();
    EXPECT_NE(refusal(manifest_json(m)).find("of no group"), std::string::npos);
    m.parity = {{right}};
    m.parity->groups[0].members[0].files[0].file = "/etc/passwd";
    EXPECT_NE(refusal(manifest_json(m)).find("parity is of a file outside"), std::string::npos);
}

// What other versions of Ghost read: docs/SNAPSHOT_FORMAT.md.
TEST(SnapshotManifest, IsWhatTheFormatSays) {
    Manifest m = sample("7-000001", {"7-000000"});
    m.time = "2025-01-31T23:59:59.123456Z";
    m.ranks.pop_back();
    m.apps.pop_back();
    m.files[0].copy = Manifest::File::Copy{0, 98, "0123456789abcdef"};
    Json object = manifest_json(m);
    EXPECT_EQ(object["version"], PACKAGE_VERSION);
    EXPECT_EQ(object["digest"], manifest_digest(object));
    object.erase("version");
    object.erase("digest");
    EXPECT_EQ(object, Json::parse(R"({
        "format": 1, "name": "7-000001", "time": "2025-01-31T23:59:59.123456Z",
        "kind": "incremental", "pause_us": 1234, "total_us": 0, "bytes": 20,
        "job": {"name": "7", "epoch": 3, "ranks": 1, "uid": 1000},
        "runtime": {"name": "Open MPI", "version": "", "pmix": ""},
        "apps": [{"argv": ["/bin/one", "a b", {"hex": "fffe"}], "np": 1, "cwd": "/home"}],
        "mpirun": {"argv": ["mpirun", "--mca", "ghost", "1"], "cwd": "/home",
                   "parameters": {"ghost_checkpoint_interval": "10m"}},
        "stdin": {"rank": 0, "path": "/home/input", "offset": 17},
        "nodes": [{"id": 0, "name": "gn1", "slots": 2}],
        "ranks": [{"rank": 0, "app": 0, "node": "gn1", "binding": "", "file": "rank-0.ghost",
                   "kind": "incremental", "chain": ["7-000000/rank-0.ghost"],
                   "digest": "00112233", "bytes": 10, "page_bytes": 0, "memory": 5497558138880,
                   "pause_us": 0}],
        "files": [{"path": {"hex": "2f686f6d652f6f75742dc3a42d80"}, "size": 99, "ranks": [0, 1],
                   "copy": {"rank": 0, "size": 98, "hash": "0123456789abcdef"}}]})"));
}

// Older ones have none.
TEST(SnapshotManifest, FileContentsOwnerIsNamed) {
    Manifest m = sample("7-000001");
    m.files.push_back({"/home/small", 8, {0, 1}, Manifest::File::Copy{1, 7, "0123456789abcdef"}});
    auto back = manifest_from(manifest_json(m));
    ASSERT_TRUE(back.ok()) << back.error().message();
    EXPECT_FALSE(back->files[0].copy);
    ASSERT_TRUE(back->files[1].copy);
    EXPECT_EQ(back->files[1].copy->rank, 1u);
    EXPECT_EQ(back->files[1].copy->size, 7u);
    EXPECT_EQ(back->files[1].copy->hash, "0123456789abcdef");
    Json object = manifest_json(m);
    object["files"][1]["copy"].erase("hash");
    object["digest"] = manifest_digest(object);
    EXPECT_THAT(refusal(object), HasSubstr("files[1].copy.hash is missing"));
    m.files[1].copy->rank = 2;
    EXPECT_THAT(refusal(manifest_json(m)), HasSubstr("no rank 2"));
}

TEST(SnapshotManifest, ChangedManifestIsRefused) {
    Json object = manifest_json(sample("7-000001"));
    object["job"]["epoch"] = 4;
    EXPECT_THAT(refusal(object), HasSubstr("digest"));
}

TEST(SnapshotManifest, RefusesANewerFormatBeforeAnythingElse) {
    Json object{{"format", manifest_format + 1}};
    auto read = manifest_from(object);
    ASSERT_FALSE(read.ok());
    EXPECT_EQ(read.error().code, Code::unsupported);
    EXPECT_THAT(read.error().message(), HasSubstr("format 2"));
}

// Every field must be there and have its type: each is taken away and replaced in turn.
void damage(Json object, const Json::json_pointer& at, int& tried) {
    for (const auto& [key, value] : object.at(at).items()) {
        const auto here = at / (object.at(at).is_array() ? std::string("0") : key);
        if (key == "digest" && at.empty()) continue;
        const bool free = at.to_string() == "/mpirun/parameters" || value.is_null();
        if (object.at(at).is_object() && !free) {
            for (const bool remove : {true, false}) {
                Json changed = object;
                if (remove)
                    changed[at].erase(key);
                else
                    changed[here] = true;                      // no field is a truth value
                changed["digest"] = manifest_digest(changed);  // the field itself is judged
                auto read = manifest_from(changed);
                EXPECT_FALSE(read.ok()) << here.to_string();
                ++tried;
            }
        }
        if (value.is_structured() && !value.empty()) damage(object, here, tried);
        if (object.at(at).is_array()) break;
    }
}

TEST(SnapshotManifest, RefusesMissingAndForeignFields) {
    int tried = 0;
    damage(manifest_json(sample("7-000001")), Json::json_pointer(), tried);
    EXPECT_GT(tried, 80);
}

TEST(SnapshotManifest, ContradictoryManifestIsRefused) {
    EXPECT_EQ(refusal_with([](Manifest&) {}), "");
    EXPECT_THAT(refusal_with([](Manifest& m) { m.ranks.pop_back(); }), HasSubstr("applications"));
    EXPECT_THAT(refusal_with([](Manifest& m) { m.ranks[1].rank = 0; }), HasSubstr("rank 0 stands"));
    EXPECT_THAT(refusal_with([](Manifest& m) { m.ranks[1].app = 2; }), HasSubstr("no application"));
    EXPECT_THAT(refusal_with([](Manifest& m) { m.apps[0].np = 2; }), HasSubstr("3 ranks of 2"));
    EXPECT_THAT(refusal_with([](Manifest& m) { m.apps[0].argv.clear(); }), HasSubstr("no program"));
    EXPECT_THAT(refusal_with([](Manifest& m) { m.ranks[0].file = "../x"; }), HasSubstr("no file"));
    EXPECT_THAT(refusal_with([](Manifest& m) { m.ranks[0].kind = "half"; }), HasSubstr("neither"));
    EXPECT_THAT(refusal_with([](Manifest& m) { m.ranks[0].kind = "incremental"; }),
                HasSubstr("parents"));
    EXPECT_THAT(refusal_with([](Manifest& m) {
                    m.ranks[0].kind = "incremental";
                    m.ranks[0].chain = {"../7-000001/rank-0.ghost"};
                }),
                HasSubstr("outside"));
    EXPECT_THAT(refusal_with([](Manifest& m) { m.job.name = "seven"; }), HasSubstr("no number"));
    EXPECT_THAT(refusal_with([](Manifest& m) { m.files[0].path = "out"; }), HasSubstr("absolute"));
}

TEST_F(Folder, ManifestErrorsNameFieldAndPlace) {
    auto none = read_manifest(folder);
    ASSERT_FALSE(none.ok());
    EXPECT_EQ(none.error().code, Code::not_found);
    ASSERT_TRUE(write_manifest(folder, sample("7-000001")).ok());
    struct stat info {};
    ASSERT_EQ(stat((folder + "/manifest.json").c_str(), &info), 0);
    EXPECT_EQ(info.st_mode & 0777, 0600u);
    ASSERT_TRUE(read_manifest(folder).ok());
    const auto size = static_cast<uintmax_t>(info.st_size);
    for (uintmax_t length = 0; length + 2 < size; length += 37) {  // but the last line's end
        ASSERT_TRUE(write_manifest(folder, sample("7-000001")).ok());
        fs::resize_file(folder + "/manifest.json", length);
        auto read = read_manifest(folder);
        ASSERT_FALSE(read.ok()) << length;
        EXPECT_THAT(read.error().message(), HasSubstr(folder));
    }
}

SigningKey key_of(unsigned char which) {
    return SigningKey(std::array<unsigned char, 32>{which});
}

Manifest signed_sample(const SigningKey& key) {
    Manifest m = sample("7-000001", {"7-000000"});
    for (auto& rank : m.ranks) rank.signer = std::string(64, 'b');
    EXPECT_TRUE(sign_manifest(m, key, secret).ok());
    return m;
}

TEST(SnapshotManifest, OnlyTheSignersWholeManifestIsTaken) {
    const SigningKey key = key_of(1), other = key_of(2);
    const Json good = manifest_json(signed_sample(key));
    ASSERT_TRUE(manifest_from(good).ok());
    EXPECT_TRUE(check_signature(good, key.public_key()).ok());
    EXPECT_TRUE(check_signature(manifest_json(*manifest_from(good)), key.public_key()).ok());
    const auto why = [&](const Json& object) {
        const Status done = check_signature(object, key.public_key());
        return done.ok() ? "" : done.error().message();
    };
    EXPECT_THAT(why(manifest_json(sample("7-000001"))), HasSubstr("it is not signed"));
    EXPECT_THAT(why(manifest_json(signed_sample(other))),
                HasSubstr("another, whose key is " + other.public_key().hex()));
    // whose it says it is does not count
    Json false_name = manifest_json(signed_sample(other));
    false_name["signature"]["signer"] = key.public_key().hex();
    EXPECT_THAT(why(false_name), HasSubstr("not what was signed"));
    // every field, changed, and left out
    for (const auto& [name, value] : good.items()) {
        if (name == "digest") continue;
        Json less = good;
        less.erase(name);
        EXPECT_NE(why(less), "") << name;
        Json changed = good;
        changed[name] = value.is_number() ? Json(value.get<int>() + 1) : Json("changed");
        EXPECT_NE(why(changed), "") << name;
    }
    for (const char* name : {"signer", "secret", "signature"}) {
        Json changed = good;
        changed["signature"][name] = std::string(name == std::string("signature") ? 128 : 64, '0');
        EXPECT_NE(why(changed), "") << name;
    }
    for (const char* name : {"signer", "digest", "file", "chain"}) {
        Json changed = good;
        changed["ranks"][1][name] = name == std::string("chain") ? Json::array() : Json("changed");
        EXPECT_THAT(why(changed), HasSubstr("not what was signed")) << name;
    }
    Json more = good;
    more["ranks"][1]["also"] = 1;
    EXPECT_THAT(why(more), HasSubstr("not what was signed"));
}

TEST(SnapshotManifest, GhostWithoutSignatureIsNotSignedFor) {
    Manifest m = sample("7-000001");
    const Status done = sign_manifest(m, key_of(1), secret);
    ASSERT_FALSE(done.ok());
    EXPECT_THAT(done.error().message(), HasSubstr("rank 0 is not signed"));
}

TEST_F(Folder, OnlySignedSnapshotsOfTheSignerAreWhole) {
    const SigningKey key = key_of(1);
    make("7-000001");
    make("7-000002");
    Manifest m = sample("7-000002");
    for (auto& rank : m.ranks) rank.signer = std::string(64, 'b');
    ASSERT_TRUE(sign_manifest(m, key, secret).ok());
    ASSERT_TRUE(write_manifest(folder + "/7-000002", m).ok());
    auto all = list_snapshots(folder, "7", key.public_key());
    ASSERT_EQ(all->size(), 2u);
    EXPECT_TRUE((*all)[0].whole) << (*all)[0].why;
    EXPECT_FALSE((*all)[1].whole);
    EXPECT_THAT((*all)[1].why, HasSubstr("it is not signed"));
    EXPECT_FALSE(look_at_snapshot(folder + "/7-000002", key_of(2).public_key()).whole);
    // with a secret of somebody else's
    ASSERT_TRUE(write_secret(folder + "/7-000002", std::string(64, 'c')).ok());
    const auto changed = look_at_snapshot(folder + "/7-000002", key.public_key());
    EXPECT_FALSE(changed.whole);
    EXPECT_THAT(changed.why, HasSubstr("secret is not what was signed"));
}

TEST_F(Folder, SecretMustBeValid) {
    ASSERT_TRUE(write_secret(folder, secret).ok());
    auto read = read_secret(folder);
    ASSERT_TRUE(read.ok());
    EXPECT_EQ(*read, secret);
    ASSERT_TRUE(write_secret(folder, "abc").ok());
    EXPECT_EQ(read_secret(folder).error().code, Code::corrupt);
}

TEST(SnapshotNames, NameIsParsedAndPrinted) {
    EXPECT_EQ(snapshot_name("4711", 3), "4711-000003");
    EXPECT_EQ(rank_file(3, "lz4"), "rank-3.ghost.lz4");
    EXPECT_EQ(rank_file(3, "zstd"), "rank-3.ghost.zst");
    auto parts = parse_snapshot_name("4711-1000000.partial");
    ASSERT_TRUE(parts.has_value());
    EXPECT_EQ(parts->job, "4711");
    EXPECT_EQ(parts->number, 1000000u);
    EXPECT_TRUE(parts->partial);
    parts = parse_snapshot_name(partial_name("4711-000003", "0123456789abcdef"));
    ASSERT_TRUE(parts.has_value());
    EXPECT_EQ(parts->number, 3u);
    EXPECT_TRUE(parts->partial);
    for (const char* other :
         {"", "4711", "4711-1", "a-000001", "-000001", "4711-00000x", "4711.events",
          "4711-000001.old", "4711-000001.0a", "4711-000001.x.partial"})
        EXPECT_FALSE(parse_snapshot_name(other).has_value()) << other;
}

TEST_F(Folder, SnapshotIsCompleteOrAbsent) {
    const std::string deep = folder + "/a/b";
    ASSERT_TRUE(create_partial(deep, "7-000001").ok());
    struct stat info {};
    ASSERT_EQ(stat(deep.c_str(), &info), 0);
    EXPECT_EQ(info.st_mode & 0777, 0700u);
    EXPECT_THAT(*list_snapshots(deep), IsEmpty());
    EXPECT_EQ(next_snapshot_number(deep, "7"), 2u);
    EXPECT_EQ(next_snapshot_number(deep, "8"), 1u);
    // the next one of the job removes it, of another job's it knows nothing
    ASSERT_TRUE(create_partial(deep, "8-000001").ok());
    ASSERT_TRUE(create_partial(deep, "7-000002").ok());
    EXPECT_FALSE(exists("a/b/7-000001.partial"));
    EXPECT_TRUE(exists("a/b/8-000001.partial"));
    // several parties make the same one
    put("a/b/7-000002.partial/rank-0.ghost", "x");
    ASSERT_TRUE(create_partial(deep, "7-000002").ok());
    EXPECT_TRUE(exists("a/b/7-000002.partial/rank-0.ghost"));
    ASSERT_TRUE(commit_snapshot(deep, "7-000002").ok());
    EXPECT_TRUE(commit_snapshot(deep, "7-000002").ok());
    EXPECT_TRUE(exists("a/b/7-000002/rank-0.ghost"));
    EXPECT_FALSE(commit_snapshot(deep, "7-000003").ok());
    EXPECT_TRUE(discard_partial(deep, "8-000001").ok());
    EXPECT_FALSE(exists("a/b/8-000001.partial"));
    EXPECT_FALSE(create_partial(deep, "../escape").ok());
}

// On the disk or in the memory of a node that was not mpirun's: an earlier life of the job took a
// snapshot by that number after the one that this life began from.
TEST_F(Folder, SnapshotOfAnEarlierLifeIsReplaced) {
    put("7-000002/rank-0.ghost", "of the earlier life");
    ASSERT_TRUE(create_partial(folder, "7-000002").ok());
    put("7-000002.partial/rank-1.ghost", "of this one");
    const Status done = commit_snapshot(folder, "7-000002");
    EXPECT_TRUE(done.ok()) << done.error().message();
    EXPECT_TRUE(exists("7-000002/rank-1.ghost"));
    EXPECT_FALSE(exists("7-000002/rank-0.ghost"));
    EXPECT_FALSE(exists("7-000002.partial"));
}

// It still writes, behind a cut or slowly, and has come to the same number.
TEST_F(Folder, LivesDoNotShareAnIncompleteSnapshot) {
    const auto before = create_partial(folder, "7-000002", "aa");
    ASSERT_TRUE(before.ok());
    put("7-000002.aa.partial/rank-0.ghost", "of the earlier life");
    ASSERT_TRUE(create_partial(folder, "7-000002", "bb").ok());
    EXPECT_FALSE(exists("7-000002.aa.partial"));
    EXPECT_FALSE(exists("7-000002.bb.partial/rank-0.ghost"));
    put("7-000002.bb.partial/rank-0.ghost", "of this one");
    EXPECT_FALSE(commit_snapshot(folder, "7-000002", "aa").ok());
    EXPECT_TRUE(discard_partial(folder, "7-000002", "aa").ok());
    ASSERT_TRUE(commit_snapshot(folder, "7-000002", "bb").ok());
    EXPECT_TRUE(exists("7-000002/rank-0.ghost"));
    EXPECT_EQ(next_snapshot_number(folder, "7"), 3u);
}

TEST_F(Folder, ListIsNewestFirstWithDamageNamed) {
    make("7-000001");
    make("7-000002", {"7-000001"});
    make("9-000001");
    auto all = list_snapshots(folder);
    ASSERT_TRUE(all.ok());
    std::vector<std::string> names;
    for (const auto& one : *all) {
        names.push_back(one.name);
        EXPECT_TRUE(one.whole) << one.name << one.why;
    }
    EXPECT_THAT(names, ElementsAre("9-000001", "7-000002", "7-000001"));
    EXPECT_EQ(list_snapshots(folder, "7")->size(), 2u);

    // the parent's ghost is cut: both are based on it
    fs::resize_file(folder + "/7-000001/rank-1.ghost", 9);
    all = list_snapshots(folder, "7");
    for (const auto& one : *all) {
        EXPECT_FALSE(one.whole);
        EXPECT_THAT(one.why, HasSubstr("9 bytes"));
    }
    fs::remove_all(folder + "/7-000001");
    all = list_snapshots(folder, "7");
    ASSERT_EQ(all->size(), 1u);
    EXPECT_THAT(all->front().why, HasSubstr("7-000001/rank-0.ghost"));
    fs::remove(folder + "/9-000001/secret");
    EXPECT_THAT(list_snapshots(folder, "9")->front().why, HasSubstr("secret"));
    EXPECT_EQ(list_snapshots(folder + "/none").error().code, Code::not_found);
}

TEST_F(Folder, GhostsOfOtherNodesAreAllowed) {
    make("7-000001");
    auto manifest = *read_manifest(folder + "/7-000001");
    manifest.ranks[1].node = "gn2";
    ASSERT_TRUE(write_manifest(folder + "/7-000001", manifest).ok());
    EXPECT_THAT(look_at_snapshot(folder + "/7-000001").away, IsEmpty());
    fs::remove(folder + "/7-000001/rank-1.ghost");
    auto snapshot = look_at_snapshot(folder + "/7-000001");
    EXPECT_TRUE(snapshot.whole) << snapshot.why;
    EXPECT_THAT(snapshot.away, ElementsAre("gn2"));
    fs::remove(folder + "/7-000001/rank-0.ghost");  // mpirun's node has its own
    snapshot = look_at_snapshot(folder + "/7-000001");
    EXPECT_FALSE(snapshot.whole);
}

TEST_F(Folder, RotationKeepsNeededParents) {
    make("7-000001");
    make("7-000002");
    make("7-000003", {"7-000002"});
    make("7-000004", {"7-000003", "7-000002"});
    make("8-000001");
    const auto goes = [&](size_t keep) { return removable(*list_snapshots(folder), "7", keep); };
    EXPECT_THAT(goes(1), ElementsAre("7-000001"));
    EXPECT_THAT(goes(3), ElementsAre("7-000001"));
    EXPECT_THAT(goes(4), IsEmpty());
    make("7-000005");
    EXPECT_THAT(goes(1), ElementsAre("7-000004", "7-000003", "7-000002", "7-000001"));
    EXPECT_THAT(goes(0), ElementsAre("7-000004", "7-000003", "7-000002", "7-000001"));
    EXPECT_THAT(goes(2), ElementsAre("7-000001"));
    // a damaged newest one is no reason to give up the last whole one
    fs::remove(folder + "/7-000005/rank-0.ghost");
    EXPECT_THAT(goes(1), ElementsAre("7-000001"));
    ASSERT_TRUE(remove_snapshot(folder, "7-000001").ok());
    EXPECT_FALSE(exists("7-000001"));
    EXPECT_FALSE(exists("7-000001.partial"));
    EXPECT_FALSE(remove_snapshot(folder, "../x").ok());
}

TEST_F(Folder, JobLockIsExclusive) {
    auto mine = lock_job(folder, "7", "mpirun 12 on gn1");
    ASSERT_TRUE(mine.ok()) << mine.error().message();
    auto theirs = lock_job(folder, "7", "mpirun 13 on gn2");
    ASSERT_FALSE(theirs.ok());
    EXPECT_EQ(theirs.error().code, Code::busy);
    EXPECT_THAT(theirs.error().message(), HasSubstr("mpirun 12 on gn1"));
    EXPECT_TRUE(lock_job(folder, "8", "mpirun 13 on gn2").ok());
    mine->reset();
    EXPECT_TRUE(lock_job(folder, "7", "mpirun 13 on gn2").ok());
}

// A file server that was out of reach has given it away, or the folder was made anew.
TEST_F(Folder, LostJobLockIsNoticed) {
    const std::string who = "mpirun 12 on gn1";
    auto mine = lock_job(folder, "7", who, "aa");
    ASSERT_TRUE(mine.ok()) << mine.error().message();
    EXPECT_TRUE(holds_job(*mine, folder, "7", who, "aa"));
    EXPECT_FALSE(holds_job(*mine, folder, "7", who, "bb"));
    EXPECT_FALSE(holds_job({}, folder, "7", who, "aa"));
    ASSERT_EQ(flock(mine->get(), LOCK_UN), 0);
    auto theirs = lock_job(folder, "7", "mpirun 13 on gn2", "bb");
    ASSERT_TRUE(theirs.ok()) << theirs.error().message();
    EXPECT_FALSE(holds_job(*mine, folder, "7", who, "aa"));
    EXPECT_THAT(lock_job(folder, "7", who, "aa").error().message(),
                HasSubstr("it still runs: mpirun 13 on gn2"));
    theirs->reset();
    mine = lock_job(folder, "7", who, "aa");
    ASSERT_TRUE(mine.ok());
    fs::remove(folder + "/7.lock");
    EXPECT_FALSE(holds_job(*mine, folder, "7", who, "aa"));
}

TEST_F(Folder, SymbolicLinkIsNotWrittenThrough) {
    put("precious", "kept");
    for (const char* name : {"7.lock", "7.events"})
        fs::create_symlink(folder + "/precious", folder + "/" + name);
    EXPECT_EQ(lock_job(folder, "7", "mpirun 12 on gn1").error().code, Code::refused);
    EXPECT_EQ(append_event(folder, "7", "{}\n").error().code, Code::refused);
    EXPECT_EQ(fs::file_size(folder + "/precious"), 4u);
    // where the secret and the ranks' memory go
    put("elsewhere/file", "");
    fs::permissions(folder + "/elsewhere", fs::perms::all);
    fs::create_directory_symlink(folder + "/elsewhere", folder + "/7-000001.partial");
    EXPECT_EQ(create_partial(folder, "7-000001").error().code, Code::refused);
}

TEST_F(Folder, EventIsOneLine) {
    ASSERT_TRUE(append_event(folder, "7", "{\"name\":\"7-000001\"}\n").ok());
    ASSERT_TRUE(append_event(folder, "7", "{\"event\":\"restart\"}\n").ok());
    std::ifstream in(events_file(folder, "7"));
    std::string first, second;
    std::getline(in, first);
    std::getline(in, second);
    EXPECT_EQ(Json::parse(first)["name"], "7-000001");
    EXPECT_EQ(Json::parse(second)["event"], "restart");
}

TEST(SnapshotParameters, ParametersAreParsed) {
    EXPECT_EQ(*parse_duration_us("0"), 0);
    EXPECT_EQ(*parse_duration_us("90"), 90'000'000);
    EXPECT_EQ(*parse_duration_us("10m"), 600'000'000);
    EXPECT_EQ(*parse_duration_us("1.5H"), 5'400'000'000);
    EXPECT_EQ(*parse_duration_us("2d"), int64_t{2} * 86400 * 1000000);
    EXPECT_EQ(*parse_bytes("4096"), 4096u);
    EXPECT_EQ(*parse_bytes("200M"), uint64_t{200} << 20);
    EXPECT_EQ(*parse_bytes("1.5g"), uint64_t{3} << 29);
    EXPECT_EQ(*parse_signal("URG"), SIGURG);
    EXPECT_EQ(*parse_signal("sigusr2"), SIGUSR2);
    EXPECT_EQ(*parse_signal("23"), 23);
    EXPECT_EQ(*parse_signal("none"), 0);
    for (const char* other : {"", "m", "-1", "10 m", "10mm", "10x", "1e300", "nan", "inf"}) {
        EXPECT_FALSE(parse_duration_us(other).ok()) << other;
        EXPECT_FALSE(parse_bytes(other).ok()) << other;
    }
    for (const char* other : {"", "SIG", "HELLO", "-1", "99", "2x"})
        EXPECT_FALSE(parse_signal(other).ok()) << other;
}

}  // namespace
}  // namespace ghost::plugin
