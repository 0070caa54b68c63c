#include "ghost-core/resource/faulty.hpp"

#include <algorithm>

namespace ghost::core {

Status FaultyResource::write(const void* data, size_t size) {
    const bool reached = at_ < position_ + size;
    if (fault_ == Fault::fail_write && reached) {
        if (at_ > position_) GHOST_TRY(inner_.write(data, at_ - position_));
        return make_error(Code::io, "write to faulty resource");
    }
    position_ += size;
    return inner_.write(data, size);
}

Result<size_t> FaultyResource::read(void* data, size_t size) {
    const bool reached = at_ <= position_;
    if (fault_ == Fault::fail_read && reached)
        return make_error(Code::io, "read from faulty resource");
    if (fault_ == Fault::end_read && reached) return size_t{0};
    if (fault_ == Fault::short_read) size = std::min<size_t>(size, 7);
    if ((fault_ == Fault::fail_read || fault_ == Fault::end_read) && at_ > position_)
        size = std::min<size_t>(size, at_ - position_);
    auto got = inner_.read(data, size);
    if (!got) return got;
    if (fault_ == Fault::flip_read && at_ >= position_ && at_ < position_ + *got)
        static_cast<char*>(data)[at_ - position_] ^= static_cast<char>(1 << bit_);
    position_ += *got;
    return got;
}

}  // namespace ghost::core
