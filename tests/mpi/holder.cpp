// SPDX-License-Identifier: BSD-3-Clause
// holder --what io_uring|tcp|none [--connect HOST:PORT] [--rank R] [--seconds T] [--until-file
// PATH]
//
// Rank R holds a descriptor that cannot move with it: an io_uring, or a TCP connection to a
// listener that is no part of the job. All ranks exchange checked messages meanwhile. Rank 0
// prints "holder: started", at the end "holder: N rounds, E errors".
#include <linux/io_uring.h>
#include <netdb.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "tests/mpi/common.hpp"

namespace {

int open_io_uring() {
    io_uring_params parameters{};
    return static_cast<int>(syscall(SYS_io_uring_setup, 4, &parameters));
}

int open_connection(const std::string& to) {
    size_t colon = to.rfind(':');
    if (colon == std::string::npos) return -1;
    addrinfo hints{};
    hints.ai_socktype = SOCK_STREAM;
    addrinfo* found = nullptr;
    if (getaddrinfo(to.substr(0, colon).c_str(), to.substr(colon + 1).c_str(), &hints, &found) !=
        0) {
        return -1;
    }
    int fd = ::socket(found->ai_family, found->ai_socktype, 0);
    if (fd >= 0 && ::connect(fd, found->ai_addr, found->ai_addrlen) != 0) {
        ::close(fd);
        fd = -1;
    }
    freeaddrinfo(found);
    return fd;
}

int hold(const mpitest::Options& options) {
    std::string what = options.text("--what", "none");
    if (what == "none") return 0;
    int fd = what == "io_uring" ? open_io_uring() : open_connection(options.text("--connect", ""));
    if (fd < 0) std::perror(("holder: " + what).c_str());
    return fd;
}

size_t exchange(const mpitest::World& world, uint64_t round) {
    constexpr size_t bytes = 3000;
    const int to = (world.rank + 1) % world.size;
    const int from = (world.rank + world.size - 1) % world.size;
    std::vector<unsigned char> out(bytes), in(bytes);
    mpitest::fill(out.data(), bytes, mpitest::key(world.rank, 1, round));
    MPI_Sendrecv(out.data(), bytes, MPI_BYTE, to, 1, in.data(), bytes, MPI_BYTE, from, 1,
                 MPI_COMM_WORLD, MPI_STATUS_IGNORE);
    return mpitest::wrong(in.data(), bytes, mpitest::key(from, 1, round));
}

}  // namespace

int main(int argc, char** argv) {
    mpitest::World world(&argc, &argv);
    mpitest::Options options(argc, argv);
    if (world.rank == static_cast<int>(options.number("--rank", 0)) && hold(options) < 0) {
        MPI_Abort(MPI_COMM_WORLD, 77);
    }
    MPI_Barrier(MPI_COMM_WORLD);
    if (world.rank == 0) {
        std::printf("holder: started\n");
        std::fflush(stdout);
    }
    mpitest::Limit limit(options, 1000);
    uint64_t rounds = 0, errors = 0;
    while (world.agree(!limit.reached(rounds))) errors += exchange(world, rounds++);
    errors = world.sum(errors);
    world.say_end("holder", rounds, "rounds", errors);
    MPI_Finalize();
    return errors == 0 ? 0 : 1;
}
