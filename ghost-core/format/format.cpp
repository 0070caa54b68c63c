// SPDX-License-Identifier: BSD-3-Clause
#include "ghost-core/format/format.hpp"

#include <fmt/format.h>

namespace ghost::core {

std::string Hash128::hex() const {
    return fmt::format("{:016x}{:016x}", high, low);
}

const char* chunk_name(ChunkType type) {
    switch (type) {
        case ChunkType::host:
            return "host";
        case ChunkType::metadata:
            return "metadata";
        case ChunkType::skeleton_open:
            return "skeleton_open";
        case ChunkType::skeleton_data:
            return "skeleton_data";
        case ChunkType::skeleton_close:
            return "skeleton_close";
        case ChunkType::skeleton_end:
            return "skeleton_end";
        case ChunkType::pages:
            return "pages";
        case ChunkType::end:
            return "end";
        case ChunkType::present:
            return "present";
        case ChunkType::zero:
            return "zero";
        case ChunkType::parent:
            return "parent";
    }
    return "unknown";
}

}  // namespace ghost::core
