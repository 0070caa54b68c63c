// SPDX-License-Identifier: BSD-3-Clause
#include "tests/process/lazy_tree.hpp"

#include <algorithm>
#include <cstring>
#include <fmt/format.h>

#include "base/clock.hpp"
#include "ghost-core/format/host.hpp"
#include "ghost-core/format/reader.hpp"
#include "ghost-core/criu/restore.hpp"
#include "ghost-core/criu/skeleton_store.hpp"
#include "ghost-core/criu/realtime_priority.hpp"

namespace ghost::core {
namespace {

class SpanSource : public ByteSource {
  public:
    explicit SpanSource(std::span<const char> bytes) : bytes_(bytes) {}
    Result<size_t> read(void* data, size_t size) override {
        size = std::min(size, bytes_.size() - at_);
        if (size > 0) std::memcpy(data, bytes_.data() + at_, size);
        at_ += size;
        return size;
    }

  private:
    std::span<const char> bytes_;
    size_t at_ = 0;
};

// Reads a ghost to its end, which checks it, and calls use(chunk, buffer, place of the payload).
template <typename Use>
Status read_all_of(std::span<const char> ghost, Use&& use) {
    SpanSource source(ghost);
    GhostReader reader(source);
    GhostHead head;
    GHOST_TRY(reader.head(head));
    if (head.parent || head.rounds)
        return make_error(Code::unsupported,
                          "run a ghost ahead of its pages: it is not a full one");
    GHOST_TRY(check_host(head.host));
    std::vector<uint64_t> buffer(chunk_limit / sizeof(uint64_t));
    auto* const bytes = reinterpret_cast<char*>(buffer.data());
    for (;;) {
        auto chunk = reader.next(bytes);
        if (!chunk) return chunk.error();
        if (chunk->type == ChunkType::end) return {};
        GHOST_TRY(use(*chunk, bytes, reader.position() - chunk->size));
    }
}

Status take_skeleton(std::span<const char> ghost, SkeletonStore& store) {
    return read_all_of(ghost, [&](const Chunk& chunk, const char* buffer, uint64_t) -> Status {
        const std::string_view payload(buffer, chunk.size);
        if (chunk.type == ChunkType::skeleton_open)
            store.open(chunk.number, std::string(payload));
        else if (chunk.type == ChunkType::skeleton_data)
            return store.data(chunk.number, payload);
        else if (chunk.type == ChunkType::skeleton_close)
            return store.close(chunk.number);
        else if (chunk.type == ChunkType::skeleton_end)
            store.end(chunk.offset);
        return {};
    });
}

}  // namespace

Result<std::unique_ptr<GhostPages>> GhostPages::open(std::span<const char> ghost) {
    std::unique_ptr<GhostPages> out(new GhostPages);
    GHOST_TRY(
        read_all_of(ghost, [&](const Chunk& chunk, const char* buffer, uint64_t place) -> Status {
            if (chunk.type != ChunkType::pages) return {};
            auto view = GhostReader::pages(chunk, buffer);
            if (!view) return view.error();
            uint64_t at = place + static_cast<uint64_t>(view->contents - buffer);
            for (const auto& run : view->runs) {
                out->runs_[view->inner_pid][run.start] = ghost.subspan(at, run.bytes);
                at += run.bytes;
            }
            return {};
        }));
    return out;
}

PageRuns GhostPages::pages(int inner_pid) {
    PageRuns out;
    const auto found = runs_.find(inner_pid);
    if (found == runs_.end()) return out;
    for (const auto& [start, content] : found->second) append(out, start, start + content.size());
    return out;
}

Status GhostPages::read(int inner_pid, const PageRun& wanted, char* to) {
    const auto found = runs_.find(inner_pid);
    for (uint64_t at = wanted.start; found != runs_.end() && at < wanted.end();) {
        auto run = found->second.upper_bound(at);
        if (run == found->second.begin()) break;
        --run;
        const uint64_t inside = at - run->first;
        if (inside >= run->second.size()) break;
        const uint64_t part = std::min<uint64_t>(run->second.size() - inside, wanted.end() - at);
        std::memcpy(to + (at - wanted.start), run->second.data() + inside, part);
        at += part;
        if (at == wanted.end()) return {};
    }
    return make_error(
        Code::internal,
        fmt::format("read pages at {:#x} of ghost: they are not there", wanted.start));
}

Result<std::unique_ptr<LazyTree>> LazyTree::make(std::span<const char> ghost,
                                                 const CriuSettings& criu,
                                                 const std::vector<InheritFd>& inherit) {
    const RealtimePriority urgent;
    const int64_t begin = monotonic_us();
    std::unique_ptr<LazyTree> out(new LazyTree);
    auto pages = GhostPages::open(ghost);
    if (!pages) return pages.error();
    out->pages_ = std::move(*pages);
    out->copy_ = std::make_unique<PostCopy>(*out->pages_);
    SkeletonStore skeleton;
    GHOST_TRY(take_skeleton(ghost, skeleton));
    ImportState state;
    state.finish_pages();  // nothing has to wait for them
    RestoreRequest request;
    request.criu = criu;
    for (const auto& entry : inherit) request.inherit.emplace_back(entry.fd, entry.key);
    Restorer restorer(std::move(request), skeleton, *out->copy_, state);
    GHOST_TRY(restorer.start());
    auto root = restorer.run([] {});
    if (!root) return root.error();
    out->held_.root = *root;
    auto keeper = FaultKeeper::start(*root);
    if (!keeper) return keeper.error();
    out->keeper_.emplace(std::move(*keeper));
    GHOST_TRY(out->copy_->watched_by(*out->keeper_));
    out->held_.skeleton_bytes = skeleton.bytes();
    out->held_.total_us = monotonic_us() - begin;
    return out;
}

LazyTree::~LazyTree() {
    if (!complete_ && held_.root > 0) destroy_tree(held_);
}

Status LazyTree::wait() {
    auto status = copy_->wait();
    complete_ = status.ok();
    if (complete_) keeper_.reset();
    return status;
}

}  // namespace ghost::core
