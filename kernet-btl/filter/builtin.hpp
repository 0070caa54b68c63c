// SPDX-License-Identifier: BSD-3-Clause
// The built-in filters, for the one table that lists them (list.cpp). Each function understands the
// option behind the name ("" if there is none); Code::invalid if it cannot.
#pragma once

#include <memory>
#include <string>

#include "kernet-btl/filter/filter.hpp"

namespace kernet::filter {

using Made = Result<std::unique_ptr<Recipe>>;

// Seals every message: "" or "xchacha20poly1305", "aes256gcm" (processors that have it).
Made make_crypto(const std::string& option);
// "" or "lz4", "zstd".
Made make_compress(const std::string& option);
// A folder, absolute.
Made make_backup(const std::string& option);
// "/path/of/filter.so" or "/path/of/filter.so=OPTION" (ghost_filter.h).
Made make_shared_object(const std::string& option);

}  // namespace kernet::filter
