// SPDX-License-Identifier: BSD-3-Clause
#include "tools/ghost_verifier.hpp"

#include "base/clock.hpp"
#include "ghost-core/format/chain.hpp"
#include "tools/ghost_files.hpp"

namespace ghost::tools {
namespace {

constexpr int64_t progress_us = 100000;

}  // namespace

Json Verifier::verify(const std::string& file, const std::vector<std::string>& candidates) {
    Json row{{"file", file}, {"ok", false}};
    auto chain = core::open_chain(registry_, file, key_, candidates);
    Status status = chain.ok() ? Status() : Status(chain.error());
    for (size_t i = 0; status.ok() && i < chain->ghosts.size(); i++) {
        auto& ghost = chain->ghosts[i];
        status = read(ghost, chain->names[i]);
        if (!status.ok()) break;
        const auto& digest = digests_[ghost.head.id.hex()];
        if (i == 0) {
            row["id"] = ghost.head.id.hex();
            row["digest"] = digest.digest.hex();
            row["bytes"] = bytes_[ghost.head.id.hex()];
            row["parents"] = Json::array();
        } else {
            status = core::check_parent_digest(*chain->ghosts[i - 1].head.parent, digest);
            row["parents"].push_back(chain->names[i]);
        }
    }
    row["ok"] = status.ok();
    if (!status.ok()) row["error"] = status.error().message();
    return row;
}

Status Verifier::read(core::OpenGhost& ghost, const std::string& name) {
    const auto id = ghost.head.id.hex();
    if (digests_.count(id)) return {};
    const uint64_t total = size_of(name);
    int64_t told = monotonic_us();
    for (;;) {
        auto chunk = ghost.reader->next(reinterpret_cast<char*>(buffer_.data()));
        if (!chunk) {
            line_.clear();
            auto error = chunk.error();
            if (error.object.empty()) error.object = name;
            return error;
        }
        if (chunk->type == core::ChunkType::end) break;
        if (monotonic_us() - told < progress_us) continue;
        line_.show("verify " + name, ghost.reader->position(), total);
        told = monotonic_us();
    }
    line_.clear();
    digests_[id] = ghost.reader->contents();
    bytes_[id] = ghost.reader->position();
    return {};
}

}  // namespace ghost::tools
