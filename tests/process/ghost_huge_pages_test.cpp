// SPDX-License-Identifier: BSD-3-Clause
// Huge pages: what lay in such when it was tracked, exported or moved lies in such again
// afterwards, with the same contents.
#include <fstream>
#include <gtest/gtest.h>

#include "base/log.hpp"
#include "ghost-core/engine/checkpoint.hpp"
#include "ghost-core/engine/live.hpp"
#include "ghost-core/memory/huge_pages.hpp"
#include "ghost-core/memory/page_scan.hpp"
#include "ghost-core/criu/dump.hpp"
#include "ghost-core/resource/memory.hpp"
#include "tests/process/ghost_tree.hpp"
#include "tests/process/live_tree.hpp"

namespace ghost::core::test {
namespace {

constexpr int megabytes = 48;
constexpr uint64_t most = uint64_t{megabytes - 8} << 20;  // its ends need not be whole ones

uint64_t huge_bytes(pid_t root) {
    uint64_t sum = 0;
    const auto tasks = list_tree(root);
    EXPECT_TRUE(tasks.ok());
    for (const auto& task : *tasks)
        if (auto memory = huge_memory(task.pid)) sum += bytes_of(*memory);
    return sum;
}

// Puts all of a tree that can be there into huge pages.
void make_huge(pid_t root) {
    HugePages pages;
    const auto tasks = list_tree(root);
    ASSERT_TRUE(tasks.ok());
    for (const auto& task : *tasks) {
        auto memory = private_memory(task.pid);
        ASSERT_TRUE(memory.ok());
        pages.add(task.pid, whole_huge_pages(*memory));
    }
    pages.start();
    pages.wait();
}

bool kernel_has_them() {
    std::ifstream in("/sys/kernel/mm/transparent_hugepage/hpage_pmd_size"),
        policies("/sys/kernel/mm/transparent_hugepage/enabled");
    uint64_t bytes = 0;
    std::string policy;
    std::getline(policies, policy);
    return in >> bytes && bytes == 2 << 20 && policy.find("[never]") == std::string::npos;
}

class HugePagesTest : public ::testing::Test {
  protected:
    void SetUp() override {
        if (const auto reason = skip_reason(); !reason.empty()) GTEST_SKIP() << reason;
        if (!kernel_has_them())
            GTEST_SKIP() << "the kernel has no transparent huge pages, or is to make none";
        log::setup("ghost_huge_pages_test", log::level_from_environment());
    }

    // One that checks itself and lies in huge pages.
    std::unique_ptr<Tree> start() const {
        auto tree = Tree::start(megabytes);
        EXPECT_GT(tree->healthy(), 0U);
        make_huge(tree->root);
        EXPECT_GE(huge_bytes(tree->root), most);
        EXPECT_GT(tree->healthy(), 0U);
        return tree;
    }

    CheckpointRequest request(const Tree& tree) const {
        return request_for<CheckpointRequest>(tree, source_folder_);
    }

    // A tree that is tracked and writes all over.
    static void wait_until_small(const Tree& tree) {
        const int64_t limit = monotonic_us() + 20'000'000;
        while (huge_bytes(tree.root) > most / 2 && monotonic_us() < limit) usleep(10000);
        EXPECT_LE(huge_bytes(tree.root), most / 2);
    }

    ExportRequest export_request(const Tree& tree) const {
        return request_for<ExportRequest>(tree, source_folder_);
    }

    // A copy that runs, whole and in huge pages.
    void expect_huge_copy(Resource& ghost) const {
        auto importer = Importer::open(ghost);
        ASSERT_TRUE(importer.ok()) << importer.error().message();
        expect_huge_copy(*importer);
    }
    void expect_huge_copy(Importer& importer) const {
        Tree copy;
        auto held = hold_in(target_folder_, importer, copy);
        ASSERT_TRUE(held.ok()) << held.error().message();
        ASSERT_NE(held->huge, nullptr);
        ASSERT_TRUE(release_tree(*held).ok());
        EXPECT_GT(copy.healthy(), 0U);  // beside it
        held->huge->wait();
        EXPECT_GE(huge_bytes(copy.root), most);
        EXPECT_GT(copy.healthy(), 0U);
    }

