// SPDX-License-Identifier: BSD-3-Clause
// ender --end PATH [--memory MB] [--leave 1]
//
// Every rank ends by itself, as soon as the file PATH.RANK is there, and without MPI_Finalize, in
// which they would wait for each other: nothing is exchanged once all have said "ender: rank R".
// With --leave they finalize MPI after that, and say "ender: rank R has left MPI".
// The last word of each is "ender: rank R ends, E errors"; its status is 0 if there are none.
#include "tests/mpi/common.hpp"

int main(int argc, char** argv) {
    mpitest::World world(&argc, &argv);
    const mpitest::Options options(argc, argv);
    const mpitest::Ballast ballast(static_cast<size_t>(options.number("--memory", 1)), world.rank);
    const std::string end = options.text("--end", "end") + "." + std::to_string(world.rank);
    MPI_Barrier(MPI_COMM_WORLD);
    std::printf("ender: rank %d\n", world.rank);
    std::fflush(stdout);
    if (options.number("--leave", 0) != 0) {
        MPI_Finalize();
        std::printf("ender: rank %d has left MPI\n", world.rank);
        std::fflush(stdout);
    }
    while (access(end.c_str(), F_OK) != 0) usleep(1000);
    const size_t errors = ballast.wrong_words();
    std::printf("ender: rank %d ends, %zu errors\n", world.rank, errors);
    std::fflush(stdout);
    _exit(errors == 0 ? 0 : 1);
}
