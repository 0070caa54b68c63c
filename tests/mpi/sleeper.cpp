// SPDX-License-Identifier: BSD-3-Clause
// sleeper [--seconds S] [--memory MB] [--reserve GIB] [--until-file PATH]
//
// Every rank says "sleeper: rank R sleeps" and does, S seconds (1) in nanosleep(2), a thread of it
// in poll(2) and another one in clock_nanosleep(2); then, if there is a file to wait for, until
// that is there. With --reserve it has so much memory beside that is not there but for 16 pages.
// The last word of each is "sleeper: rank R slept T, U and V s, E errors"; a sleep that was too
// short, or longer by a second, is one. Its status is 0 if there are none.
#include <poll.h>
#include <sys/mman.h>
#include <thread>

#include "tests/mpi/common.hpp"

namespace {

constexpr size_t touched = 16;

class Reserved {
  public:
    explicit Reserved(size_t bytes) : bytes_(bytes) {
        if (bytes == 0) return;
        void* at = mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (at == MAP_FAILED) MPI_Abort(MPI_COMM_WORLD, 3);
        madvise(at, bytes, MADV_NOHUGEPAGE);
        at_ = static_cast<char*>(at);
        for (size_t i = 0; i < touched; ++i) at_[bytes / touched * i] = static_cast<char>(i + 1);
    }
    size_t errors() const {
        size_t bad = 0;
        for (size_t i = 0; at_ != nullptr && i < touched; ++i)
            bad += at_[bytes_ / touched * i] != static_cast<char>(i + 1) ? 1 : 0;
        return bad;
    }

  private:
    size_t bytes_;
    char* at_ = nullptr;
};

timespec time_of(double seconds) {
    const auto whole = static_cast<time_t>(seconds);
    return {whole, static_cast<long>((seconds - static_cast<double>(whole)) * 1e9)};
}

// How long it took.
template <typename Sleep>
double timed(Sleep sleep) {
    const double begun = mpitest::now();
    sleep();
    return mpitest::now() - begun;
}

}  // namespace

int main(int argc, char** argv) {
    mpitest::World world(&argc, &argv);
    const mpitest::Options options(argc, argv);
    const double seconds = options.number("--seconds", 1);
    const mpitest::Ballast ballast(static_cast<size_t>(options.number("--memory", 1)), world.rank);
    const Reserved reserved(static_cast<size_t>(options.number("--reserve", 0)) << 30);
    const std::string until = options.text("--until-file", "");
    std::printf("sleeper: rank %d sleeps\n", world.rank);
    std::fflush(stdout);
    double polled = 0, slept_by_clock = 0;
    std::thread poller(
        [&] { polled = timed([&] { poll(nullptr, 0, static_cast<int>(seconds * 1000)); }); });
    std::thread other([&] {
        const timespec time = time_of(seconds);
        slept_by_clock = timed([&] { clock_nanosleep(CLOCK_MONOTONIC, 0, &time, nullptr); });
    });
    const timespec time = time_of(seconds);
    const double slept = timed([&] { nanosleep(&time, nullptr); });
    poller.join();
    other.join();
    while (!until.empty() && access(until.c_str(), F_OK) != 0) usleep(1000);
    size_t errors = ballast.wrong_words() + reserved.errors();
    for (const double one : {slept, polled, slept_by_clock})
        errors += one < seconds - 0.01 || one > seconds + 1 ? 1 : 0;
    std::printf("sleeper: rank %d slept %.2f, %.2f and %.2f s, %zu errors\n", world.rank, slept,
                polled, slept_by_clock, errors);
    std::fflush(stdout);
    MPI_Finalize();
    return errors == 0 ? 0 : 1;
}
