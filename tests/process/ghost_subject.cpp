// SPDX-License-Identifier: BSD-3-Clause
// A program that is exported and imported by the tests, and finds out itself whether it is whole.
//
//   ghost_subject init MB FOLDER   init of a PID name space: runs "ghost_subject run MB FOLDER",
//                                  mirrors its end
//   ghost_subject run MB FOLDER    keeps changing MB megabytes with three threads, a timer, a pipe
//                                  and a file without a name in FOLDER; answers every line on its
//                                  standard input with "beats N", where N only grows, or "bad: what
//                                  is wrong"; "advise" with "advised", when it has told the kernel
//                                  that some memory is not for children
#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <fcntl.h>
#include <string>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>
#include <vector>

namespace {

constexpr size_t page_bytes = 4096;
constexpr size_t page_words = page_bytes / sizeof(uint64_t);
constexpr int workers = 3;

std::atomic<const char*> wrong{nullptr};
std::atomic<uint64_t> beats{0};
std::atomic<bool> rest{false};  // set while the whole is looked at
std::atomic<int> resting{0};
std::atomic<bool> has_timer{false};  // the one thread that never rests has what it will ever have

void bad(const char* what) {
    wrong.store(what);
}

uint64_t mix(uint64_t x) {
    x ^= x >> 33;
    x *= 0xff51afd7ed558ccdULL;
    x ^= x >> 33;
    return x;
}

// Every page says in all its words which page it is and how often it was changed. Every 8th page is
// never touched and must read as zeros; that is not checked all the time, or it would be touched.
struct Region {
    uint64_t* words = nullptr;
    size_t pages = 0;
    uint64_t seed = 0;

    static bool untouched(size_t page) { return page % 8 == 5; }

