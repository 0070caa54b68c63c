// SPDX-License-Identifier: BSD-3-Clause
// first_contact --when PATH
//
// Rank 0 sends rank k its first message, ever, as soon as the file PATH.k is there, and waits for
// the answer. The others do not wait inside MPI meanwhile. Rank 0 says "first_contact: rank k" for
// each and at the end "first_contact: N ranks, E errors".
#include "tests/mpi/common.hpp"

namespace {

void answer() {
    int there = 0, value = 0;
    for (; there == 0; usleep(2000)) MPI_Iprobe(0, 0, MPI_COMM_WORLD, &there, MPI_STATUS_IGNORE);
    MPI_Recv(&value, 1, MPI_INT, 0, 0, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
    MPI_Send(&value, 1, MPI_INT, 0, 0, MPI_COMM_WORLD);
}

bool meet(int rank, const std::string& when) {
    while (access(when.c_str(), F_OK) != 0) usleep(1000);
    int value = -1;
    MPI_Send(&rank, 1, MPI_INT, rank, 0, MPI_COMM_WORLD);
    MPI_Recv(&value, 1, MPI_INT, rank, 0, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
    std::printf("first_contact: rank %d\n", rank);
    std::fflush(stdout);
    return value == rank;
}

}  // namespace

int main(int argc, char** argv) {
    mpitest::World world(&argc, &argv);
    const mpitest::Options options(argc, argv);
    uint64_t errors = 0;
    if (world.rank != 0) answer();
    for (int rank = 1; world.rank == 0 && rank < world.size; ++rank) {
        if (!meet(rank, options.text("--when", "go") + "." + std::to_string(rank))) errors++;
    }
    world.say_end("first_contact", static_cast<uint64_t>(world.size - 1), "ranks", errors);
    MPI_Finalize();
    return errors == 0 ? 0 : 1;
}
