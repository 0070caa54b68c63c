// SPDX-License-Identifier: BSD-3-Clause
// both_send [--seconds T] [--iterations N] [--until-file PATH] [--bytes B] [--window W]
//
// Every rank streams large messages to its neighbour and takes those of the other one, all the
// time and in both directions, W in flight. Every byte is checked. Ends 1 on any error.
#include "tests/mpi/common.hpp"

using mpitest::key;

namespace {

constexpr int tag = 7;

struct Stream {
    std::vector<std::vector<unsigned char>> out;
    std::vector<std::vector<unsigned char>> in;
    std::vector<MPI_Request> requests;  // receives first, then sends
    size_t bytes;
    int window;

    Stream(size_t message_bytes, int in_flight)
        : out(in_flight, std::vector<unsigned char>(message_bytes)),
          in(out),
          requests(2 * static_cast<size_t>(in_flight)),
          bytes(message_bytes),
          window(in_flight) {}

    // One window of messages to `to` and from `from`; number is that of the first message.
    size_t run(int me, int to, int from, uint64_t number) {
        const int count = static_cast<int>(bytes);
        for (int i = 0; i < window; ++i) {
            MPI_Irecv(in[i].data(), count, MPI_BYTE, from, tag, MPI_COMM_WORLD, &requests[i]);
        }
        for (int i = 0; i < window; ++i) {
            mpitest::fill(out[i].data(), bytes, key(me, tag, number + i));
            MPI_Isend(out[i].data(), count, MPI_BYTE, to, tag, MPI_COMM_WORLD,
                      &requests[window + i]);
        }
        MPI_Waitall(2 * window, requests.data(), MPI_STATUSES_IGNORE);
        size_t bad = 0;
        for (int i = 0; i < window; ++i) {
            bad += mpitest::wrong(in[i].data(), bytes, key(from, tag, number + i));
        }
        return bad;
    }
};

}  // namespace

int main(int argc, char** argv) {
    mpitest::World world(&argc, &argv);
    mpitest::Options options(argc, argv);
    const auto window = static_cast<int>(options.number("--window", 2));
    Stream stream(static_cast<size_t>(options.number("--bytes", 4 << 20)), window);
    const int to = (world.rank + 1) % world.size;
    const int from = (world.rank + world.size - 1) % world.size;
    mpitest::Limit limit(options, 5);
    uint64_t errors = 0, number = 0, round = 0;
    // Asked every eighth round only: in between nothing but the streams keeps the ranks in step.
    while (world.agree(!limit.reached(round))) {
        for (int i = 0; i < 8; ++i, number += static_cast<uint64_t>(window)) {
            errors += stream.run(world.rank, to, from, number);
        }
        ++round;
        if (world.rank == 0) {
            std::printf("round %llu: %llu messages, %.3f s\n",
                        static_cast<unsigned long long>(round),
                        static_cast<unsigned long long>(number), limit.elapsed());
            std::fflush(stdout);
        }
    }
    errors = world.sum(errors);
    world.say_end("both_send", number, "messages each", errors);
    MPI_Finalize();
    return errors == 0 ? 0 : 1;
}
