// SPDX-License-Identifier: BSD-3-Clause
// Reading ghosts to their last byte, with their parents: for `ghost verify` and before a restart.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "ghost-core/format/reader.hpp"
#include "ghost-core/resource/chain.hpp"
#include "tools/terminal.hpp"
#include "tools/verbs/verb.hpp"

namespace ghost::tools {

// Each ghost is read once, however many name it as their parent. One thread; shows progress.
class Verifier {
  public:
    Verifier(const core::ResourceRegistry& registry, std::shared_ptr<core::SecretKey> key)
        : registry_(registry), key_(std::move(key)) {}

    // The row of a file: {"file", "ok", "id", "digest", "bytes", "parents": […]} or {…, "error"}.
    // Parents are looked for among `candidates` first.
    Json verify(const std::string& file, const std::vector<std::string>& candidates);

  private:
    Status read(core::OpenGhost& ghost, const std::string& name);

    const core::ResourceRegistry& registry_;
    std::shared_ptr<core::SecretKey> key_;
    std::vector<uint64_t> buffer_ = std::vector<uint64_t>(core::chunk_limit / sizeof(uint64_t));
    std::map<std::string, core::Contents> digests_;
    std::map<std::string, uint64_t> bytes_;
    ProgressLine line_;
};

}  // namespace ghost::tools
