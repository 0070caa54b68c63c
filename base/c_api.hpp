// SPDX-License-Identifier: BSD-3-Clause
// What the C interfaces of ours (libghost, libkernet) share: nothing is thrown through them, and a
// failure becomes errno and a text. Each shared library has its own copy, and so its own text.
//
//   int kernet_destroy(kernet_node* node, kernet_stream stream) {
//       return status_of([&] { return node->node->destroy(stream); });
//   }
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <cxxabi.h>
#include <sys/types.h>
#include <utility>

#include "base/result.hpp"

namespace ghost::c_api {

// The one table from kinds of failures to errno. The system's own number, where there is one, wins.
int errno_of(const Error& error) noexcept;

// What went wrong in this thread's last failure. Valid until its next one.
const char* last_error() noexcept;

// Keeps the failure for last_error() and sets errno; returns -1.
int fail(const Error& error) noexcept;
// The same for the exception that is being handled.
int fail_by_exception() noexcept;

// Runs the body of an exported function. `failed` is returned for anything thrown, but for the
// unwinding of a thread that is cancelled (pthread_cancel(3)), which nobody may stop.
template <typename Value, typename Body>
Value guarded(Value failed, Body&& body) {
    try {
        return std::forward<Body>(body)();
    } catch (const abi::__forced_unwind&) {
        throw;
    } catch (...) {
        fail_by_exception();
        return failed;
    }
}

// For a body that gives a Status: 0 or -1.
template <typename Body>
int status_of(Body&& body) {
    return guarded(-1, [&] {
        const Status status = body();
        return status.ok() ? 0 : fail(status.error());
    });
}

// For a body that gives a Result<size_t>: the number, or -1.
template <typename Body>
ssize_t bytes_of(Body&& body) {
    return guarded<ssize_t>(-1, [&]() -> ssize_t {
        const Result<size_t> got = body();
        return got.ok() ? static_cast<ssize_t>(*got) : fail(got.error());
    });
}

// Structures that grow begin with `size_t size`, set by the caller: what one side does not know is
// left alone (the library's side is older) or zero (the program's is).
template <typename Struct>
Status give(const Struct& from, Struct* to) {
    const size_t room = to->size;
    if (room < sizeof(size_t))
        return make_error(Code::invalid, "fill a structure without its size");
    const auto skip = sizeof(size_t), known = std::min(room, sizeof(Struct));
    auto* bytes = reinterpret_cast<char*>(to);
    std::memcpy(bytes + skip, reinterpret_cast<const char*>(&from) + skip, known - skip);
    std::memset(bytes + known, 0, room - known);
    return {};
}
template <typename Struct>
Result<Struct> take(const Struct* from) {
    if (from->size < sizeof(size_t))
        return make_error(Code::invalid, "use a structure without its size");
    Struct out{};
    std::memcpy(&out, from, std::min(from->size, sizeof(Struct)));
    return out;
}

}  // namespace ghost::c_api
