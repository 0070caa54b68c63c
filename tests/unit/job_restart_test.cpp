// SPDX-License-Identifier: BSD-3-Clause
// `ghost restart`, `ghost snapshots`, `ghost verify` and `ghost checkpoint` of jobs: which words go
// to mpirun, which snapshot is used, and each refusal. Runs the built program with an mpirun that
// only says what it was given.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fmt/format.h>
#include <fstream>
#include <sstream>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.hpp"
#include "config.h"
#include "ghost-core/format/host.hpp"
#include "ghost-core/format/writer.hpp"
#include "ghost-core/resource/file.hpp"
#include "ghost-core/resource/sign.hpp"
#include "pmix-plugin/snapshots/folder.hpp"
#include "tools/process.hpp"
#include "tools/restart_line.hpp"

namespace ghost::tools {
namespace {

namespace fs = std::filesystem;
using plugin::Manifest;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

using Words = std::vector<std::string>;

// --- which words are whose ---

TEST(RestartWords, OwnAndMpirunOptionsAreSplit) {
    EXPECT_THAT(mark_mpirun_options(
                    {"restart", "snap", "--replace", "-host", "a:1", "--mca", "x", "1", "--json"}),
                ElementsAre("restart", "snap", "--replace", "--mpirun=-host", "--mpirun=a:1",
                            "--mpirun=--mca", "--mpirun=x", "--mpirun=1", "--json"));
    EXPECT_THAT(mark_mpirun_options({"restart", "--from", "memory", "7"}),
                ElementsAre("restart", "--from", "memory", "7"));
    EXPECT_THAT(mark_mpirun_options({"restart", "--from=memory"}),
                ElementsAre("restart", "--from=memory"));
}

TEST(RestartWords, HostOptionsAreFound) {
    EXPECT_TRUE(name_hosts({"--host", "a"}));
    EXPECT_TRUE(name_hosts({"-H", "a"}));
    EXPECT_TRUE(name_hosts({"--mca", "x", "1", "-hostfile", "f"}));
    EXPECT_FALSE(name_hosts({"--oversubscribe", "host"}));
}

TEST(RestartWords, JobFamilyIsParsed) {
    EXPECT_EQ(*job_family("874119169"), 874119168u);
    for (const char* other : {"", "x", "1x", "874119168", "874119170", "99999999999"})
        EXPECT_FALSE(job_family(other).ok()) << other;
}

Manifest sample() {
    Manifest m;
    m.version = PACKAGE_VERSION;
    m.job.name = "874119169";
    m.job.uid = ::geteuid();
    m.apps = {{{"/bin/true", "one", "two words"}, 1, "/tmp"}, {{"sh"}, 1, "/"}};
    m.mpirun.argv = {"mpirun"};
    m.mpirun.parameters = {{"ghost", "1"},
                           {"ghost_checkpoint_dir", "./s"},
                           {"ghost_checkpoint_interval", "10m"},
                           {"ghost_verbose", "2"}};
    return m;
}

Result<Words> line_of(const Manifest& m, const Words& options, const Words& set = {}) {
    return restart_line(m, {"/s/874119169-000002", options, ""}, [&](const std::string& name) {
        return std::find(set.begin(), set.end(), name) != set.end() ? std::optional<std::string>("")
                                                                    : std::nullopt;
    });
}

TEST(RestartLine, RestartKeepsJobName) {
    EXPECT_THAT(
        *line_of(sample(), {"--host", "a:2"}),
        ElementsAre("mpirun", "--mca", "ghost", "1", "--mca", "ess_base_jobid", "874119168",
                    "--mca", "ghost_restart", "/s/874119169-000002", "--mca",
                    "ghost_checkpoint_dir", "/s", "--mca", "ghost_checkpoint_interval", "10m",
                    "--mca", "ghost_verbose", "2", "--host", "a:2", "-np", "1", "--wdir", "/tmp",
                    "/bin/true", "one", "two words", ":", "-np", "1", "--wdir", "/", "sh"));
}

TEST(RestartLine, UserParametersOverrideManifest) {
    const auto line = *line_of(
        sample(), {"--mca", "ghost_checkpoint_dir", "/other", "-mca", "ghost_verbose", "5"},
        {"OMPI_MCA_ghost_checkpoint_interval"});
    EXPECT_EQ(std::count(line.begin(), line.end(), "ghost_checkpoint_dir"), 1);
    EXPECT_EQ(std::count(line.begin(), line.end(), "ghost_verbose"), 1);
    EXPECT_EQ(std::count(line.begin(), line.end(), "ghost_checkpoint_interval"), 0);
}

// How it runs, not where.
TEST(RestartLine, OptionsOfTheFirstLineAreRepeated) {
    Manifest m = sample();
    m.mpirun.argv = {"mpirun",
                     "--mca",
                     "ghost",
                     "1",
                     "--allow-run-as-root",
                     "-mca",
                     "orte_allowed_exit_without_sync",
                     "1",
                     "--host",
                     "a:2",
                     "--mca",
                     "rmaps_base_mapping_policy",
                     "node",
                     "--mca",
                     "ess_base_jobid",
                     "874119168",
                     "--gmca",
                     "plm_rsh_agent",
                     "ssh -p 7",
                     "--tag-output",
                     "--mca",
                     "ghost_restart",
                     "/s/0",
                     "-np",
                     "1",
                     "/bin/true",
                     "--mca",
                     "not",
                     "ours"};
    const auto line = *line_of(m, {"--mca", "plm_rsh_agent", "rsh"});
    const auto count = [&line](const char* word) {
        return std::count(line.begin(), line.end(), word);
    };
    EXPECT_THAT(*line_of(m, {}), testing::IsSupersetOf({"orte_allowed_exit_without_sync",
                                                        "plm_rsh_agent", "ssh -p 7"}));
    for (const char* once : {"orte_allowed_exit_without_sync", "--allow-run-as-root",
                             "--tag-output", "ghost_restart", "ess_base_jobid", "rsh"})
        EXPECT_EQ(count(once), 1) << once;
    for (const char* never : {"--host", "rmaps_base_mapping_policy", "ssh -p 7", "not"})
        EXPECT_EQ(count(never), 0) << never;
}

TEST(RestartLine, InputGoesToSameRank) {
    Manifest m = sample();
    m.input = {1, "/in", 5};
    EXPECT_THAT(*line_of(m, {}), testing::Contains("--stdin"));
    m.input.rank = 0;
    EXPECT_THAT(*line_of(m, {}), Not(testing::Contains("--stdin")));
}

TEST(RestartLine, RefusesAnotherJob) {
    for (const Words& options :
         {Words{"-np", "3"}, Words{"--n", "3"}, Words{"-c", "2"}, Words{":", "x"},
          Words{"--wdir", "/"}, Words{"-wd", "/"}, Words{"--mca", "ghost", "0"},
          Words{"--mca", "ess_base_jobid", "0"}}) {
        auto line = line_of(sample(), options);
        ASSERT_FALSE(line.ok()) << options[0];
        EXPECT_EQ(line.error().code, Code::invalid);
    }
}

// --- the command ---

struct Outcome {
    int exit = -1;
    std::string out, err;
    Json json() const { return Json::parse(out, nullptr, false); }
};

class JobCommand : public testing::Test {
  protected:
    void SetUp() override {
        if (::access("criu/sbin/criu", X_OK) != 0)
            GTEST_SKIP() << "no criu in the build folder (make criu)";
        std::string pattern = (fs::temp_directory_path() / "job-restart-XXXXXX").string();
        ASSERT_NE(mkdtemp(pattern.data()), nullptr);
        folder = pattern;
        snapshots = folder + "/snapshots";
        ::setenv("OMPI_MCA_orte_tmpdir_base", folder.c_str(), 1);
        put("bin/mpirun",
            "#!/bin/sh\nfor word; do echo \"$word\"; done\necho stdin: $(cat)\n"
            "exit 7\n");
        fs::permissions(folder + "/bin/mpirun", fs::perms::owner_all);
        put("output", "0123456789");
        put("input", "first second third");
    }
    void TearDown() override {
        if (!folder.empty()) fs::remove_all(folder);
    }

