// XXH3 as fast as this machine can: the library's own choice of AVX2 or AVX-512 at run time where
// it has one (x86-64), twice as fast from memory as what a compiler makes for every x86-64. Include
// this instead of xxhash.h where pages or packets are hashed.
#pragma once

#define XXH_STATIC_LINKING_ONLY
#ifdef GHOST_HAVE_XXH_DISPATCH
#include <xxh_x86dispatch.h>
#else
#define XXH_INLINE_ALL
#endif
#include <xxhash.h>
