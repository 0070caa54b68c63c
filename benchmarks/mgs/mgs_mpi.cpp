// SPDX-License-Identifier: BSD-3-Clause
// mgs_mpi N [ROUNDS]: mgs.cpp over MPI. Column k belongs to rank k mod size, which makes it a unit
// vector and sends it to all; each takes it out of its own columns that follow. At the end of each
// round all are held against all of rank 0's. Status 1: a basis that is not orthonormal.
#include <cstdio>
#include <cstdlib>
#include <mpi.h>
#include <vector>

#include "benchmarks/mgs/vectors.hpp"

namespace {

using namespace ghost::mgs;

class Columns {
  public:
    Columns(size_t n, int rank, int size)
        : n_(n), rank_(static_cast<size_t>(rank)), size_(static_cast<size_t>(size)) {
        own_.resize((n_ + size_ - 1 - rank_) / size_ * n_);
    }
    size_t count() const { return own_.size() / n_; }
    size_t index(size_t local) const { return local * size_ + rank_; }
    double* at(size_t local) { return &own_[local * n_]; }

    double round(uint64_t seed) {
        for (size_t i = 0; i < count(); i++) fill(at(i), n_, seed, index(i));
        std::vector<double> q(n_);
        for (size_t k = 0; k < n_; k++) {
            if (k % size_ == rank_) {
                normalize(at(k / size_), n_);
                std::copy_n(at(k / size_), n_, q.begin());
            }
            send(q, k % size_);
            for (size_t i = 0; i < count(); i++)
                if (index(i) > k) take_out(at(i), q.data(), n_);
        }
        return error();
    }

  private:
    void send(std::vector<double>& q, size_t from) {
        MPI_Bcast(q.data(), static_cast<int>(n_), MPI_DOUBLE, static_cast<int>(from),
                  MPI_COMM_WORLD);
    }
    // Some columns of every rank against all columns.
    double error() {
        double worst = 0, all = 0;
        std::vector<double> q(n_);
        for (size_t k = 0; k < n_; k += std::max<size_t>(n_ / 32, 1)) {
            if (k % size_ == rank_) std::copy_n(at(k / size_), n_, q.begin());
            send(q, k % size_);
            for (size_t i = 0; i < count(); i++) {
                const double wanted = index(i) == k ? 1 : 0;
                worst = std::max(worst, std::abs(dot(at(i), q.data(), n_) - wanted));
            }
        }
        MPI_Allreduce(&worst, &all, 1, MPI_DOUBLE, MPI_MAX, MPI_COMM_WORLD);
        return all;
    }

    size_t n_, rank_, size_;
    std::vector<double> own_;
};

}  // namespace

int main(int argc, char** argv) {
    MPI_Init(&argc, &argv);
    int rank = 0, size = 1;
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    const size_t n = argc > 1 ? std::strtoul(argv[1], nullptr, 10) : 500;
    const long rounds = argc > 2 ? std::atol(argv[2]) : 1;
    Columns columns(n, rank, size);
    int status = 0;
    for (long round = 1; round <= rounds && status == 0; round++) {
        const double error = columns.round(static_cast<uint64_t>(round));
        if (rank == 0) std::printf("mgs_mpi %zu on %d: error %.2g\n", n, size, error);
        if (error > bound) status = 1;
    }
    MPI_Finalize();
    return status;
}