    void put(const std::string& name, const std::string& text) {
        fs::create_directories((fs::path(folder) / name).parent_path());
        std::ofstream(fs::path(folder) / name) << text;
    }

    // A ghost without a process; says its digest.
    std::string ghost_file(const std::string& path, const std::string& host = {}) {
        std::unique_ptr<core::Resource> file =
            std::make_unique<core::FileResource>(path, core::Use::write);
        if (rank_key) file = core::SignResource::writer(std::move(file), rank_key);
        core::Resource& out = *file;
        EXPECT_TRUE(out.init().ok());
        core::GhostWriter writer(out);
        EXPECT_TRUE(writer.head(host.empty() ? core::host_facts() : host, "{}").ok());
        EXPECT_TRUE(writer.skeleton_end(0).ok());
        EXPECT_TRUE(writer.end().ok());
        EXPECT_TRUE(out.finalize().ok());
        return writer.contents().digest.hex();
    }

    // A complete snapshot of two ranks, changed before its manifest is written.
    std::string make(uint64_t number, const std::function<void(Manifest&)>& change = {},
                     const std::string& host = {}) {
        Manifest m = sample();
        m.name = plugin::snapshot_name(m.job.name, number);
        m.time = plugin::utc_now();
        m.kind = "full";
        m.pause_us = 4000;
        m.nodes = {{0, "gn1", 2}};
        m.files = {{folder + "/output", 10, {0}}};
        const auto partial = plugin::create_partial(snapshots, m.name);
        EXPECT_TRUE(partial.ok());
        for (uint32_t rank = 0; rank < 2; ++rank) {
            Manifest::Rank row;
            row.rank = row.app = rank;
            row.node = "gn1";
            row.file = plugin::rank_file(rank);
            row.kind = "full";
            row.digest = ghost_file(*partial + "/" + row.file, host);
            row.bytes = fs::file_size(*partial + "/" + row.file);
            row.memory = 1 << 20;
            m.bytes += row.bytes;
            if (rank_key) row.signer = rank_key->public_key().hex();
            m.ranks.push_back(row);
        }
        if (change) change(m);
        if (key) {
            EXPECT_TRUE(plugin::sign_manifest(m, *key, std::string(64, 'a')).ok());
        }
        EXPECT_TRUE(plugin::write_secret(*partial, std::string(64, 'a')).ok());
        EXPECT_TRUE(plugin::write_manifest(*partial, m).ok());
        EXPECT_TRUE(plugin::commit_snapshot(snapshots, m.name).ok());
        return snapshots + "/" + m.name;
    }

