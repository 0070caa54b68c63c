// A ghost in this process's memory: for duplication, and for tests.
#pragma once

#include <vector>

#include "ghost-core/resource/resource.hpp"

namespace ghost::core {

class MemoryResource : public Resource {
  public:
    MemoryResource() = default;
    explicit MemoryResource(std::vector<char> bytes) : bytes_(std::move(bytes)) {}

    ResourceClass class_id() const override { return ResourceClass::memory; }
    Status init() override { return {}; }
    Status write(const void* data, size_t size) override;
    Result<size_t> read(void* data, size_t size) override;
    Status finalize() override { return {}; }

    std::vector<char>& bytes() { return bytes_; }
    void rewind() { at_ = 0; }

  private:
    std::vector<char> bytes_;
    size_t at_ = 0;  // of the next read
};

}  // namespace ghost::core
