// SPDX-License-Identifier: BSD-3-Clause
// Jobs whose messages go through filters (docs/FILTERS.md), on a virtual cluster: while ranks move,
// over a restart, and as somebody on the network sees them. Needs root; else every case is skipped.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>

#include "tests/net/ear.hpp"
#include "tests/net/on_lab.hpp"
#include "tests/unit/kernet_filters.hpp"

namespace {

using nettest::Background;
using nettest::Finished;
using nettest::Job;
using nettest::Words;

class FiltersOnNodes : public nettest::OnLab {
  protected:
    // The program's words behind what the list asks for.
    Words filtered(const std::string& filters, const std::string& name, const Words& options = {}) {
        Words words{"--mca", "ghost_filters", filters};
        const Words rest = endless(name, options);
        words.insert(words.end(), rest.begin(), rest.end());
        return words;
    }
    void expect_refused(const Words& mpirun, const std::string& because) {
        Words words{"mpirun"};
        words.insert(words.end(), mpirun.begin(), mpirun.end());
        const Finished end = lab().on("gn1", words);
        EXPECT_NE(end.status, 0);
        EXPECT_NE(end.err.find(because), std::string::npos) << end.err;
        EXPECT_EQ(end.out.find("pattern:"), std::string::npos) << end.out;
    }
};

TEST_F(FiltersOnNodes, FiltersFollowMovedRanks) {
    Job job(lab(), 2, "gn1:2,gn2:1,gn3:1", filtered("crypto,compress", "pattern"));
    ASSERT_TRUE(job.wait_for("round 0:")) << job.mpirun().err();
    // Between nodes, on one node, and apart again.
    for (auto [rank, node] : {std::pair{1, "gn3"}, {1, "gn1"}, {0, "gn2"}, {1, "gn3"}}) {
        expect_moved(job, rank, node);
        ASSERT_TRUE(job.wait_for_more("round ", 2)) << job.mpirun().err();
    }
    expect_clean_end(job, "pattern:");
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
    const auto both_ends = [&] {
        std::vector<std::vector<kernettest::Backed>> out(2);
        for (const auto& file : std::filesystem::directory_iterator(folder)) {
            auto records = kernettest::read_backup(file.path());
            if (!records.empty()) out.at(records.front().head.rank) = std::move(records);
        }
        return out;
    };
    // However few messages the moves left time for.
    EXPECT_TRUE(nettest::poll_until(240, [&] {
        return std::ranges::all_of(both_ends(), [](auto& end) { return end.size() > 220; });
    }));
    expect_clean_end(job, "pingpong:");

    using kernet::filter::BackupKind;
    const auto ends = both_ends();
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

TEST_F(FiltersOnNodes, SealedTrafficIsUnreadableOnTheWire) {
    const std::string text = "what-only-the-ranks-may-read";
    for (const char* filters : {"none", "crypto", "crypto=aes256gcm,compress"}) {
        std::filesystem::remove(path("stop"));
        Job job(lab(), 2, "gn1:1,gn2:1",
                filtered(filters, "pingpong", {"--text", text, "--bytes", "200"}));
        ASSERT_TRUE(job.wait_for("pingpong: started")) << job.mpirun().err();
        const nettest::Heard heard = nettest::Ear(lab(), "gn2", 3'000'000, text).finish();
        expect_clean_end(job, "pingpong:");
        EXPECT_GT(heard.all(), 0U) << heard.text;
        EXPECT_EQ(heard.found, std::string(filters) == "none") << filters << ": " << heard.text;
    }
}

TEST_F(FiltersOnNodes, RestartedJobHasFilters) {
    const std::string shots = path("shots"), folder = path("backup");
    Job job(lab(), 2, "gn1:1,gn2:1", filtered("crypto,backup=" + folder, "pattern"));
    ASSERT_TRUE(job.wait_for("round 1:")) << job.mpirun().err();
    Finished taken =
        lab().on("gn1", {"ghost", "checkpoint", "--to", shots, "--then", "kill", "--json"});
    ASSERT_EQ(taken.status, 0) << taken.err << job.mpirun().err();
    job.finish();
    Background again = lab().start_on(
        "gn2", {"ghost", "restart", shots, "--bind-to", "none", "--host", "gn2:1,gn3:1"});
    ASSERT_TRUE(nettest::poll_until(240, [&] {
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

TEST_F(FiltersOnNodes, InvalidFiltersAreRefusedBeforeStart) {
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
    return nettest::run_suites(argc, argv);
}
