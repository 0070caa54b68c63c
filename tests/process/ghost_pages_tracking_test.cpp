// SPDX-License-Identifier: BSD-3-Clause
// Copies of the memory of running processes, compared with the memory when the process is frozen.
#include <gtest/gtest.h>

#include <csignal>
#include <cstring>
#include <fcntl.h>
#include <fmt/format.h>
#include <fstream>
#include <atomic>
#include <map>
#include <memory>
#include <grp.h>
#include <sched.h>
#include <sys/stat.h>
#include <sys/mount.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include "base/clock.hpp"
#include "base/proc.hpp"
#include "ghost-core/format/host.hpp"
#include "ghost-core/memory/injection.hpp"
#include "ghost-core/memory/arena.hpp"
#include "ghost-core/memory/memory_copy.hpp"
#include "ghost-core/memory/tracker.hpp"
#include "tests/rounds.hpp"

namespace ghost::core {
namespace {

std::string churn_program() {
    const char* folder = std::getenv("GHOST_TEST_PROGRAMS");
    return std::string(folder != nullptr ? folder : "tests/process") + "/ghost_churn";
}

// A child that runs ghost_churn; killed and reaped at the end.
class Churn {
  public:
    explicit Churn(const std::vector<std::string>& words) {
        int in[2], out[2];
        EXPECT_EQ(pipe2(in, O_CLOEXEC), 0);
        EXPECT_EQ(pipe2(out, O_CLOEXEC), 0);
        in_.reset(in[1]);
        out_.reset(out[0]);
        pid = fork();
        if (pid == 0) {
            dup2(in[0], 0);
            dup2(out[1], 1);
            std::vector<char*> argv;
            const auto program = churn_program();
            argv.push_back(const_cast<char*>(program.c_str()));
            for (const auto& word : words) argv.push_back(const_cast<char*>(word.c_str()));
            argv.push_back(nullptr);
            execv(argv[0], argv.data());
            _exit(127);
        }
        close(in[0]);
        close(out[1]);
    }
    ~Churn() {
        kill(pid, SIGKILL);
        waitpid(pid, nullptr, 0);
    }
    Churn(const Churn&) = delete;
    Churn& operator=(const Churn&) = delete;

    void wait_ready() {
        char line[7] = "";
        for (size_t got = 0; got < 6;) {
            const auto more = read(out_.get(), line + got, 6 - got);
            ASSERT_GT(more, 0);
            got += static_cast<size_t>(more);
        }
        ASSERT_STREQ(line, "ready\n");
    }

    // Until it has a good number of pages.
    void wait_grown() const {
        const int64_t limit = monotonic_us() + 5000000;
        for (long pages = 0; pages < 8000;) {
            ASSERT_LT(monotonic_us(), limit);
            const auto status = read_status(fmt::format("/proc/{}", pid));
            if (!status || status->name != "ghost_churn") continue;  // not begun yet
            std::ifstream in(fmt::format("/proc/{}/statm", pid));
            in >> pages >> pages;
            usleep(1000);
        }
    }

    // Closes its standard input and returns all it has said.
    std::string finish() {
        in_.reset();
        std::string said;
        char part[256];
        for (ssize_t got = 0; (got = read(out_.get(), part, sizeof part)) > 0;)
            said.append(part, static_cast<size_t>(got));
        return said;
    }

    void stop() const {
        kill(pid, SIGSTOP);
        const int64_t limit = monotonic_us() + 5000000;
        for (bool all = false; !all;) {
            ASSERT_LT(monotonic_us(), limit);
            all = true;
            for (const pid_t tid : numbers_in(fmt::format("/proc/{}/task", pid))) {
                const auto status = read_status(fmt::format("/proc/{}/task/{}", pid, tid));
                if (status && status->state != 'T') all = false;
            }
        }
    }

    pid_t pid = 0;

