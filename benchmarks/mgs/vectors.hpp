// SPDX-License-Identifier: BSD-3-Clause
// The arithmetic of modified Gram-Schmidt on columns, and how far a basis is from orthonormal.
// Used by mgs.cpp (one process) and mgs_mpi.cpp (columns dealt out to ranks).
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>

namespace ghost::mgs {

// A matrix as random as a test needs, the same at every run: splitmix64 (Steele, Lea, Flood 2014)
// of the element's number, in [-1, 1).
inline double element(uint64_t seed, uint64_t number) {
    uint64_t z = seed * 0x9e3779b97f4a7c15ULL + number * 0xbf58476d1ce4e5b9ULL;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
    return static_cast<double>(static_cast<int64_t>(z ^ (z >> 31))) * 0x1p-63;
}

inline void fill(double* column, size_t n, uint64_t seed, uint64_t index) {
    for (size_t i = 0; i < n; i++) column[i] = element(seed, index * n + i);
}

inline double dot(const double* a, const double* b, size_t n) {
    // Four sums: the compiler may then use vector registers without being told to reorder.
    double sum[4] = {0, 0, 0, 0};
    size_t i = 0;
    for (; i + 4 <= n; i += 4)
        for (size_t k = 0; k < 4; k++) sum[k] += a[i + k] * b[i + k];
    for (; i < n; i++) sum[0] += a[i] * b[i];
    return sum[0] + sum[1] + sum[2] + sum[3];
}

inline void normalize(double* column, size_t n) {
    const double length = std::sqrt(dot(column, column, n));
    for (size_t i = 0; i < n; i++) column[i] /= length;
}

// Takes the part along the unit vector q out of the column.
inline void take_out(double* column, const double* q, size_t n) {
    const double along = dot(q, column, n);
    for (size_t i = 0; i < n; i++) column[i] -= along * q[i];
}

// The loss of orthogonality of the method is about the machine's precision times the condition of
// the matrix (Björck 1967); for these it stays below 1e-11, a wrong bit anywhere is far above.
inline constexpr double bound = 1e-9;

}  // namespace ghost::mgs
