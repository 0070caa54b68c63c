// SPDX-License-Identifier: BSD-3-Clause
// XXH3 as fast as this machine can: the library's own choice of AVX2 or AVX-512 at run time where
// it has one (x86-64), twice as fast from memory as what a compiler makes for every x86-64. Include
// this instead of xxhash.h where pages or packets are hashed.
#pragma once

#include <cstddef>

#define XXH_STATIC_LINKING_ONLY
#ifdef GHOST_HAVE_XXH_DISPATCH
#define XXH_DISPATCH_DISABLE_REPLACE  // what is not replaced below is the ordinary function
#include <xxh_x86dispatch.h>
#else
#define XXH_INLINE_ALL
#endif
#include <xxhash.h>

#ifdef GHOST_HAVE_XXH_DISPATCH
#include <immintrin.h>

namespace ghost {

// The AVX code of libxxhash 0.8.1 leaves the upper halves of the vector registers as they were
// used. With these in use every SSE instruction that loads a scalar has to merge it into the old
// contents and wait for them: a program's loop ran at a seventh of its speed after a hash in its
// thread (Debian's BLAS on Zen 5), until something cleared them.
__attribute__((target("avx"), noinline)) inline void clear_upper_halves() {
    _mm256_zeroupper();
}

// After so many bytes have been hashed; up to 240 there is no such code (XXH3_MIDSIZE_MAX of
// xxhash.h).
inline void leave_registers_clear(size_t hashed) {
    if (hashed > 240 && __builtin_cpu_supports("avx")) clear_upper_halves();
}

inline XXH64_hash_t xxh3_64bits(const void* data, size_t size) {
    const auto hash = XXH3_64bits_dispatch(data, size);
    leave_registers_clear(size);
    return hash;
}
inline XXH64_hash_t xxh3_64bits_with_seed(const void* data, size_t size, XXH64_hash_t seed) {
    const auto hash = XXH3_64bits_withSeed_dispatch(data, size, seed);
    leave_registers_clear(size);
    return hash;
}
// What was given before may be hashed only now.
inline XXH_errorcode xxh3_64bits_update(XXH3_state_t* state, const void* data, size_t size) {
    const auto done = XXH3_64bits_update_dispatch(state, data, size);
    leave_registers_clear(state->totalLen);
    return done;
}
inline XXH_errorcode xxh3_128bits_update(XXH3_state_t* state, const void* data, size_t size) {
    const auto done = XXH3_128bits_update_dispatch(state, data, size);
    leave_registers_clear(state->totalLen);
    return done;
}

}  // namespace ghost

#define XXH3_64bits(data, size) ghost::xxh3_64bits(data, size)
#define XXH3_64bits_withSeed(data, size, seed) ghost::xxh3_64bits_with_seed(data, size, seed)
#define XXH3_64bits_update(state, data, size) ghost::xxh3_64bits_update(state, data, size)
#define XXH3_128bits_update(state, data, size) ghost::xxh3_128bits_update(state, data, size)
#endif