  private:
    Fd in_, out_;
};

// Every page of every private area, by address.
using Truth = std::map<uint64_t, std::string>;

Truth truth_of(pid_t pid) {
    const size_t page = this_page_size();
    const Fd memory(open(fmt::format("/proc/{}/mem", pid).c_str(), O_RDONLY | O_CLOEXEC));
    auto areas = private_memory(pid);
    EXPECT_TRUE(areas.ok());
    Truth out;
    std::string content(page, '\0');
    for (const auto& area : *areas)
        for (uint64_t at = area.start; at < area.end(); at += page)
            if (pread(memory.get(), content.data(), page, static_cast<off_t>(at)) ==
                static_cast<ssize_t>(page))  // no guard page
                out[at] = content;
    return out;
}

// Compares every page with the copy; returns how many there are.
size_t compare(const Truth& truth, const ProcessCopy& copy) {
    const size_t page = this_page_size();
    const std::string zeros(page, '\0');
    size_t bad = 0;
    for (const auto& [at, right] : truth) {
        const auto known = cut(copy.known, at, at + page);
        const auto zero = cut(copy.zero, at, at + page);
        const PageRun one{at, page};
        std::vector<PagePiece> pieces;
        copy.store.locate({&one, 1}, pieces);
        const char* content = zeros.data();
        if (!known.empty() && zero.empty()) {
            EXPECT_EQ(pieces.size(), 1U);
            if (pieces.size() == 1) content = pieces[0].to;
        } else {
            EXPECT_TRUE(pieces.empty());
        }
        if (std::memcmp(content, right.data(), page) != 0 && bad++ < 3)
            ADD_FAILURE() << fmt::format("page {:#x} differs; known {}, zero {}", at, known.size(),
                                         zero.size());
    }
    EXPECT_EQ(bad, 0U);
    return truth.size();
}

size_t compare(pid_t pid, const ProcessCopy& copy) {
    return compare(truth_of(pid), copy);
}

int seeds() {
    return static_cast<int>(ghost::test::rounds("GHOST_TEST_SEEDS", 3, 30));
}

class PagesTracking : public ::testing::Test {
  protected:
    void SetUp() override {
        if (geteuid() != 0) GTEST_SKIP() << "needs root";
    }
    Arena arena_;
    Workers workers_;
};

TEST_F(PagesTracking, CopyIsExactUnderChurn) {
    for (int seed = 1; seed <= seeds(); seed++) {
        SCOPED_TRACE(seed);
        const Churn churn({"churn", std::to_string(seed)});
        MemoryCopy copy(arena_, workers_);
        const ProcessName name{7, churn.pid};
        copy.begin(false);
        churn.wait_grown();
        ASSERT_TRUE(copy.track({&name, 1}).ok());
        ASSERT_FALSE(copy.processes().at(7).untracked)
            << copy.processes().at(7).untracked->message();
        for (int i = 0; i < 40; i++) {
            auto round = copy.round();
            ASSERT_TRUE(round.ok()) << round.error().message();
            usleep(static_cast<useconds_t>(i * 100));
        }
        churn.stop();
        ASSERT_TRUE(copy.finish({&name, 1}, workers_).ok());
        EXPECT_GT(compare(churn.pid, copy.processes().at(7)), 1000U);
        kill(churn.pid, SIGCONT);
        usleep(10000);
        EXPECT_EQ(read_status(fmt::format("/proc/{}", churn.pid))->state == 'Z', false);
    }
}

// What changed since an earlier copy, laid over that one, is the memory at the later moment.
TEST_F(PagesTracking, DifferencesUpdateCopy) {
    for (int seed = 1; seed <= seeds(); seed++) {
        SCOPED_TRACE(seed);
        const Churn churn({"churn", std::to_string(seed + 100)});
        MemoryCopy copy(arena_, workers_);
        const ProcessName name{7, churn.pid};
        std::map<uint64_t, std::string> pages;
        const size_t page = this_page_size();
        for (int generation = 0; generation < 4; generation++) {
            copy.begin(generation > 0);
            ASSERT_TRUE(copy.track({&name, 1}).ok());
            if (generation > 0) churn.wait_grown();  // the first one sees it exec
            for (int i = 0; i < 5; i++) {
                auto round = copy.round();
                ASSERT_TRUE(round.ok()) << round.error().message();
            }
            usleep(5000);
            churn.stop();
            ASSERT_TRUE(copy.finish({&name, 1}, workers_).ok());
            const auto& process = copy.processes().at(7);
            std::vector<PagePiece> pieces;
            process.store.locate(process.store.pages(), pieces);
            for (const auto& piece : pieces)
                for (uint64_t at = 0; at < piece.bytes; at += page)
                    pages[piece.start + at].assign(piece.to + at, page);
            for (const auto& run : process.zero)
                for (uint64_t at = run.start; at < run.end(); at += page)
                    pages[at].assign(page, '\0');
            std::erase_if(pages, [&](const auto& entry) {
                return cut(process.known, entry.first, entry.first + page).empty();
            });
            // The same again as one copy, whole.
            ProcessCopy whole;
            Arena place;
            whole.known = process.known;
            ASSERT_TRUE(whole.store.reserve(process.known, place).ok());
            pieces.clear();
            whole.store.locate(process.known, pieces);
            size_t missing = 0;
            for (const auto& piece : pieces)
                for (uint64_t at = 0; at < piece.bytes; at += page) {
                    const auto found = pages.find(piece.start + at);
                    if (found == pages.end())
                        missing++;
                    else
                        std::memcpy(piece.to + at, found->second.data(), page);
                }
            EXPECT_EQ(missing, 0U);
            EXPECT_GT(compare(churn.pid, whole), generation > 0 ? 1000U : 0U);
            kill(churn.pid, SIGCONT);
        }
    }
}

// Copied when it runs again: what it is about to write is copied first, what it has given back is
// missed, and nothing else is taken for it.
TEST_F(PagesTracking, DeferredCopyHasMemoryOfFreeze) {
    int whole = 0, missed = 0;
    uint64_t faulted = 0;
    const auto try_with = [&](const std::vector<std::string>& words) {
        SCOPED_TRACE(words[0] + " " + words[1]);
        Churn churn(words);
        if (words[0] == "churn")
            churn.wait_grown();
        else
            churn.wait_ready();
        MemoryCopy copy(arena_, workers_);
        const ProcessName name{7, churn.pid};
        for (int turn = 0; turn < 5; turn++) {
            copy.begin(turn % 2 == 1);
            ASSERT_TRUE(copy.track({&name, 1}).ok());
            ASSERT_TRUE(copy.round().ok());
            auto deferred = copy.defer();
            ASSERT_TRUE(deferred.ok()) << deferred.error().message();
            usleep(static_cast<useconds_t>(turn * 2000));
            churn.stop();
            auto last = copy.finish({&name, 1}, workers_);
            ASSERT_TRUE(last.ok()) << last.error().message();
            const auto truth = truth_of(churn.pid);
            kill(churn.pid, SIGCONT);
            if (turn == 4) usleep(5000);  // all windows are asked for
            auto done = copy.complete();
            if (done.ok()) {
                whole++;
                faulted += copy.deferred().faulted;
                EXPECT_GT(compare(truth, copy.processes().at(7)), 1000U);
            } else {
                missed++;
                EXPECT_EQ(done.error().code, Code::busy) << done.error().message();
            }
            copy.end_deferring();
        }
        EXPECT_NE(read_status(fmt::format("/proc/{}", churn.pid))->state, 'Z');
    };
    for (int seed = 1; seed <= seeds(); seed++) {
        try_with({"churn", std::to_string(seed)});
        try_with({"calm", std::to_string(seed)});
        try_with({"write", std::to_string(8 + 8 * seed), "3000"});
        try_with({"write", std::to_string(8 + 8 * seed), "3000", "huge"});
    }
    std::printf("%d whole, %d missed, %.1f MB faulted\n", whole, missed,
                static_cast<double>(faulted) / 1e6);
    EXPECT_GE(whole, 10 * seeds());  // those that only write
    EXPECT_GT(missed, 0);
    EXPECT_GT(faulted, 0U);
}

// Of many processes each takes its time: whoever waits hears of each, and may call it off.
TEST_F(PagesTracking, WatchHearsOfEachProcessAndPiece) {
    std::vector<std::unique_ptr<Churn>> all;
    std::vector<ProcessName> names;
    for (int i = 0; i < 4; i++) {
        all.push_back(std::make_unique<Churn>(std::vector<std::string>{"calm", std::to_string(i)}));
        all.back()->wait_ready();
        names.push_back({7 + i, all.back()->pid});
    }
    MemoryCopy copy(arena_, workers_);
    std::atomic<int> steps = 0;
    copy.watch([&](uint64_t bytes) { return steps += bytes == 0 ? 1 : 0, true; });
    copy.begin(false);
    ASSERT_TRUE(copy.track(names).ok());
    EXPECT_EQ(steps, 4);
    ASSERT_TRUE(copy.round().ok());
    EXPECT_GE(steps, 8);
    MemoryCopy off(arena_, workers_);
    off.watch([](uint64_t) { return false; });
    off.begin(false);
    EXPECT_EQ(off.track(names).error().code, Code::refused);
}

// Page tables that have gone as a whole leave no trace in a scan for what was written.
TEST_F(PagesTracking, MemoryFreedByWholeTablesIsDropped) {
    Churn churn({"tables"});
    churn.wait_ready();
    MemoryCopy copy(arena_, workers_);
    const ProcessName name{7, churn.pid};
    copy.begin(false);
    ASSERT_TRUE(copy.track({&name, 1}).ok());
    ASSERT_TRUE(copy.round().ok());
    const uint64_t at = std::stoull(churn.finish(), nullptr, 16);
    churn.stop();
    ASSERT_TRUE(copy.finish({&name, 1}, workers_).ok());
    constexpr uint64_t table = 2 << 20;
    PageRuns gone;
    for (uint64_t i = 0; i < 17; i += 3) gone.push_back({at + i * table, table});
    const auto& known = copy.processes().at(7).known;
    EXPECT_TRUE(intersect(known, gone).empty());
    EXPECT_EQ(bytes_of(cut(known, at, at + 17 * table)), 11 * table);
    compare(churn.pid, copy.processes().at(7));
}

// Memory that has come since it was armed is read while it is frozen, with its guard pages.
TEST_F(PagesTracking, GuardPagesOfNewMemoryAreInDeferredCopy) {
    Churn churn({"late"});
    churn.wait_ready();
    MemoryCopy copy(arena_, workers_);
    const ProcessName name{7, churn.pid};
    copy.begin(false);
    ASSERT_TRUE(copy.track({&name, 1}).ok());
    ASSERT_TRUE(copy.round().ok());
    ASSERT_TRUE(copy.defer().ok());
    const uint64_t at = std::stoull(churn.finish(), nullptr, 16);
    churn.stop();
    PageRuns truth;
    ASSERT_TRUE(PageScan::open(churn.pid)->guards({at, this_page_size()}, truth).ok());
    if (truth.empty()) GTEST_SKIP() << "this kernel does not tell guard pages";
    ASSERT_TRUE(copy.finish({&name, 1}, workers_).ok());
    EXPECT_FALSE(intersect(copy.processes().at(7).guards, truth).empty());
    const auto memory = truth_of(churn.pid);
    kill(churn.pid, SIGCONT);
    ASSERT_TRUE(copy.complete().ok());
    compare(memory, copy.processes().at(7));
}

// Its maker dies in the middle: the kernel lets everybody through.
// What an AddressSanitizer, a garbage collector or a data base reserves and hardly touches.
TEST_F(PagesTracking, ReservedMemoryIsPassedOver) {
    constexpr uint64_t tebi = uint64_t{1} << 40, piece = 8 << 20;
    constexpr size_t count = 16;
    const uint64_t page = this_page_size();
    void* at = mmap(nullptr, count * tebi, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    ASSERT_NE(at, MAP_FAILED);
    madvise(at, count * tebi, MADV_NOHUGEPAGE);
    auto* memory = static_cast<char*>(at);
    const PageRun area{reinterpret_cast<uint64_t>(at), count * tebi};
    for (size_t i = 0; i < count - 1; i++) memory[i * tebi] = 1;
    memory[count * tebi - 1] = 1;  // the very last page
    auto scan = PageScan::open(getpid());
    ASSERT_TRUE(scan.ok());

    const auto pieces = scan->populated(area, piece);
    ASSERT_EQ(pieces.size(), count);
    for (size_t i = 0; i < count - 1; i++)  // pieces begin at multiples, the area need not
        EXPECT_EQ(pieces[i].start, std::max(area.start, (area.start + i * tebi) / piece * piece));
    EXPECT_EQ(pieces.back().end(), area.end());
    EXPECT_EQ(scan->populated({area.start, 2 * piece}, piece),
              pieces_of({area.start, 2 * piece}, piece))
        << "a small area is cut and not asked about";

    // Pages that are known, and whose pieces have become empty, have gone.
    PageRuns known, gone;
    for (size_t i = 0; i < count - 1; i++) known.push_back({area.start + i * tebi, page});
    ASSERT_EQ(madvise(memory + 3 * tebi, page, MADV_DONTNEED), 0);
    EXPECT_EQ(Tracker::slices(*scan, {area}, known, gone).size(), count - 1);
    EXPECT_EQ(gone, (PageRuns{{area.start + 3 * tebi, page}}));
    munmap(at, count * tebi);
}

PageRuns runs_of(const std::vector<PageScan::Found>& found) {
    PageRuns out;
    for (const auto& run : found) append(out, run.start, run.end);
    return out;
}

// Kernels before 6.7 are asked page by page, and tell the same but for zeros, huge and guards.
TEST_F(PagesTracking, OlderKernelsTellWhichPagesAreThere) {
    const uint64_t page = this_page_size();
    constexpr size_t pages = 20000;  // more than one read of entries
    void* at =
        mmap(nullptr, pages * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    ASSERT_NE(at, MAP_FAILED);
    madvise(at, pages * page, MADV_NOHUGEPAGE);
    auto* memory = static_cast<volatile char*>(at);
    for (const size_t i : {0UL, 1UL, 7UL, 8191UL, 8192UL, 16384UL, pages - 1}) memory[i * page] = 1;
    const Fd file(open("/proc/self/exe", O_RDONLY | O_CLOEXEC));
    void* of_file = mmap(nullptr, 4 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE, file.get(), 0);
    ASSERT_NE(of_file, MAP_FAILED);
    static_cast<volatile char*>(of_file)[2 * page] = 1;
    auto scan = PageScan::open(getpid());
    auto entries =
        PageScan::open(getpid(), PageScan::Protection::asynchronous, PageScan::Way::entries);
    ASSERT_TRUE(scan.ok() && entries.ok());

    const PageRun area{reinterpret_cast<uint64_t>(at), pages * page};
    const PageRun mapped{reinterpret_cast<uint64_t>(of_file), 4 * page};
    std::vector<PageScan::Found> by_scan, by_entries;
    ASSERT_TRUE(scan->present(area, by_scan).ok());
    ASSERT_TRUE(entries->present(area, by_entries).ok());
    EXPECT_EQ(runs_of(by_entries), runs_of(by_scan));
    EXPECT_EQ(bytes_of(runs_of(by_entries)), 7 * page);
    by_scan.clear(), by_entries.clear();
    ASSERT_TRUE(scan->copied(mapped, by_scan).ok());
    ASSERT_TRUE(entries->copied(mapped, by_entries).ok());
    EXPECT_EQ(runs_of(by_entries), runs_of(by_scan));
    EXPECT_EQ(runs_of(by_entries), (PageRuns{{mapped.start + 2 * page, page}}));

    by_entries.clear();
    PageRuns written;
    auto tracked = entries->maybe_written(area, written);
    ASSERT_TRUE(tracked.ok());
    EXPECT_FALSE(*tracked) << "nobody tracks by entries";
    EXPECT_EQ(entries->written_and_protect(area, by_entries).error().code, Code::unsupported);
    EXPECT_TRUE(entries->is_present(area.start + 7 * page));
    EXPECT_FALSE(entries->is_present(area.start + 8 * page));

    constexpr uint64_t large = uint64_t{4} << 30, piece = 8 << 20;
    void* sparse = mmap(nullptr, large, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    ASSERT_NE(sparse, MAP_FAILED);
    static_cast<volatile char*>(sparse)[large - 1] = 1;
    const PageRun hole{reinterpret_cast<uint64_t>(sparse), large};
    EXPECT_EQ(entries->populated(hole, piece), scan->populated(hole, piece));
    EXPECT_EQ(entries->populated(hole, piece).size(), 1U);
    munmap(sparse, large), munmap(of_file, 4 * page), munmap(at, pages * page);
}

TEST_F(PagesTracking, DeadCopierReleasesWriters) {
    for (const bool stopped : {true, false}) {  // before it dies
        Churn churn({"write", "32", "3000"});
        churn.wait_ready();
        const pid_t copier = fork();
        if (copier == 0) {
            Arena arena;
            Workers workers;
            MemoryCopy copy(arena, workers);
            const ProcessName name{7, churn.pid};
            copy.begin(false);
            ASSERT_TRUE(copy.track({&name, 1}).ok());
            if (!copy.round().ok() || !copy.defer().ok()) _exit(1);
            churn.stop();
            if (!copy.finish({&name, 1}, workers).ok()) _exit(2);
            kill(getpid(), stopped ? SIGSTOP : SIGKILL);
        }
        int status = 0;
        ASSERT_EQ(waitpid(copier, &status, WUNTRACED), copier);
        kill(churn.pid, SIGCONT);
        if (WIFSTOPPED(status)) {
            usleep(20000);  // it waits now
            kill(copier, SIGKILL);
            ASSERT_EQ(waitpid(copier, &status, 0), copier);
        }
        ASSERT_TRUE(WIFSIGNALED(status));
        const auto ticks = [&] {
            std::ifstream in(fmt::format("/proc/{}/stat", churn.pid));
            std::string word;
            uint64_t sum = 0;
            for (int i = 1; i <= 15 && in >> word; i++)
                if (i >= 14) sum += std::stoull(word);
            return sum;
        };
        const auto before = ticks();
        for (int i = 0; i < 500 && ticks() < before + 5; i++) usleep(10000);
        EXPECT_GE(ticks(), before + 5);
    }
}

TEST_F(PagesTracking, UntrackedProcessIsCopiedWhole) {
    const Churn churn({"churn", "5"});
    churn.wait_grown();
    MemoryCopy copy(arena_, workers_);
    const ProcessName name{7, churn.pid};
    copy.begin(false);
    churn.stop();
    ASSERT_TRUE(copy.finish({&name, 1}, workers_).ok());
    EXPECT_GT(compare(churn.pid, copy.processes().at(7)), 1000U);
}

// What ends while the others are frozen is no reason to give up: it has no pages.
TEST_F(PagesTracking, EndedProcessHasNoPages) {
    for (const bool tracked : {false, true}) {
        SCOPED_TRACE(tracked);
        const Churn churn({"churn", "6"});
        churn.wait_grown();
        MemoryCopy copy(arena_, workers_);
        const ProcessName name{7, churn.pid};
        copy.begin(false);
        if (tracked) {
            ASSERT_TRUE(copy.track({&name, 1}).ok());
            ASSERT_TRUE(copy.round().ok());
            EXPECT_FALSE(copy.processes().at(7).known.empty());
        }
        kill(churn.pid, SIGKILL);
        const int64_t limit = monotonic_us() + 5000000;
        while (read_status(fmt::format("/proc/{}", churn.pid))->state != 'Z')
            ASSERT_LT(monotonic_us(), limit);
        auto done = copy.finish({&name, 1}, workers_);
        ASSERT_TRUE(done.ok()) << done.error().message();
        EXPECT_TRUE(copy.processes().at(7).known.empty());
        EXPECT_EQ(copy.bytes(), 0U);
    }
}

TEST_F(PagesTracking, InjectedCallsAreNotNoticed) {
    Churn waiting({"wait"});
    waiting.wait_ready();
    const auto folder = fmt::format("/proc/{}/fd", waiting.pid);
    const size_t files = numbers_in(folder).size();
    int injected = 0;
    for (const int64_t limit = monotonic_us() + 1500000; monotonic_us() < limit; injected++) {
        auto userfault = take_userfault(waiting.pid, 500000, Faults::programs);
        ASSERT_TRUE(userfault.ok()) << userfault.error().message();
        EXPECT_EQ(numbers_in(folder).size(), files);
        usleep(1000);
    }
    EXPECT_GT(injected, 100);
    const auto said = waiting.finish();
    EXPECT_TRUE(said.starts_with("whole ")) << said;
    EXPECT_NE(said, "whole 0\n");
}

TEST_F(PagesTracking, InjectionIntoAStoppedProcessLeavesItStopped) {
    Churn waiting({"wait"});
    waiting.wait_ready();
    waiting.stop();
    auto userfault = take_userfault(waiting.pid, 500000, Faults::programs);
    ASSERT_TRUE(userfault.ok()) << userfault.error().message();
    const int64_t limit = monotonic_us() + 1000000;
    while (read_status(fmt::format("/proc/{}", waiting.pid))->state != 'T')
        ASSERT_LT(monotonic_us(), limit);
    EXPECT_EQ(read_status(fmt::format("/proc/{}", waiting.pid))->tracer, 0);
}

// A process of nobody's that waits; where it is, /dev/userfaultfd may be for all.
class OfNobody {
  public:
    explicit OfNobody(bool with_device) {
        int ready[2];
        if (pipe(ready) != 0) return;
        pid_ = fork();
        if (pid_ == 0) {
            const bool done = (!with_device || open_device()) && drop();
            if (write(ready[1], done ? "r" : "n", 1) != 1) _exit(1);
            for (;;) pause();
        }
        char byte = 0;
        ready_ = read(ready[0], &byte, 1) == 1 && byte == 'r';
        for (const int end : ready) close(end);
    }
    ~OfNobody() {
        kill(pid_, SIGKILL);
        waitpid(pid_, nullptr, 0);
    }
    bool ready() const { return ready_; }
    pid_t pid() const { return pid_; }

  private:
    static bool open_device() {
        constexpr const char *place = "/dev/userfaultfd", *folder = "/tmp";
        struct stat info {};
        return stat(place, &info) == 0 && unshare(CLONE_NEWNS) == 0 &&
               mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0 &&
               mount("tmpfs", folder, "tmpfs", 0, nullptr) == 0 &&
               mknod("/tmp/device", S_IFCHR, info.st_rdev) == 0 &&
               chmod("/tmp/device", 0666) == 0 &&
               mount("/tmp/device", place, nullptr, MS_BIND, nullptr) == 0;
    }
    static bool drop() {
        constexpr uid_t nobody = 65534;
        return setgroups(0, nullptr) == 0 && setresgid(nobody, nobody, nobody) == 0 &&
               setresuid(nobody, nobody, nobody) == 0;
    }
    pid_t pid_ = 0;
    bool ready_ = false;
};

// One that lets the kernel's own faults fail would fail system calls of the process.
TEST_F(PagesTracking, UsersProcessHasOneForAllFaultsByTheDeviceOnly) {
    int allowed = 0;
    std::ifstream("/proc/sys/vm/unprivileged_userfaultfd") >> allowed;
    if (allowed != 0) GTEST_SKIP() << "vm.unprivileged_userfaultfd is set";
    const OfNobody without(false);
    ASSERT_TRUE(without.ready());
    const auto refused = take_userfault(without.pid(), 500000, Faults::all);
    ASSERT_FALSE(refused.ok());
    EXPECT_EQ(refused.error().code, Code::refused);
    EXPECT_TRUE(take_userfault(without.pid(), 500000, Faults::programs).ok());
    const OfNobody with(true);
    if (!with.ready()) GTEST_SKIP() << "no device can be made here";
    const auto folder = fmt::format("/proc/{}/fd", with.pid());
    const size_t files = numbers_in(folder).size();
    const auto given = take_userfault(with.pid(), 500000, Faults::all);
    ASSERT_TRUE(given.ok()) << given.error().message();
    EXPECT_EQ(numbers_in(folder).size(), files);
}

TEST_F(PagesTracking, TracedProcessIsRefusedDeadOneNotFound) {
    EXPECT_FALSE(take_userfault(getpid(), 100000, Faults::programs).ok());
    const pid_t child = fork();
    if (child == 0) _exit(0);
    waitpid(child, nullptr, 0);
    EXPECT_FALSE(take_userfault(child, 100000, Faults::programs).ok());
}

}  // namespace
}  // namespace ghost::core
