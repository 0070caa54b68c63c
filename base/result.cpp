// SPDX-License-Identifier: BSD-3-Clause
#include "base/result.hpp"

#include <cerrno>
#include <cstring>

namespace ghost {

std::string Error::message() const {
    std::string out = tried;
    if (!object.empty()) out += (out.empty() ? "" : " ") + object;
    if (sys != 0) out += std::string(": ") + std::strerror(sys);
    return out;
}

Error sys_error_of(int sys, std::string tried, std::string object, Code code) {
    return Error{code, std::move(tried), std::move(object), sys};
}

Error sys_error(std::string tried, std::string object, Code code) {
    return sys_error_of(errno, std::move(tried), std::move(object), code);
}

Error make_error(Code code, std::string tried, std::string object) {
    return Error{code, std::move(tried), std::move(object), 0};
}

}  // namespace ghost
