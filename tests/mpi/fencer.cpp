// fencer --file PATH [--seconds T] [--iterations N] [--until-file PATH] [--slow-end MS]
//
// The runtime's own fences (PMIx_Fence), met late by a rank at random, so that a move finds fences
// in every state: nobody there yet, this rank waiting, all but this rank waiting. Each rank writes
// its round into PATH before the fence and afterwards finds every other rank there: a fence that
// completed without somebody shows. Every 16th round a value is put, fenced and fetched.
// With --slow-end rank 1 enters MPI_Finalize that much later than the others.
// Rank 0 prints "fencer: round N" and at the end "fencer: N fences, E errors".
#include "tests/mpi/common.hpp"

#include <fcntl.h>
#include <pmix.h>

namespace {

class Rounds {
  public:
    Rounds(std::string path, int rank, int size) : path_(std::move(path)), rank_(rank), n_(size) {}
    // False if it could not be written.
    bool write(uint64_t round) const {
        int fd = ::open(path_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
        if (fd < 0) return false;
        const auto at = static_cast<off_t>(rank_) * 8;
        bool good = ::pwrite(fd, &round, sizeof round, at) == sizeof round;
        ::close(fd);
        return good;
    }
    // Ranks that have not reached the round.
    uint64_t behind(uint64_t round) const {
        std::vector<uint64_t> all(static_cast<size_t>(n_));
        int fd = ::open(path_.c_str(), O_RDONLY | O_CLOEXEC);
        if (fd < 0) return 1;
        ssize_t got = ::pread(fd, all.data(), all.size() * 8, 0);
        ::close(fd);
        uint64_t late = got == static_cast<ssize_t>(all.size() * 8) ? 0 : 1;
        for (uint64_t other : all) late += other < round ? 1 : 0;
        return late;
    }

  private:
    std::string path_;
    int rank_;
    int n_;
};

std::string name(int rank, uint64_t round) {
    return "fencer." + std::to_string(rank) + "." + std::to_string(round);
}

// Puts a value, fences, and fetches everybody's. Returns the number of errors.
uint64_t exchange(const mpitest::World& world, uint64_t round) {
    pmix_value_t value{};
    value.type = PMIX_UINT64;
    value.data.uint64 = mpitest::mix(round) + static_cast<uint64_t>(world.rank);
    uint64_t bad = PMIx_Put(PMIX_GLOBAL, name(world.rank, round).c_str(), &value) == 0 ? 0 : 1;
    bad += PMIx_Commit() == PMIX_SUCCESS ? 0 : 1;
    bad += PMIx_Fence(nullptr, 0, nullptr, 0) == PMIX_SUCCESS ? 0 : 1;
    for (int r = 0; r < world.size; ++r) {
        pmix_proc_t who{};
        std::strncpy(who.nspace, std::getenv("PMIX_NAMESPACE"), PMIX_MAX_NSLEN);
        who.rank = static_cast<pmix_rank_t>(r);
        pmix_value_t* got = nullptr;
        int rc = PMIx_Get(&who, name(r, round).c_str(), nullptr, 0, &got);
        const uint64_t expected = mpitest::mix(round) + static_cast<uint64_t>(r);
        if (rc != PMIX_SUCCESS || got == nullptr || got->data.uint64 != expected) ++bad;
    }
    return bad;
}

}  // namespace

int main(int argc, char** argv) {
    mpitest::World world(&argc, &argv);
    mpitest::Options options(argc, argv);
    mpitest::Limit limit(options, 100);
    Rounds rounds(options.text("--file", ""), world.rank, world.size);
    uint64_t errors = 0, round = 0;
    while (world.agree(!limit.reached(round))) {
        ++round;
        errors += rounds.write(round) ? 0 : 1;
        const uint64_t late = mpitest::mix(round * 64 + static_cast<uint64_t>(world.rank)) % 8;
        ::usleep(static_cast<useconds_t>(late * late * 300));
        errors += PMIx_Fence(nullptr, 0, nullptr, 0) == PMIX_SUCCESS ? 0 : 1;
        errors += rounds.behind(round);
        if (round % 16 == 0) errors += exchange(world, round);
        if (world.rank == 0 && round % 16 == 0) {
            std::printf("fencer: round %llu\n", static_cast<unsigned long long>(round));
            std::fflush(stdout);
        }
    }
    errors = world.sum(errors);
    if (world.rank == 0) {
        std::printf("fencer: %llu fences, %llu errors\n", static_cast<unsigned long long>(round),
                    static_cast<unsigned long long>(errors));
        std::fflush(stdout);
    }
    // A sleep ends early when the process is restored (criu ends interrupted calls with EINTR).
    const double end = mpitest::now() + options.number("--slow-end", 0) / 1000;
    while (world.rank == 1 && mpitest::now() < end) ::usleep(1000);
    MPI_Finalize();
    return errors == 0 ? 0 : 1;
}