    // Damages a byte in the middle of a file; its size stays.
    static void flip(const std::string& path) {
        std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
        file.seekp(static_cast<std::streamoff>(fs::file_size(path) / 2));
        file.put('\xff');
    }

    Outcome ghost(const std::string& arguments) {
        Outcome outcome;
        const std::string err = folder + "/stderr";
        auto end = run_program({"sh", "-c",
                                "PATH=" + folder + "/bin:$PATH ./tools/ghost " + arguments + " 2>" +
                                    err + " </dev/null"});
        EXPECT_TRUE(end.ok());
        outcome.exit = WEXITSTATUS(end->status);
        outcome.out = end->output;
        outcome.err = *read_file(err);
        return outcome;
    }

    // The words mpirun got; empty if it was not run.
    static Words words(const Outcome& outcome) {
        std::istringstream lines(outcome.out);
        Words out;
        for (std::string line; std::getline(lines, line);) out.push_back(line);
        return out;
    }
    void expect_refusal(const Outcome& outcome, const std::string& why) {
        EXPECT_EQ(outcome.exit, 1) << outcome.err;
        EXPECT_THAT(outcome.err, HasSubstr(why));
        EXPECT_EQ(outcome.out, "") << "mpirun was run";
    }

    std::string folder, snapshots;
    // Of the user and of the ranks' wrappers; none: nothing is signed.
    std::shared_ptr<const SigningKey> key, rank_key;
};

TEST_F(JobCommand, RestartExecsMpirunWithUsersOptions) {
    make(1, [&](Manifest& m) { m.input = {0, folder + "/input", 6}; });
    const auto done = ghost("restart " + snapshots + " --oversubscribe -x A=b");
    EXPECT_EQ(done.exit, 7) << done.err;  // mpirun's
    const auto given = words(done);
    ASSERT_GT(given.size(), 10u);
    EXPECT_THAT(given, testing::IsSupersetOf({"ess_base_jobid", "874119168", "--oversubscribe",
                                              "-x", "A=b", "two words"}));
    EXPECT_EQ(given.back(), "stdin: second third");
    EXPECT_THAT(done.err, HasSubstr("874119169-000001 (2 ranks"));
    // what happened is in the job's log
    EXPECT_THAT(*read_file(snapshots + "/874119169.events"), HasSubstr("\"event\":\"restart\""));
}

TEST_F(JobCommand, DamagedNewestSnapshotFallsBackToPrevious) {
    make(1);
    const auto second = make(2), third = make(3);
    flip(second + "/rank-1.ghost");
    fs::resize_file(third + "/manifest.json", 100);
    const auto done = ghost("restart " + snapshots);
    EXPECT_EQ(done.exit, 7) << done.err;
    EXPECT_THAT(done.err, HasSubstr("874119169-000003 is damaged"));
    EXPECT_THAT(done.err, HasSubstr("874119169-000002 is damaged"));
    EXPECT_THAT(done.err, HasSubstr("rank 1"));
    EXPECT_THAT(done.out, HasSubstr("874119169-000001\n"));
    // by its own name it is refused, and the other one is proposed
    expect_refusal(ghost("restart " + second), "ghost restart " + snapshots + "/874119169-000001");
    flip(snapshots + "/874119169-000001/rank-0.ghost");
    expect_refusal(ghost("restart " + snapshots), "find a complete snapshot");
}

TEST_F(JobCommand, GhostOfAnotherRankIsRefused) {
    const auto one = make(1);
    fs::copy_file(one + "/rank-0.ghost", one + "/rank-1.ghost",
                  fs::copy_options::overwrite_existing);
    expect_refusal(ghost("restart " + one), "another one than the manifest names");
}

TEST_F(JobCommand, OnlyWhatItsSignerHasSignedIsRestarted) {
    const std::string mine = folder + "/mine", by_key = " --verify-key " + mine + ".pub";
    ASSERT_EQ(ghost("key " + mine).exit, 0);
    key = *SigningKey::load(mine);
    rank_key = *SigningKey::fresh();
    const auto one = make(1), two = make(2);
    const auto done = ghost("restart " + one + by_key);
    EXPECT_EQ(done.exit, 7) << done.err;
    const auto given = words(done);
    const auto at = std::find(given.begin(), given.end(), "ghost_restart_signer");
    ASSERT_NE(at, given.end());
    EXPECT_EQ(*std::next(at), key->public_key().hex());
    EXPECT_EQ(ghost("verify " + snapshots + by_key).exit, 0);
    EXPECT_THAT(ghost("inspect " + one).out, HasSubstr("signed with " + key->public_key().hex()));
    EXPECT_EQ(ghost("restart " + one).exit, 7);  // who asks for nobody's takes it
    // somebody else's, under another key and under none
    ASSERT_EQ(ghost("key " + folder + "/theirs").exit, 0);
    const auto by_other = " --verify-key " + folder + "/theirs.pub";
    expect_refusal(ghost("restart " + one + by_other), "signed by another");
    EXPECT_EQ(ghost("verify " + one + by_other).exit, 1);
    // a ghost that was put in place of a rank's: of another key, without one, of another snapshot
    const auto file = two + "/rank-1.ghost";
    rank_key = *SigningKey::fresh();
    ghost_file(file);
    expect_refusal(ghost("restart " + two + by_key), "signed by another");
    rank_key = nullptr;
    ghost_file(file);
    fs::resize_file(file, fs::file_size(one + "/rank-1.ghost"));
    expect_refusal(ghost("restart " + two + by_key), "it is not signed");
    fs::copy_file(one + "/rank-1.ghost", file, fs::copy_options::overwrite_existing);
    expect_refusal(ghost("restart " + two + by_key), "another one than the manifest names");
    // the newest that is signed is taken; a changed manifest is none
    auto text = *read_file(one + "/manifest.json");
    Json object = Json::parse(text);
    object["mpirun"]["cwd"] = "/elsewhere";
    object["digest"] = plugin::manifest_digest(object);
    std::ofstream(one + "/manifest.json") << object.dump();
    EXPECT_EQ(ghost("restart " + one).exit, 7);
    expect_refusal(ghost("restart " + one + by_key), "its manifest is not what was signed");
    std::ofstream(one + "/manifest.json") << text;
    key = nullptr;
    make(3);
    const auto older = ghost("restart " + snapshots + by_key);
    EXPECT_EQ(older.exit, 7) << older.err;
    EXPECT_THAT(older.out, HasSubstr("874119169-000001\n"));
}

TEST_F(JobCommand, MissingRequirementsAreListedTogether) {
    Json facts = Json::parse(core::host_facts());
    facts["flags"].push_back("ghostly");
    const auto one = make(
        1,
        [&](Manifest& m) {
            m.apps[0].argv[0] = folder + "/no-program";
            m.apps[1].cwd = folder + "/no-folder";
            m.files.push_back({folder + "/no-output", 5, {1}});
            m.files[0].size = 11;
            const Manifest::File::Copy copy{1, 5, "00112233"};
            m.files.push_back({folder + "/comes-again", 5, {1}, copy});
            m.files.push_back({folder + "/nowhere/no-more", 5, {1}, copy});
            m.input = {0, folder + "/no-input", 6};
            m.ranks[1].memory = uint64_t{1} << 60;
        },
        facts.dump());
    const auto refused = ghost("restart " + one);
    expect_refusal(refused, "nothing was started");
    for (const char* what : {"no-program", "no-folder", "no-output: not there", "no-more: ",
                             "output: 10 bytes, 11 at", "no-input", "memory: ", "ghostly"})
        EXPECT_THAT(refused.err, HasSubstr(what));
    EXPECT_THAT(refused.err, Not(HasSubstr("comes-again")));
    const auto machine = ghost("restart " + one + " --json");
    EXPECT_GE(machine.json()["missing"].size(), 7u);
    // other hosts may have it: then only what this node must have is a refusal
    const auto elsewhere = ghost("restart " + one + " --host gn2:2");
    expect_refusal(elsewhere, "no-input");
    EXPECT_THAT(elsewhere.err, Not(HasSubstr("ghostly")));
    put("no-input", "abcdefg");
    const auto tried = ghost("restart " + one + " --host gn2:2");
    EXPECT_EQ(tried.exit, 7) << tried.err;
    EXPECT_THAT(tried.err, HasSubstr("if ranks start on this node"));
}

TEST_F(JobCommand, AnotherVersionOrUserIsRefused) {
    const auto one = make(1, [](Manifest& m) { m.job.uid = ::geteuid() + 1; });
    expect_refusal(ghost("restart " + one), "user ");
}

// Who may write into a snapshot says what runs as the one who restarts it.
class HostileSnapshot : public JobCommand {
  protected:
    void SetUp() override {
        if (::geteuid() != 0) GTEST_SKIP() << "needs root to give files away";
        JobCommand::SetUp();
        if (IsSkipped()) return;
        one = make(1);
        ASSERT_EQ(ghost("restart " + one).exit, 7);  // leaves lock and events behind
    }
    std::vector<std::string> parts() const {
        return {snapshots,
                one,
                one + "/manifest.json",
                one + "/secret",
                one + "/rank-1.ghost",
                snapshots + "/874119169.lock"};
    }
    // By its own name and as the newest of its folder.
    void expect_refusals(const std::string& why) {
        for (const auto& named : {one, snapshots}) expect_refusal(ghost("restart " + named), why);
    }

