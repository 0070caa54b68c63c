// SPDX-License-Identifier: BSD-3-Clause
// What tests of concurrent checkpoints start, and how memory is compared with what a ghost has.
#pragma once

#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/log.hpp"
#include "base/proc.hpp"
#include "ghost-core/format/host.hpp"
#include "ghost-core/engine/checkpoint.hpp"
#include "ghost-core/memory/page_scan.hpp"
#include "tests/process/ghost_tree.hpp"

namespace ghost::core::test {

// Every page of private memory that is not zero, by process and address.
using Memory = std::map<int, std::map<uint64_t, std::string>>;

inline Memory memory_of(pid_t root) {
    Memory out;
    const size_t page = this_page_size();
    const auto tasks = list_tree(root);
    EXPECT_TRUE(tasks.ok());
    for (const auto& task : *tasks) {
        const Fd memory(open(fmt::format("/proc/{}/mem", task.pid).c_str(), O_RDONLY | O_CLOEXEC));
        const auto areas = private_memory(task.pid);
        EXPECT_TRUE(areas.ok());
        auto scan = PageScan::open(task.pid);
        if (!scan.ok() && scan.error().code == Code::not_found) continue;  // it is just ending
        EXPECT_TRUE(scan.ok());
        std::vector<PageScan::Found> found;
        for (const auto& area : *areas) EXPECT_TRUE(scan->present(area, found).ok());
        std::string content(page, '\0');
        for (const auto& run : found)
            for (uint64_t at = run.start; at < run.end; at += page)
                if (pread(memory.get(), content.data(), page, static_cast<off_t>(at)) ==
                        static_cast<ssize_t>(page) &&
                    content.find_first_not_of('\0') != std::string::npos)
                    out[task.inner][at] = content;
    }
    return out;
}

inline void expect_same(const Memory& truth, const Memory& found) {
    ASSERT_EQ(truth.size(), found.size());
    for (const auto& [inner, pages] : truth) {
        const auto& other = found.at(inner);
        size_t wrong = 0;
        for (const auto& [at, content] : pages) {
            const auto same = other.find(at);
            if ((same == other.end() || same->second != content) && wrong++ < 3)
                ADD_FAILURE() << fmt::format("process {}: page {:#x} {}", inner, at,
                                             same == other.end() ? "is missing" : "differs");
        }
        for (const auto& [at, content] : other)
            if (!pages.count(at) && wrong++ < 3)
                ADD_FAILURE() << fmt::format("process {}: page {:#x} was not there", inner, at);
        EXPECT_EQ(wrong, 0U);
        EXPECT_GT(pages.size(), 5U);
    }
}

// A program of ours as the init of a tree: root, and the keys of its descriptors.
inline std::unique_ptr<Tree> start_churn(const std::vector<std::string>& words) {
    auto program = subject_program();
    program.replace(program.rfind('/') + 1, std::string::npos, "ghost_churn");
    // glibc's restartable sequences keep the number of the processor in memory: not the same later.
    setenv("GLIBC_TUNABLES", "glibc.pthread.rseq=0", 1);
    auto tree = Tree::start_program(program, words);
    unsetenv("GLIBC_TUNABLES");
    return tree;
}

inline bool is_tracked(pid_t root) {
    const auto tasks = list_tree(root);
    EXPECT_TRUE(tasks.ok());
    for (const auto& task : *tasks) {
        std::ifstream in(fmt::format("/proc/{}/smaps", task.pid));
        for (std::string line; std::getline(in, line);)
            if (line.starts_with("VmFlags:") && line.find(" uw") != std::string::npos) return true;
    }
    return false;
}

// Bytes of this process's memory that the system takes where it is short of it (proc(5),
// smaps_rollup).
inline uint64_t offered_bytes() {
    std::ifstream in("/proc/self/smaps_rollup");
    uint64_t kib = 0;
    for (std::string word; in >> word;)
        if (word == "LazyFree:" && in >> kib) return kib << 10;
    return 0;
}

class CheckpointTest : public ::testing::Test {
  protected:
    void SetUp() override {
        if (const auto reason = skip_reason(); !reason.empty()) GTEST_SKIP() << reason;
        log::setup("ghost_checkpoint_test", log::level_from_environment());
    }

    CheckpointRequest request(const Tree& tree) const {
        return request_for<CheckpointRequest>(tree, source_folder_);
    }

    Result<HeldTree> hold(Importer& importer, Tree& tree) const {
        return hold_in(target_folder_, importer, tree);
    }

    Result<HeldTree> import(Resource& in, Tree& tree) const {
        auto importer = Importer::open(in);
        if (!importer) return importer.error();
        return hold(*importer, tree);
    }

    WorkFolder source_folder_, target_folder_;
    Checkpointer checkpointer_;
};

}  // namespace ghost::core::test
