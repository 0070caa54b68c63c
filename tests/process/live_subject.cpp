// SPDX-License-Identifier: BSD-3-Clause
// A program that is moved live and finds out itself whether everything came along.
//
//   live_subject init MB THREADS MB/S FILE   init of a PID name space: runs the rest as its child
//
// THREADS threads write MB/S in all to MB megabytes, pages by a fixed sequence, which is replayed
// to check them. The leader beats into FILE (live_subject.hpp), writes a line to its standard
// output every 10 ms, and changes mappings, break, stack, file offset and signal mask all the time.
#include "tests/process/live_subject.hpp"

#include <array>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <fcntl.h>
#include <string>
#include <sys/mman.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>
#include <vector>

namespace {

using ghost::core::test::Ask;
using ghost::core::test::Beats;

constexpr size_t page_bytes = 4096, page_words = 512;
constexpr uint64_t wrong_pages = 1, wrong_state = 2, wrong_mapping = 4, wrong_heap = 8,
                   wrong_file = 16, wrong_clock = 32, wrong_data = 64;

Beats* beats = nullptr;
std::string named_path;
int named = -1, twin = -1;
pid_t companion = 0;
uint64_t* memory = nullptr;
size_t pages = 0;
std::atomic<bool> rest{false};
std::atomic<int> resting{0};
std::atomic<uint64_t> wrong{0};
std::array<uint64_t, 4096> data_pages = {1};  // in the program's own data: a private file mapping

// The same, of which each page is one of two again and again.
std::array<uint64_t, 4096> flips = {1};

uint64_t now_ns() {
    timespec now{};
    clock_gettime(CLOCK_MONOTONIC, &now);
    return static_cast<uint64_t>(now.tv_sec) * 1000000000 + static_cast<uint64_t>(now.tv_nsec);
}

void rest_briefly() {
    timespec left{0, 50000};
    while (nanosleep(&left, &left) != 0) {
    }
}

uint64_t next(uint64_t& x) {
    x ^= x << 13;
    x ^= x >> 7;
    return x ^= x << 17;
}

void fill(size_t page, uint64_t what) {
    const uint64_t base = page * 0x9E3779B97F4A7C15ULL ^ what * 0xC2B2AE3D27D4EB4FULL;
    for (size_t i = 0; i < page_words; i++) memory[page * page_words + i] = base + i * 0x1234567;
}

bool holds(size_t page, uint64_t what) {
    const uint64_t base = page * 0x9E3779B97F4A7C15ULL ^ what * 0xC2B2AE3D27D4EB4FULL;
    for (size_t i = 0; i < page_words; i++)
        if (memory[page * page_words + i] != base + i * 0x1234567) return false;
    return true;
}

// One thread's writes; the double is there for the floating-point registers.
struct Writer {
    size_t index = 0, of = 1;
    uint64_t random = 0, done = 0;
    double sum = 0;

