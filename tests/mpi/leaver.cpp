// SPDX-License-Identifier: BSD-3-Clause
// leaver --rank R --how return|_exit|abort|mpi_abort|segv [--status S]
//        [--after SECONDS] [--when-file PATH] [--when-moved]
//
// Rank R leaves in the given way: after some time, when a file appears, or the moment it finds
// itself on another node (another host name). With `return` the others end normally beside it.
// Until then all ranks exchange a small message every millisecond or so.
#include <csignal>
#include <sys/resource.h>
#include <unistd.h>

#include "tests/mpi/common.hpp"

namespace {

std::string host() {
    char name[256] = "";
    gethostname(name, sizeof name - 1);
    return name;
}

class Occasion {
  public:
    explicit Occasion(const mpitest::Options& options)
        : after_(options.number("--after", -1)),
          file_(options.text("--when-file", "")),
          moved_(options.flag("--when-moved")) {}
    bool here() const {
        if (after_ >= 0 && mpitest::now() - start_ >= after_) return true;
        if (!file_.empty() && ::access(file_.c_str(), F_OK) == 0) return true;
        return moved_ && host() != home_;
    }

  private:
    double after_;
    std::string file_;
    bool moved_;
    double start_ = mpitest::now();
    std::string home_ = host();
};

void leave(const std::string& how, int status) {
    rlimit none{0, 0};
    setrlimit(RLIMIT_CORE, &none);
    if (how == "_exit") ::_exit(status);
    if (how == "abort") std::abort();
    if (how == "mpi_abort") MPI_Abort(MPI_COMM_WORLD, status);
    if (how == "segv") ::raise(SIGSEGV);
}

}  // namespace

int main(int argc, char** argv) {
    mpitest::World world(&argc, &argv);
    mpitest::Options options(argc, argv);
    const int leaver = static_cast<int>(options.number("--rank", 0));
    const int status = static_cast<int>(options.number("--status", 0));
    const std::string how = options.text("--how", "return");
    Occasion occasion(options);
    if (world.rank == 0) {
        std::printf("leaver: started\n");
        std::fflush(stdout);
    }
    const bool mine = world.rank == leaver;
    for (uint64_t round = 0;; ++round) {
        bool leaving = mine && occasion.here();
        if (leaving && how != "return") leave(how, status);
        // The leaver's word is every rank's: with `return` all finalize in the same round.
        int word = leaving ? 1 : 0;
        MPI_Bcast(&word, 1, MPI_INT, leaver, MPI_COMM_WORLD);
        if (word != 0) break;
        timespec pause{0, 500000};
        nanosleep(&pause, nullptr);
    }
    MPI_Finalize();
    return mine ? status : 0;
}
