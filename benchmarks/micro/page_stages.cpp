// SPDX-License-Identifier: BSD-3-Clause
// What each stage of the page engine takes by itself, over 512 MiB of another process.
//
// Run as root; the usual options of Google Benchmark. Bytes are those of memory looked at.
#include <benchmark/benchmark.h>

#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "benchmarks/micro/subject.hpp"
#include "ghost-core/format/writer.hpp"
#include "ghost-core/memory/arena.hpp"
#include "ghost-core/memory/memory_copy.hpp"
#include "ghost-core/memory/pages.hpp"
#include "ghost-core/memory/post_copy.hpp"

namespace ghost::bench {
namespace {

using namespace ghost::core;

constexpr size_t megabytes = 512;
constexpr uint64_t all_bytes = megabytes << 20;
constexpr uint64_t piece = 1 << 20;

Subject& subject() {
    static Subject one({megabytes, 0, false});
    return one;
}

// The large mapping of the subject.
PageRun memory_of_subject() {
    PageRun largest;
    if (auto areas = private_memory(subject().pid()))
        for (const auto& area : *areas)
            if (area.bytes > largest.bytes) largest = area;
    return largest;
}

void bytes_done(benchmark::State& state, uint64_t bytes) {
    state.SetBytesProcessed(static_cast<int64_t>(state.iterations() * bytes));
}

void read_out(benchmark::State& state) {
    const auto area = memory_of_subject();
    Arena arena;
    Workers workers(static_cast<unsigned>(state.range(0)));
    PageStore store;
    (void)store.reserve({{area.start, all_bytes}}, arena);
    const PageRun run{area.start, all_bytes};
    std::vector<PagePiece> whole, pieces;
    store.locate({&run, 1}, whole);
    for (const auto& part : whole)
        for (uint64_t at = 0; at < part.bytes; at += piece)
            pieces.push_back({part.start + at, std::min(piece, part.bytes - at), part.to + at});
    for (auto _ : state)
        (void)workers.each(pieces.size(), [&](size_t i) {
            return read_pages(subject().pid(), {&pieces[i], 1}, Vanished::is_error);
        });
    bytes_done(state, all_bytes);
}
BENCHMARK(read_out)->Arg(1)->Arg(2)->UseRealTime()->Unit(benchmark::kMillisecond);

void attach_tracker(benchmark::State& state) {
    for (auto _ : state) {
        auto tracker = Tracker::attach(subject().pid());
        if (!tracker) return state.SkipWithError(tracker.error().message().c_str());
        benchmark::DoNotOptimize(tracker);
    }
}
BENCHMARK(attach_tracker)->UseRealTime()->Unit(benchmark::kMicrosecond);

void first_round_and_release(benchmark::State& state) {
    for (auto _ : state) {
        auto tracker = Tracker::attach(subject().pid());
        PageChanges changes;
        if (!tracker || !tracker->round(changes).ok()) return state.SkipWithError("cannot track");
        tracker->release();
    }
    bytes_done(state, all_bytes);
}
BENCHMARK(first_round_and_release)->UseRealTime()->Unit(benchmark::kMillisecond);

void scan_while_stopped(benchmark::State& state) {
    auto tracker = Tracker::attach(subject().pid());
    PageChanges first;
    if (!tracker || !tracker->round(first).ok()) return state.SkipWithError("cannot track");
    make_set(first.written);
    auto scan = PageScan::open(subject().pid());
    for (auto _ : state) {
        PageChanges changes;
        auto slices = tracker->slices(*scan, first.written, changes.gone);
        for (const auto& part : *slices) (void)Tracker::look(*scan, part, changes);
        benchmark::DoNotOptimize(changes);
    }
    bytes_done(state, all_bytes);
    tracker->release();
}
BENCHMARK(scan_while_stopped)->UseRealTime()->Unit(benchmark::kMillisecond);

// Bytes that go nowhere.
class Nowhere : public ByteSink {
  public:
    Status write(const void* /*data*/, size_t /*size*/) override { return {}; }
};

void checksum(benchmark::State& state) {
    std::vector<char> content(piece - 4096, 'x');
    Nowhere nowhere;
    GhostWriter writer(nowhere);
    for (auto _ : state)
        (void)writer.pages(1, {{piece, content.size()}}, {{content.data(), content.size()}});
    bytes_done(state, content.size());
}
BENCHMARK(checksum)->UseRealTime();

void zero_test(benchmark::State& state) {
    std::vector<char> content(piece, state.range(0) == 0 ? '\0' : 'x');
    for (auto _ : state)
        for (size_t at = 0; at < piece; at += 4096)
            benchmark::DoNotOptimize(is_zero_page(content.data() + at, 4096));
    bytes_done(state, piece);
}
BENCHMARK(zero_test)->Arg(0)->Arg(1)->UseRealTime();

void fill_in(benchmark::State& state) {
    constexpr uint64_t bytes = 256 << 20;
    Workers workers(static_cast<unsigned>(state.range(0)));
    std::vector<char> content(piece, 'x');
    for (auto _ : state) {
        state.PauseTiming();
        auto* place = static_cast<char*>(
            mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
        Fd userfault(static_cast<int>(syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK)));
        uffdio_api api{};
        api.api = UFFD_API;
        uffdio_register area{};
        area.range = {reinterpret_cast<uint64_t>(place), bytes};
        area.mode = UFFDIO_REGISTER_MODE_MISSING;
        if (ioctl(userfault.get(), UFFDIO_API, &api) != 0 ||
            ioctl(userfault.get(), UFFDIO_REGISTER, &area) != 0)
            return state.SkipWithError("no userfaultfd");
        FaultFiller filler;
        filler.add(1, std::move(userfault));
        state.ResumeTiming();
        (void)workers.each(bytes / piece, [&](size_t i) -> Status {
            const PageRun run{reinterpret_cast<uint64_t>(place) + i * piece, piece};
            auto done = filler.put(1, {&run, 1}, content.data(), 0);
            if (!done) return done.error();
            return {};
        });
        state.PauseTiming();
        filler.release();
        munmap(place, bytes);
        state.ResumeTiming();
    }
    bytes_done(state, bytes);
}
BENCHMARK(fill_in)->Arg(1)->Arg(2)->UseRealTime()->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace ghost::bench

int main(int argc, char** argv) {
    ghost::bench::be_subject_if_asked(argc, argv);
    benchmark::Initialize(&argc, argv);
    if (!ghost::bench::subject().ready()) return 1;
    benchmark::RunSpecifiedBenchmarks();
    return 0;
}
