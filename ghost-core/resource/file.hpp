// SPDX-License-Identifier: BSD-3-Clause
// A ghost in a file: for checkpoints.
#pragma once

#include <memory>
#include <string>

#include "ghost-core/resource/resource.hpp"

namespace ghost::core {

// Whose file is read (base/own_file.hpp): own are those that this user alone can have written,
// trusted those that nobody but this user and root can. anybodys only where nothing is made of what
// is read, or the user has said so: a ghost is a program, and runs as who imports it.
enum class Whose { anybodys, trusted, own };

// Written without a name (or under a temporary one beside `path`, mode 0600, where the file system
// knows no files without a name) and given its name, flushed to stable storage, by finalize(): what
// carries the name is complete. Without finalize() nothing is left; after a failure neither.
//
// Several large aligned transfers are in flight, past the page cache (O_DIRECT) where the file
// system can: by threads rather than io_uring, which many machines have switched off, and which at
// 2 MiB a transfer is no faster. What is in the page cache is read from there.
//
// A `path` that is no regular file (a pipe, a device) is read and written as it is.
class FileResource : public Resource {
  public:
    using Use = core::Use;

    FileResource(std::string path, Use use, Whose whose = Whose::trusted);
    ~FileResource() override;
    FileResource(const FileResource&) = delete;
    FileResource& operator=(const FileResource&) = delete;

    ResourceClass class_id() const override { return ResourceClass::file; }
    // io with the path and errno; invalid if it is a folder; refused if it is to be an own one.
    Status init() override;
    Status write(const void* data, size_t size) override;
    Result<size_t> read(void* data, size_t size) override;
    Status finalize() override;

  private:
    struct State;
    Status open_to_read();
    Error fail(int error);
    Status write_plain(const char* data, size_t size);

    std::string path_;
    Use use_;
    Whose whose_;
    std::unique_ptr<State> state_;
    int failed_ = 0;  // errno of the write that failed
};

}  // namespace ghost::core
