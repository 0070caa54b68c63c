// Writes one ghost stream. One thread.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.hpp"
#include "ghost-core/format/bytes.hpp"
#include "ghost-core/format/format.hpp"

namespace ghost::core {

class GhostWriter {
  public:
    // `out` must outlive it.
    explicit GhostWriter(ByteSink& out);
    ~GhostWriter();
    GhostWriter(const GhostWriter&) = delete;
    GhostWriter& operator=(const GhostWriter&) = delete;

    // Header, host facts, metadata: the head, which an importer can read alone.
    Status head(const std::string& host_json, const std::string& metadata_json);

    Status skeleton_open(int file, std::string_view name);
    Status skeleton_data(int file, uint64_t offset, const void* data, size_t size);
    Status skeleton_close(int file, uint64_t size);
    // `page_bytes`: how much memory the pages chunks will be made from, zeros included.
    Status skeleton_end(uint64_t page_bytes);

    // One chunk of pages. `contents` are the runs' bytes in order, in any number of pieces; runs
    // and contents together are at most chunk_limit bytes.
    Status pages(int inner_pid, const std::vector<PageRun>& runs,
                 const std::vector<iovec>& contents);
    void count_zero(uint64_t bytes) { contents_.zero_bytes += bytes; }

    // Table of contents and digest. Nothing may follow.
    Status end();

    const Contents& contents() const { return contents_; }

  private:
    Status chunk(ChunkType type, int32_t number, uint64_t offset, const iovec* pieces,
                 size_t count);
    Status chunk(ChunkType type, int32_t number, uint64_t offset, std::string_view payload);
    Status text(ChunkType type, std::string_view text);

    struct Digest;
    ByteSink& out_;
    std::unique_ptr<Digest> digest_;
    std::vector<iovec> scratch_;
    Contents contents_;
    uint64_t sequence_ = 0;
};

}  // namespace ghost::core
