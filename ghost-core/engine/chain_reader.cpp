// SPDX-License-Identifier: BSD-3-Clause
#include "ghost-core/engine/chain_reader.hpp"

#include <cstring>

namespace ghost::core {

ChainReader::ChainReader(Resource& in) {
    links_.push_back({&in, std::make_unique<GhostReader>(in), {}});
    // Of parents only parts may be wanted, which are moved together.
    links_.front().reader->leave_pages();
}

Status ChainReader::head(GhostHead& head) {
    GHOST_TRY(links_.front().reader->head(links_.front().head));
    head = links_.front().head;
    if (head.rounds)
        return make_error(Code::unsupported, "import ghost", {}, "its pages come in rounds");
    return {};
}

Status ChainReader::add(Resource& in, std::optional<ParentRef>& next) {
    if (!links_.back().head.parent)
        return make_error(Code::invalid, "read ghost", {}, "it has no further parent");
    Link link{&in, std::make_unique<GhostReader>(in), {}};
    GHOST_TRY(link.reader->head(link.head));
    GHOST_TRY(check_parent_head(*links_.back().head.parent, link.head));
    next = link.head.parent;
    links_.push_back(std::move(link));
    return {};
}

// What this ghost says counts more than what its parents say.
Status ChainReader::note(const Chunk& chunk, const PagesView& view) {
    return chunk.type == ChunkType::present ? inheritance_.present(view.inner_pid, view.runs)
                                            : inheritance_.owns(view.inner_pid, view.runs);
}

// The contents that count are moved together, in the buffer.
void ChainReader::take_wanted(const PagesView& view, char* buffer, ChainPages& pages) const {
    pages = {view.inner_pid, {}, view.contents, 0};
    if (at_ == 0) {
        pages.runs.assign(view.runs.begin(), view.runs.end());
        pages.bytes = view.bytes;
        return;
    }
    char* const to = buffer + (view.contents - buffer);
    uint64_t before = 0;
    for (const auto& run : view.runs) {
        for (const auto& part : inheritance_.wanted(view.inner_pid, run)) {
            std::memmove(to + pages.bytes, view.contents + before + (part.start - run.start),
                         part.bytes);
            pages.runs.push_back(part);
            pages.bytes += part.bytes;
        }
        before += run.bytes;
    }
}

// False: nothing more is to be found in parents.
Result<bool> ChainReader::go_to_parent() {
    if (at_ > 0)
        GHOST_TRY(
            check_parent_digest(*links_[at_ - 1].head.parent, links_[at_].reader->contents()));
    if (!links_[at_].head.parent || !inheritance_.next()) return false;
    if (++at_ == links_.size())
        return make_error(Code::invalid, "read ghost", links_.back().head.parent->name,
                          "a parent is missing");
    return true;
}

Result<Chunk> ChainReader::next(char* buffer, ChainPages& pages) {
    for (;;) {
        auto chunk = links_[at_].reader->next(buffer);
        if (!chunk) return chunk;
        const bool chain = links_.front().head.parent.has_value();
        switch (chunk->type) {
            case ChunkType::pages:
            case ChunkType::present:
            case ChunkType::zero: {
                auto view = GhostReader::pages(*chunk, buffer);
                if (!view) return view.error();
                if (chunk->type == ChunkType::pages) take_wanted(*view, buffer, pages);
                if (chain) GHOST_TRY(note(*chunk, *view));
                if (chunk->type == ChunkType::pages && !pages.runs.empty()) return chunk;
                break;
            }
            case ChunkType::end: {
                auto more = go_to_parent();
                if (!more) return more.error();
                if (!*more) return chunk;
                break;
            }
            default:
                if (at_ == 0) return chunk;
        }
    }
}

void ChainReader::interrupt() {
    for (const auto& link : links_) link.in->interrupt();
}

}  // namespace ghost::core