    explicit Writer(size_t i = 0, size_t n = 1)
        : index(i), of(n), random(i * 7919 + 88172645463325252ULL) {}
    size_t choose() {
        const size_t page = next(random) % (pages / of) * of + index;
        done++;
        sum = sum * 1.0000001 + static_cast<double>(page) * 1e-9;
        return page;
    }
    uint64_t mark() const { return done << 8 | index; }
};
std::vector<Writer> writers;

// Whether it is as it was left; to the other state, and odd times there and back.
void flip(size_t index, uint64_t& state) {
    volatile uint64_t& place = flips[index * page_words + 1];
    for (int i = 0; i < 63; i++) {
        if (place != state) wrong |= wrong_data;
        place = state ^= 1;
    }
}

void write_pages(size_t index, uint64_t pages_per_s) {
    Writer mine = writers[index];
    uint64_t flipped = 0;
    for (uint64_t last = now_ns();;) {
        if (rest) {
            writers[index] = mine;
            resting++;
            while (rest) rest_briefly();
            resting--;
            last = now_ns();
        }
        const uint64_t now = now_ns();
        const uint64_t due = std::min<uint64_t>((now - last) * pages_per_s / 1000000000, 256);
        if (due > 0) last = now;
        for (uint64_t i = 0; i < due; i++) {
            const size_t page = mine.choose();
            fill(page, mine.mark());
        }
        beats->written += due;
        flip(index, flipped);
        data_pages[index * page_words + mine.done % page_words] = mine.done;
        rest_briefly();
    }
}

void check_pages() {
    std::vector<uint64_t> marks(pages, 0);
    for (size_t t = 0; t < writers.size(); t++) {
        Writer again(t, writers.size());
        while (again.done < writers[t].done) {
            const size_t page = again.choose();
            marks[page] = again.mark();
        }
        if (again.sum != writers[t].sum || again.random != writers[t].random) wrong |= wrong_state;
        const uint64_t done = writers[t].done;
        if (done > 0 && data_pages[t * page_words + done % page_words] != done) wrong |= wrong_data;
    }
    for (size_t page = 0; page < pages; page++)
        if (!holds(page, marks[page])) {
            wrong |= wrong_pages;
            beats->wrong_at = reinterpret_cast<uint64_t>(memory + page * page_words);
            beats->wrong_wanted = marks[page];
            beats->wrong_found =
                (memory[page * page_words] ^ page * 0x9E3779B97F4A7C15ULL) * 0xba79078168d4bafULL;
            size_t bad_words = 0;
            for (size_t i = 1; i < page_words; i++)
                bad_words +=
                    memory[page * page_words + i] != memory[page * page_words] + i * 0x1234567;
            beats->wrong_words = bad_words;
            beats->wrong_done = writers[page % writers.size()].done;
            beats->wrong_pages++;
        }
}

// Mappings that come, change and go; all are looked at before they go.
class Churn {
  public:
    explicit Churn(const char* folder) {
        const auto name = std::string(folder) + ".data";
        file_ = open(name.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
        if (file_ < 0) wrong |= wrong_file;
    }

    void step() {
        count_++;
        change(slots_[next(random_) % slots_.size()]);
        if (count_ % 16 == 0 && heap_.size() < 512) {
            auto* more = static_cast<char*>(sbrk(12345));
            std::memset(more, static_cast<int>(heap_.size() & 255), 12345);
            heap_.push_back(more);
        }
        if (count_ % 64 == 0) deep(static_cast<int>(40 + count_ / 64 % 200));
        const uint64_t value = offset_;
        if (pwrite(file_, &value, sizeof value, static_cast<off_t>(offset_)) != sizeof value ||
            lseek(file_, sizeof value, SEEK_CUR) != static_cast<off_t>(offset_ + sizeof value))
            wrong |= wrong_file;
        offset_ += sizeof value;
        if (offset_ > (16 << 20)) offset_ = static_cast<uint64_t>(lseek(file_, 0, SEEK_SET));
        sigset_t set;
        sigemptyset(&set);
        sigaddset(&set, SIGUSR2);
        sigprocmask(count_ % 2 != 0 ? SIG_BLOCK : SIG_UNBLOCK, &set, nullptr);
    }
    void check() {
        for (const auto& slot : slots_)
            if (slot.at != nullptr && !good(slot)) wrong |= wrong_mapping;
        for (size_t i = 0; i < heap_.size(); i++)
            if (heap_[i][0] != static_cast<char>(i & 255) ||
                heap_[i][12344] != static_cast<char>(i & 255))
                wrong |= wrong_heap;
    }

  private:
    struct Slot {
        uint64_t* at = nullptr;
        size_t bytes = 0;
        uint64_t tag = 0;
        bool empty = false;
    };
    static bool good(const Slot& slot) {
        for (size_t i = 0; i < slot.bytes / 8; i += 64)
            if (slot.at[i] != (slot.empty ? 0 : slot.tag + i)) return false;
        return true;
    }
    void change(Slot& slot) {
        if (slot.at != nullptr) {
            if (!good(slot)) wrong |= wrong_mapping;
            if (count_ % 5 == 0 && !slot.empty) {
                mprotect(slot.at, slot.bytes, PROT_READ | PROT_WRITE);
                madvise(slot.at, slot.bytes, MADV_DONTNEED);
                slot.empty = true;
            } else {
                munmap(slot.at, slot.bytes);
                slot.at = nullptr;
            }
            return;
        }
        slot.bytes = (next(random_) % 128 + 1) * 8192;
        slot.at = static_cast<uint64_t*>(
            mmap(nullptr, slot.bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
        slot.tag = next(random_);
        slot.empty = false;
        for (size_t i = 0; i < slot.bytes / 8; i += 64) slot.at[i] = slot.tag + i;
        if (count_ % 3 == 0) mprotect(slot.at, slot.bytes, PROT_READ);
    }
    __attribute__((noinline)) static int deep(int levels) {
        volatile char room[4096];
        room[0] = static_cast<char>(levels);
        return levels > 0 ? deep(levels - 1) + room[0] : room[0];
    }

    std::array<Slot, 8> slots_;
    uint64_t random_ = 777, count_ = 0, offset_ = 0;
    std::vector<char*> heap_;
    int file_ = -1;
};

void open_named(int flags) {
    named = open(named_path.c_str(), flags | O_CLOEXEC, 0600);
    twin = fcntl(named, F_DUPFD_CLOEXEC, 0);
    if (named < 0 || twin < 0) wrong |= wrong_file;
}

void close_named() {
    if (close(named) != 0 || close(twin) != 0) wrong |= wrong_file;
}

void answer(Churn& churn) {
    switch (beats->ask) {
        case Ask::nothing:
            return;
        case Ask::check:
            rest = true;
            while (resting < static_cast<int>(writers.size())) rest_briefly();
            check_pages();
            churn.check();
            beats->answer = wrong.load();
            rest = false;
            while (resting > 0) rest_briefly();
            break;
        case Ask::thread:
            std::thread([] {
                for (;;) rest_briefly();
            }).detach();
            break;
        case Ask::file:
            if (open("/dev/null", O_RDONLY) < 0) wrong |= wrong_file;
            break;
        case Ask::named:
            open_named(O_RDWR | O_CREAT);
            break;
        case Ask::unnamed:
            close_named();
            if (unlink(named_path.c_str()) != 0) wrong |= wrong_file;
            break;
        case Ask::another:
            close_named();
            if (unlink(named_path.c_str()) != 0) wrong |= wrong_file;
            open_named(O_RDWR | O_CREAT);
            break;
        case Ask::narrowed:
            close_named();
            open_named(O_RDONLY);
            break;
        case Ask::split: {
            const int number = twin;
            close(twin);
            twin = open(named_path.c_str(), O_RDWR | O_CLOEXEC);
            if (twin != number) wrong |= wrong_file;
            break;
        }
        case Ask::kept:
            if (fcntl(named, F_SETFD, 0) != 0) wrong |= wrong_file;
            break;
        case Ask::handler:
            signal(SIGUSR1, [](int) {});
            break;
        case Ask::timer: {
            signal(SIGALRM, [](int) {});
            const itimerval each{{0, 200000}, {0, 200000}};
            setitimer(ITIMER_REAL, &each, nullptr);
            break;
        }
        case Ask::child:
            companion = fork();
            while (companion == 0) pause();
            if (companion < 0) wrong |= wrong_state;
            break;
        case Ask::childless:
            if (kill(companion, SIGKILL) != 0 || waitpid(companion, nullptr, 0) != companion)
                wrong |= wrong_state;
            break;
        case Ask::stop:
            std::_Exit(wrong != 0 ? 7 : 0);
    }
    beats->ask = Ask::nothing;
}

int run(char** words) {
    setsid();
    pages = std::strtoul(words[0], nullptr, 10) * 256;
    const size_t threads = std::strtoul(words[1], nullptr, 10);
    const uint64_t rate = std::strtoul(words[2], nullptr, 10) * 1000000 / page_bytes;
    named_path = std::string(words[3]) + ".named";
    const int file = open(words[3], O_RDWR | O_CLOEXEC);
    beats = static_cast<Beats*>(
        mmap(nullptr, sizeof(Beats), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0));
    close(file);
    memory = static_cast<uint64_t*>(mmap(nullptr, pages * page_bytes, PROT_READ | PROT_WRITE,
                                         MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    if (memory == MAP_FAILED || beats == MAP_FAILED) return 3;
    for (size_t page = 0; page < pages; page++) fill(page, 0);
    for (size_t i = 0; i < threads; i++) writers.emplace_back(i, threads);
    Churn churn(words[3]);
    for (size_t i = 0; i < threads; i++) std::thread(write_pages, i, rate / threads).detach();
    beats->ready = 1;
    uint64_t number = 0, last_churn = now_ns(), last_line = last_churn, last = last_churn;
    for (;;) {
        const uint64_t now = now_ns();
        if (now < last) wrong |= wrong_clock;
        last = now;
        beats->beats[number % ghost::core::test::beats_kept] = {now, number};
        beats->count = ++number;  // there to be read from now on
        if (now - last_churn > 3000000) {
            last_churn = now;
            churn.step();
        }
        if (now - last_line > 10000000) {
            last_line = now;
            std::printf("t %llu\n", static_cast<unsigned long long>(number));
            std::fflush(stdout);
        }
        answer(churn);
        rest_briefly();
    }
}

}  // namespace

int main(int argc, char** argv) {
    if (argc != 6) return 2;
    setsid();
    const pid_t child = fork();
    if (child == 0) return run(argv + 2);
    close(0);
    close(1);
    for (int status = 0;;) {
        const pid_t ended = wait(&status);
        if (ended == child) return WIFEXITED(status) ? WEXITSTATUS(status) : 128;
        if (ended < 0 && errno == ECHILD) return 5;
    }
}
