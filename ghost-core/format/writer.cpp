#include "ghost-core/format/writer.hpp"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <elf.h>
#include <fmt/format.h>

#include "ghost-core/format/host.hpp"

namespace ghost::core {

struct GhostWriter::Digest {
    XXH3_state_t all;
    XXH3_state_t one;
};

GhostWriter::GhostWriter(ByteSink& out) : out_(out), digest_(std::make_unique<Digest>()) {
    XXH3_INITSTATE(&digest_->all);
    XXH3_INITSTATE(&digest_->one);
    XXH3_128bits_reset(&digest_->all);
}

GhostWriter::~GhostWriter() = default;

Status GhostWriter::head(const std::string& host_json, const std::string& metadata_json) {
    FileHeader header;
    header.machine = this_machine();
    header.page_size = this_page_size();
    header.checksum = XXH3_64bits(&header, offsetof(FileHeader, checksum));
    XXH3_128bits_update(&digest_->all, &header, sizeof header);
    GHOST_TRY(out_.write(&header, sizeof header));
    GHOST_TRY(text(ChunkType::host, host_json));
    return text(ChunkType::metadata, metadata_json);
}

// At least one chunk, even for an empty text; the last one is told by its offset, the total size.
Status GhostWriter::text(ChunkType type, std::string_view text) {
    const uint64_t total = text.size();
    do {
        const auto part = text.substr(0, chunk_limit);
        GHOST_TRY(chunk(type, 0, total, part));
        text.remove_prefix(part.size());
    } while (!text.empty());
    return {};
}

Status GhostWriter::skeleton_open(int file, std::string_view name) {
    if (name.empty() || name.size() > name_limit)
        return make_error(Code::invalid, "write ghost: name of skeleton file", std::string(name));
    return chunk(ChunkType::skeleton_open, file, 0, name);
}

Status GhostWriter::skeleton_data(int file, uint64_t offset, const void* data, size_t size) {
    return chunk(ChunkType::skeleton_data, file, offset, {static_cast<const char*>(data), size});
}

Status GhostWriter::skeleton_close(int file, uint64_t size) {
    return chunk(ChunkType::skeleton_close, file, size, {});
}

Status GhostWriter::skeleton_end(uint64_t page_bytes) {
    return chunk(ChunkType::skeleton_end, 0, page_bytes, {});
}

Status GhostWriter::pages(int inner_pid, const std::vector<PageRun>& runs,
                          const std::vector<iovec>& contents) {
    std::vector<iovec> pieces;
    pieces.reserve(contents.size() + 1);
    pieces.push_back({const_cast<PageRun*>(runs.data()), runs.size() * sizeof(PageRun)});
    pieces.insert(pieces.end(), contents.begin(), contents.end());
    GHOST_TRY(chunk(ChunkType::pages, inner_pid, runs.size(), pieces.data(), pieces.size()));
    for (const auto& run : runs) contents_.page_bytes += run.bytes;
    return {};
}

Status GhostWriter::chunk(ChunkType type, int32_t number, uint64_t offset,
                          std::string_view payload) {
    const iovec piece{const_cast<char*>(payload.data()), payload.size()};
    return chunk(type, number, offset, &piece, payload.empty() ? 0 : 1);
}

Status GhostWriter::chunk(ChunkType type, int32_t number, uint64_t offset, const iovec* pieces,
                          size_t count) {
    size_t size = 0;
    for (size_t i = 0; i < count; i++) size += pieces[i].iov_len;
    if (size > chunk_limit)
        return make_error(Code::internal, "write ghost: chunk of", fmt::format("{} bytes", size));
    ChunkHeader header;
    header.type = static_cast<uint32_t>(type);
    header.size = static_cast<uint32_t>(size);
    header.sequence = sequence_++;
    header.offset = offset;
    header.number = number;
    const auto seed = XXH3_64bits(&header, offsetof(ChunkHeader, checksum));
    XXH3_64bits_reset_withSeed(&digest_->one, seed);
    for (size_t i = 0; i < count; i++)
        XXH3_64bits_update(&digest_->one, pieces[i].iov_base, pieces[i].iov_len);
    header.checksum = XXH3_64bits_digest(&digest_->one);
    if (type != ChunkType::end) {
        XXH3_128bits_update(&digest_->all, &header, sizeof header);
        auto& section = contents_.sections[header.type];
        section.chunks++;
        section.bytes += size;
    }
    scratch_.clear();
    scratch_.push_back({&header, sizeof header});
    scratch_.insert(scratch_.end(), pieces, pieces + count);
    return out_.write_gather(scratch_.data(), scratch_.size());
}

Status GhostWriter::end() {
    const auto digest = XXH3_128bits_digest(&digest_->all);
    contents_.digest_low = digest.low64;
    contents_.digest_high = digest.high64;
    return chunk(ChunkType::end, 0, 0,
                 {reinterpret_cast<const char*>(&contents_), sizeof contents_});
}

}  // namespace ghost::core
