// SPDX-License-Identifier: BSD-3-Clause
#include "tests/contract/faulty_resource.hpp"

#include <algorithm>
#include <vector>

namespace ghost::core {

Error FaultyResource::cut_error() const {
    return make_error(Code::peer_lost, "use faulty resource: it is cut");
}

Status FaultyResource::init() {
    if (is_cut()) return cut_error();
    return inner_.init();
}

Status FaultyResource::write_in_pieces(const char* data, size_t size) {
    constexpr size_t piece = 4099;  // no multiple of anything
    for (size_t at = 0; at < size; at += piece)
        GHOST_TRY(inner_.write(data + at, std::min(piece, size - at)));
    return {};
}

Status FaultyResource::write_flipped(const char* data, size_t size) {
    std::vector<char> wrong(data, data + size);
    wrong[at_ - position_] ^= static_cast<char>(1 << bit_);
    position_ += size;
    return inner_.write(wrong.data(), size);
}

Status FaultyResource::write(const void* data, size_t size) {
    const auto* bytes = static_cast<const char*>(data);
    if (is_cut()) {
        if (operations_ == at_ + 1) GHOST_TRY(inner_.write(data, size / 2));
        return cut_error();
    }
    const bool reached = at_ < position_ + size;
    if (fault_ == Fault::fail_write && reached) {
        if (at_ > position_) GHOST_TRY(inner_.write(data, at_ - position_));
        return sys_error_of(error_, "write to faulty resource");
    }
    if (fault_ == Fault::flip_write && reached && at_ >= position_)
        return write_flipped(bytes, size);
    position_ += size;
    if (fault_ == Fault::short_write) return write_in_pieces(bytes, size);
    return inner_.write(data, size);
}

Result<size_t> FaultyResource::read(void* data, size_t size) {
    if (is_cut()) return cut_error();
    const bool reached = at_ <= position_;
    if (fault_ == Fault::fail_read && reached)
        return sys_error_of(error_, "read from faulty resource");
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

Status FaultyResource::finalize() {
    if (is_cut()) return cut_error();
    if (fault_ == Fault::fail_finalize) return sys_error_of(error_, "finalize faulty resource");
    return inner_.finalize();
}

}  // namespace ghost::core
