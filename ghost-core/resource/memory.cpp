// SPDX-License-Identifier: BSD-3-Clause
#include "ghost-core/resource/memory.hpp"

#include <algorithm>
#include <cstring>

namespace ghost::core {

MemoryResource::MemoryResource(const std::vector<char>& bytes) : MemoryResource() {
    // a failure shows as a ghost that ends too early
    if (auto status = buffer_->append(bytes.data(), bytes.size()); !status.ok()) buffer_->clear();
}

// What lies in the buffer already only becomes part of the ghost.
Status MemoryResource::write_gather(iovec* pieces, size_t count) {
    for (size_t i = 0; i < count; i++) {
        if (buffer_->holds(pieces[i].iov_base))
            buffer_->refer(pieces[i].iov_base, pieces[i].iov_len);
        else
            GHOST_TRY(buffer_->append(pieces[i].iov_base, pieces[i].iov_len));
    }
    return {};
}

Result<size_t> MemoryResource::read(void* data, size_t size) {
    const auto& extents = buffer_->extents();
    size_t done = 0;
    while (done < size && extent_ < extents.size()) {
        const auto& extent = extents[extent_];
        const size_t part = std::min(size - done, extent.bytes - at_);
        std::memcpy(static_cast<char*>(data) + done, buffer_->data() + extent.offset + at_, part);
        done += part;
        at_ += part;
        if (at_ < extent.bytes || extent_ + 1 == extents.size()) break;
        extent_++;
        at_ = 0;
    }
    return done;
}

const char* MemoryResource::in_place(size_t size) {
    const auto& extents = buffer_->extents();
    // What was read to its end is left at the next read.
    if (extent_ + 1 < extents.size() && at_ == extents[extent_].bytes) {
        extent_++;
        at_ = 0;
    }
    if (extent_ >= extents.size() || extents[extent_].bytes - at_ < size) return nullptr;
    const char* const data = buffer_->data() + extents[extent_].offset + at_;
    at_ += size;
    return data;
}

std::vector<char> MemoryResource::bytes() const {
    std::vector<char> out;
    out.reserve(buffer_->size());
    for (const auto& extent : buffer_->extents()) {
        const char* const begin = buffer_->data() + extent.offset;
        out.insert(out.end(), begin, begin + extent.bytes);
    }
    return out;
}

}  // namespace ghost::core
