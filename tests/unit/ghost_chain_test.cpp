// SPDX-License-Identifier: BSD-3-Clause
// Chains of incremental ghosts: sets of pages, who gives a page, and which parent is taken.
#include <gtest/gtest.h>

#include <algorithm>
#include <fcntl.h>
#include <filesystem>
#include <fstream>
#include <random>
#include <set>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.hpp"
#include "base/json.hpp"
#include "ghost-core/format/chain.hpp"
#include "ghost-core/format/files.hpp"
#include "ghost-core/format/host.hpp"

namespace ghost::core {
namespace {

constexpr uint64_t page = 4096;

PageRun pages(uint64_t first, uint64_t count) {
    return {first * page, count * page};
}

// Against a set of single pages, over random operations.
TEST(PageSet, MatchesSetOfSinglePages) {
    std::mt19937 random(7);
    for (int round = 0; round < 200; round++) {
        PageSet set;
        std::set<uint64_t> simple;
        for (int step = 0; step < 60; step++) {
            const uint64_t first = random() % 64, count = 1 + random() % 12;
            const bool add = random() % 2 == 0;
            if (add)
                set.add(pages(first, count));
            else
                set.remove(pages(first, count));
            for (uint64_t i = first; i < first + count; i++)
                add ? void(simple.insert(i)) : void(simple.erase(i));
            uint64_t bytes = 0;
            for (const auto& run : set.list()) bytes += run.bytes;
            ASSERT_EQ(bytes, simple.size() * page);
            const uint64_t from = random() % 64, length = 1 + random() % 20;
            std::vector<PageRun> parts;
            set.intersect(pages(from, length), parts);
            std::set<uint64_t> found, expected;
            for (const auto& part : parts)
                for (uint64_t at = part.start; at < part.end(); at += page)
                    ASSERT_TRUE(found.insert(at / page).second);
            for (uint64_t i = from; i < from + length; i++)
                if (simple.count(i)) expected.insert(i);
            ASSERT_EQ(found, expected);
        }
        uint64_t last = 0;
        for (const auto& run : set.list()) {
            ASSERT_TRUE(last == 0 || run.start > last) << "runs that touch are one";
            last = run.end();
        }
    }
}

// Newest: page 1 its own, page 2 zero, 3 and 4 the parent's, 5 gone.
// Parent: has 1, 2, 3, 5; 4 is the grandparent's, which also has 3 and 6.
TEST(Inheritance, InheritanceFollowsIncludeRule) {
    Inheritance chain;
    EXPECT_EQ(chain.wanted(1, pages(1, 9)), std::vector<PageRun>{pages(1, 9)});
    ASSERT_TRUE(chain.owns(1, std::vector<PageRun>{pages(1, 1)}).ok());
    ASSERT_TRUE(chain.owns(1, std::vector<PageRun>{pages(2, 1)}).ok());
    ASSERT_TRUE(chain.present(1, std::vector<PageRun>{pages(1, 4)}).ok());
    ASSERT_TRUE(chain.next());
    EXPECT_EQ(chain.wanted(1, pages(0, 1000)), std::vector<PageRun>{pages(3, 2)}) << "no more";
    EXPECT_EQ(chain.wanted(1, pages(1, 5)), std::vector<PageRun>{pages(3, 2)});
    EXPECT_TRUE(chain.wanted(2, pages(1, 5)).empty()) << "another process";
    ASSERT_TRUE(chain.owns(1, std::vector<PageRun>{pages(1, 3), pages(5, 1)}).ok());
    ASSERT_TRUE(chain.present(1, std::vector<PageRun>{pages(1, 6)}).ok());
    ASSERT_TRUE(chain.next());
    EXPECT_EQ(chain.wanted(1, pages(1, 9)), std::vector<PageRun>{pages(4, 1)});
    EXPECT_FALSE(chain.next()) << "a full ghost has no parent";
}

// However little of a packed ghost says so.
TEST(Inheritance, NumberOfPiecesIsLimited) {
    Inheritance chain(4);
    for (const int pid : {1, 2})
        ASSERT_TRUE(chain.present(pid, std::vector<PageRun>{pages(1, 1), pages(3, 1)}).ok());
    EXPECT_EQ(chain.owns(3, std::vector<PageRun>{pages(1, 1)}).error().code, Code::refused);
    Inheritance joined(4);  // what touches is one, however often it is said
    for (uint64_t i = 0; i < 100; ++i)
        ASSERT_TRUE(joined.present(1, std::vector<PageRun>{pages(i, 2)}).ok());
    ASSERT_TRUE(joined.owns(1, std::vector<PageRun>{pages(1, 1), pages(3, 1), pages(5, 1)}).ok());
    EXPECT_TRUE(joined.next());
    ASSERT_TRUE(joined.present(1, std::vector<PageRun>{pages(1, 1)}).ok());
}

TEST(Inheritance, PageDroppedByParentIsNotInherited) {
    Inheritance chain;
    ASSERT_TRUE(chain.present(1, std::vector<PageRun>{pages(1, 2)}).ok());
    ASSERT_TRUE(chain.next());
    ASSERT_TRUE(chain.present(1, std::vector<PageRun>{pages(1, 1)}).ok());
    ASSERT_TRUE(chain.next());
    EXPECT_EQ(chain.wanted(1, pages(1, 2)), std::vector<PageRun>{pages(1, 1)});
}

TEST(Parent, OnlyNamedParentIsAccepted) {
    ParentRef named{{1, 1}, {2, 2}, 1, "a.ghost"};
    GhostHead head;
    head.id = {2, 2};
    EXPECT_TRUE(check_parent_head(named, head).ok());
    head.id = {2, 3};
    auto status = check_parent_head(named, head);
    ASSERT_FALSE(status.ok());
    EXPECT_EQ(status.error().code, Code::refused);
    EXPECT_NE(status.error().message().find("a.ghost"), std::string::npos);
    head.id = {2, 2};
    head.parent = ParentRef{{}, {}, 1, ""};
    EXPECT_EQ(check_parent_head(named, head).error().code, Code::corrupt);
    named.generation = 2;
    EXPECT_TRUE(check_parent_head(named, head).ok());
    head.rounds = true;
    EXPECT_EQ(check_parent_head(named, head).error().code, Code::unsupported);
    Contents contents;
    contents.digest = {1, 1};
    EXPECT_TRUE(check_parent_digest(named, contents).ok());
    contents.digest = {1, 2};
    EXPECT_EQ(check_parent_digest(named, contents).error().code, Code::refused);
}

// A file of this test in a folder of its own.
class FilesTest : public ::testing::Test {
  protected:
    FilesTest() {
        char name[] = "/tmp/ghost-files.XXXXXX";
        folder_ = mkdtemp(name);
        path_ = folder_ + "/data";
        std::ofstream(path_) << "content";
    }
    ~FilesTest() override {
        unlink(path_.c_str());
        rmdir(folder_.c_str());
    }
    std::string folder_, path_;
};

TEST_F(FilesTest, ListsWhatIsMappedAndOpen) {
    std::ifstream opened(path_);
    const auto facts = file_facts({getpid()});
    bool libc = false, data = false;
    for (const auto& entry : facts) {
        const auto path = entry["path"].get<std::string>();
        if (path.find("libc.so") != std::string::npos) {
            libc = true;
            EXPECT_EQ(entry["use"], "mapped");
            EXPECT_GE(entry.value("build_id", "").size(), 16U);
        }
        if (path == path_) {
            data = true;
            EXPECT_EQ(entry["use"], "open");
            EXPECT_EQ(entry["size"], 7);
            EXPECT_EQ(entry["hash"].get<std::string>().size(), 16U);
        }
        EXPECT_FALSE(path.starts_with("/proc/")) << path;
    }
    EXPECT_TRUE(libc && data) << facts.dump();
    EXPECT_TRUE(file_differences(facts).empty());
    EXPECT_TRUE(check_host(host_facts({getpid()})).ok());
}

TEST_F(FilesTest, AllDifferencesAreListed) {
    auto facts = nlohmann::json::parse(host_facts());
    facts["flags"].push_back("avx1024_dream");
    facts["kernel"] = "99.1.0";
    facts["files"] = {{{"path", "/nowhere/at/all"}, {"use", "mapped"}, {"size", 3}},
                      {{"path", path_}, {"use", "mapped"}, {"size", 8}},
                      {{"path", "/proc/self/exe"}, {"use", "mapped"}, {"build_id", "00"}},
                      {{"path", path_}, {"use", "mapped"}, {"size", 7}, {"mtime", 1}},
                      {{"path", path_}, {"use", "written"}}};
    auto lines = host_differences(facts.dump());
    ASSERT_TRUE(lines.ok());
    ASSERT_EQ(lines->size(), 6U);
    EXPECT_NE((*lines)[0].find("avx1024_dream"), std::string::npos);
    EXPECT_NE((*lines)[1].find("99.1.0"), std::string::npos);
    EXPECT_EQ((*lines)[2], "/nowhere/at/all: is missing");
    EXPECT_NE((*lines)[3].find("7 bytes instead of 8"), std::string::npos);
    EXPECT_NE((*lines)[4].find("build id"), std::string::npos);
    EXPECT_NE((*lines)[5].find("another time"), std::string::npos);
    const auto status = check_host(facts.dump());
    ASSERT_FALSE(status.ok());
    EXPECT_NE(status.error().message().find("99.1.0"), std::string::npos);
    EXPECT_FALSE(host_differences("[1]").ok());
}

TEST_F(FilesTest, OpenFilesMayGrowAndNothingElse) {
    const auto entry = [&](Ghosts ghosts) {
        for (const auto& one : file_facts({getpid()}, ghosts))
            if (one["path"] == path_) return nlohmann::json::array({one});
        return nlohmann::json::array();
    };
    const auto says = [](const nlohmann::json& facts) {
        const auto lines = file_differences(facts);
        return lines.empty() ? std::string() : lines[0].line;
    };
    for (const size_t bytes : {size_t{7}, size_t{6} << 20}) {
        std::ofstream(path_) << std::string(bytes, 'a');
        const Fd fd(open(path_.c_str(), O_RDONLY | O_CLOEXEC));
        const timespec long_ago[] = {{1, 0}, {1, 0}};
        ASSERT_EQ(utimensat(AT_FDCWD, path_.c_str(), long_ago, 0), 0);
        const auto kept = entry(Ghosts::are_kept), moves = entry(Ghosts::move);
        ASSERT_EQ(kept.size(), 1U);
        std::ofstream(path_, std::ios::app) << "more";
        EXPECT_EQ(says(kept), "");
        std::ofstream(path_) << std::string(bytes, 'b');
        EXPECT_NE(says(kept).find("another time"), std::string::npos) << says(kept);
        std::ofstream(path_) << std::string(bytes + 1, 'b');
        EXPECT_NE(says(kept).find("its begin is another one"), std::string::npos) << says(kept);
        std::ofstream(path_) << "a";
        EXPECT_NE(says(kept).find("1 bytes instead of"), std::string::npos) << says(kept);
        // Where it is this very file it is what the tree would have found without the move.
        EXPECT_EQ(says(moves), "");
        const auto other = path_ + ".other";
        std::ofstream(other) << "a";
        ASSERT_EQ(rename(other.c_str(), path_.c_str()), 0);
        EXPECT_NE(says(moves), "");
    }
}

std::string difference_of(nlohmann::json entry, const char* field, const nlohmann::json& value) {
    entry[field] = value;
    const auto lines = file_differences(nlohmann::json::array({entry}));
    return lines.empty() ? std::string() : lines[0].line;
}

// criu opens what the tree had open in the same way, and only what has the same mode.
TEST_F(FilesTest, ModeAndKindAreLookedAt) {
    const nlohmann::json entry{{"path", path_}, {"use", "written"}};
    ASSERT_EQ(chmod(path_.c_str(), 0640), 0);
    EXPECT_EQ(difference_of(entry, "mode", 0640), "");
    EXPECT_EQ(difference_of(entry, "mode", 04640),
              path_ + ": is different, mode 0640 instead of 4640");
    EXPECT_EQ(difference_of(entry, "path", folder_), folder_ + ": is no regular file");
}

// What a target was told once need not be said again.
TEST_F(FilesTest, ToldFilesOfAMoveNeedNotBeSaidAgain) {
    const Fd fd(open(path_.c_str(), O_RDONLY | O_CLOEXEC));
    const auto unsaid = [](const nlohmann::json& told, Ghosts ghosts) {
        auto out = nlohmann::json::array();
        for (const auto& entry : file_facts({getpid()}, ghosts))
            if (std::ranges::none_of(told, [&](const auto& one) { return tells_of(one, entry); }))
                out.push_back(entry);
        return out;
    };
    const auto told = file_facts({getpid()}, Ghosts::move);
    EXPECT_GT(told.size(), 3U);
    EXPECT_TRUE(unsaid(told, Ghosts::move).empty());
    const Fd written(open(path_.c_str(), O_WRONLY | O_CLOEXEC));
    auto fresh = unsaid(told, Ghosts::move);
    ASSERT_EQ(fresh.size(), 1U) << fresh.dump();
    EXPECT_EQ(fresh[0]["path"], path_);
    EXPECT_EQ(fresh[0]["use"], "written");
    ASSERT_EQ(chmod(path_.c_str(), 0600), 0);
    EXPECT_EQ(unsaid(fresh, Ghosts::move).size(), told.size());
    EXPECT_EQ(unsaid(told, Ghosts::are_kept).size(), told.size());
}

// A second look reads what has changed, and only that.
TEST_F(FilesTest, SeenFilesAreTrueUntilTheyChange) {
    const auto see = [&](Ghosts ghosts, const SeenFiles& before, int64_t until_ns = INT64_MAX) {
        return see_files({{path_, FileUse::open}}, ghosts, before, until_ns);
    };
    for (const auto ghosts : {Ghosts::are_kept, Ghosts::move}) {
        auto first = see(ghosts, {});
        const auto real = first[path_].entry;
        first[path_].entry["mark"] = 1;
        EXPECT_EQ(see(ghosts, first)[path_].entry.value("mark", 0), 1) << "it is read again";
        EXPECT_EQ(see_files({{path_, FileUse::written}}, ghosts, first)[path_].entry["use"],
                  "written");
        EXPECT_TRUE(see_files({}, ghosts, first).empty()) << "it is used no more";
        std::ofstream(path_, std::ios::app) << "more";
        EXPECT_EQ(see(ghosts, first)[path_].entry.value("mark", 0), ghosts == Ghosts::move);
        EXPECT_EQ(see(ghosts, first, 1)[path_].entry.value("mark", 0), 1) << "it was so then";
        std::ofstream(path_ + "+") << "another";
        std::filesystem::rename(path_ + "+", path_);
        const auto now = see(ghosts, first);
        EXPECT_EQ(now.at(path_).entry, see(ghosts, {})[path_].entry);
        EXPECT_NE(now.at(path_).entry, real);
        std::filesystem::remove(path_);
        EXPECT_EQ(see(ghosts, first, 1)[path_].entry.value("mark", 0), 1) << "it was so then";
        EXPECT_EQ(see(ghosts, {})[path_].entry, (nlohmann::json{{"path", path_}, {"use", "open"}}));
        std::ofstream(path_) << "content";
    }
}

// The same content written again, as on a node that has a copy of its own.
TEST_F(FilesTest, CopyCountsAsSameFile) {
    const Fd fd(open(path_.c_str(), O_RDONLY | O_CLOEXEC));
    void* mapped = mmap(nullptr, page, PROT_READ, MAP_PRIVATE, fd.get(), 0);
    ASSERT_NE(mapped, MAP_FAILED);
    auto facts = nlohmann::json::array();
    for (const auto& entry : file_facts({getpid()}))
        if (entry["path"] == path_) facts.push_back(entry);
    ASSERT_EQ(munmap(mapped, page), 0);
    ASSERT_EQ(facts.size(), 1U);
    EXPECT_EQ(facts[0]["use"], "mapped");
    const timespec times[] = {{1, 0}, {1, 0}};
    ASSERT_EQ(utimensat(AT_FDCWD, path_.c_str(), times, 0), 0);
    EXPECT_TRUE(file_differences(facts).empty());
    std::ofstream(path_) << "CONTENT";
    EXPECT_EQ(file_differences(facts).size(), 1U);
}

}  // namespace
}  // namespace ghost::core
