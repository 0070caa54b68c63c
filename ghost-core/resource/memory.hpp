// SPDX-License-Identifier: BSD-3-Clause
// A ghost in memory: for duplication, checkpoints to memory, and tests.
#pragma once

#include <memory>
#include <vector>

#include "ghost-core/resource/buffer.hpp"
#include "ghost-core/resource/resource.hpp"

namespace ghost::core {

class MemoryResource : public Resource {
  public:
    // A buffer of its own; the ghost is written to it or, with `bytes`, read from it.
    MemoryResource() : buffer_(std::make_shared<MemoryBuffer>()) {}
    explicit MemoryResource(const std::vector<char>& bytes);
    // Appends to, or reads from the start of, a buffer that others may keep warm and use again.
    explicit MemoryResource(std::shared_ptr<MemoryBuffer> buffer) : buffer_(std::move(buffer)) {}

    ResourceClass class_id() const override { return ResourceClass::memory; }
    Status init() override { return {}; }
    Status write(const void* data, size_t size) override { return buffer_->append(data, size); }
    Status write_gather(iovec* pieces, size_t count) override;
    Result<char*> room(size_t size) override { return buffer_->extend(size); }
    Space* space() override { return buffer_->settle() ? buffer_.get() : nullptr; }
    bool holds(const void* data) const override { return buffer_->holds(data); }
    Result<size_t> read(void* data, size_t size) override;
    const char* in_place(size_t size) override;
    Status finalize() override { return {}; }

    MemoryBuffer& buffer() { return *buffer_; }
    const std::shared_ptr<MemoryBuffer>& share() const { return buffer_; }
    std::vector<char> bytes() const;  // a copy
    void rewind() { extent_ = at_ = 0; }

  private:
    std::shared_ptr<MemoryBuffer> buffer_;
    uint64_t extent_ = 0, at_ = 0;  // of the next read: in this part of it, after so many bytes
};

}  // namespace ghost::core