    WorkFolder source_folder_, target_folder_;
    Checkpointer checkpointer_;
};

TEST_F(HugePagesTest, HugePagesAreRestoredAfterTracking) {
    auto tree = start();
    auto what = request(*tree);
    what.keep_tracking = true;
    MemoryResource ghost;
    auto stats = checkpointer_.run(what, ghost);
    ASSERT_TRUE(stats.ok()) << stats.error().message();
    wait_until_small(*tree);
    checkpointer_.end_tracking();
    checkpointer_.wait_huge_pages();
    EXPECT_GE(huge_bytes(tree->root), most);
    EXPECT_GT(tree->healthy(), 0U);
}

TEST_F(HugePagesTest, CheckpointRestoresAndCarriesHugePages) {
    auto tree = start();
    MemoryResource ghost;
    auto stats = checkpointer_.run(request(*tree), ghost);
    ASSERT_TRUE(stats.ok()) << stats.error().message();
    checkpointer_.wait_huge_pages();
    EXPECT_GE(huge_bytes(tree->root), most);
    EXPECT_GT(tree->healthy(), 0U);
    expect_huge_copy(ghost);
}

// The list of the first look goes on: by then most are small.
TEST_F(HugePagesTest, IncrementalGhostCarriesHugePages) {
    auto tree = start();
    auto what = request(*tree);
    what.keep_tracking = true;
    what.name = "first";
    auto first = std::make_shared<MemoryBuffer>();
    MemoryResource full(first);
    ASSERT_TRUE(checkpointer_.run(what, full).ok());
    EXPECT_GT(tree->healthy(), 0U);
    what.incremental = true;
    what.name = "second";
    MemoryResource difference;
    ASSERT_TRUE(checkpointer_.run(what, difference).ok());
    EXPECT_GE(bytes_of(checkpointer_.huge().begin()->second), most);
    auto importer = Importer::open(difference);
    ASSERT_TRUE(importer.ok());
    MemoryResource parent(first);
    ASSERT_TRUE(importer->add_parent(parent).ok());
    expect_huge_copy(*importer);
}

TEST_F(HugePagesTest, ExportCarriesHugePages) {
    auto tree = start();
    MemoryResource ghost;
    auto stats = export_tree(export_request(*tree), ghost);
    ASSERT_TRUE(stats.ok()) << stats.error().message();
    expect_huge_copy(ghost);
    ASSERT_TRUE(resume_tree(tree->root).ok());
    EXPECT_GE(huge_bytes(tree->root), most);
    EXPECT_GT(tree->healthy(), 0U);
}

TEST_F(HugePagesTest, ExportCarriesHugePagesSplitByTracking) {
    auto tree = start();
    auto what = request(*tree);
    what.keep_tracking = true;
    MemoryResource snapshot, ghost;
    ASSERT_TRUE(checkpointer_.run(what, snapshot).ok());
    wait_until_small(*tree);
    checkpointer_.stop_tracking();
    auto leaving = export_request(*tree);
    leaving.huge = checkpointer_.huge();
    auto stats = export_tree(leaving, ghost);
    ASSERT_TRUE(stats.ok()) << stats.error().message();
    expect_huge_copy(ghost);
    ASSERT_TRUE(resume_tree(tree->root).ok());
    EXPECT_GT(tree->healthy(), 0U);
}

// Nobody waits for it: whoever has the tree may end it, and the tree may end.
TEST_F(HugePagesTest, CollapseIsCancelled) {
    auto tree = start();
    MemoryResource ghost;
    for (int i = 0; i < 10; i++) {
        ghost.buffer().clear();
        auto stats = checkpointer_.run(request(*tree), ghost);
        ASSERT_TRUE(stats.ok()) << stats.error().message();
    }
    EXPECT_GT(tree->healthy(), 0U);
    HugePages pages;
    const auto tasks = list_tree(tree->root);
    ASSERT_TRUE(tasks.ok());
    for (const auto& task : *tasks) pages.add(task.pid, {{0, uint64_t{1} << 47}});
    tree->end();
    pages.start();
    pages.wait();
}

TEST_F(HugePagesTest, LiveMoveCarriesHugePages) {
    const WorkFolder folder;
    const CriuSettings to{criu_program(), target_folder_.path(), 20};
    if (!knows_short_stop(to)) GTEST_SKIP() << "criu was built without our patches";
    LiveTree tree(folder.path(), megabytes, 2, 20);
    ASSERT_TRUE(tree.beats());
    make_huge(tree.root);
    ASSERT_GE(huge_bytes(tree.root), most);
    auto links = connect("secret");
    Result<LiveImport> got = make_error(Code::internal, "not run");
    std::thread importer([&] {
        LiveImportRequest what;
        what.criu = to;
        what.inherit = [&](const GhostMetadata&) -> Result<std::vector<InheritFd>> {
            return tree.inherit();
        };
        got = live_import(what, *links.target);
        if (!got) links.target.reset();
    });
    auto sent = live_export(request_for<LiveExportRequest>(tree, source_folder_), *links.source);
    if (sent.outcome != LiveOutcome::moved) links.source.reset();
    importer.join();
    ASSERT_TRUE(got.ok()) << got.error().message();
    tree.end();
    tree.root = got->root;
    ASSERT_NE(got->huge, nullptr);
    got->huge->wait();
    EXPECT_GE(huge_bytes(tree.root), most);
    EXPECT_TRUE(tree.beats());
    EXPECT_EQ(tree.check(), 0U);
}

}  // namespace
}  // namespace ghost::core::test
