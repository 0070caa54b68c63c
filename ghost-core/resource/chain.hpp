// SPDX-License-Identifier: BSD-3-Clause
// Ghosts in files with their parents: finding a chain, and reading it as one full ghost.
#pragma once

#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "ghost-core/format/merge.hpp"
#include "ghost-core/resource/registry.hpp"

namespace ghost::core {

// A chain, newest ghost first, the last one full; the heads have been read and fit.
struct Chain {
    std::vector<OpenGhost> ghosts;
    std::vector<std::string> names;  // where each was found
};

// Opens a ghost and all its ancestors. A parent is looked for among `candidates`
// (specifications), under the name its child gives beside the child, and then among all files
// there: it is told by its id, whatever its name. not_found: a parent is missing; refused: what has
// its name is another or older one; and what ResourceRegistry::open() and GhostReader::head() say.
Result<Chain> open_chain(const ResourceRegistry& registry, const std::string& specification,
                         std::shared_ptr<SecretKey> key = nullptr,
                         const std::vector<std::string>& candidates = {});

// Reading gives the one full ghost that a chain is. Merged in a thread of its own, a few MiB ahead.
class ChainResource : public Resource {
  public:
    explicit ChainResource(Chain chain);
    ~ChainResource() override;

    ResourceClass class_id() const override { return ResourceClass::file; }
    Status init() override;
    Status write(const void* data, size_t size) override;
    Result<size_t> read(void* data, size_t size) override;
    Status finalize() override { return {}; }
    void interrupt() override;

  private:
    class Pipe;
    Chain chain_;
    std::unique_ptr<Pipe> pipe_;
    std::thread merger_;
};

// The ghost that a specification means, for an import: initialized, full (a chain is merged while
// it is read), unpacked.
Result<std::unique_ptr<Resource>> open_full(const ResourceRegistry& registry,
                                            const std::string& specification,
                                            std::shared_ptr<SecretKey> key = nullptr,
                                            const std::vector<std::string>& candidates = {});

}  // namespace ghost::core
