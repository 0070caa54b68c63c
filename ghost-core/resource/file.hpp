// A ghost in a file: for checkpoints.
#pragma once

#include <string>

#include "base/fd.hpp"
#include "ghost-core/resource/resource.hpp"

namespace ghost::core {

// Written under a temporary name beside `path` and given its name, flushed to stable storage, by
// finalize(): what carries the name is complete. Without finalize() nothing is left.
class FileResource : public Resource {
  public:
    enum class Use { write, read };

    FileResource(std::string path, Use use) : path_(std::move(path)), use_(use) {}
    ~FileResource() override;
    FileResource(const FileResource&) = delete;
    FileResource& operator=(const FileResource&) = delete;

    ResourceClass class_id() const override { return ResourceClass::file; }
    Status init() override;
    Status write(const void* data, size_t size) override;
    Result<size_t> read(void* data, size_t size) override;
    Status finalize() override;

  private:
    std::string path_, temporary_;
    Use use_;
    Fd fd_;
};

}  // namespace ghost::core
