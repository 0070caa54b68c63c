// SPDX-License-Identifier: BSD-3-Clause
// A program that changes its own memory map all the time, for the tests that copy it meanwhile.
//
//   ghost_churn churn SEED   two threads: mmap, munmap, mremap, madvise, mprotect, writes, reads,
//                            forks, until killed
//   ghost_churn calm SEED    the same; once it has some memory it says so, and rests 1 s after
//                            every 16 steps
//   ghost_churn write MB RATE [huge] writes random pages of MB megabytes at RATE MB/s, until killed
//   ghost_churn guards       guard pages come and go in memory of every kind, among pages that are
//                            written, until killed
//   ghost_churn late         at the end of standard input maps memory with a guard page, says
//                            where, closes standard output, and waits until killed
//   ghost_churn tables       at the end of standard input gives back some of what it has touched,
//   every third
//                            2 MiB of 34, so that page tables go; says where these are, closes
//                            standard output, and waits until killed
//   ghost_churn spin         computes without a system call, until killed
//   ghost_churn wait         sits in all kinds of interruptible system calls; writes to standard
//                            output what ended early; ends at the end of standard input
#include <algorithm>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <fcntl.h>
#include <poll.h>
#include <string>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>
#include <vector>

namespace {

constexpr size_t page = 4096;
constexpr size_t most_areas = 100;
constexpr int guard_install = 102, guard_remove = 103;  // MADV_GUARD_..., Linux 6.13

// xorshift64
class Random {
  public:
    explicit Random(uint64_t seed) : state_(seed * 88172645463325252ULL + 1) {}
    uint64_t below(uint64_t bound) {
        state_ ^= state_ << 13;
        state_ ^= state_ >> 7;
        state_ ^= state_ << 17;
        return state_ % bound;
    }
    uint64_t state() const { return state_; }

  private:
    uint64_t state_;
};

struct Area {
    char* at = nullptr;
    size_t pages = 0;
};

class Churner {
  public:
    Churner(uint64_t seed, bool forks) : random_(seed), forks_(forks) {}

    void step() {
        const auto choice = random_.below(1000);
        if (areas_.size() < 20 || (choice < 40 && areas_.size() < most_areas)) return add();
        auto& area = areas_[random_.below(areas_.size())];
        if (choice < 70) return remove(area);
        if (choice < 120) return drop(area);
        if (choice < 150) return move(area);
        if (choice < 170) return forbid(area);
        if (choice < 180) return replace(area);
        if (choice < 200) return read(area);
        if (choice < 206) return guard(area);
        if (choice < 208 && forks_) return fork_one();
        for (int i = 0; i < 20; i++) put(area, random_.below(area.pages));
    }

  private:
    void put(const Area& area, size_t at) {
        std::memcpy(area.at + at * page + 8 * random_.below(page / 8), &seen_, sizeof seen_);
        seen_ = random_.state();
    }

