// SPDX-License-Identifier: BSD-3-Clause
// Whole files, and parts of them. A read that fails half-way (a process of /proc that ends, a file
// server that is gone) is an error like any other: iterators of std::ifstream throw there. No
// state: any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <sys/types.h>

#include "base/result.hpp"

namespace ghost {

// not_found: there is none.
Result<std::string> read_file(const std::string& path);
// What is left to read; `what` is named in errors.
Result<std::string> read_all(int fd, const std::string& what);
Status write_all(int fd, const std::string& text, const std::string& what);
// So many bytes from there on; fewer: the file ends before.
Result<size_t> read_at(int fd, void* data, size_t size, uint64_t offset, const std::string& what);
Status write_at(int fd, const void* data, size_t size, uint64_t offset, const std::string& what);
// Replaces the file's content in one step (write beside it, rename).
Status write_file(const std::string& path, const std::string& text, mode_t mode);

}  // namespace ghost
