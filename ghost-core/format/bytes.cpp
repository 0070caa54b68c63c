// SPDX-License-Identifier: BSD-3-Clause
#include "ghost-core/format/bytes.hpp"

#include <fmt/format.h>

namespace ghost::core {

Status ByteSink::write_gather(iovec* pieces, size_t count) {
    for (size_t i = 0; i < count; i++) GHOST_TRY(write(pieces[i].iov_base, pieces[i].iov_len));
    return {};
}

Result<char*> ByteSink::room(size_t /*size*/) {
    return nullptr;
}

Status ByteSource::read_all(void* data, size_t size) {
    auto* at = static_cast<char*>(data);
    while (size > 0) {
        auto got = read(at, size);
        if (!got) return got.error();
        if (*got == 0)
            return make_error(Code::corrupt, "read ghost", {},
                              fmt::format("it ends {} bytes too early", size));
        at += *got;
        size -= *got;
    }
    return {};
}

}  // namespace ghost::core
