// SPDX-License-Identifier: BSD-3-Clause
#include "ghost-core/format/summary.hpp"

#include <cerrno>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/hash.hpp"
#include "ghost-core/format/reader.hpp"

namespace ghost::core {
namespace {

class FdAt : public ByteSource {
  public:
    FdAt(int fd, uint64_t offset) : fd_(fd), offset_(offset) {}
    Result<size_t> read(void* data, size_t size) override {
        for (;;) {
            const auto got = pread(fd_, data, size, static_cast<off_t>(offset_));
            if (got < 0 && errno == EINTR) continue;
            if (got < 0) return sys_error("read ghost");
            offset_ += static_cast<uint64_t>(got);
            return static_cast<size_t>(got);
        }
    }

  private:
    int fd_;
    uint64_t offset_;
};

Error no_end(const char* what) {
    return make_error(Code::corrupt, "read ghost", {}, fmt::format("it is not complete: {}", what));
}

Status check_end(const ChunkHeader& header, const std::string& payload) {
    const auto seed = XXH3_64bits(&header, offsetof(ChunkHeader, checksum));
    if (header.type != static_cast<uint32_t>(ChunkType::end) || header.size != payload.size())
        return no_end("its last chunk is not the table of contents");
    if (header.checksum != XXH3_64bits_withSeed(payload.data(), payload.size(), seed))
        return no_end("checksum of the table of contents");
    return {};
}

}  // namespace

Result<GhostSummary> read_summary(int fd) {
    GhostSummary out;
    struct stat info {};
    if (fstat(fd, &info) != 0) return sys_error("look at ghost");
    out.bytes = static_cast<uint64_t>(info.st_size);
    FdAt from_start(fd, 0);
    GhostReader reader(from_start);
    GHOST_TRY(reader.head(out.head));
    if (out.bytes < reader.position() + sizeof(ChunkHeader) + sizeof(Contents))
        return no_end("it ends too early");
    GHOST_TRY(FdAt(fd, out.bytes - sizeof(Contents)).read_all(&out.contents, sizeof(Contents)));
    const auto& contents = out.contents;
    if (contents.processes > process_limit) return no_end("size of the table of contents");
    const uint64_t table = contents.processes * sizeof(ProcessSummary);
    const uint64_t end = sizeof(ChunkHeader) + table + sizeof(Contents);
    if (contents.stream_bytes < reader.position() || out.bytes < end ||
        contents.stream_bytes != out.bytes - end)
        return no_end("its table of contents is not at its end");
    ChunkHeader header;
    std::string payload(table + sizeof(Contents), '\0');
    FdAt at(fd, contents.stream_bytes);
    GHOST_TRY(at.read_all(&header, sizeof header));
    GHOST_TRY(at.read_all(payload.data(), payload.size()));
    GHOST_TRY(check_end(header, payload));
    out.processes.resize(contents.processes);
    if (table > 0) std::memcpy(out.processes.data(), payload.data(), table);
    return out;
}

ParentRef GhostSummary::as_parent(std::string_view name) const {
    if (const auto slash = name.rfind('/'); slash != std::string_view::npos)
        name.remove_prefix(slash + 1);
    const int generation = head.parent ? head.parent->generation : 0;
    return {contents.digest, head.id, generation + 1, std::string(name.substr(0, name_limit))};
}

}  // namespace ghost::core
