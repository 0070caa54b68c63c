#include "ghost-core/format/reader.hpp"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <fmt/format.h>
#include <map>

#include "ghost-core/format/host.hpp"

namespace ghost::core {
namespace {

constexpr uint64_t host_limit = 256 * 1024;
constexpr uint64_t metadata_limit = 64 << 20;
// User addresses end here at the latest (57-bit paging).
constexpr uint64_t address_limit = uint64_t{1} << 56;

Error damaged_pages(const char* what) {
    return make_error(Code::corrupt, "read pages of ghost", what);
}

}  // namespace

struct GhostReader::Checks {
    XXH3_state_t digest;
    std::map<int32_t, uint64_t> open_files;  // id → bytes so far
    int32_t files = 0;
    bool skeleton_ended = false;
    bool ended = false;
};

GhostReader::GhostReader(ByteSource& in) : in_(in), checks_(std::make_unique<Checks>()) {
    XXH3_INITSTATE(&checks_->digest);
    XXH3_128bits_reset(&checks_->digest);
}

GhostReader::~GhostReader() = default;

Error GhostReader::corrupt(const std::string& what) const {
    return make_error(Code::corrupt,
                      fmt::format("ghost is damaged at byte {}: {}", chunk_start_, what));
}

Status GhostReader::take(void* data, size_t size) {
    auto status = in_.read_all(data, size);
    if (status.ok()) {
        position_ += size;
        return {};
    }
    auto error = status.error();
    error.tried = fmt::format("ghost ends or breaks after byte {}: {}", position_, error.tried);
    return error;
}

Status GhostReader::head(std::string& host_json, std::string& metadata_json) {
    FileHeader header;
    GHOST_TRY(take(&header, sizeof header));
    if (header.magic != ghost_magic) return corrupt("this is not a ghost");
    if (header.endian != ghost_endian_mark)
        return make_error(Code::unsupported, "ghost is from a machine of other byte order");
    if (header.checksum != XXH3_64bits(&header, offsetof(FileHeader, checksum)))
        return corrupt("checksum of the header");
    if (header.version != ghost_version)
        return make_error(Code::unsupported, fmt::format("ghost has version {}, known here is {}",
                                                         header.version, ghost_version));
    if (header.machine != this_machine())
        return make_error(Code::unsupported, fmt::format("ghost is for machine {}, this is {}",
                                                         header.machine, this_machine()));
    if (header.page_size != this_page_size())
        return make_error(Code::unsupported, fmt::format("ghost has {}-byte pages, here are {}",
                                                         header.page_size, this_page_size()));
    if (header.reserved != 0) return corrupt("reserved field of the header");
    XXH3_128bits_update(&checks_->digest, &header, sizeof header);
    GHOST_TRY(text(ChunkType::host, host_json, host_limit));
    return text(ChunkType::metadata, metadata_json, metadata_limit);
}

Status GhostReader::text(ChunkType type, std::string& out, uint64_t limit) {
    std::vector<uint64_t> buffer(chunk_limit / sizeof(uint64_t));
    auto* bytes = reinterpret_cast<char*>(buffer.data());
    out.clear();
    do {
        auto chunk = read_chunk(bytes);
        if (!chunk) return chunk.error();
        if (chunk->type != type) return corrupt("sections of the head in wrong order");
        if (chunk->offset > limit || out.size() + chunk->size > chunk->offset)
            return corrupt("size of a text");
        out.append(bytes, chunk->size);
        if (out.size() == chunk->offset) return {};
    } while (true);
}

Result<Chunk> GhostReader::read_chunk(char* buffer) {
    chunk_start_ = position_;
    ChunkHeader header;
    GHOST_TRY(take(&header, sizeof header));
    if (header.size > chunk_limit) return corrupt(fmt::format("chunk of {} bytes", header.size));
    if (header.sequence != sequence_)
        return corrupt(fmt::format("chunk {} instead of {}", header.sequence, sequence_));
    GHOST_TRY(take(buffer, header.size));
    const auto seed = XXH3_64bits(&header, offsetof(ChunkHeader, checksum));
    if (header.checksum != XXH3_64bits_withSeed(buffer, header.size, seed))
        return corrupt(fmt::format("checksum of chunk {}", header.sequence));
    if (header.type == 0 || header.type >= chunk_types)
        return corrupt(fmt::format("chunk of unknown type {}", header.type));
    sequence_++;
    const auto type = static_cast<ChunkType>(header.type);
    if (type != ChunkType::end) {
        XXH3_128bits_update(&checks_->digest, &header, sizeof header);
        contents_.sections[header.type].chunks++;
        contents_.sections[header.type].bytes += header.size;
    }
    return Chunk{type, header.number, header.offset, header.size};
}

Result<Chunk> GhostReader::next(char* buffer) {
    auto chunk = read_chunk(buffer);
    if (!chunk) return chunk;
    if (chunk->type == ChunkType::pages) {
        auto view = pages(*chunk, buffer);
        if (!view) return corrupt(view.error().object);
        contents_.page_bytes += view->bytes;
    } else if (chunk->type == ChunkType::end) {
        GHOST_TRY(check_end(*chunk, buffer));
    } else {
        GHOST_TRY(check_order(*chunk, buffer));
    }
    return chunk;
}

Status GhostReader::check_order(const Chunk& chunk, const char* buffer) {
    auto& checks = *checks_;
    const auto file = checks.open_files.find(chunk.number);
    if (checks.skeleton_ended) return corrupt("skeleton after its end");
    switch (chunk.type) {
        case ChunkType::skeleton_open:
            if (chunk.number != checks.files || checks.files >= int32_t{skeleton_file_limit})
                return corrupt("number of a skeleton file");
            if (chunk.size == 0 || chunk.size > name_limit ||
                std::string_view(buffer, chunk.size).find_first_of(std::string_view("/\0", 2)) !=
                    std::string_view::npos)
                return corrupt("name of a skeleton file");
            checks.files++;
            checks.open_files[chunk.number] = 0;
            return {};
        case ChunkType::skeleton_data:
            if (file == checks.open_files.end() || file->second != chunk.offset)
                return corrupt("place of skeleton data");
            file->second += chunk.size;
            return {};
        case ChunkType::skeleton_close:
            if (file == checks.open_files.end() || file->second != chunk.offset || chunk.size != 0)
                return corrupt("size of a skeleton file");
            checks.open_files.erase(file);
            return {};
        case ChunkType::skeleton_end:
            if (!checks.open_files.empty() || chunk.size != 0)
                return corrupt("skeleton ends inside a file");
            checks.skeleton_ended = true;
            return {};
        default:
            return corrupt("section in the wrong place");
    }
}

Result<PagesView> GhostReader::pages(const Chunk& chunk, const char* buffer) {
    const uint64_t count = chunk.offset;
    if (count == 0 || count > chunk.size / sizeof(PageRun))
        return damaged_pages("number of page runs");
    PagesView view;
    view.inner_pid = chunk.number;
    view.runs = {reinterpret_cast<const PageRun*>(buffer), count};
    view.contents = buffer + count * sizeof(PageRun);
    const uint64_t mask = this_page_size() - 1;
    for (const auto& run : view.runs) {
        if (run.bytes == 0 || ((run.start | run.bytes) & mask) || run.start >= address_limit ||
            run.bytes > chunk_limit)
            return damaged_pages("run of pages");
        view.bytes += run.bytes;
    }
    if (view.bytes + count * sizeof(PageRun) != chunk.size) return damaged_pages("size of pages");
    if (chunk.number <= 0) return damaged_pages("process of pages");
    return view;
}

Status GhostReader::check_end(const Chunk& chunk, const char* buffer) {
    const auto digest = XXH3_128bits_digest(&checks_->digest);
    if (!checks_->skeleton_ended) return corrupt("end before the skeleton's");
    if (chunk.size != sizeof(Contents)) return corrupt("size of the table of contents");
    Contents told;
    std::memcpy(&told, buffer, sizeof told);
    contents_.zero_bytes = told.zero_bytes;
    contents_.digest_low = digest.low64;
    contents_.digest_high = digest.high64;
    if (told.digest_low != digest.low64 || told.digest_high != digest.high64)
        return corrupt("digest over all");
    if (std::memcmp(&told, &contents_, sizeof told) != 0) return corrupt("table of contents");
    char more = 0;
    auto rest = in_.read(&more, 1);
    if (!rest) return rest.error();
    if (*rest != 0) return corrupt("something follows the end");
    checks_->ended = true;
    return {};
}

}  // namespace ghost::core
