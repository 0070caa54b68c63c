// SPDX-License-Identifier: BSD-3-Clause
#include "ghost-core/format/reader.hpp"

#include <fmt/format.h>
#include <map>

#include "base/hash.hpp"
#include "ghost-core/format/host.hpp"

namespace ghost::core {
namespace {

constexpr uint64_t host_limit = 64 << 20;
constexpr uint64_t metadata_limit = 64 << 20;

Error damaged_pages(const char* what) {
    return make_error(Code::corrupt, "read pages of ghost", {}, what);
}

Error damaged(uint64_t chunk_start, const std::string& what) {
    return make_error(Code::corrupt, "read ghost", {},
                      fmt::format("damaged at byte {}: {}", chunk_start, what));
}

bool has_runs(ChunkType type) {
    return type == ChunkType::pages || type == ChunkType::present || type == ChunkType::zero;
}

}  // namespace

struct GhostReader::Checks {
    struct Process {
        ProcessSummary summary;
        uint64_t present_end = 0;  // address after the last present run
    };
    XXH3_state_t digest;
    std::map<int32_t, uint64_t> open_files;  // id → bytes so far
    std::map<int32_t, Process> processes;
    int32_t files = 0;
    bool skeleton_ended = false;
};

GhostReader::GhostReader(ByteSource& in) : in_(in), checks_(std::make_unique<Checks>()) {
    XXH3_INITSTATE(&checks_->digest);
    XXH3_128bits_reset(&checks_->digest);
}

GhostReader::~GhostReader() = default;

Error GhostReader::corrupt(const std::string& what) const {
    return damaged(chunk_start_, what);
}

Status GhostReader::take(void* data, size_t size) {
    auto status = in_.read_all(data, size);
    if (status.ok()) {
        position_ += size;
        return {};
    }
    auto error = status.error();
    const std::string more = error.why.empty() ? "" : ": " + error.why;
    error.why = fmt::format("it ends or breaks after byte {}{}", position_, more);
    return error;
}

Status GhostReader::head(GhostHead& head) {
    bool incremental = false;
    GHOST_TRY(file_header(head, incremental));
    // not touched where nothing is read to
    const auto space = std::make_unique_for_overwrite<uint64_t[]>(chunk_limit / sizeof(uint64_t));
    auto* buffer = reinterpret_cast<char*>(space.get());
    GHOST_TRY(text(ChunkType::host, head.host, host_limit, buffer));
    GHOST_TRY(text(ChunkType::metadata, head.metadata, metadata_limit, buffer));
    head.parent.reset();
    if (incremental) GHOST_TRY(parent(head.parent.emplace(), buffer));
    return {};
}

// The version is looked at before the rest, which another version may have arranged otherwise.
Status GhostReader::file_header(GhostHead& head, bool& incremental) {
    FileHeader header;
    constexpr size_t fixed = offsetof(FileHeader, machine);
    GHOST_TRY(take(&header, fixed));
    if (header.magic != ghost_magic) return corrupt("this is not a ghost");
    if (header.endian != ghost_endian_mark)
        return make_error(Code::unsupported, "read ghost", {},
                          "it is from a machine of other byte order");
    if (header.version != ghost_version)
        return make_error(
            Code::unsupported, "read ghost", {},
            fmt::format("it has version {} ({}), this program reads version {}", header.version,
                        header.version < ghost_version ? "of an older Ghost: make it anew"
                                                       : "of a newer Ghost",
                        ghost_version));
    GHOST_TRY(take(reinterpret_cast<char*>(&header) + fixed, sizeof header - fixed));
    if (header.checksum != XXH3_64bits(&header, offsetof(FileHeader, checksum)))
        return corrupt("checksum of the header");
    if (header.machine != this_machine())
        return make_error(
            Code::unsupported, "read ghost", {},
            fmt::format("it is for machine {}, this is {}", header.machine, this_machine()));
    if (header.page_size != this_page_size())
        return make_error(
            Code::unsupported, "read ghost", {},
            fmt::format("it has {}-byte pages, here are {}", header.page_size, this_page_size()));
    if ((header.flags & ~known_flags) != 0 || header.reserved != 0)
        return corrupt("unknown field of the header");
    XXH3_128bits_update(&checks_->digest, &header, sizeof header);
    id_ = head.id = header.id;
    head.rounds = header.flags & flag_rounds;
    incremental = header.flags & flag_incremental;
    return {};
}

Status GhostReader::text(ChunkType type, std::string& out, uint64_t limit, char* buffer) {
    out.clear();
    do {
        auto chunk = read_chunk(buffer);
        if (!chunk) return chunk.error();
        if (chunk->type != type) return corrupt("sections of the head in wrong order");
        if (chunk->offset > limit || out.size() + chunk->size > chunk->offset ||
            (chunk->size == 0 && chunk->offset != 0))
            return corrupt("size of a text");
        out.append(buffer, chunk->size);
        if (out.size() == chunk->offset) return {};
    } while (true);
}

Status GhostReader::parent(ParentRef& out, char* buffer) {
    auto chunk = read_chunk(buffer);
    if (!chunk) return chunk.error();
    std::array<Hash128, 2> hashes;
    if (chunk->type != ChunkType::parent || chunk->size < sizeof hashes ||
        chunk->size > sizeof hashes + name_limit || chunk->number < 1)
        return corrupt("reference to the parent");
    std::memcpy(hashes.data(), buffer, sizeof hashes);
    out.digest = hashes[0];
    out.id = hashes[1];
    out.generation = generation_ = chunk->number;
    out.name.assign(buffer + sizeof hashes, chunk->size - sizeof hashes);
    if (out.name.find_first_of(std::string_view("/\0", 2)) != std::string::npos)
        return corrupt("name of the parent");
    return {};
}

// Reads it and checks its checksum, unless that is left to others.
Status GhostReader::payload(const ChunkHeader& header, char* buffer, Chunk& chunk) {
    const bool left = leaves_pages_ && chunk.type == ChunkType::pages &&
                      header.offset <= header.size / sizeof(PageRun);
    const size_t front = left ? header.offset * sizeof(PageRun) : header.size;
    const size_t rest = header.size - front;
    GHOST_TRY(take(buffer, front));
    chunk.contents = left ? in_.in_place(rest) : nullptr;
    if (chunk.contents != nullptr)
        position_ += rest;
    else if (rest > 0)
        GHOST_TRY(take(buffer + front, rest));
    chunk.check = {XXH3_64bits(&header, offsetof(ChunkHeader, checksum)), header.checksum,
                   header.sequence, chunk_start_};
    if (left) return {};
    GHOST_TRY(check(chunk, buffer));
    chunk.check.reset();
    return {};
}

Status GhostReader::check(const Chunk& chunk, const char* buffer) {
    if (!chunk.check) return {};
    // Contents that are elsewhere begin behind the runs.
    const size_t front = chunk.contents ? chunk.offset * sizeof(PageRun) : chunk.size;
    XXH3_state_t state;
    XXH3_INITSTATE(&state);
    XXH3_64bits_reset_withSeed(&state, chunk.check->seed);
    XXH3_64bits_update(&state, buffer, front);
    if (chunk.contents) XXH3_64bits_update(&state, chunk.contents, chunk.size - front);
    if (chunk.check->checksum == XXH3_64bits_digest(&state)) return {};
    return damaged(chunk.check->start, fmt::format("checksum of chunk {}", chunk.check->sequence));
}

Result<Chunk> GhostReader::read_chunk(char* buffer) {
    chunk_start_ = position_;
    ChunkHeader header;
    GHOST_TRY(take(&header, sizeof header));
    if (header.size > chunk_limit) return corrupt(fmt::format("chunk of {} bytes", header.size));
    if (header.sequence != sequence_)
        return corrupt(fmt::format("chunk {} instead of {}", header.sequence, sequence_));
    Chunk chunk{static_cast<ChunkType>(header.type),
                header.number,
                header.offset,
                header.size,
                nullptr,
                std::nullopt};
    GHOST_TRY(payload(header, buffer, chunk));
    if (header.type == 0 || header.type >= chunk_types)
        return corrupt(fmt::format("chunk of unknown type {}", header.type));
    if (header.reserved != 0) return corrupt("reserved field of a chunk");
    sequence_++;
    if (chunk.type != ChunkType::end) {
        XXH3_128bits_update(&checks_->digest, &header, sizeof header);
        auto& section = contents_.sections[header.type];
        if (section.chunks++ == 0) section.first = chunk_start_;
        section.bytes += header.size;
    }
    return chunk;
}

Result<Chunk> GhostReader::next(char* buffer) {
    auto chunk = read_chunk(buffer);
    if (!chunk) return chunk;
    if (has_runs(chunk->type))
        GHOST_TRY(check_runs(*chunk, buffer));
    else if (chunk->type == ChunkType::end)
        GHOST_TRY(check_end(*chunk, buffer));
    else
        GHOST_TRY(check_order(*chunk, buffer));
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
    const bool with_contents = chunk.type == ChunkType::pages;
    PagesView view;
    view.inner_pid = chunk.number;
    view.runs = {reinterpret_cast<const PageRun*>(buffer), count};
    const uint64_t mask = this_page_size() - 1;
    for (const auto& run : view.runs) {
        if (run.bytes == 0 || ((run.start | run.bytes) & mask) || run.start >= address_limit ||
            run.bytes > (with_contents ? chunk_limit : address_limit - run.start))
            return damaged_pages("run of pages");
        view.bytes += run.bytes;
    }
    if (with_contents)
        view.contents =
            chunk.contents != nullptr ? chunk.contents : buffer + count * sizeof(PageRun);
    if ((with_contents ? view.bytes : 0) + count * sizeof(PageRun) != chunk.size)
        return damaged_pages("size of pages");
    if (chunk.number <= 0) return damaged_pages("process of pages");
    return view;
}

Status GhostReader::check_runs(const Chunk& chunk, const char* buffer) {
    auto view = pages(chunk, buffer);
    if (!view) return corrupt(view.error().why);
    if (checks_->processes.size() >= process_limit && !checks_->processes.contains(chunk.number))
        return corrupt("number of processes");
    auto& process = checks_->processes[chunk.number];
    auto& summary = process.summary;
    summary.inner_pid = chunk.number;
    if (chunk.type == ChunkType::pages) {
        contents_.page_bytes += view->bytes;
        summary.page_bytes += view->bytes;
    } else if (chunk.type == ChunkType::zero) {
        summary.zero_bytes += view->bytes;
    } else {
        for (const auto& run : view->runs) {
            if (run.start < process.present_end) return corrupt("order of present pages");
            process.present_end = run.end();
        }
        contents_.present_bytes += view->bytes;
        summary.present_bytes += view->bytes;
    }
    return {};
}

std::vector<ProcessSummary> GhostReader::processes() const {
    std::vector<ProcessSummary> out;
    out.reserve(checks_->processes.size());
    for (const auto& [pid, process] : checks_->processes) out.push_back(process.summary);
    return out;
}

Status GhostReader::check_end(const Chunk& chunk, const char* buffer) {
    const auto digest = XXH3_128bits_digest(&checks_->digest);
    if (!checks_->skeleton_ended) return corrupt("end before the skeleton's");
    const auto table = processes();
    const size_t table_bytes = table.size() * sizeof(ProcessSummary);
    if (chunk.size != table_bytes + sizeof(Contents) || chunk.number != 0 || chunk.offset != 0)
        return corrupt("size of the table of contents");
    Contents told;
    std::memcpy(&told, buffer + table_bytes, sizeof told);
    contents_.zero_bytes = told.zero_bytes;
    contents_.digest = {digest.low64, digest.high64};
    contents_.stream_bytes = chunk_start_;
    contents_.processes = table.size();
    if (told.digest != contents_.digest) return corrupt("digest over all");
    if (std::memcmp(&told, &contents_, sizeof told) != 0 ||
        (table_bytes > 0 && std::memcmp(buffer, table.data(), table_bytes) != 0))
        return corrupt("table of contents");
    if (goes_on_) return {};
    char more = 0;
    auto rest = in_.read(&more, 1);
    if (!rest) return rest.error();
    if (*rest != 0) return corrupt("something follows the end");
    return {};
}

}  // namespace ghost::core
