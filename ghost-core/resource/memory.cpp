#include "ghost-core/resource/memory.hpp"

#include <algorithm>
#include <cstring>

namespace ghost::core {

Status MemoryResource::write(const void* data, size_t size) {
    const auto* from = static_cast<const char*>(data);
    bytes_.insert(bytes_.end(), from, from + size);
    return {};
}

Result<size_t> MemoryResource::read(void* data, size_t size) {
    const size_t count = std::min(size, bytes_.size() - at_);
    if (count > 0) std::memcpy(data, bytes_.data() + at_, count);
    at_ += count;
    return count;
}

}  // namespace ghost::core
