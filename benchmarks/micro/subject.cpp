// SPDX-License-Identifier: BSD-3-Clause
#include "benchmarks/micro/subject.hpp"

#include <algorithm>
#include <atomic>
#include <csignal>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <fcntl.h>
#include <string_view>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include <utility>

#include "base/clock.hpp"

namespace ghost::bench {
namespace {

constexpr size_t page = 4096;
constexpr size_t large = 2 << 20;

uint64_t step(uint64_t& state) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state;
}

}  // namespace

// In a file that the benchmark and the subject map.
struct Subject::Shared {
    std::atomic<bool> ready;
    std::atomic<uint64_t> bytes;
    std::atomic<int64_t> gap_us;
};

void Subject::run(const char* path, size_t megabytes, double rate, bool huge) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    setsid();
    const int file = open(path, O_RDWR | O_CLOEXEC);
    auto* counters =
        static_cast<Shared*>(mmap(nullptr, page, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0));
    close(file);
    const size_t bytes = megabytes << 20;
    auto* base = static_cast<char*>(mmap(nullptr, bytes + large, PROT_READ | PROT_WRITE,
                                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
    if (base == MAP_FAILED || counters == MAP_FAILED) _exit(3);
    base += large - reinterpret_cast<uintptr_t>(base) % large;
    madvise(base, bytes, huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
    auto* words = reinterpret_cast<uint64_t*>(base);
    uint64_t random = 88172645463325252ULL;
    for (size_t i = 0; i < bytes / sizeof *words; i++) words[i] = step(random);
    counters->ready = true;
    double owed = 0;
    for (int64_t next = monotonic_us(), last = next;;) {
        const int64_t now = monotonic_us();
        counters->gap_us = std::max<int64_t>(counters->gap_us, now - last);
        last = now;
        for (owed += rate * 1e3 / page; owed >= 1; owed--) {
            auto* to = words + step(random) % (bytes / page) * (page / sizeof *words);
            for (size_t i = 0; i < page / sizeof *words; i++) to[i] = random + i;
            counters->bytes += page;
        }
        next += 1000;
        if (now > next + 20000)
            next = now;  // what was missed while it was frozen is not made up for
        const timespec until{next / 1000000, next % 1000000 * 1000};
        clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, nullptr);
    }
}

void be_subject_if_asked(int argc, char** argv) {
    if (argc == 6 && std::string_view(argv[1]) == "--subject")
        Subject::run(argv[2], std::strtoul(argv[3], nullptr, 10), std::strtod(argv[4], nullptr),
                     argv[5][0] == 'h');
}

Subject::Subject(const SubjectShape& shape) {
    char path[] = "/dev/shm/ghost-bench.XXXXXX";
    const int file = mkostemp(path, O_CLOEXEC);
    if (file < 0 || ftruncate(file, page) != 0) return;
    shared_ =
        static_cast<Shared*>(mmap(nullptr, page, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0));
    const auto size = std::to_string(shape.megabytes), rate = std::to_string(shape.rate);
    pid_ = static_cast<pid_t>(
        syscall(SYS_clone, SIGCHLD | CLONE_NEWPID, nullptr, nullptr, nullptr, 0L));
    if (pid_ == 0) {
        const int null = open("/dev/null", O_RDWR);
        for (int fd = 0; fd < 3; fd++) dup2(null, fd);
        close_range(3, ~0U, 0);
        execl("/proc/self/exe", "subject", "--subject", path, size.c_str(), rate.c_str(),
              shape.huge ? "huge" : "small", nullptr);
        _exit(127);
    }
    while (!shared_->ready && waitpid(pid_, nullptr, WNOHANG) == 0) usleep(10000);
    ready_ = shared_->ready;
    // A name for the copies of it that are restored later, too.
    path_ = path;
    close(file);
    felt();
}

Subject::~Subject() {
    if (pid_ > 0) {
        kill(pid_, SIGKILL);
        waitpid(pid_, nullptr, 0);
    }
    if (!path_.empty()) unlink(path_.c_str());
    if (shared_ != nullptr) munmap(shared_, page);
}

Subject::Felt Subject::felt() {
    const int64_t now = monotonic_us();
    const double seconds = static_cast<double>(now - std::exchange(asked_us_, now)) / 1e6;
    return {static_cast<double>(shared_->gap_us.exchange(0)) / 1e3,
            static_cast<double>(shared_->bytes.exchange(0)) / 1e6 / seconds};
}

}  // namespace ghost::bench
