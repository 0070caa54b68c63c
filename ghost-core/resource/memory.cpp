#include "ghost-core/resource/memory.hpp"

#include <algorithm>
#include <cstring>

namespace ghost::core {

MemoryResource::MemoryResource(const std::vector<char>& bytes) : MemoryResource() {
    // a failure shows as a ghost that ends too early
    if (auto status = buffer_->append(bytes.data(), bytes.size()); !status.ok()) buffer_->clear();
}

Result<size_t> MemoryResource::read(void* data, size_t size) {
    const auto left = buffer_->content().subspan(std::min(at_, buffer_->size()));
    const size_t count = std::min(size, left.size());
    if (count > 0) std::memcpy(data, left.data(), count);
    at_ += count;
    return count;
}

std::vector<char> MemoryResource::bytes() const {
    const auto content = buffer_->content();
    return {content.begin(), content.end()};
}

}  // namespace ghost::core
