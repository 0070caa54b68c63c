// The ghost stream: what is written is read, and nothing wrong is.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <string>
#include <vector>

#include "ghost-core/format/host.hpp"
#include "ghost-core/format/reader.hpp"
#include "ghost-core/format/writer.hpp"
#include "ghost-core/resource/faulty.hpp"
#include "ghost-core/resource/memory.hpp"

namespace ghost::core {
namespace {

// A small ghost with every kind of chunk.
std::vector<char> small_ghost() {
    MemoryResource out;
    GhostWriter writer(out);
    std::string page(this_page_size(), 'p');
    const std::vector<PageRun> runs = {{0x10000, this_page_size()}};
    EXPECT_TRUE(writer.head(R"({"flags":[]})", R"({"rank":1})").ok());
    EXPECT_TRUE(writer.skeleton_open(0, "core-1.img").ok());
    EXPECT_TRUE(writer.skeleton_open(1, "mm-1.img").ok());
    EXPECT_TRUE(writer.skeleton_data(0, 0, "abc", 3).ok());
    EXPECT_TRUE(writer.skeleton_data(0, 3, "def", 3).ok());
    EXPECT_TRUE(writer.skeleton_close(1, 0).ok());
    EXPECT_TRUE(writer.skeleton_close(0, 6).ok());
    EXPECT_TRUE(writer.skeleton_end(this_page_size()).ok());
    EXPECT_TRUE(writer.pages(1, runs, {{page.data(), page.size()}}).ok());
    writer.count_zero(this_page_size());
    EXPECT_TRUE(writer.end().ok());
    return out.bytes();
}

struct Read {
    std::string host, metadata;
    std::map<int, std::string> files;
    uint64_t page_bytes = 0;
};

Result<Read> read_ghost(Resource& in) {
    Read out;
    GhostReader reader(in);
    GHOST_TRY(reader.head(out.host, out.metadata));
    GHOST_TRY(check_host(out.host));
    std::vector<uint64_t> buffer(chunk_limit / sizeof(uint64_t));
    auto* bytes = reinterpret_cast<char*>(buffer.data());
    for (;;) {
        auto chunk = reader.next(bytes);
        if (!chunk) return chunk.error();
        if (chunk->type == ChunkType::end) break;
        if (chunk->type == ChunkType::skeleton_data)
            out.files[chunk->number] += std::string(bytes, chunk->size);
        if (chunk->type == ChunkType::pages) {
            auto view = GhostReader::pages(*chunk, bytes);
            if (!view) return view.error();
            out.page_bytes += view->bytes;
        }
    }
    return out;
}

TEST(Format, ReadsWhatWasWritten) {
    MemoryResource ghost(small_ghost());
    auto read = read_ghost(ghost);
    ASSERT_TRUE(read.ok()) << read.error().message();
    EXPECT_EQ(read->metadata, R"({"rank":1})");
    EXPECT_EQ(read->files[0], "abcdef");
    EXPECT_EQ(read->page_bytes, this_page_size());
}

TEST(Format, LongTextsTakeSeveralChunks) {
    MemoryResource ghost;
    GhostWriter writer(ghost);
    const std::string metadata(3 * chunk_limit + 5, 'm');
    ASSERT_TRUE(writer.head("{}", metadata).ok());
    std::string host, read;
    GhostReader reader(ghost);
    ASSERT_TRUE(reader.head(host, read).ok());
    EXPECT_EQ(read, metadata);
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

TEST(Format, SomethingAfterTheEndIsRefused) {
    auto bytes = small_ghost();
    bytes.push_back(0);
    MemoryResource ghost(bytes);
    EXPECT_FALSE(read_ghost(ghost).ok());
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
    EXPECT_NE(read.error().message().find("byte 40"), std::string::npos) << read.error().message();
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
