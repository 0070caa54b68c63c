// SPDX-License-Identifier: BSD-3-Clause
#include "ghost-core/format/merge.hpp"

#include "ghost-core/format/chain.hpp"
#include "ghost-core/format/writer.hpp"

namespace ghost::core {
namespace {

class Merge {
  public:
    Merge(ByteSink& out, const std::function<void(uint64_t)>& progress)
        : writer_(out), progress_(progress), space_(chunk_limit / sizeof(uint64_t)) {}

    Status run(std::span<OpenGhost> chain);

  private:
    char* buffer() { return reinterpret_cast<char*>(space_.data()); }
    Result<Chunk> next(OpenGhost& ghost);
    Status take_newest(OpenGhost& ghost);
    Status take_parent(const ParentRef& named, OpenGhost& ghost);
    Status take_skeleton(const Chunk& chunk);
    Status take_runs(const Chunk& chunk, bool newest);
    Status take_pages(const PagesView& view);

    GhostWriter writer_;
    const std::function<void(uint64_t)>& progress_;
    std::vector<uint64_t> space_;
    Inheritance inheritance_;
    uint64_t before_ = 0;  // bytes of the ghosts that have been read
};

Result<Chunk> Merge::next(OpenGhost& ghost) {
    auto chunk = ghost.reader->next(buffer());
    if (chunk.ok() && progress_) progress_(before_ + ghost.reader->position());
    return chunk;
}

Status Merge::take_skeleton(const Chunk& chunk) {
    switch (chunk.type) {
        case ChunkType::skeleton_open:
            return writer_.skeleton_open(chunk.number, {buffer(), chunk.size});
        case ChunkType::skeleton_data:
            return writer_.skeleton_data(chunk.number, chunk.offset, buffer(), chunk.size);
        case ChunkType::skeleton_close:
            return writer_.skeleton_close(chunk.number, chunk.offset);
        default:
            return writer_.skeleton_end(chunk.offset);
    }
}

// What of a pages chunk counts.
Status Merge::take_pages(const PagesView& view) {
    std::vector<PageRun> runs;
    std::vector<iovec> contents;
    const char* at = view.contents;
    for (const auto& run : view.runs) {
        for (const auto& part : inheritance_.wanted(view.inner_pid, run)) {
            runs.push_back(part);
            contents.push_back({const_cast<char*>(at) + (part.start - run.start), part.bytes});
        }
        at += run.bytes;
    }
    if (runs.empty()) return {};
    return writer_.pages(view.inner_pid, runs, contents);
}

Status Merge::take_runs(const Chunk& chunk, bool newest) {
    auto view = GhostReader::pages(chunk, buffer());
    if (!view) return view.error();
    if (chunk.type == ChunkType::present) {
        GHOST_TRY(inheritance_.present(view->inner_pid, view->runs));
        return newest ? writer_.present(view->inner_pid, view->runs) : Status{};
    }
    if (chunk.type == ChunkType::pages) GHOST_TRY(take_pages(*view));
    return inheritance_.owns(view->inner_pid, view->runs);
}

Status Merge::take_newest(OpenGhost& ghost) {
    GhostHead head;
    head.host = ghost.head.host;
    head.metadata = ghost.head.metadata;
    GHOST_TRY(writer_.head(head));
    for (;;) {
        auto chunk = next(ghost);
        if (!chunk) return chunk.error();
        if (chunk->type == ChunkType::end) break;
        const bool runs = chunk->type == ChunkType::pages || chunk->type == ChunkType::present ||
                          chunk->type == ChunkType::zero;
        GHOST_TRY(runs ? take_runs(*chunk, true) : take_skeleton(*chunk));
    }
    writer_.count_zero(ghost.reader->contents().zero_bytes);
    return {};
}

Status Merge::take_parent(const ParentRef& named, OpenGhost& ghost) {
    for (;;) {
        auto chunk = next(ghost);
        if (!chunk) return chunk.error();
        if (chunk->type == ChunkType::end) break;
        if (chunk->type >= ChunkType::pages) GHOST_TRY(take_runs(*chunk, false));
    }
    return check_parent_digest(named, ghost.reader->contents());
}

Status Merge::run(std::span<OpenGhost> chain) {
    for (size_t i = 0; i < chain.size(); i++) {
        const auto& parent = chain[i].head.parent;
        if (parent.has_value() != (i + 1 < chain.size()))
            return make_error(Code::invalid, "merge ghosts", {}, "the chain is not complete");
        if (parent) GHOST_TRY(check_parent_head(*parent, chain[i + 1].head));
        if (parent && chain[i].head.rounds)
            return make_error(Code::unsupported, "merge ghosts", {}, "pages come in rounds");
    }
    for (size_t i = 0; i < chain.size(); i++) {
        GHOST_TRY(i == 0 ? take_newest(chain[0])
                         : take_parent(*chain[i - 1].head.parent, chain[i]));
        before_ += chain[i].reader->position();
        if (!inheritance_.next()) break;  // nothing is wanted of older ones
    }
    return writer_.end();
}

}  // namespace

Result<OpenGhost> OpenGhost::open(std::unique_ptr<ByteSource> in) {
    OpenGhost out;
    out.in = std::move(in);
    out.reader = std::make_unique<GhostReader>(*out.in);
    GHOST_TRY(out.reader->head(out.head));
    return out;
}

Status merge_ghosts(std::span<OpenGhost> chain, ByteSink& out,
                    const std::function<void(uint64_t)>& progress) {
    if (chain.empty()) return make_error(Code::invalid, "merge ghosts", {}, "there is none");
    return Merge(out, progress).run(chain);
}

}  // namespace ghost::core
