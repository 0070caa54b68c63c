// SPDX-License-Identifier: BSD-3-Clause
// Reading pages out of another process.
#pragma once

#include <span>
#include <sys/types.h>
#include <sys/uio.h>

#include "base/result.hpp"
#include "ghost-core/memory/page_set.hpp"

namespace ghost::core {

// Where the pages of one run go to.
struct PagePiece {
    uint64_t start = 0;  // address in the process
    uint64_t bytes = 0;
    char* to = nullptr;
};

enum class Vanished { is_error, is_left };  // what a page that is not there any more means

// Reads all pieces, also those whose owner may not read them (PROT_NONE). Any thread.
Status read_pages(pid_t pid, std::span<const PagePiece> pieces, Vanished vanished);

}  // namespace ghost::core
