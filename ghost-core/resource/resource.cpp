#include "ghost-core/resource/resource.hpp"

#include <fmt/format.h>

namespace ghost::core {

Status Resource::read_all(void* data, size_t size) {
    auto* at = static_cast<char*>(data);
    while (size > 0) {
        auto got = read(at, size);
        if (!got) return got.error();
        if (*got == 0)
            return make_error(Code::corrupt, "read ghost",
                              fmt::format("ends {} bytes early", size));
        at += *got;
        size -= *got;
    }
    return {};
}

}  // namespace ghost::core
