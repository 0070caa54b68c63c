// SPDX-License-Identifier: BSD-3-Clause
// What copies of memory are made of: sets of pages, places for contents, threads, the stopping
// rule.
#include <gtest/gtest.h>

#include <atomic>
#include <bitset>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <random>
#include <string>

#include "ghost-core/memory/arena.hpp"
#include "ghost-core/memory/huge_pages.hpp"
#include "ghost-core/memory/page_set.hpp"
#include "ghost-core/memory/page_store.hpp"
#include "ghost-core/memory/stopping_rule.hpp"
#include "ghost-core/memory/workers.hpp"

namespace ghost::core {
namespace {

constexpr uint64_t page = 4096;
constexpr size_t all = 200;
using Bits = std::bitset<all>;

PageRuns runs_of(const Bits& bits) {
    PageRuns out;
    for (size_t i = 0; i < all; i++)
        if (bits[i]) append(out, i * page, (i + 1) * page);
    return out;
}

Bits bits_of(const PageRuns& runs) {
    Bits out;
    uint64_t last = 0;
    for (const auto& run : runs) {
        EXPECT_TRUE(run.start > last || (run.start == 0 && last == 0));
        EXPECT_GT(run.bytes, 0U);
        last = run.end();
        for (uint64_t at = run.start; at < run.end(); at += page) out[at / page] = true;
    }
    return out;
}

TEST(PageSet, UniteIntersectSubtractMatchBitSets) {
    std::mt19937 random(3);
    for (int i = 0; i < 2000; i++) {
        Bits a, b;
        const unsigned rare = 1 + i % 9;
        for (size_t k = 0; k < all; k++) {
            a[k] = random() % rare == 0;
            b[k] = random() % 3 == 0;
        }
        const auto x = runs_of(a), y = runs_of(b);
        EXPECT_EQ(bits_of(unite(x, y)), a | b);
        EXPECT_EQ(bits_of(intersect(x, y)), a & b);
        EXPECT_EQ(bits_of(subtract(x, y)), a & ~b);
        EXPECT_EQ(bytes_of(x), a.count() * page);
        const size_t from = random() % all, to = from + random() % (all - from);
        Bits window;
        for (size_t k = from; k < to; k++) window[k] = true;
        EXPECT_EQ(bits_of(cut(x, from * page, to * page)), a & window);
        auto loose = x;
        loose.insert(loose.begin(), y.begin(), y.end());
        loose.push_back({5 * page, 0});
        make_set(loose);
        EXPECT_EQ(bits_of(loose), a | b);
    }
}

TEST(PageSet, PiecesEndAtMultiples) {
    const PageRuns expected{{5 * page, 3 * page}, {8 * page, 8 * page}, {16 * page, page}};
    EXPECT_EQ(pieces_of({5 * page, 12 * page}, 8 * page), expected);
    EXPECT_TRUE(pieces_of({5 * page, 0}, 8 * page).empty());
}

TEST(HugePages, OnlyWholeHugePagesAreListed) {
    constexpr uint64_t huge = 2 << 20;
    const PageRuns expected{{2 * huge, 3 * huge}, {9 * huge, huge}};
    EXPECT_EQ(
        whole_huge_pages(
            {{huge + page, 4 * huge}, {6 * huge + page, 2 * huge - 2 * page}, {9 * huge, huge}}),
        expected);
}

TEST(HugePages, ListIsDecodedOrRefused) {
    constexpr uint64_t huge = 2 << 20;
    const HugeMemory memory{{1, {{2 * huge, huge}, {7 * huge, 3 * huge}}}, {20, {{0, huge}}}};
    auto back = decode_huge_memory(encode(memory));
    ASSERT_TRUE(back.ok());
    EXPECT_EQ(*back, memory);
    for (const auto* bad :
         {"", "{}", "[1]", R"([{"pid": 1}])", R"([{"pid": "1", "memory": []}])",
          R"([{"pid": 1, "memory": [[0]]}])", R"([{"pid": 1, "memory": [[-2097152, 2097152]]}])",
          R"([{"pid": 1, "memory": [[4096, 2097152]]}])",
          R"([{"pid": 1, "memory": [[0, 2097153]]}])",
          R"([{"pid": 1, "memory": [[4194304, 2097152], [0, 2097152]]}])",
          R"([{"pid": 1, "memory": [[18446744073707454464, 4194304]]}])"}) {
        auto refused = decode_huge_memory(bad);
        ASSERT_FALSE(refused.ok()) << bad;
        EXPECT_EQ(refused.error().code, Code::corrupt);
    }
}

// Bytes of the mapping in which `at` lies that the system may take (proc(5), smaps).
uint64_t lazily_freed(const void* at) {
    const auto address = reinterpret_cast<uintptr_t>(at);
    std::ifstream in("/proc/self/smaps");
    bool inside = false;
    for (std::string line; std::getline(in, line);) {
        uintptr_t begin = 0, end = 0;
        uint64_t kib = 0;
        if (std::sscanf(line.c_str(), "%lx-%lx ", &begin, &end) == 2)
            inside = begin <= address && address < end;
        else if (inside && std::sscanf(line.c_str(), "LazyFree: %lu kB", &kib) == 1)
            return kib << 10;
    }
    return 0;
}

TEST(PageStore, PagesKeepAddresses) {
    Arena arena;
    PageStore store;
    std::mt19937 random(5);
    std::vector<char> truth(all, 0);  // what was written to the page last; 0: it is not there
    for (int i = 1; i < 100; i++) {
        Bits some;
        for (size_t k = 0; k < all; k++) some[k] = random() % 8 == 0;
        const auto runs = runs_of(some);
        if (i % 3 == 0) {
            store.drop(runs);
            for (size_t k = 0; k < all; k++)
                if (some[k]) truth[k] = 0;
        } else {
            ASSERT_TRUE(store.reserve(runs, arena).ok());
            std::vector<PagePiece> pieces;
            store.locate(runs, pieces);
            uint64_t bytes = 0;
            for (const auto& piece : pieces) {
                std::memset(piece.to, i, piece.bytes);
                bytes += piece.bytes;
            }
            EXPECT_EQ(bytes, bytes_of(runs));
            for (size_t k = 0; k < all; k++)
                if (some[k]) truth[k] = static_cast<char>(i);
        }
        std::vector<PagePiece> pieces;
        store.locate(store.pages(), pieces);
        std::vector<char> held(all, 0);
        for (const auto& piece : pieces)
            for (uint64_t at = 0; at < piece.bytes; at += page)
                held[(piece.start + at) / page] = piece.to[at + page - 1];
        EXPECT_EQ(held, truth);
    }
}

TEST(Arena, MemoryIsReused) {
    Arena arena;
    ASSERT_TRUE(arena.warm(10 << 20).ok());
    const uint64_t held = arena.held();
    std::vector<char*> first;
    for (int i = 0; i < 3; i++) {
        arena.reset();
        uint64_t got = 0;
        std::vector<char*> places;
        while (got < held) {
            auto piece = arena.take(5 << 20);
            ASSERT_TRUE(piece.ok());
            std::memset(piece->at, 1, piece->bytes);
            places.push_back(piece->at);
            got += piece->bytes;
        }
        if (i > 0) {
            EXPECT_EQ(places, first);
        }
        first = places;
        EXPECT_EQ(arena.held(), held);
    }
}

// Memory between two checkpoints is the system's where it needs it, and warm again before it is
// used.
TEST(Arena, FreedMemoryIsOfferedToKernel) {
    Arena arena;
    auto piece = arena.take(16 << 20);
    ASSERT_TRUE(piece.ok());
    std::memset(piece->at, 1, piece->bytes);
    const auto* const at = piece->at;
    EXPECT_EQ(lazily_freed(at), 0U);
    arena.offer();
    EXPECT_GE(lazily_freed(at), 15U << 20);
    EXPECT_EQ(arena.taken(), 0U);
    ASSERT_TRUE(arena.warm(8 << 20).ok());
    EXPECT_LE(lazily_freed(at), 8U << 20);
    auto again = arena.take(16 << 20);
    ASSERT_TRUE(again.ok());
    EXPECT_EQ(again->at, at);
    std::memset(again->at, 2, again->bytes);
    EXPECT_EQ(lazily_freed(at), 0U);
}

TEST(Workers, EachJobRunsOnceAndErrorStops) {
    for (const unsigned threads : {1U, 2U, 5U}) {
        Workers workers(threads);
        for (const size_t count : {size_t{0}, size_t{1}, size_t{2}, size_t{300}}) {
            std::vector<std::atomic<int>> done(count);
            EXPECT_TRUE(workers
                            .each(count,
                                  [&](size_t i) -> Status {
                                      done[i]++;
                                      return {};
                                  })
                            .ok());
            for (const auto& times : done) EXPECT_EQ(times, 1);
        }
        std::atomic<int> begun = 0;
        auto status = workers.each(100000, [&](size_t i) -> Status {
            begun++;
            if (i == 10) return make_error(Code::io, "the tenth");
            return {};
        });
        EXPECT_FALSE(status.ok());
        EXPECT_LT(begun, 100000);
        EXPECT_TRUE(workers.each(5, [](size_t) { return Status(); }).ok());
    }
}

using Verdict = StoppingRule::Verdict;

// Rounds over 1 GiB at 5 GB/s with a writer of so many bytes per µs.
Verdict simulate(double written_per_us, StoppingRule& rule) {
    double bytes = 1 << 30;
    for (;;) {
        const double us = 500 + bytes / 5000;
        const auto verdict =
            rule.after_round(static_cast<uint64_t>(bytes), static_cast<int64_t>(us));
        if (verdict != Verdict::go_on) return verdict;
        bytes = std::min(written_per_us * us, static_cast<double>(1 << 30));
    }
}

TEST(StoppingRule, StopsWhenTheRestIsSmall) {
    StoppingRule rule({1000, 30, 3});
    EXPECT_EQ(simulate(100, rule), Verdict::good);  // 100 MB/s
    EXPECT_LE(rule.estimated_downtime_us(), 1000);
    EXPECT_LE(rule.rounds(), 4);
    EXPECT_NEAR(rule.dirty_rate(), 100e6, 1e6);
}

TEST(StoppingRule, GivesUpWhenItDoesNotGetSmaller) {
    StoppingRule rule({1000, 30, 3});
    EXPECT_EQ(simulate(6000, rule), Verdict::hopeless);
    EXPECT_LE(rule.rounds(), 6);
    EXPECT_GT(rule.estimated_downtime_us(), 1000);
}

TEST(StoppingRule, IdleProcessStopsAtOnce) {
    StoppingRule rule;
    EXPECT_EQ(rule.after_round(1 << 20, 300), Verdict::go_on);
    EXPECT_EQ(rule.after_round(0, 20), Verdict::good);
    EXPECT_EQ(rule.dirty_rate(), 0);
}

// 1 % of 1 GiB, written in the 200 ms since the last copy, read in 5 ms: 0.3 MB are dirty then.
TEST(StoppingRule, FewDifferencesNeedOneRound) {
    StoppingRule rule({2000, 30, 3});
    rule.goes_on_after(200000);
    EXPECT_EQ(rule.after_round(10 << 20, 5000), Verdict::good);
    EXPECT_NEAR(rule.dirty_rate(), 52e6, 1e6);
    EXPECT_LE(rule.estimated_downtime_us(), 200);
}

TEST(StoppingRule, ManyOrFastDifferencesNeedAnotherRound) {
    StoppingRule slow({2000, 30, 3});
    slow.goes_on_after(600000000);  // may be the same pages all the time
    EXPECT_EQ(slow.after_round(500 << 20, 100000), Verdict::go_on);
    EXPECT_EQ(slow.after_round(1 << 20, 500), Verdict::good);
    StoppingRule quick({2000, 30, 3});
    quick.goes_on_after(10000);
    EXPECT_EQ(quick.after_round(20 << 20, 8000), Verdict::go_on);
}

TEST(StoppingRule, RoundsAreLimited) {
    StoppingRule rule({0, 10, 100});
    Verdict verdict = Verdict::go_on;
    for (uint64_t bytes = uint64_t{1} << 40; verdict == Verdict::go_on; bytes = bytes / 2 + page)
        verdict = rule.after_round(bytes, 1000);
    EXPECT_EQ(verdict, Verdict::hopeless);
    EXPECT_EQ(rule.rounds(), 10);
}

}  // namespace
}  // namespace ghost::core
