// SPDX-License-Identifier: BSD-3-Clause
#include "ghost-core/format/writer.hpp"

#include <algorithm>
#include <fmt/format.h>
#include <sys/random.h>

#include "base/hash.hpp"
#include "ghost-core/format/host.hpp"

namespace ghost::core {

struct GhostWriter::Digest {
    XXH3_state_t all;
};

GhostWriter::GhostWriter(ByteSink& out) : out_(out), digest_(std::make_unique<Digest>()) {
    XXH3_INITSTATE(&digest_->all);
    XXH3_128bits_reset(&digest_->all);
}

GhostWriter::~GhostWriter() = default;

Status GhostWriter::head(const std::string& host_json, const std::string& metadata_json) {
    GhostHead head;
    head.host = host_json;
    head.metadata = metadata_json;
    return this->head(head);
}

Status GhostWriter::head(const GhostHead& head) {
    FileHeader header;
    header.machine = this_machine();
    header.page_size = this_page_size();
    if (head.parent) header.flags |= flag_incremental;
    if (head.rounds) header.flags |= flag_rounds;
    if (getrandom(&header.id, sizeof header.id, 0) != sizeof header.id)
        return sys_error("get a random number");
    header.checksum = XXH3_64bits(&header, offsetof(FileHeader, checksum));
    id_ = header.id;
    XXH3_128bits_update(&digest_->all, &header, sizeof header);
    GHOST_TRY(out_.write(&header, sizeof header));
    position_ = sizeof header;
    GHOST_TRY(text(ChunkType::host, head.host));
    GHOST_TRY(text(ChunkType::metadata, head.metadata));
    if (head.parent) return parent(*head.parent);
    return {};
}

Status GhostWriter::parent(const ParentRef& parent) {
    if (parent.generation < 1 || parent.name.size() > name_limit ||
        parent.name.find('/') != std::string::npos)
        return make_error(Code::invalid, "write the reference to parent", parent.name);
    generation_ = parent.generation;
    const std::array<Hash128, 2> hashes = {parent.digest, parent.id};
    const std::array<iovec, 2> pieces = {
        iovec{const_cast<Hash128*>(hashes.data()), sizeof hashes},
        iovec{const_cast<char*>(parent.name.data()), parent.name.size()}};
    return chunk(ChunkType::parent, parent.generation, 0, pieces.data(), pieces.size());
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
        return make_error(Code::invalid, "write a skeleton file of the name", std::string(name));
    return chunk(ChunkType::skeleton_open, file, 0, name);
}

Status GhostWriter::skeleton_data(int file, uint64_t offset, const void* data, size_t size) {
    return chunk(ChunkType::skeleton_data, file, offset, {static_cast<const char*>(data), size});
}

Status GhostWriter::skeleton_close(int file, uint64_t size) {
    return chunk(ChunkType::skeleton_close, file, size, {});
}

Status GhostWriter::skeleton_file(int file, std::string_view name, std::string_view content) {
    GHOST_TRY(skeleton_open(file, name));
    for (size_t at = 0; at < content.size(); at += chunk_limit) {
        const auto part = content.substr(at, chunk_limit);
        GHOST_TRY(skeleton_data(file, at, part.data(), part.size()));
    }
    return skeleton_close(file, content.size());
}

Status GhostWriter::skeleton_end(uint64_t page_bytes) {
    return chunk(ChunkType::skeleton_end, 0, page_bytes, {});
}

ProcessSummary& GhostWriter::process(int inner_pid) {
    auto& entry = processes_[inner_pid];
    entry.inner_pid = inner_pid;
    return entry;
}

namespace {

uint64_t bytes_of(const std::vector<PageRun>& runs) {
    uint64_t sum = 0;
    for (const auto& run : runs) sum += run.bytes;
    return sum;
}

ChunkHeader header_of(const PagesChunk& chunk, uint64_t sequence) {
    ChunkHeader header;
    header.type = static_cast<uint32_t>(ChunkType::pages);
    header.size = static_cast<uint32_t>(bytes_of(chunk.runs) + chunk.runs.size() * sizeof(PageRun));
    header.sequence = sequence;
    header.offset = chunk.runs.size();
    header.number = chunk.inner_pid;
    return header;
}

std::vector<iovec> payload_of(const PagesChunk& chunk) {
    std::vector<iovec> out;
    out.reserve(chunk.contents.size() + 1);
    out.push_back({const_cast<PageRun*>(chunk.runs.data()), chunk.runs.size() * sizeof(PageRun)});
    out.insert(out.end(), chunk.contents.begin(), chunk.contents.end());
    return out;
}

uint64_t seed_of(const ChunkHeader& header) {
    return XXH3_64bits(&header, offsetof(ChunkHeader, checksum));
}

void seal(ChunkHeader& header, const iovec* pieces, size_t count) {
    XXH3_state_t state;
    XXH3_INITSTATE(&state);
    XXH3_64bits_reset_withSeed(&state, seed_of(header));
    for (size_t i = 0; i < count; i++)
        XXH3_64bits_update(&state, pieces[i].iov_base, pieces[i].iov_len);
    header.checksum = XXH3_64bits_digest(&state);
}

// All of the chunk to where it belongs; the checksum is made of what is in the cache by then.
void put_down(ChunkHeader& header, const PagesChunk& chunk, char* to) {
    char* at = to + sizeof header;
    for (const auto& piece : payload_of(chunk)) {
        std::memcpy(at, piece.iov_base, piece.iov_len);
        at += piece.iov_len;
    }
    header.checksum = XXH3_64bits_withSeed(to + sizeof header, header.size, seed_of(header));
    std::memcpy(to, &header, sizeof header);
}

}  // namespace

Status GhostWriter::pages(int inner_pid, const std::vector<PageRun>& runs,
                          const std::vector<iovec>& contents) {
    const PagesChunk chunk{inner_pid, runs, contents};
    return pages({&chunk, 1}, [](size_t, const auto& work) { return work(0); });
}

Status GhostWriter::pages(std::span<const PagesChunk> chunks, const Each& each) {
    std::vector<ChunkHeader> headers;
    std::vector<size_t> places;
    size_t total = 0;
    for (const auto& chunk : chunks) {
        headers.push_back(header_of(chunk, sequence_ + headers.size()));
        places.push_back(total);
        total += sizeof(ChunkHeader) + headers.back().size;
        if (headers.back().size > chunk_limit)
            return make_error(Code::internal, "write a chunk of",
                              fmt::format("{} bytes", headers.back().size));
    }
    const bool there = std::all_of(chunks.begin(), chunks.end(), [this](const PagesChunk& chunk) {
        return !chunk.contents.empty() && out_.holds(chunk.contents.front().iov_base);
    });
    auto room = there ? Result<char*>(nullptr) : out_.room(total);
    if (!room) return room.error();
    GHOST_TRY(each(chunks.size(), [&](size_t i) -> Status {
        const auto payload = payload_of(chunks[i]);
        if (*room != nullptr)
            put_down(headers[i], chunks[i], *room + places[i]);
        else
            seal(headers[i], payload.data(), payload.size());
        return {};
    }));
    for (size_t i = 0; i < chunks.size(); i++) {
        const auto payload = payload_of(chunks[i]);
        GHOST_TRY(*room != nullptr ? note(headers[i])
                                   : send(headers[i], payload.data(), payload.size()));
        const uint64_t bytes = bytes_of(chunks[i].runs);
        contents_.page_bytes += bytes;
        process(chunks[i].inner_pid).page_bytes += bytes;
    }
    return {};
}

Status GhostWriter::runs(ChunkType type, int inner_pid, std::span<const PageRun> runs) {
    constexpr size_t most = chunk_limit / sizeof(PageRun);
    while (!runs.empty()) {
        const auto part = runs.first(std::min(most, runs.size()));
        GHOST_TRY(chunk(type, inner_pid, part.size(),
                        {reinterpret_cast<const char*>(part.data()), part.size_bytes()}));
        runs = runs.subspan(part.size());
    }
    return {};
}

Status GhostWriter::present(int inner_pid, std::span<const PageRun> list) {
    GHOST_TRY(runs(ChunkType::present, inner_pid, list));
    for (const auto& run : list) {
        contents_.present_bytes += run.bytes;
        process(inner_pid).present_bytes += run.bytes;
    }
    return {};
}

Status GhostWriter::zero(int inner_pid, std::span<const PageRun> list) {
    GHOST_TRY(runs(ChunkType::zero, inner_pid, list));
    for (const auto& run : list) process(inner_pid).zero_bytes += run.bytes;
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
    ChunkHeader header;
    header.type = static_cast<uint32_t>(type);
    header.size = static_cast<uint32_t>(std::min<size_t>(size, UINT32_MAX));
    header.sequence = sequence_;
    header.offset = offset;
    header.number = number;
    seal(header, pieces, count);
    return send(header, pieces, count);
}

Status GhostWriter::send(const ChunkHeader& header, const iovec* pieces, size_t count) {
    GHOST_TRY(note(header));
    scratch_.clear();
    scratch_.push_back({const_cast<ChunkHeader*>(&header), sizeof header});
    scratch_.insert(scratch_.end(), pieces, pieces + count);
    return out_.write_gather(scratch_.data(), scratch_.size());
}

// The chunk is the next one of the stream.
Status GhostWriter::note(const ChunkHeader& header) {
    if (header.size > chunk_limit)
        return make_error(Code::internal, "write a chunk of", fmt::format("{} bytes", header.size));
    sequence_++;
    if (header.type != static_cast<uint32_t>(ChunkType::end)) {
        XXH3_128bits_update(&digest_->all, &header, sizeof header);
        auto& section = contents_.sections[header.type];
        if (section.chunks++ == 0) section.first = position_;
        section.bytes += header.size;
    }
    position_ += sizeof header + header.size;
    return {};
}

Status GhostWriter::end() {
    if (processes_.size() > process_limit)
        return make_error(Code::unsupported, "write a ghost of so many processes",
                          std::to_string(processes_.size()));
    const auto digest = XXH3_128bits_digest(&digest_->all);
    contents_.digest = {digest.low64, digest.high64};
    contents_.stream_bytes = position_;
    contents_.processes = processes_.size();
    std::vector<ProcessSummary> table;
    table.reserve(processes_.size());
    for (const auto& [pid, summary] : processes_) table.push_back(summary);
    const std::array<iovec, 2> pieces = {iovec{table.data(), table.size() * sizeof(ProcessSummary)},
                                         iovec{&contents_, sizeof contents_}};
    return chunk(ChunkType::end, 0, 0, pieces.data(), pieces.size());
}

ParentRef GhostWriter::as_parent(std::string_view name) const {
    if (const auto slash = name.rfind('/'); slash != std::string_view::npos)
        name.remove_prefix(slash + 1);
    return {contents_.digest, id_, generation_ + 1, std::string(name.substr(0, name_limit))};
}

}  // namespace ghost::core
