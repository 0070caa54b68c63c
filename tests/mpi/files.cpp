// SPDX-License-Identifier: BSD-3-Clause
// Ranks that use a file beside the job, and look at every round whether it is as they left it:
//   files [--seconds N | --until-file FILE] --way WAY --file FILE [--rival]
//   follow     rank 0 appends to it, the last rank has it open for reading only and follows
//   mapped     the last rank has it mapped shared and no descriptor of it, and writes all of it
//   overwrite  the last rank writes all of a large one again and again
//   patch      the last rank writes one word of a large one at a time, and never makes it longer
//   read       the last rank has it open for reading only
//   flock, fcntl, ofd   the last rank holds such a lock of the whole of it
//   none       it is not used
// With --rival rank 0 tries all the time to get the last rank's lock.
#include "tests/mpi/common.hpp"

#include <atomic>
#include <cstring>
#include <fcntl.h>
#include <functional>
#include <optional>
#include <sys/file.h>
#include <sys/mman.h>
#include <thread>
#include <vector>

namespace {

constexpr size_t small = 16384, large = 8 << 20;

// What is wrong in a round, as a count.
using Look = std::function<uint64_t(uint32_t round)>;

std::vector<uint64_t> pattern(size_t bytes, uint64_t key) {
    std::vector<uint64_t> out(bytes / sizeof key);
    mpitest::fill(out.data(), bytes, key);
    return out;
}

// Word after word, each its own place.
Look append(const std::string& path) {
    const int fd = ::open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    return [fd, next = uint64_t{0}](uint32_t) mutable -> uint64_t {
        const uint64_t word = next++;
        return ::write(fd, &word, sizeof word) == sizeof word ? 0 : 1;
    };
}

Look follow(const std::string& path) {
    const int fd = ::open(path.c_str(), O_RDONLY | O_CREAT | O_CLOEXEC, 0600);
    return [fd, next = uint64_t{0}](uint32_t) mutable -> uint64_t {
        uint64_t wrong = fd < 0 ? 1 : 0;
        for (uint64_t word = 0; ::read(fd, &word, sizeof word) == sizeof word; next++)
            wrong += word == next ? 0 : 1;
        return wrong;
    };
}

Look mapped(const std::string& path) {
    const int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (::ftruncate(fd, small) != 0) return [](uint32_t) -> uint64_t { return 1; };
    void* const at = ::mmap(nullptr, small, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    ::close(fd);
    return [at, was = std::vector<uint64_t>(small / sizeof(uint64_t))](uint32_t n) mutable {
        const uint64_t wrong = std::memcmp(at, was.data(), small) == 0 ? 0 : 1;
        was = pattern(small, n);
        std::memcpy(at, was.data(), small);
        return wrong;
    };
}

Look overwrite(const std::string& path) {
    const int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    return [fd, was = std::vector<uint64_t>()](uint32_t round) mutable -> uint64_t {
        std::vector<uint64_t> found(was.size());
        const size_t bytes = was.size() * sizeof(uint64_t);
        const bool as_left = ::pread(fd, found.data(), bytes, 0) == ssize_t(bytes) && found == was;
        was = pattern(large, round);
        return as_left && ::pwrite(fd, was.data(), large, 0) == large ? 0 : 1;
    };
}

Look patch(const std::string& path) {
    const int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (::ftruncate(fd, large) != 0) return [](uint32_t) -> uint64_t { return 1; };
    return [fd, was = uint64_t{0}](uint32_t) mutable -> uint64_t {
        uint64_t word = 0;
        constexpr off_t place = 50'000;
        const bool as_left = ::pread(fd, &word, sizeof word, place) == sizeof word && word == was;
        ++was;
        return as_left && ::pwrite(fd, &was, sizeof was, place) == sizeof was ? 0 : 1;
    };
}

Look read_only(const std::string& path) {
    const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
    return [fd](uint32_t) -> uint64_t { return fd < 0 ? 1 : 0; };
}

// Whether somebody else could take it now.
bool is_free(const std::string& path, const std::string& way) {
    const int fd = ::open(path.c_str(), O_RDWR | O_CLOEXEC);
    struct flock lock {};
    lock.l_type = F_WRLCK;
    const int taken =
        way == "flock" ? ::flock(fd, LOCK_EX | LOCK_NB) : ::fcntl(fd, F_OFD_SETLK, &lock);
    ::close(fd);
    return taken == 0;
}

Look locked(const std::string& path, const std::string& way) {
    const int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    struct flock lock {};
    lock.l_type = F_WRLCK;
    const int taken = way == "flock" ? ::flock(fd, LOCK_EX | LOCK_NB)
                                     : ::fcntl(fd, way == "ofd" ? F_OFD_SETLK : F_SETLK, &lock);
    // A descriptor of ours that is closed takes fcntl()'s locks with it: another process looks.
    return [path, way, bad = uint64_t(taken == 0 ? 0 : 1)](uint32_t) {
        return bad + (way != "fcntl" && is_free(path, way) ? 1 : 0);
    };
}

// How often it got the lock is what stop() tells.
class Rival {
  public:
    Rival(const std::string& path, const std::string& way)
        : thread_([this, path, way] {
              for (; !stops_; ::usleep(20)) times_ += is_free(path, way) ? 1 : 0;
          }) {}
    uint64_t stop() {
        stops_ = true;
        thread_.join();
        return times_;
    }

  private:
    std::atomic<bool> stops_ = false;
    uint64_t times_ = 0;
    std::thread thread_;
};

Look make(const mpitest::World& world, const std::string& way, const std::string& path) {
    const bool last = world.rank == world.size - 1;
    if (way == "follow" && world.rank == 0) return append(path);
    if (way == "follow" && last) return follow(path);
    if (way == "mapped" && last) return mapped(path);
    if (way == "overwrite" && last) return overwrite(path);
    if (way == "patch" && last) return patch(path);
    if (way == "read" && last) return read_only(path);
    const bool locks = way == "flock" || way == "fcntl" || way == "ofd";
    if (locks && last) return locked(path, way);
    return [](uint32_t) -> uint64_t { return 0; };
}

}  // namespace

int main(int argc, char** argv) {
    mpitest::World world(&argc, &argv);
    mpitest::Options options(argc, argv);
    const std::string way = options.text("--way", "none"), path = options.text("--file", "");
    const Look look = make(world, way, path);
    mpitest::Limit limit(options, 3);
    uint64_t errors = 0;
    uint32_t number = 0;
    world.sum(0);  // all have made theirs: the lock is taken
    std::optional<Rival> rival;
    if (world.rank == 0 && options.flag("--rival")) rival.emplace(path, way);
    while (world.agree(!limit.reached(number))) {
        errors += world.sum(look(number));
        if (world.rank == 0) {
            std::printf("round %u: %llu errors\n", number, static_cast<unsigned long long>(errors));
            std::fflush(stdout);
        }
        usleep(2000);
        ++number;
    }
    errors += world.sum(rival ? rival->stop() : 0);
    world.say_end("files", number, "rounds", errors);
    MPI_Finalize();
    return errors == 0 ? 0 : 1;
}
