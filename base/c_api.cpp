// SPDX-License-Identifier: BSD-3-Clause
#include "base/c_api.hpp"

#include <cerrno>
#include <exception>
#include <new>
#include <string>

namespace ghost::c_api {
namespace {

constexpr const char* no_memory = "call: out of memory";

thread_local std::string composed;
thread_local const char* shown = "";  // `composed`, or a constant that needs no memory

}  // namespace

int errno_of(const Error& error) noexcept {
    if (error.sys != 0) return error.sys;
    switch (error.code) {
        case Code::invalid:
            return EINVAL;
        case Code::refused:
            return EPERM;
        case Code::busy:
            return EAGAIN;
        case Code::not_found:
            return ENOENT;
        case Code::unsupported:
            return EOPNOTSUPP;
        case Code::io:
            return EIO;
        case Code::timeout:
            return ETIMEDOUT;
        case Code::peer_lost:
            return EPIPE;
        case Code::corrupt:
            return EBADMSG;
        case Code::internal:
            return EPROTO;
    }
    return EPROTO;
}

const char* last_error() noexcept {
    return shown;
}

int fail(const Error& error) noexcept {
    try {
        composed = error.message();
        shown = composed.c_str();
    } catch (...) {
        shown = no_memory;
    }
    errno = errno_of(error);
    return -1;
}

int fail_by_exception() noexcept {
    try {
        throw;
    } catch (const std::bad_alloc&) {
        shown = no_memory;
        errno = ENOMEM;
        return -1;
    } catch (const std::exception& error) {
        try {
            return fail(make_error(Code::internal, "finish the call", {}, error.what()));
        } catch (...) {
            shown = no_memory;
        }
    } catch (...) {
        shown = "call: an exception of no known type";
    }
    errno = EPROTO;
    return -1;
}

}  // namespace ghost::c_api
