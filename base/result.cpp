// SPDX-License-Identifier: BSD-3-Clause
#include "base/result.hpp"

#include <cerrno>
#include <cstring>

namespace ghost {

std::string Error::message() const {
    std::string out = tried.empty() ? object : "cannot " + tried;
    if (!tried.empty() && !object.empty()) out += " " + object;
    const std::string known = sys != 0 ? std::strerror(sys) : "";
    const std::string& reason = why.empty() ? known : why;
    if (!reason.empty()) out += (out.empty() ? "" : ": ") + reason;
    if (!why.empty() && !known.empty()) out += " (" + known + ")";
    return out;
}

Error sys_error_of(int sys, std::string tried, std::string object, Code code) {
    return Error{code, std::move(tried), std::move(object), {}, sys};
}

Error sys_error(std::string tried, std::string object, Code code) {
    return sys_error_of(errno, std::move(tried), std::move(object), code);
}

Error make_error(Code code, std::string tried, std::string object, std::string why) {
    return Error{code, std::move(tried), std::move(object), std::move(why), 0};
}

Error because(Code code, std::string why, std::string object) {
    return Error{code, {}, std::move(object), std::move(why), 0};
}

}  // namespace ghost
