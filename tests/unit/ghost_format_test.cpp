// SPDX-License-Identifier: BSD-3-Clause
// The ghost stream: what is written is read, and nothing wrong is.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <string>
#include <sys/mman.h>
#include <unistd.h>
#include <vector>

#include "base/fd.hpp"
#include "ghost-core/criu/skeleton_store.hpp"
#include "ghost-core/format/host.hpp"
#include "ghost-core/format/reader.hpp"
#include "ghost-core/format/summary.hpp"
#include "ghost-core/format/writer.hpp"
#include "tests/contract/faulty_resource.hpp"
#include "ghost-core/resource/memory.hpp"

namespace ghost::core {
namespace {

// A small ghost with every kind of chunk.
std::vector<char> small_ghost() {
    MemoryResource out;
    GhostWriter writer(out);
    std::string page(this_page_size(), 'p');
    const std::vector<PageRun> runs = {{0x10000, this_page_size()}};
    GhostHead head;
    head.host = R"({"flags":[]})";
    head.metadata = R"({"rank":1})";
    head.parent = ParentRef{{1, 2}, {3, 4}, 5, "before.ghost"};
    EXPECT_TRUE(writer.head(head).ok());
    EXPECT_TRUE(writer.skeleton_open(0, "core-1.img").ok());
    EXPECT_TRUE(writer.skeleton_open(1, "mm-1.img").ok());
    EXPECT_TRUE(writer.skeleton_data(0, 0, "abc", 3).ok());
    EXPECT_TRUE(writer.skeleton_data(0, 3, "def", 3).ok());
    EXPECT_TRUE(writer.skeleton_close(1, 0).ok());
    EXPECT_TRUE(writer.skeleton_close(0, 6).ok());
    EXPECT_TRUE(writer.skeleton_end(this_page_size()).ok());
    EXPECT_TRUE(writer.pages(1, runs, {{page.data(), page.size()}}).ok());
    const std::vector<PageRun> there = {{0x10000, 4 * page.size()}, {0x80000, page.size()}};
    EXPECT_TRUE(writer.present(1, there).ok());
    EXPECT_TRUE(writer.zero(1, std::vector<PageRun>{{0x11000, page.size()}}).ok());
    writer.count_zero(this_page_size());
    EXPECT_TRUE(writer.end().ok());
    return out.bytes();
}

struct Read {
    GhostHead head;
    std::map<int, std::string> files;
    uint64_t page_bytes = 0;
    std::string pages;
    bool in_place = false;  // the last of them
    std::vector<PageRun> present, zero;
    Contents contents;
    std::vector<ProcessSummary> processes;
};

Result<Read> read_ghost(Resource& in, bool leave_pages = false) {
    Read out;
    GhostReader reader(in);
    if (leave_pages) reader.leave_pages();
    GHOST_TRY(reader.head(out.head));
    GHOST_TRY(check_host(out.head.host));
    static std::vector<uint64_t> buffer(chunk_limit / sizeof(uint64_t));
    auto* bytes = reinterpret_cast<char*>(buffer.data());
    for (;;) {
        auto chunk = reader.next(bytes);
        if (!chunk) return chunk.error();
        if (chunk->type == ChunkType::end) break;
        if (chunk->type == ChunkType::skeleton_data)
            out.files[chunk->number] += std::string(bytes, chunk->size);
        if (chunk->type < ChunkType::pages) continue;
        EXPECT_EQ(chunk->check.has_value(), leave_pages && chunk->type == ChunkType::pages);
        GHOST_TRY(GhostReader::check(*chunk, bytes));
        auto view = GhostReader::pages(*chunk, bytes);
        if (!view) return view.error();
        if (chunk->type == ChunkType::pages) {
            out.page_bytes += view->bytes;
            out.pages.append(view->contents, view->bytes);
            out.in_place = view->contents < bytes || view->contents >= bytes + chunk_limit;
        }
        if (chunk->type == ChunkType::present)
            out.present.insert(out.present.end(), view->runs.begin(), view->runs.end());
        if (chunk->type == ChunkType::zero)
            out.zero.insert(out.zero.end(), view->runs.begin(), view->runs.end());
    }
    out.contents = reader.contents();
    out.processes = reader.processes();
    return out;
}

TEST(Format, ReadsWhatWasWritten) {
    MemoryResource ghost(small_ghost());
    auto read = read_ghost(ghost);
    ASSERT_TRUE(read.ok()) << read.error().message();
    EXPECT_EQ(read->head.metadata, R"({"rank":1})");
    EXPECT_EQ(read->files[0], "abcdef");
    EXPECT_EQ(read->page_bytes, this_page_size());
    EXPECT_EQ(read->pages, std::string(this_page_size(), 'p'));
    ASSERT_TRUE(read->head.parent.has_value());
    EXPECT_EQ(read->head.parent->digest, (Hash128{1, 2}));
    EXPECT_EQ(read->head.parent->id, (Hash128{3, 4}));
    EXPECT_EQ(read->head.parent->generation, 5);
    EXPECT_EQ(read->head.parent->name, "before.ghost");
    ASSERT_EQ(read->present.size(), 2U);
    EXPECT_EQ(read->present[1], (PageRun{0x80000, this_page_size()}));
    EXPECT_EQ(read->zero, (std::vector<PageRun>{{0x11000, this_page_size()}}));
    ASSERT_EQ(read->processes.size(), 1U);
    EXPECT_EQ(read->processes[0].present_bytes, 5 * this_page_size());
}

TEST(Format, ListsLongerThanAChunkAreSplit) {
    MemoryResource ghost;
    GhostWriter writer(ghost);
    const uint64_t page = this_page_size();
    std::vector<PageRun> runs;
    for (uint64_t i = 1; i < 100000; i++) runs.push_back({i * 2 * page, page});
    ASSERT_TRUE(writer.head(R"({"flags":[]})", "{}").ok());
    ASSERT_TRUE(writer.skeleton_end(0).ok());
    ASSERT_TRUE(writer.present(7, runs).ok());
    ASSERT_TRUE(writer.end().ok());
    auto read = read_ghost(ghost);
    ASSERT_TRUE(read.ok()) << read.error().message();
    EXPECT_EQ(read->present, runs);
    EXPECT_EQ(read->contents.present_bytes, runs.size() * page);
}

TEST(Format, PresentPagesOutOfOrderAreRefused) {
    const uint64_t page = this_page_size();
    for (const uint64_t second : {4 * page, 5 * page}) {
        MemoryResource ghost;
        GhostWriter writer(ghost);
        ASSERT_TRUE(writer.head(R"({"flags":[]})", "{}").ok());
        ASSERT_TRUE(writer.skeleton_end(0).ok());
        ASSERT_TRUE(writer.present(7, std::vector<PageRun>{{4 * page, 2 * page}}).ok());
        ASSERT_TRUE(writer.present(7, std::vector<PageRun>{{second, page}}).ok());
        ASSERT_TRUE(writer.end().ok());
        auto read = read_ghost(ghost);
        ASSERT_FALSE(read.ok());
        EXPECT_EQ(read.error().code, Code::corrupt);
    }
}

TEST(Format, OtherVersionsAreRefusedByNumber) {
    for (const char version : {1, 3}) {
        auto bytes = small_ghost();
        bytes[offsetof(FileHeader, version)] = version;
        bytes.resize(version == 1 ? 40 : bytes.size());  // all there is of an empty one
        MemoryResource ghost(bytes);
        auto read = read_ghost(ghost);
        ASSERT_FALSE(read.ok());
        EXPECT_EQ(read.error().code, Code::unsupported);
        const auto said = "version " + std::to_string(version);
        EXPECT_NE(read.error().message().find(said), std::string::npos) << read.error().message();
    }
}

TEST(Format, ForeignByteOrderIsRefused) {
    auto bytes = small_ghost();
    std::reverse(bytes.begin() + offsetof(FileHeader, endian),
                 bytes.begin() + offsetof(FileHeader, version));
    MemoryResource ghost(bytes);
    auto read = read_ghost(ghost);
    ASSERT_FALSE(read.ok());
    EXPECT_EQ(read.error().code, Code::unsupported);
    EXPECT_NE(read.error().message().find("byte order"), std::string::npos);
}

// A file whose beginning and end are read without what is between.
class SummaryTest : public ::testing::Test {
  protected:
    Result<GhostSummary> summary_of(const std::vector<char>& bytes) {
        const Fd fd(memfd_create("ghost", MFD_CLOEXEC));
        EXPECT_EQ(pwrite(fd.get(), bytes.data(), bytes.size(), 0),
                  static_cast<ssize_t>(bytes.size()));
        return read_summary(fd.get());
    }
};

TEST_F(SummaryTest, SummaryAgreesWithReader) {
    const auto bytes = small_ghost();
    auto summary = summary_of(bytes);
    ASSERT_TRUE(summary.ok()) << summary.error().message();
    MemoryResource ghost(bytes);
    auto read = read_ghost(ghost);
    ASSERT_TRUE(read.ok());
    EXPECT_EQ(summary->head.metadata, read->head.metadata);
    EXPECT_EQ(summary->bytes, bytes.size());
    EXPECT_EQ(0, std::memcmp(&summary->contents, &read->contents, sizeof(Contents)));
    ASSERT_EQ(summary->processes.size(), 1U);
    EXPECT_EQ(summary->processes[0].zero_bytes, this_page_size());
    EXPECT_EQ(summary->as_parent("/some/x.ghost").name, "x.ghost");
    EXPECT_EQ(summary->as_parent("x").generation, 6);
    // Each section begins where it says.
    for (size_t type = 1; type < chunk_types; type++) {
        const auto& section = summary->contents.sections[type];
        if (section.chunks == 0) continue;
        ChunkHeader header;
        std::memcpy(&header, bytes.data() + section.first, sizeof header);
        EXPECT_EQ(header.type, type);
    }
}

TEST_F(SummaryTest, TruncationAtEveryByteIsRefused) {
    const auto whole = small_ghost();
    for (size_t size = 0; size < whole.size(); size++) {
        auto summary = summary_of(std::vector<char>(whole.begin(), whole.begin() + size));
        ASSERT_FALSE(summary.ok()) << size;
        EXPECT_EQ(summary.error().code, Code::corrupt) << summary.error().message();
    }
}

TEST(Format, LongTextsTakeSeveralChunks) {
    MemoryResource ghost;
    GhostWriter writer(ghost);
    const std::string metadata(3 * chunk_limit + 5, 'm');
    ASSERT_TRUE(writer.head("{}", metadata).ok());
    GhostHead head;
    GhostReader reader(ghost);
    ASSERT_TRUE(reader.head(head).ok());
    EXPECT_EQ(head.metadata, metadata);
    EXPECT_FALSE(head.parent.has_value());
}

// Every byte; under a sanitizer, whose builds set GHOST_TEST_SLOWER, every so manieth, and then
// said.
size_t byte_step() {
    const char* slower = std::getenv("GHOST_TEST_SLOWER");
    const size_t step = slower ? std::max(1L, std::strtol(slower, nullptr, 10)) : 1;
    if (step > 1) std::printf("GHOST_TEST_SLOWER=%zu: one byte of %zu is tried\n", step, step);
    return step;
}

TEST(Format, TruncationAtEveryByteIsRefused) {
    const auto whole = small_ghost();
    for (size_t size = 0, step = byte_step(); size < whole.size(); size += step) {
        MemoryResource ghost(std::vector<char>(whole.begin(), whole.begin() + size));
        auto read = read_ghost(ghost);
        ASSERT_FALSE(read.ok()) << size;
        EXPECT_EQ(read.error().code, Code::corrupt) << read.error().message();
    }
}

TEST(Format, EveryFlippedBitIsRefused) {
    const auto whole = small_ghost();
    for (size_t at = 0, step = byte_step(); at < whole.size(); at += step)
        for (int bit = 0; bit < 8; bit++) {
            // The page's inside is all alike: one bit per byte is enough there.
            if (bit != 3 && whole[at] == 'p' && at > 0 && whole[at - 1] == 'p') continue;
            MemoryResource ghost(whole);
            FaultyResource wrong(ghost, FaultyResource::Fault::flip_read, at, bit);
            ASSERT_FALSE(read_ghost(wrong).ok()) << "byte " << at << " bit " << bit;
        }
}

TEST(Format, ContentsInMemoryNeedNotBeCopied) {
    MemoryResource ghost(small_ghost());
    auto read = read_ghost(ghost, true);
    ASSERT_TRUE(read.ok()) << read.error().message();
    EXPECT_TRUE(read->in_place);
    EXPECT_EQ(read->pages, std::string(this_page_size(), 'p'));
    EXPECT_EQ(read->zero.size(), 1U);  // what comes behind
    ghost.rewind();
    FaultyResource elsewhere(ghost, FaultyResource::Fault::short_read, 0);
    read = read_ghost(elsewhere, true);
    ASSERT_TRUE(read.ok()) << read.error().message();
    EXPECT_FALSE(read->in_place);
    EXPECT_EQ(read->pages, std::string(this_page_size(), 'p'));
}

TEST(Format, ContentsThatAreNotCopiedAreCheckedToo) {
    const auto whole = small_ghost();
    for (size_t at = 0, step = byte_step(); at < whole.size(); at += step) {
        auto damaged = whole;
        damaged[at] ^= 16;
        MemoryResource wrong(damaged);
        EXPECT_FALSE(read_ghost(wrong, true).ok()) << "byte " << at;
        MemoryResource cut(std::vector<char>(whole.begin(), whole.begin() + std::ptrdiff_t(at)));
        EXPECT_FALSE(read_ghost(cut, true).ok()) << "cut at " << at;
    }
}

TEST(Format, SomethingAfterTheEndIsRefused) {
    auto bytes = small_ghost();
    bytes.push_back(0);
    MemoryResource ghost(bytes);
    EXPECT_FALSE(read_ghost(ghost).ok());
}

// Each costs the reader more than its 56 bytes of the stream, which can be packed to almost
// nothing.
TEST(Format, MoreProcessesThanTheTableHoldsAreRefusedAtOnce) {
    MemoryResource ghost;
    {
        GhostWriter writer(ghost);
        ASSERT_TRUE(writer.head(host_facts(), "{}").ok());
        ASSERT_TRUE(writer.skeleton_end(0).ok());
        const std::vector<PageRun> page{{0x10000, this_page_size()}};
        for (size_t pid = 1; pid <= process_limit + 1; pid++)
            ASSERT_TRUE(writer.present(static_cast<int>(pid), page).ok());
    }
    auto read = read_ghost(ghost);
    ASSERT_FALSE(read.ok());
    EXPECT_NE(read.error().message().find("number of processes"), std::string::npos)
        << read.error().message();
}

// Of files that are many, or grow at the same time, most is on a disk; nothing of them is lost.
TEST(SkeletonStore, KeepsLittleInMemoryOfManyFiles) {
    SkeletonStore::Limits limits;
    limits.file = 64 << 10, limits.room = 256 << 10, limits.small = 4 << 10, limits.most = 1 << 20;
    SkeletonStore store(limits);
    constexpr int files = 2000;
    constexpr size_t part = 3000;
    for (int begin = 0; begin < files; begin += 100) {
        for (int i = begin; i < begin + 100; i++) ASSERT_TRUE(store.open(i, std::to_string(i)));
        for (int round = 0; round < 4; round++)
            for (int i = begin; i < begin + 100; i++) {
                const std::string bytes(part, static_cast<char>('a' + (i + round) % 26));
                ASSERT_TRUE(store.data(i, bytes).ok()) << i;
            }
        for (int i = begin; i < begin + 100; i++) ASSERT_TRUE(store.close(i).ok());
        ASSERT_LE(store.in_memory(), limits.room + 100 * limits.small);
    }
    EXPECT_EQ(store.bytes(), uint64_t{files} * 4 * part);
    for (int i = 0; i < files; i++) {
        std::string_view content;
        ASSERT_EQ(store.find(std::to_string(i), content), SkeletonStore::Found::yes);
        std::string wanted;
        for (int round = 0; round < 4; round++)
            wanted += std::string(part, static_cast<char>('a' + (i + round) % 26));
        ASSERT_EQ(content, wanted) << i;
    }
    const std::string small(limits.small / 2, 's');
    Status last;
    for (int i = files; last.ok() && i < 4 * files; i++) {
        ASSERT_TRUE(store.open(i, std::to_string(i)));
        last = store.data(i, small);
    }
    ASSERT_FALSE(last.ok()) << "small files without end";
    EXPECT_EQ(last.error().code, Code::corrupt);
    EXPECT_LE(store.in_memory(), limits.most);
}

TEST(Format, ShortReadsAreFine) {
    MemoryResource ghost(small_ghost());
    FaultyResource slow(ghost, FaultyResource::Fault::short_read, 0);
    EXPECT_TRUE(read_ghost(slow).ok());
}

TEST(Format, FailedWritesComeThrough) {
    const auto whole = small_ghost();
    for (size_t at = 0; at < whole.size(); at += 7) {
        MemoryResource out;
        FaultyResource full(out, FaultyResource::Fault::fail_write, at);
        GhostWriter writer(full);
        Status status = writer.head("{}", std::string(whole.size(), 'x'));
        ASSERT_FALSE(status.ok());
        EXPECT_EQ(status.error().code, Code::io);
    }
}

TEST(Format, ErrorsSayWhere) {
    auto bytes = small_ghost();
    bytes[sizeof(FileHeader) + 1] ^= 1;
    MemoryResource ghost(bytes);
    auto read = read_ghost(ghost);
    ASSERT_FALSE(read.ok());
    EXPECT_NE(read.error().message().find("byte 64"), std::string::npos) << read.error().message();
}

TEST(Format, ForeignProcessorIsRefusedByName) {
    const auto status = check_host(R"({"flags":["avx1024_dream"]})");
    ASSERT_FALSE(status.ok());
    EXPECT_EQ(status.error().code, Code::unsupported);
    EXPECT_NE(status.error().message().find("avx1024_dream"), std::string::npos);
    EXPECT_TRUE(check_host(host_facts()).ok());
}

}  // namespace
}  // namespace ghost::core