    void fill(size_t page, uint64_t generation) {
        uint64_t* at = words + page * page_words;
        at[0] = generation;
        const uint64_t base = mix(seed ^ (page * 1000003) ^ (generation << 40));
        for (size_t i = 1; i < page_words; i++) at[i] = base + i;
    }
    bool holds(size_t page) const {
        const uint64_t* at = words + page * page_words;
        if (untouched(page)) {
            for (size_t i = 0; i < page_words; i++)
                if (at[i] != 0) return false;
            return true;
        }
        const uint64_t base = mix(seed ^ (page * 1000003) ^ (at[0] << 40));
        for (size_t i = 1; i < page_words; i++)
            if (at[i] != base + i) return false;
        return true;
    }
};

std::vector<Region> regions(workers);

void pause_if_asked() {
    if (!rest) return;
    resting++;
    while (rest) usleep(200);
    resting--;
}

void work(Region& region) {
    uint64_t random = region.seed;
    const pid_t tid = static_cast<pid_t>(syscall(SYS_gettid));
    for (;;) {
        pause_if_asked();
        random = random * 6364136223846793005ULL + 1442695040888963407ULL;
        const size_t page = (random >> 20) % region.pages;
        if (Region::untouched(page)) continue;
        if (!region.holds(page)) return bad("memory of a running thread");
        region.fill(page, region.words[page * page_words] + 1);
        if (syscall(SYS_gettid) != tid) return bad("thread id");
        beats++;
        usleep(50);
    }
}

// A sequence of numbers through a pipe and into a file, with the file's own offset.
void pass_numbers(const char* folder) {
    int ends[2];
    const int fd = open(folder, O_TMPFILE | O_RDWR, 0600);
    if (pipe(ends) != 0 || fd < 0) return bad("set up pipe and file");
    uint64_t sent = 0, got = 0;
    for (int i = 0; i < 5; i++, sent++)
        if (write(ends[1], &sent, sizeof sent) != sizeof sent) return bad("write to pipe");
    for (;;) {
        pause_if_asked();
        uint64_t number = 0;
        if (read(ends[0], &number, sizeof number) != sizeof number || number != got)
            return bad("numbers in the pipe");
        if (lseek(fd, 0, SEEK_CUR) != static_cast<off_t>(got % 512 * sizeof got))
            return bad("offset of the file");
        if (write(fd, &number, sizeof number) != sizeof number) return bad("write to file");
        got++;
        if (got % 512 == 0) lseek(fd, 0, SEEK_SET);
        if (write(ends[1], &sent, sizeof sent) != sizeof sent) return bad("write to pipe");
        sent++;
        usleep(500);
    }
}

void keep_time() {
    const int fd = timerfd_create(CLOCK_MONOTONIC, 0);
    const itimerspec each{{0, 5000000}, {0, 5000000}};
    timerfd_settime(fd, 0, &each, nullptr);
    has_timer = true;
    timespec last{};
    for (;;) {
        uint64_t count = 0;
        if (read(fd, &count, sizeof count) != sizeof count) return bad("timer");
        timespec now{};
        clock_gettime(CLOCK_MONOTONIC, &now);
        if (now.tv_sec < last.tv_sec - 1) return bad("the clock ran back");
        last = now;
    }
}

void answer() {
    rest = true;
    const auto all_there = [] { return resting == workers + 1 && has_timer; };
    for (int i = 0; i < 2000 && !all_there() && wrong == nullptr; i++) usleep(500);
    if (!all_there()) bad("a thread is missing");
    for (const auto& region : regions)
        for (size_t page = 0; page < region.pages; page++)
            if (!region.holds(page)) bad("memory");
    rest = false;
    while (resting > 0 && wrong == nullptr) usleep(100);
    if (wrong != nullptr)
        std::printf("bad: %s\n", wrong.load());
    else
        std::printf("beats %llu\n", static_cast<unsigned long long>(beats.load()));
    std::fflush(stdout);
}

int run(size_t megabytes, const char* folder) {
    setsid();
    const size_t bytes = (megabytes << 20) / workers / page_bytes * page_bytes;
    for (int i = 0; i < workers; i++) {
        void* base =
            mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (base == MAP_FAILED) return 3;
        regions[i] = {static_cast<uint64_t*>(base), bytes / page_bytes,
                      mix(static_cast<uint64_t>(i) + 77)};
        for (size_t page = 0; page < regions[i].pages; page++)
            if (!Region::untouched(page)) regions[i].fill(page, 1);
    }
    // A page its owner may not read, with content, among the others.
    char* hidden = static_cast<char*>(
        mmap(nullptr, 3 * page_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    std::memset(hidden, 42, 3 * page_bytes);
    mprotect(hidden + page_bytes, page_bytes, PROT_NONE);
    std::vector<std::thread> threads;
    for (auto& region : regions) threads.emplace_back(work, std::ref(region));
    threads.emplace_back(pass_numbers, folder);
    threads.emplace_back(keep_time);
    char line[64];
    while (std::fgets(line, sizeof line, stdin) != nullptr) {
        if (line[0] == 'a') {  // "advise": a flag of a mapping changes, without a trace in maps
            madvise(regions[0].words, regions[0].pages * page_bytes, MADV_DONTFORK);
            std::printf("advised\n");
            std::fflush(stdout);
            continue;
        }
        mprotect(hidden + page_bytes, page_bytes, PROT_READ);
        if (hidden[page_bytes] != 42 || hidden[2 * page_bytes - 1] != 42) bad("hidden page");
        mprotect(hidden + page_bytes, page_bytes, PROT_NONE);
        answer();
    }
    std::_Exit(wrong == nullptr ? 0 : 4);
}

int be_init(char** words) {
    setsid();
    const pid_t child = fork();
    if (child == 0) {
        execl(words[0], words[0], "run", words[2], words[3], nullptr);
        _exit(127);
    }
    close(0);
    close(1);
    for (int status = 0;;) {
        const pid_t ended = wait(&status);
        if (ended == child) return WIFEXITED(status) ? WEXITSTATUS(status) : 128;
        if (ended < 0 && errno == ECHILD) return 5;
    }
}

}  // namespace

int main(int argc, char** argv) {
    const std::string what = argc == 4 ? argv[1] : "";
    if (what == "init") return be_init(argv);
    if (what == "run") return run(std::strtoul(argv[2], nullptr, 10), argv[3]);
    return 2;
}
