// SPDX-License-Identifier: BSD-3-Clause
// Makes memory run out in a library: the program's own operator new, which the library is bound to
// as well, throws at the n-th allocation of this thread.
#pragma once

#include <gtest/gtest.h>

#include <cerrno>
#include <cstdlib>
#include <functional>
#include <new>
#include <string>

namespace throwing {

inline thread_local long left = -1;  // allocations that succeed; -1: all
inline thread_local bool thrown = false;

inline void* allocate(size_t size) {
    if (left == 0) {
        thrown = true;
        throw std::bad_alloc();
    }
    if (left > 0) left--;
    if (void* got = std::malloc(size > 0 ? size : 1)) return got;
    throw std::bad_alloc();
}

// Calls `call` with memory running out at its first allocation, its second, and so on, until it
// needs no more. `call` says whether it failed; a failure is ENOMEM, and the exception never comes
// here. Returns how often it failed.
inline int until_it_succeeds(const std::string& name, const std::function<bool()>& call) {
    constexpr long most = 20'000;
    int failures = 0;
    for (long n = 0; n < most; n++) {
        thrown = false;
        errno = 0;
        bool failed = false;
        left = n;
        try {
            failed = call();
        } catch (...) {
            left = -1;
            ADD_FAILURE() << name << " lets an exception through, allocation " << n;
            return failures;
        }
        const int code = errno;
        left = -1;
        if (failed) {
            failures++;
            EXPECT_TRUE(thrown) << name << " fails by itself, allocation " << n;
            EXPECT_EQ(code, ENOMEM) << name << ", allocation " << n;
        }
        if (!thrown) {
            EXPECT_FALSE(failed) << name;
            return failures;
        }
    }
    ADD_FAILURE() << name << " never has enough";
    return failures;
}

}  // namespace throwing

// Not inlined: a compiler that sees one half of a pair takes it for a mistake.
[[gnu::noinline]] void* operator new(size_t size) {
    return throwing::allocate(size);
}
[[gnu::noinline]] void* operator new[](size_t size) {
    return throwing::allocate(size);
}
// Not to be failed: who asks so can do without.
[[gnu::noinline]] void* operator new(size_t size, const std::nothrow_t&) noexcept {
    return std::malloc(size);
}
[[gnu::noinline]] void operator delete(void* memory, const std::nothrow_t&) noexcept {
    std::free(memory);
}
[[gnu::noinline]] void operator delete(void* memory) noexcept {
    std::free(memory);
}
[[gnu::noinline]] void operator delete[](void* memory) noexcept {
    std::free(memory);
}
[[gnu::noinline]] void operator delete(void* memory, size_t) noexcept {
    std::free(memory);
}
[[gnu::noinline]] void operator delete[](void* memory, size_t) noexcept {
    std::free(memory);
}
