// SPDX-License-Identifier: BSD-3-Clause
// Reads one ghost stream, trusting nothing. One thread.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.hpp"
#include "ghost-core/format/bytes.hpp"
#include "ghost-core/format/format.hpp"

namespace ghost::core {

// What check() compares a pages chunk with.
struct ChunkCheck {
    uint64_t seed = 0, checksum = 0, sequence = 0;
    uint64_t start = 0;  // of the chunk in the stream
};

// One checked chunk. The payload is in the buffer given to next(), but for contents of pages that
// have been left where they are.
struct Chunk {
    ChunkType type = ChunkType::end;
    int32_t number = 0;
    uint64_t offset = 0;
    uint32_t size = 0;
    const char* contents = nullptr;   // leave_pages()
    std::optional<ChunkCheck> check;  // leave_pages(): still to be made
};

// The payload of a pages, present or zero chunk, taken apart and checked; points into the chunk's
// buffer, or to contents left in the source. Contents only for pages.
struct PagesView {
    int inner_pid = 0;
    std::span<const PageRun> runs;
    const char* contents = nullptr;
    uint64_t bytes = 0;  // of the runs
};

class GhostReader {
  public:
    // `in` must outlive it.
    explicit GhostReader(ByteSource& in);
    ~GhostReader();
    GhostReader(const GhostReader&) = delete;
    GhostReader& operator=(const GhostReader&) = delete;

    // What GhostWriter::head() wrote. Errors name the offset in the stream; corrupt, or unsupported
    // for another version, byte order, architecture or page size.
    Status head(GhostHead& head);

    // Contents of pages are not copied to the buffer where the source has them in memory anyway
    // (ByteSource::in_place()), and checksums of pages chunks are left to check(), which whoever
    // uses them calls when he has them in his cache.
    void leave_pages() { leaves_pages_ = true; }

    // The two sides speak on where the ghost ends: nothing is read beyond it.
    void goes_on() { goes_on_ = true; }

    // The next chunk after the head; its payload goes to `buffer`, which has chunk_limit bytes and
    // is 8-byte aligned. After ChunkType::end everything has been checked: order, table of
    // contents, digest, and that nothing follows; but for what is left to check().
    Result<Chunk> next(char* buffer);

    // The checksum of a chunk, in any thread; nothing where next() has checked it already. corrupt.
    static Status check(const Chunk& chunk, const char* buffer);

    // The content of a pages, present or zero chunk, in any thread; next() has looked whether it is
    // one.
    static Result<PagesView> pages(const Chunk& chunk, const char* buffer);

    // So far; complete after the end.
    const Contents& contents() const { return contents_; }
    std::vector<ProcessSummary> processes() const;
    uint64_t position() const { return position_; }  // bytes read so far

  private:
    Error corrupt(const std::string& what) const;
    Status take(void* data, size_t size);
    Status file_header(GhostHead& head, bool& incremental);
    Status text(ChunkType type, std::string& out, uint64_t limit, char* buffer);
    Status parent(ParentRef& out, char* buffer);
    Result<Chunk> read_chunk(char* buffer);
    Status payload(const ChunkHeader& header, char* buffer, Chunk& chunk);
    Status check_order(const Chunk& chunk, const char* buffer);
    Status check_runs(const Chunk& chunk, const char* buffer);
    Status check_end(const Chunk& chunk, const char* buffer);

    struct Checks;
    ByteSource& in_;
    std::unique_ptr<Checks> checks_;
    Contents contents_;
    Hash128 id_;
    int32_t generation_ = 0;
    uint64_t position_ = 0;
    uint64_t chunk_start_ = 0;
    uint64_t sequence_ = 0;
    bool leaves_pages_ = false, goes_on_ = false;
};

}  // namespace ghost::core
