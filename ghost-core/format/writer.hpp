// SPDX-License-Identifier: BSD-3-Clause
// Writes one ghost stream. One thread.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.hpp"
#include "ghost-core/format/bytes.hpp"
#include "ghost-core/format/format.hpp"

namespace ghost::core {

// One pages chunk to be. `contents` are the runs' bytes in order, in any number of pieces; runs and
// contents together are at most chunk_limit bytes.
struct PagesChunk {
    int inner_pid = 0;
    std::vector<PageRun> runs;
    std::vector<iovec> contents;
};

// Calls work(0) … work(count - 1), by any threads, and returns the first error.
using Each = std::function<Status(size_t count, const std::function<Status(size_t)>& work)>;

class GhostWriter {
  public:
    // `out` must outlive it.
    explicit GhostWriter(ByteSink& out);
    ~GhostWriter();
    GhostWriter(const GhostWriter&) = delete;
    GhostWriter& operator=(const GhostWriter&) = delete;

    // Header, host facts, metadata, parent: the head, which an importer can read alone. `head.id`
    // is not used: every ghost gets a fresh one, id().
    Status head(const GhostHead& head);
    Status head(const std::string& host_json, const std::string& metadata_json);

    Status skeleton_open(int file, std::string_view name);
    Status skeleton_data(int file, uint64_t offset, const void* data, size_t size);
    Status skeleton_close(int file, uint64_t size);
    // A whole file.
    Status skeleton_file(int file, std::string_view name, std::string_view content);
    // `page_bytes`: how much memory the pages chunks will be made from, zeros included.
    Status skeleton_end(uint64_t page_bytes);

    // One chunk of pages, as PagesChunk says.
    Status pages(int inner_pid, const std::vector<PageRun>& runs,
                 const std::vector<iovec>& contents);
    // Several chunks, what takes time (checksums, and copying where the sink has room) by `each`.
    Status pages(std::span<const PagesChunk> chunks, const Each& each);
    // Which pages of the lazily restored memory exist: all calls for one process make one
    // ascending list. Of an incremental ghost, what it names and no pages or zero chunk of this
    // ghost gives is the parent's. Any number of runs; split into chunks here.
    Status present(int inner_pid, std::span<const PageRun> runs);
    // Pages that hold only zeros now, whatever the parent (or an earlier round) has. Needed only
    // for incremental ghosts and those made in rounds; any number of runs.
    Status zero(int inner_pid, std::span<const PageRun> runs);
    void count_zero(uint64_t bytes) { contents_.zero_bytes += bytes; }

    // Table of contents and digest. Nothing may follow.
    Status end();

    Hash128 id() const { return id_; }  // after head()
    const Contents& contents() const { return contents_; }
    // How an incremental ghost names this one as its parent; after end(). `name` is the file name
    // (folders are cut off), `parent` this ghost's own parent, if it has one.
    ParentRef as_parent(std::string_view name) const;

  private:
    Status chunk(ChunkType type, int32_t number, uint64_t offset, const iovec* pieces,
                 size_t count);
    Status chunk(ChunkType type, int32_t number, uint64_t offset, std::string_view payload);
    Status send(const ChunkHeader& header, const iovec* pieces, size_t count);
    Status note(const ChunkHeader& header);
    Status text(ChunkType type, std::string_view text);
    Status runs(ChunkType type, int inner_pid, std::span<const PageRun> runs);
    Status parent(const ParentRef& parent);
    ProcessSummary& process(int inner_pid);

    struct Digest;
    ByteSink& out_;
    std::unique_ptr<Digest> digest_;
    std::vector<iovec> scratch_;
    std::map<int, ProcessSummary> processes_;
    Contents contents_;
    Hash128 id_;
    int32_t generation_ = 0;
    uint64_t sequence_ = 0;
    uint64_t position_ = 0;
};

}  // namespace ghost::core