    std::string one;
};

TEST_F(HostileSnapshot, FileOfAnotherUserIsRefusedByName) {
    for (const auto& part : parts()) {
        SCOPED_TRACE(part);
        ASSERT_EQ(::chown(part.c_str(), 65534, 65534), 0);
        expect_refusals("cannot trust " + part + ": it belongs to user 65534");
        ASSERT_EQ(::chown(part.c_str(), 0, 0), 0);
    }
    EXPECT_EQ(ghost("restart " + one).exit, 7);
}

TEST_F(HostileSnapshot, FileWritableByOthersIsRefusedByName) {
    for (const auto& part : parts()) {
        SCOPED_TRACE(part);
        const auto before = fs::status(part).permissions();
        fs::permissions(part, fs::perms::others_write, fs::perm_options::add);
        expect_refusals("cannot trust " + part + ": others may write to it");
        fs::permissions(part, before);
    }
    EXPECT_EQ(ghost("restart " + one).exit, 7);
}

// A link to what is root's by its owner, and whose contents another user chose.
TEST_F(HostileSnapshot, SymbolicLinkInSnapshotIsNotFollowed) {
    for (const char* name : {"manifest.json", "secret", "rank-1.ghost"}) {
        const auto part = one + "/" + name, aside = folder + "/aside";
        fs::rename(part, aside);
        fs::create_symlink(aside, part);
        expect_refusals("cannot trust " + part + ": it is a link");
        fs::remove(part);
        fs::rename(aside, part);
    }
    put("precious", "kept");
    for (const char* name : {"874119169.lock", "874119169.events"}) {
        fs::remove(snapshots + "/" + name);
        fs::create_symlink(folder + "/precious", snapshots + "/" + name);
    }
    expect_refusals("874119169.lock: it is a link");
    EXPECT_EQ(*read_file(folder + "/precious"), "kept");
}

TEST_F(HostileSnapshot, LinkedFolderIsTakenIfLinkIsOurs) {
    const auto link = folder + "/link";
    fs::create_directory_symlink(snapshots, link);
    EXPECT_EQ(ghost("restart " + link).exit, 7);
    EXPECT_EQ(ghost("restart " + link + "/" + fs::path(one).filename().string()).exit, 7);
    ASSERT_EQ(::lchown(link.c_str(), 65534, 65534), 0);
    expect_refusal(ghost("restart " + link), "cannot trust " + link + ": it is a link");
}

TEST_F(HostileSnapshot, ManifestDoesNotChooseMpirun) {
    put("other/mpirun", "#!/bin/sh\necho other\n");
    fs::permissions(folder + "/other/mpirun", fs::perms::owner_all);
    const auto two = make(2, [&](Manifest& m) { m.mpirun.argv = {folder + "/other/mpirun"}; });
    const auto done = ghost("restart " + two);
    EXPECT_EQ(done.exit, 7) << done.out;
    EXPECT_THAT(words(done), testing::Contains("ess_base_jobid"));
}

// Anybody may make a folder of this name; /dev/shm here is the command's own.
TEST_F(HostileSnapshot, MemorySnapshotOfAnotherUserIsRefused) {
    const auto memory = fmt::format("/dev/shm/ghost-snapshots-{}", ::geteuid());
    const auto restart = [&](const std::string& make) {
        put("inside", "set -e\nmount -t tmpfs -o mode=1777 tmpfs /dev/shm\n" + make +
                          "\nexec ./tools/ghost restart --from memory\n");
        const std::string err = folder + "/stderr";
        Outcome outcome;
        auto end = run_program({"sh", "-c",
                                "PATH=" + folder + "/bin:$PATH unshare -m sh " + folder +
                                    "/inside 2>" + err + " </dev/null"});
        EXPECT_TRUE(end.ok());
        outcome.exit = WEXITSTATUS(end->status);
        outcome.out = end->output;
        outcome.err = *read_file(err);
        return outcome;
    };
    const auto copied = [&](const std::string& name, const std::string& owner) {
        const auto path = memory + name;
        return "cp -r " + snapshots + " " + path + "\nchown " + owner + " " + path + "\n";
    };
    EXPECT_EQ(restart(copied(".one", "0:0")).exit, 7);
    // not beside it, nor in its place; nor by a name that was known beforehand
    EXPECT_EQ(restart(copied(".0", "65534:65534") + copied(".one", "0:0")).exit, 7);
    for (const char* name : {"", ".0"}) {
        const auto refused = restart(copied(name, "65534:65534"));
        EXPECT_EQ(refused.exit, 1) << refused.err;
        EXPECT_EQ(refused.out, "") << refused.out;
    }
    EXPECT_EQ(restart(copied("", "0:0")).exit, 1);
    expect_refusal(restart(copied(".one", "0:0") + "chown -R 65534 " + memory + ".one/*\n"),
                   "it belongs to user 65534");
}

TEST_F(JobCommand, RunningJobIsNotRestarted) {
    const auto one = make(1);
    auto lock = plugin::lock_job(snapshots, "874119169", "mpirun 12 on gn9");
    ASSERT_TRUE(lock.ok());
    expect_refusal(ghost("restart " + one), "mpirun 12 on gn9");
    lock->reset();
    EXPECT_EQ(ghost("restart " + one).exit, 7);
}

TEST_F(JobCommand, SnapshotsAreListedVerifiedAndInspected) {
    make(1);
    const auto second = make(2);
    const auto list = ghost("snapshots " + snapshots + " --json").json()["snapshots"];
    ASSERT_EQ(list.size(), 2u);
    EXPECT_EQ(list[0]["name"], "874119169-000002");
    EXPECT_EQ(list[0]["ranks"], 2);
    EXPECT_EQ(list[0]["pause_us"], 4000);
    EXPECT_TRUE(list[0]["whole"]);
    EXPECT_THAT(ghost("snapshots " + snapshots).out, HasSubstr("complete"));
    EXPECT_EQ(ghost("verify " + snapshots).exit, 0);
    EXPECT_EQ(ghost("inspect " + second + " --json").json()["job"]["name"], "874119169");
    EXPECT_THAT(ghost("inspect " + second).out, HasSubstr("2 ranks, epoch 0"));
    // a damaged byte: the list does not see it, verify does
    flip(second + "/rank-1.ghost");
    EXPECT_TRUE(ghost("snapshots " + second + " --json").json()["snapshots"][0]["whole"]);
    const auto bad = ghost("verify " + second);
    EXPECT_EQ(bad.exit, 1);
    EXPECT_THAT(bad.err, HasSubstr("rank 1"));
    fs::remove(second + "/rank-0.ghost");
    EXPECT_THAT(ghost("snapshots " + snapshots).out, HasSubstr("damaged: cannot find"));
    EXPECT_EQ(ghost("snapshots " + folder + "/none").exit, 1);
}

TEST_F(JobCommand, Usage) {
    make(1);
    EXPECT_EQ(ghost("restart " + snapshots + " -np 3").exit, 2);
    EXPECT_EQ(ghost("restart " + snapshots + " --detach").exit, 2);
    fs::create_directory(folder + "/empty");
    for (const char* name : {"/empty", "/missing"}) {
        const auto done = ghost("restart " + folder + name + " --host a");
        EXPECT_EQ(done.exit, 1);
        EXPECT_THAT(done.err, HasSubstr("cannot restart " + folder + name + ": no s"));
    }
    for (const char* name : {"memory:none", "--from memory none"}) {
        const auto done = ghost(std::string("restart ") + name + " --host a");
        EXPECT_EQ(done.exit, 1);
        EXPECT_THAT(done.err, HasSubstr("no such snapshot of a job is in this node's memory"));
    }
    std::ofstream(folder + "/file.ghost") << "x";
    EXPECT_EQ(ghost("restart " + folder + "/file.ghost --host a").exit, 2);  // a process's
}

}  // namespace
}  // namespace ghost::tools
