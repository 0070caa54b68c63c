// SPDX-License-Identifier: BSD-3-Clause
// mgs N [ROUNDS [STATUS]]: modified Gram-Schmidt of an N x N matrix, sequentially as in "Ghost
// Process" (Vallée et al.), section 5; again and again with new matrices (ROUNDS 0: for ever). The
// memory is the matrix alone. Every new vector is held against some of those before it; a basis
// that is not orthonormal ends the program with status 1. STATUS: a file that says how far it is,
// as the structure below.
#include <cstdio>
#include <cstdlib>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>
#include <vector>

#include "benchmarks/mgs/vectors.hpp"

namespace {

using namespace ghost::mgs;

constexpr size_t compared = 16;  // earlier vectors

// Mapped, so that nothing is opened or grows while somebody takes the process away.
struct Status {
    int64_t round = 0, column = -1;
    double error = 0;
};

Status* map_status(const char* path) {
    static Status nowhere;
    if (path == nullptr) return &nowhere;
    const int fd = open(path, O_RDWR | O_CREAT, 0644);
    if (fd < 0 || ftruncate(fd, sizeof(Status)) != 0) return nullptr;
    void* at = mmap(nullptr, sizeof(Status), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    return at == MAP_FAILED ? nullptr : static_cast<Status*>(at);
}

// How far column k is from a unit vector that is orthogonal to those before it.
double error_of(const std::vector<double>& matrix, size_t n, size_t k) {
    const double* q = &matrix[k * n];
    double worst = std::abs(dot(q, q, n) - 1);
    for (size_t i = 0; i < std::min(k, compared); i++) {
        const size_t other = k <= compared ? i : (k * 7 + i * 31) % k;
        worst = std::max(worst, std::abs(dot(q, &matrix[other * n], n)));
    }
    return worst;
}

double orthonormalize(std::vector<double>& matrix, size_t n, Status& status) {
    double worst = 0;
    for (size_t k = 0; k < n; k++) {
        normalize(&matrix[k * n], n);
        for (size_t j = k + 1; j < n; j++) take_out(&matrix[j * n], &matrix[k * n], n);
        worst = std::max(worst, error_of(matrix, n, k));
        if (worst > bound) return worst;
        status.error = worst;
        status.column = static_cast<int64_t>(k);
    }
    return worst;
}

}  // namespace

int main(int argc, char** argv) {
    const size_t n = argc > 1 ? std::strtoul(argv[1], nullptr, 10) : 0;
    const long rounds = argc > 2 ? std::atol(argv[2]) : 1;
    Status* status = map_status(argc > 3 ? argv[3] : nullptr);
    if (n == 0 || status == nullptr) {
        std::fprintf(stderr, "usage: mgs N [ROUNDS [STATUS]]\n");
        return 2;
    }
    std::vector<double> matrix(n * n);
    for (long round = 1; rounds == 0 || round <= rounds; round++) {
        for (size_t k = 0; k < n; k++) fill(&matrix[k * n], n, static_cast<uint64_t>(round), k);
        status->round = round;
        const double error = orthonormalize(matrix, n, *status);
        if (error > bound) {
            std::fprintf(stderr, "mgs: not orthonormal: %g\n", error);
            return 1;
        }
        if (rounds != 0) std::printf("mgs %zu: round %ld, error %.2g\n", n, round, error);
    }
    return 0;
}