    void add() {
        Area area;
        area.pages = 1 + random_.below(800) + (random_.below(8) == 0 ? 1024 : 0);
        void* base = mmap(nullptr, area.pages * page, PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (base == MAP_FAILED) return;
        area.at = static_cast<char*>(base);
        if (random_.below(3) == 0) madvise(base, area.pages * page, MADV_HUGEPAGE);
        for (size_t i = 0; i < area.pages; i += 1 + random_.below(3)) put(area, i);
        areas_.push_back(area);
    }

    void forget(Area& area) {
        area = areas_.back();
        areas_.pop_back();
    }
    void remove(Area& area) {
        munmap(area.at, area.pages * page);
        forget(area);
    }
    void drop(const Area& area) {
        const size_t from = random_.below(area.pages);
        const size_t count = 1 + random_.below(area.pages - from);
        if (random_.below(3) == 0)  // whole page tables
            madvise(area.at, area.pages * page, MADV_DONTNEED);
        else
            madvise(area.at + from * page, count * page, MADV_DONTNEED);
    }
    void move(Area& area) {
        const size_t pages = 1 + random_.below(area.pages * 2);
        void* base = mremap(area.at, area.pages * page, pages * page, MREMAP_MAYMOVE);
        if (base == MAP_FAILED) return;
        area = {static_cast<char*>(base), pages};
    }
    static void forbid(const Area& area) {
        mprotect(area.at, area.pages * page, PROT_NONE);
        usleep(50);
        mprotect(area.at, area.pages * page, PROT_READ | PROT_WRITE);
    }
    void replace(Area& area) {
        munmap(area.at, area.pages * page);
        void* base = mmap(area.at, area.pages * page, PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
        if (base != area.at) {  // the other thread was there first
            if (base != MAP_FAILED) munmap(base, area.pages * page);
            return forget(area);
        }
        if (random_.below(2) == 0) put(area, 0);
    }
    void read(const Area& area) {
        seen_ += static_cast<unsigned char>(area.at[random_.below(area.pages) * page]);
    }
    // Guard pages kill who touches them, so they go again at once.
    static void guard(const Area& area) {
        if (madvise(area.at, page, guard_install) != 0) return;  // an older kernel
        usleep(50);
        madvise(area.at, page, guard_remove);
    }
    static void fork_one() {
        const pid_t child = fork();
        if (child == 0) _exit(0);
        if (child > 0) waitpid(child, nullptr, 0);
    }

    Random random_;
    const bool forks_;
    uint64_t seen_ = 1;
    std::vector<Area> areas_;
};

int churn(uint64_t seed, bool calm) {
    const auto run = [seed, calm](bool forks) {
        Churner churner(2 * seed + (forks ? 1 : 0), forks);
        for (uint64_t i = 0;; i++) {
            churner.step();
            if (calm && forks && i == 1000) std::puts("ready");
            std::fflush(stdout);
            if (i % 16 != 0) continue;
            if (!calm || i < 1000) {
                usleep(200);
                continue;
            }
            timespec rest{1, 0};
            while (nanosleep(&rest, &rest) != 0) continue;  // whoever stopped us ended it
        }
    };
    std::thread other(run, false);
    run(true);
    return 0;
}

void say_ready() {
    std::puts("ready");
    std::fflush(stdout);
}

int64_t now_ns() {
    timespec t{};
    clock_gettime(CLOCK_MONOTONIC, &t);
    return int64_t{t.tv_sec} * 1000000000 + t.tv_nsec;
}

// Whole pages at the asked rate, in steps of 1 ms.
int write_pages(size_t megabytes, double rate, bool huge) {
    constexpr size_t large = 2 << 20;
    const size_t bytes = megabytes << 20;
    auto* base = static_cast<char*>(mmap(nullptr, bytes + large, PROT_READ | PROT_WRITE,
                                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
    if (base == MAP_FAILED) return 3;
    base += large - reinterpret_cast<uintptr_t>(base) % large;
    madvise(base, bytes, huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
    Random random(megabytes + 7);
    auto* words = reinterpret_cast<uint64_t*>(base);
    for (size_t i = 0; i < bytes / sizeof *words; i++) words[i] = i * 2654435761U + 1;
    say_ready();
    double owed = 0;
    for (int64_t next = now_ns();; next += 1000000) {
        for (owed += rate * 1e3 / page; owed >= 1; owed--) {
            auto* to = words + random.below(bytes / page) * (page / sizeof *words);
            for (size_t i = 0; i < page / sizeof *words; i++) to[i] = random.state() + i;
        }
        const timespec until{next / 1000000000, next % 1000000000};
        clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, nullptr);
    }
}

// Each area has a guard page of its own all the time, and others that last 1 to 8 ms.
int keep_guards() {
    constexpr size_t pages = 600;
    const int file = open("/proc/self/exe", O_RDONLY);
    std::vector<char*> areas;
    for (const int flags : {MAP_PRIVATE | MAP_ANONYMOUS, MAP_PRIVATE | MAP_ANONYMOUS,
                            MAP_SHARED | MAP_ANONYMOUS, MAP_PRIVATE}) {
        const size_t count = flags == MAP_PRIVATE ? 3 : pages;
        void* base = mmap(nullptr, count * page, PROT_READ | PROT_WRITE, flags,
                          flags == MAP_PRIVATE ? file : -1, 0);
        if (base == MAP_FAILED) return 3;
        areas.push_back(static_cast<char*>(base));
        madvise(areas.back() + page, page, guard_install);
    }
    areas.pop_back();  // the file's has that one only
    say_ready();
    Random random(5);
    std::vector<char*> guards;
    for (uint64_t step = 0;; step++) {
        for (int i = 0; i < 40; i++) {
            char* const at =
                areas[random.below(areas.size())] + (2 + random.below(pages - 2)) * page;
            if (std::find(guards.begin(), guards.end(), at) == guards.end()) *at = char(step | 1);
        }
        char* const at = areas[random.below(areas.size())] + (2 + random.below(pages - 2)) * page;
        if (std::find(guards.begin(), guards.end(), at) == guards.end() &&
            madvise(at, page, guard_install) == 0)
            guards.push_back(at);
        if (guards.size() > 8) {
            const auto gone = guards.begin() + std::ptrdiff_t(random.below(guards.size()));
            madvise(*gone, page, guard_remove);
            guards.erase(gone);
        }
        usleep(500);
    }
}

int guard_late() {
    constexpr size_t pages = 64;
    say_ready();
    for (char byte = 0; read(0, &byte, 1) > 0;) continue;
    // Far from all other memory: what is near a mapping is looked at with it.
    void* base = mmap(reinterpret_cast<void*>(uintptr_t{0x200000000000}), pages * page,
                      PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (base == MAP_FAILED) return 3;
    std::memset(base, 1, pages * page);
    madvise(static_cast<char*>(base) + page, page, guard_install);
    std::printf("%llx\n",
                static_cast<unsigned long long>(reinterpret_cast<uintptr_t>(base)) + page);
    std::fclose(stdout);
    for (;;) pause();
}

int drop_tables() {
    constexpr size_t table = 2 << 20, tables = 17;
    char* const base =
        static_cast<char*>(mmap(reinterpret_cast<void*>(uintptr_t{0x200000000000}), tables * table,
                                PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    if (base == MAP_FAILED) return 3;
    // Those of small pages may stay though they are empty.
    madvise(base, tables * table, MADV_HUGEPAGE);
    std::memset(base, 1, tables * table);
    say_ready();
    for (char byte = 0; read(0, &byte, 1) > 0;) continue;
    for (size_t i = 0; i < tables; i += 3) madvise(base + i * table, table, MADV_DONTNEED);
    std::printf("%llx\n", static_cast<unsigned long long>(reinterpret_cast<uintptr_t>(base)));
    std::fclose(stdout);
    for (;;) pause();
}

std::atomic<int> handled{0};
std::atomic<bool> over{false};

void check(bool good, const char* what) {
    if (!good && !over) std::printf("%s ended early: %s\n", what, std::strerror(errno));
    std::fflush(stdout);
}

// Each call must last as long as asked for, or be ended only by the alarm's handler.
int wait_in_calls() {
    struct sigaction action {};
    action.sa_handler = [](int) { handled++; };
    sigaction(SIGALRM, &action, nullptr);
    sigset_t alarm_only;
    sigemptyset(&alarm_only);
    sigaddset(&alarm_only, SIGALRM);
    pthread_sigmask(SIG_BLOCK, &alarm_only, nullptr);
    int ends[2];
    if (pipe(ends) != 0) return 3;
    const int events = epoll_create1(0);
    say_ready();
    for (pollfd in{0, POLLIN, 0}; poll(&in, 1, 0) == 0;) {
        const timespec rest{0, 20000000};
        check(nanosleep(&rest, nullptr) == 0, "nanosleep");
        check(poll(nullptr, 0, 20) == 0, "poll");
        const timespec wait{0, 20000000};
        check(ppoll(nullptr, 0, &wait, &alarm_only) == 0, "ppoll");
        epoll_event event{};
        const int got = epoll_wait(events, &event, 1, 20);
        // The kernel does not restart this one after any stop; see signal(7).
        check(got == 0 || errno == EINTR, "epoll_wait");
        const int before = handled;
        const itimerval soon{{0, 0}, {0, 20000}};
        setitimer(ITIMER_REAL, &soon, nullptr);
        sigset_t none;
        sigemptyset(&none);
        check(sigsuspend(&none) == -1 && errno == EINTR && handled == before + 1, "sigsuspend");
        std::thread writer([&] {
            usleep(20000);
            check(write(ends[1], "x", 1) == 1, "write");
        });
        char byte = 0;
        check(read(ends[0], &byte, 1) == 1, "read");
        writer.join();
    }
    std::printf("whole %d\n", handled.load());
    std::fflush(stdout);
    return 0;
}

}  // namespace

int main(int argc, char** argv) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getpid() == 1) setsid();  // the init of a tree
    const std::string what = argc > 1 ? argv[1] : "";
    if ((what == "churn" || what == "calm") && argc == 3)
        return churn(std::strtoull(argv[2], nullptr, 10), what == "calm");
    if (what == "write" && argc >= 4)
        return write_pages(std::strtoul(argv[2], nullptr, 10), std::strtod(argv[3], nullptr),
                           argc > 4);
    if (what == "guards") return keep_guards();
    if (what == "late") return guard_late();
    if (what == "tables") return drop_tables();
    if (what == "spin")
        for (volatile uint64_t count = 0;;) count = count + 1;
    if (what == "wait") return wait_in_calls();
    return 2;
}
