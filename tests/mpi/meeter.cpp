// meeter --call connect|disconnect|fence|all --file PATH [--late R --until-file PATH]
//        [--seconds T] [--iterations N]
//
// Calls of the runtime in which some processes wait for each other (PMIx_Connect as in
// MPI_Comm_accept, PMIx_Disconnect, PMIx_Fence), named one by one: all ranks take part. Nobody may
// come out before everybody is in.
// With --late: once, rank R only when the file is there. Each prints "meeter: rank N calls" before
// and "meeter: rank N met" afterwards.
// Without: again and again, each rank late at random, "all": one kind after the other; rank 0
// prints "meeter: round N".
// At the end rank 0 prints "meeter: N calls, E errors".
#include "tests/mpi/common.hpp"

#include <fcntl.h>
#include <pmix.h>

namespace {

// What a rank has reached, where all ranks can read it. Not kept open: a file whose size changes
// while its rank is on the way is not the same.
class Rounds {
  public:
    Rounds(std::string path, const mpitest::World& world) : path_(std::move(path)), world_(world) {}
    bool reach(uint64_t round) const {
        const int fd = ::open(path_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
        const bool good =
            ::pwrite(fd, &round, sizeof round, world_.rank * off_t{8}) == sizeof round;
        ::close(fd);
        return good;
    }
    uint64_t behind(uint64_t round) const {
        const int fd = ::open(path_.c_str(), O_RDONLY | O_CLOEXEC);
        uint64_t late = 0;
        for (int r = 0; r < world_.size; ++r) {
            uint64_t there = 0;
            const bool read = ::pread(fd, &there, sizeof there, r * off_t{8}) == sizeof there;
            late += read && there >= round ? 0 : 1;
        }
        ::close(fd);
        return late;
    }

  private:
    std::string path_;
    const mpitest::World& world_;
};

int call(const std::string& kind, int ranks) {
    std::vector<pmix_proc_t> all(static_cast<size_t>(ranks));
    for (size_t r = 0; r < all.size(); ++r) {
        std::strncpy(all[r].nspace, std::getenv("PMIX_NAMESPACE"), PMIX_MAX_NSLEN);
        all[r].rank = static_cast<pmix_rank_t>(r);
    }
    if (kind == "connect") return PMIx_Connect(all.data(), all.size(), nullptr, 0);
    if (kind == "disconnect") return PMIx_Disconnect(all.data(), all.size(), nullptr, 0);
    return PMIx_Fence(all.data(), all.size(), nullptr, 0);
}

void say(const mpitest::World& world, const char* what) {
    std::printf("meeter: rank %d %s\n", world.rank, what);
    std::fflush(stdout);
}

}  // namespace

int main(int argc, char** argv) {
    mpitest::World world(&argc, &argv);
    mpitest::Options options(argc, argv);
    const Rounds rounds(options.text("--file", ""), world);
    const std::string kind = options.text("--call", "all");
    const int late = static_cast<int>(options.number("--late", -1));
    uint64_t errors = 0, round = 0;
    if (late >= 0) {
        const auto go = options.text("--until-file", "");
        while (world.rank == late && ::access(go.c_str(), F_OK) != 0) ::usleep(1000);
        errors += rounds.reach(++round) ? 0 : 1;
        say(world, "calls");
        errors += call(kind, world.size) == PMIX_SUCCESS ? 0 : 1;
        errors += rounds.behind(round);
        say(world, "met");
    } else {
        mpitest::Limit limit(options, 100);
        while (world.agree(!limit.reached(round))) {
            errors += rounds.reach(++round) ? 0 : 1;
            const uint64_t slow = mpitest::mix(round * 64 + static_cast<uint64_t>(world.rank)) % 8;
            ::usleep(static_cast<useconds_t>(slow * slow * 300));
            const char* kinds[] = {"connect", "disconnect", "fence"};
            errors += call(kind == "all" ? kinds[round % 3] : kind, world.size) != PMIX_SUCCESS;
            errors += rounds.behind(round);
            if (world.rank == 0 && round % 16 == 0) {
                std::printf("meeter: round %llu\n", static_cast<unsigned long long>(round));
                std::fflush(stdout);
            }
        }
    }
    errors = world.sum(errors);
    if (world.rank == 0) {
        std::printf("meeter: %llu calls, %llu errors\n", static_cast<unsigned long long>(round),
                    static_cast<unsigned long long>(errors));
        std::fflush(stdout);
    }
    MPI_Finalize();
    return errors == 0 ? 0 : 1;
}
