// SPDX-License-Identifier: BSD-3-Clause
// Hashing leaves the vector registers as it found them: a program's own loops run in between.
#include <gtest/gtest.h>

#include <array>
#include <cstdint>
#include <vector>

#include "base/hash.hpp"

#if defined(__x86_64__)

namespace {

// The upper halves of the sixteen registers that SSE code uses the lower ones of.
using Uppers = std::array<uint64_t, 32>;

__attribute__((target("avx"), noinline)) void store_uppers(Uppers& to) {
    asm volatile(
        "vextractf128 $1, %%ymm0, (%0)\n vextractf128 $1, %%ymm1, 16(%0)\n"
        "vextractf128 $1, %%ymm2, 32(%0)\n vextractf128 $1, %%ymm3, 48(%0)\n"
        "vextractf128 $1, %%ymm4, 64(%0)\n vextractf128 $1, %%ymm5, 80(%0)\n"
        "vextractf128 $1, %%ymm6, 96(%0)\n vextractf128 $1, %%ymm7, 112(%0)\n"
        "vextractf128 $1, %%ymm8, 128(%0)\n vextractf128 $1, %%ymm9, 144(%0)\n"
        "vextractf128 $1, %%ymm10, 160(%0)\n vextractf128 $1, %%ymm11, 176(%0)\n"
        "vextractf128 $1, %%ymm12, 192(%0)\n vextractf128 $1, %%ymm13, 208(%0)\n"
        "vextractf128 $1, %%ymm14, 224(%0)\n vextractf128 $1, %%ymm15, 240(%0)\n"
        :
        : "r"(to.data())
        : "memory");
}

template <typename Hash>
void expect_clear(size_t size, Hash hash) {
    std::vector<char> data(size);
    for (size_t i = 0; i < size; i++) data[i] = static_cast<char>(i * 7 + 1);
    Uppers uppers{};
    const Uppers none{};
    hash(data.data(), size);
    store_uppers(uppers);
    EXPECT_EQ(uppers, none) << size << " bytes";
}

}  // namespace

TEST(Hash, UpperVectorHalvesAreCleared) {
    if (!__builtin_cpu_supports("avx")) GTEST_SKIP() << "this processor has no such registers";
    XXH3_state_t* const state = XXH3_createState();
    for (const size_t size : {16, 240, 241, 1000, 9000, 70000}) {
        volatile uint64_t sink = 0;
        expect_clear(size, [&](const char* data, size_t n) { sink = XXH3_64bits(data, n); });
        expect_clear(size,
                     [&](const char* data, size_t n) { sink = XXH3_64bits_withSeed(data, n, 3); });
        XXH3_64bits_reset(state);
        expect_clear(size, [&](const char* data, size_t n) { XXH3_64bits_update(state, data, n); });
        expect_clear(size, [&](const char*, size_t) { sink = XXH3_64bits_digest(state); });
        XXH3_128bits_reset(state);
        expect_clear(size,
                     [&](const char* data, size_t n) { XXH3_128bits_update(state, data, n); });
        expect_clear(size, [&](const char*, size_t) { sink = XXH3_128bits_digest(state).low64; });
    }
    XXH3_freeState(state);
}

#endif
