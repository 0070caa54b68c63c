// SPDX-License-Identifier: BSD-3-Clause
// talk [--seconds T] [--iterations LINES] [--until-file PATH] [--rank R] [--pause US]
//      [--stdin [--slow US]]
//
// Rank R writes numbered lines on standard output and on standard error, as fast as it can, or with
// a pause after each, of
// mixed lengths and in pieces of mixed sizes: "out N LENGTH xxxx", "err N LENGTH xxxx". A reader
// can tell whether any is lost, doubled, torn or out of order. The last line of each is "out end N"
// and "err end N". With --stdin it instead echoes its standard input as "in: …" lines and at
// its end prints "in end LINES BYTES"; so long it rests before each line.
#include "tests/mpi/common.hpp"

namespace {

// Everything goes by write(2): torn writes must come from the test, not from stdio.
bool put(int fd, const char* data, size_t length) {
    while (length > 0) {
        ssize_t n = ::write(fd, data, length);
        if (n < 0) return false;
        data += n;
        length -= static_cast<size_t>(n);
    }
    return true;
}

std::string line(const char* stream, uint64_t number) {
    uint64_t random = mpitest::mix(number);
    // Mostly short, now and then longer than a pipe write is atomic.
    size_t length = number % 50 == 49 ? 4000 + random % 6000 : random % 120;
    std::string text =
        std::string(stream) + " " + std::to_string(number) + " " + std::to_string(length) + " ";
    text.append(length, static_cast<char>('a' + number % 26));
    return text + "\n";
}

bool speak(int fd, const char* stream, uint64_t number) {
    std::string text = line(stream, number);
    size_t cut = number % 7 == 3 ? text.size() / 2 : text.size();
    return put(fd, text.data(), cut) && put(fd, text.data() + cut, text.size() - cut);
}

int talk(const mpitest::Options& options) {
    mpitest::Limit limit(options, 10000);
    const auto pause_us = static_cast<useconds_t>(options.number("--pause", 0));
    uint64_t number = 0;
    while (!limit.reached(number)) {
        if (!speak(1, "out", number) || !speak(2, "err", number)) return 1;
        ++number;
        ::usleep(pause_us);
    }
    std::string end = " end " + std::to_string(number) + "\n";
    return put(1, ("out" + end).data(), end.size() + 3) &&
                   put(2, ("err" + end).data(), end.size() + 3)
               ? 0
               : 1;
}

int echo(double rest_us) {
    char buffer[8192];
    uint64_t lines = 0, bytes = 0;
    while (std::fgets(buffer, sizeof buffer, stdin) != nullptr) {
        const double until = mpitest::now() + rest_us / 1e6;
        while (mpitest::now() < until) ::usleep(static_cast<useconds_t>(rest_us));
        ++lines;
        bytes += std::strlen(buffer);
        std::printf("in: %s", buffer);
        std::fflush(stdout);
    }
    std::printf("in end %llu %llu\n", static_cast<unsigned long long>(lines),
                static_cast<unsigned long long>(bytes));
    std::fflush(stdout);
    return 0;
}

}  // namespace

int main(int argc, char** argv) {
    mpitest::World world(&argc, &argv);
    mpitest::Options options(argc, argv);
    int status = 0;
    if (world.rank == static_cast<int>(options.number("--rank", 0)))
        status = options.flag("--stdin") ? echo(options.number("--slow", 0)) : talk(options);
    MPI_Finalize();
    return status;
}
