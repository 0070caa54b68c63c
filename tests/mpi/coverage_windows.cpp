// SPDX-License-Identifier: BSD-3-Clause
// One-sided communication: windows over given and over allocated memory, in every way of
// synchronising, with every operation. Two windows stay open from the first round to the last.
#include <algorithm>
#include <memory>
#include <numeric>

#include "tests/mpi/coverage.hpp"

namespace mpitest {
namespace {

using Bytes = std::vector<unsigned char>;

// A window of `slot` bytes for each rank, over memory of ours or of MPI's.
class Window {
  public:
    Window(const World& world, size_t slot, bool allocate) : slot_(slot) {
        const auto size = static_cast<MPI_Aint>(slot * static_cast<size_t>(world.size));
        if (allocate) {
            MPI_Win_allocate(size, 1, MPI_INFO_NULL, MPI_COMM_WORLD, &base_, &win_);
        } else {
            own_.resize(static_cast<size_t>(size));
            base_ = own_.data();
            MPI_Win_create(base_, size, 1, MPI_INFO_NULL, MPI_COMM_WORLD, &win_);
        }
        std::memset(base_, 0, static_cast<size_t>(size));
        MPI_Barrier(MPI_COMM_WORLD);
    }
    ~Window() { MPI_Win_free(&win_); }
    Window(const Window&) = delete;
    Window& operator=(const Window&) = delete;

    MPI_Win win() const { return win_; }
    size_t slot() const { return slot_; }
    unsigned char* at(int rank) const { return base_ + slot_ * static_cast<size_t>(rank); }
    MPI_Aint place(int rank) const { return static_cast<MPI_Aint>(slot_) * rank; }
    uint64_t* counters() const { return reinterpret_cast<uint64_t*>(base_); }

  private:
    size_t slot_;
    Bytes own_;
    unsigned char* base_ = nullptr;
    MPI_Win win_ = MPI_WIN_NULL;
};

size_t slot_of(const Turn& turn) {
    constexpr size_t some[] = {64, 5000, 140000};
    return turn.max_bytes >= (1U << 20) ? 400000 : some[turn.number % 3];
}

// Into every rank's slot of mine; then theirs are read back from others' memory.
void fences_on(Turn& turn, const Window& w, int step) {
    const int n = turn.world.size, me = turn.world.rank;
    Bytes out(w.slot());
    fill(out.data(), out.size(), key(me, step, turn.salt(20)));
    MPI_Win_fence(MPI_MODE_NOPRECEDE, w.win());
    for (int to = 0; to < n; ++to) {
        MPI_Put(out.data(), count_of(w.slot()), MPI_BYTE, to, w.place(me), count_of(w.slot()),
                MPI_BYTE, w.win());
    }
    MPI_Win_fence(0, w.win());
    for (int from = 0; from < n; ++from) {
        turn.expect_none(wrong(w.at(from), w.slot(), key(from, step, turn.salt(20))), "put", from);
    }
    std::vector<std::unique_ptr<Guarded>> in;
    for (int from = 0; from < n; ++from) {
        in.push_back(std::make_unique<Guarded>(w.slot()));
        MPI_Get(in.back()->data(), count_of(w.slot()), MPI_BYTE, from, w.place((me + 1) % n),
                count_of(w.slot()), MPI_BYTE, w.win());
    }
    MPI_Win_fence(MPI_MODE_NOSUCCEED, w.win());
    for (int from = 0; from < n; ++from) {
        turn.expect_none(in[from]->check(w.slot(), key((me + 1) % n, step, turn.salt(20))), "get",
                         from);
    }
}

void fences(Turn& turn) {
    for (bool allocate : {false, true}) {
        const Window w(turn.world, slot_of(turn), allocate);
        fences_on(turn, w, 1);
        fences_on(turn, w, 2);
    }
}

// Windows that were made before any move.
std::unique_ptr<Window> standing[2];

void standing_begin(const World& world, const Settings&) {
    standing[0] = std::make_unique<Window>(world, 30000, false);
    standing[1] = std::make_unique<Window>(world, 30000, true);
}
void standing_run(Turn& turn) {
    for (const auto& window : standing) fences_on(turn, *window, 3);
}
void standing_end() {
    for (auto& window : standing) window.reset();
}

// Sums of all, of many words, into everybody's memory at once.
void accumulates(Turn& turn) {
    const int n = turn.world.size, me = turn.world.rank;
    const size_t words = slot_of(turn) / 8;
    const Window w(turn.world, words * 8, false);
    const auto value = [&](int source, size_t i) {
        return key(source, 4, turn.salt(21)) % 1000 + i;
    };
    std::vector<uint64_t> out(words), before(words);
    for (size_t i = 0; i < words; ++i) out[i] = value(me, i);
    MPI_Win_fence(0, w.win());
    for (int to = 0; to < n; ++to) {
        MPI_Accumulate(out.data(), count_of(words), MPI_UINT64_T, to, 0, count_of(words),
                       MPI_UINT64_T, MPI_SUM, w.win());
    }
    MPI_Win_fence(0, w.win());
    size_t bad = 0;
    for (size_t i = 0; i < words; ++i) {
        uint64_t sum = 0;
        for (int s = 0; s < n; ++s) sum += value(s, i);
        bad += w.counters()[i] != sum ? 1 : 0;
        before[i] = sum;
    }
    turn.expect_none(bad, "accumulate", count_of(words));
    MPI_Win_fence(0, w.win());  // all have looked
    std::vector<uint64_t> got(words);
    MPI_Get_accumulate(out.data(), count_of(words), MPI_UINT64_T, got.data(), count_of(words),
                       MPI_UINT64_T, (me + 1) % n, 0, count_of(words), MPI_UINT64_T, MPI_REPLACE,
                       w.win());
    MPI_Win_fence(0, w.win());
    turn.expect(got == before, "get_accumulate's result", count_of(words));
    for (size_t i = bad = 0; i < words; ++i) {
        bad += w.counters()[i] != value((me + n - 1) % n, i) ? 1 : 0;
    }
    turn.expect_none(bad, "get_accumulate's effect", count_of(words));
}

// Post, start, complete, wait around the ring.
void post_start(Turn& turn) {
    const int n = turn.world.size, me = turn.world.rank;
    const int right = (me + 1) % n, left = (me + n - 1) % n;
    const Window w(turn.world, slot_of(turn), turn.number % 2 == 0);
    MPI_Group all, rights, lefts;
    MPI_Comm_group(MPI_COMM_WORLD, &all);
    MPI_Group_incl(all, 1, &right, &rights);
    MPI_Group_incl(all, 1, &left, &lefts);
    for (int i = 0; i < 3; ++i) {
        Bytes out(w.slot());
        fill(out.data(), out.size(), key(me, i, turn.salt(22)));
        MPI_Win_post(lefts, 0, w.win());
        MPI_Win_start(rights, 0, w.win());
        MPI_Put(out.data(), count_of(w.slot()), MPI_BYTE, right, w.place(me), count_of(w.slot()),
                MPI_BYTE, w.win());
        MPI_Win_complete(w.win());
        if (i % 2 == 0) {
            MPI_Win_wait(w.win());
        } else {
            for (int done = 0; done == 0;) MPI_Win_test(w.win(), &done);
        }
        turn.expect_none(wrong(w.at(left), w.slot(), key(left, i, turn.salt(22))),
                         "post, start, complete, wait", i);
    }
    for (MPI_Group* group : {&all, &rights, &lefts}) MPI_Group_free(group);
}

// Reads, adds, writes, under exclusive locks; then all look under shared ones.
void locks(Turn& turn) {
    constexpr int times = 8;
    const int n = turn.world.size;
    const Window w(turn.world, 64, turn.number % 2 == 0);
    for (int i = 0; i < times; ++i) {
        for (int to = 0; to < n; ++to) {
            uint64_t value = 0;
            MPI_Win_lock(MPI_LOCK_EXCLUSIVE, to, 0, w.win());
            MPI_Get(&value, 1, MPI_UINT64_T, to, 0, 1, MPI_UINT64_T, w.win());
            MPI_Win_flush(to, w.win());
            ++value;
            MPI_Put(&value, 1, MPI_UINT64_T, to, 0, 1, MPI_UINT64_T, w.win());
            MPI_Win_unlock(to, w.win());
        }
    }
    MPI_Barrier(MPI_COMM_WORLD);
    for (int from = 0; from < n; ++from) {
        uint64_t value = 0;
        MPI_Win_lock(MPI_LOCK_SHARED, from, 0, w.win());
        MPI_Get(&value, 1, MPI_UINT64_T, from, 0, 1, MPI_UINT64_T, w.win());
        MPI_Win_unlock(from, w.win());
        turn.expect(value == static_cast<uint64_t>(times * n), "a count under exclusive locks",
                    static_cast<int64_t>(value));
    }
    MPI_Barrier(MPI_COMM_WORLD);
}

// Tickets from one counter: every number once.
void tickets(Turn& turn, const Window& w, int owner) {
    constexpr int times = 20;
    const int n = turn.world.size;
    std::vector<int64_t> mine, all(static_cast<size_t>(times * n));
    const int64_t one = 1;
    for (int i = 0; i < times; ++i) {
        int64_t ticket = -1;
        MPI_Fetch_and_op(&one, &ticket, MPI_INT64_T, owner, 0, MPI_SUM, w.win());
        MPI_Win_flush(owner, w.win());
        turn.expect(mine.empty() || ticket > mine.back(), "tickets grow", ticket);
        mine.push_back(ticket);
    }
    MPI_Allgather(mine.data(), times, MPI_INT64_T, all.data(), times, MPI_INT64_T, MPI_COMM_WORLD);
    std::sort(all.begin(), all.end());
    size_t bad = 0;
    for (size_t i = 0; i < all.size(); ++i) bad += all[i] != static_cast<int64_t>(i) ? 1 : 0;
    turn.expect_none(bad, "tickets", owner);
}

// A spin lock made of compare-and-swap, and a count that it guards.
void swaps(Turn& turn, const Window& w, int owner) {
    constexpr int times = 3;
    const int64_t free = 0, taken = turn.world.rank + 1;
    for (int i = 0; i < times; ++i) {
        int64_t was = -1, count = 0;
        do {
            MPI_Compare_and_swap(&taken, &free, &was, MPI_INT64_T, owner, 8, w.win());
            MPI_Win_flush(owner, w.win());
        } while (was != free);
        MPI_Get(&count, 1, MPI_INT64_T, owner, 16, 1, MPI_INT64_T, w.win());
        MPI_Win_flush(owner, w.win());
        ++count;
        MPI_Put(&count, 1, MPI_INT64_T, owner, 16, 1, MPI_INT64_T, w.win());
        MPI_Win_flush(owner, w.win());
        MPI_Accumulate(&free, 1, MPI_INT64_T, owner, 8, 1, MPI_INT64_T, MPI_REPLACE, w.win());
        MPI_Win_flush(owner, w.win());
    }
    MPI_Barrier(MPI_COMM_WORLD);
    int64_t count = -1;
    MPI_Fetch_and_op(nullptr, &count, MPI_INT64_T, owner, 16, MPI_NO_OP, w.win());
    MPI_Win_flush(owner, w.win());
    turn.expect(count == times * turn.world.size, "a count under compare-and-swap", count);
}

void atomics(Turn& turn) {
    const Window w(turn.world, 64, turn.number % 2 == 0);
    const int owner = static_cast<int>(turn.number % static_cast<uint64_t>(turn.world.size));
    MPI_Win_lock_all(0, w.win());
    tickets(turn, w, owner);
    swaps(turn, w, owner);
    MPI_Win_unlock_all(w.win());
    MPI_Barrier(MPI_COMM_WORLD);
}

// With requests of their own, and with flushes of one and of all.
void requests(Turn& turn) {
    const int n = turn.world.size, me = turn.world.rank;
    const Window w(turn.world, slot_of(turn), true);
    const int bytes = count_of(w.slot());
    Bytes out(w.slot());
    fill(out.data(), out.size(), key(me, 5, turn.salt(23)));
    MPI_Win_lock_all(MPI_MODE_NOCHECK, w.win());
    std::vector<MPI_Request> pending(static_cast<size_t>(n));
    for (int to = 0; to < n; ++to) {
        MPI_Rput(out.data(), bytes, MPI_BYTE, to, w.place(me), bytes, MPI_BYTE, w.win(),
                 &pending[to]);
    }
    MPI_Waitall(n, pending.data(), MPI_STATUSES_IGNORE);
    MPI_Win_flush_all(w.win());
    MPI_Barrier(MPI_COMM_WORLD);
    MPI_Win_sync(w.win());
    std::vector<std::unique_ptr<Guarded>> in;
    for (int from = 0; from < n; ++from) {
        turn.expect_none(wrong(w.at(from), w.slot(), key(from, 5, turn.salt(23))), "rput", from);
        in.push_back(std::make_unique<Guarded>(w.slot()));
        MPI_Rget(in.back()->data(), bytes, MPI_BYTE, from, w.place(me), bytes, MPI_BYTE, w.win(),
                 &pending[from]);
    }
    MPI_Waitall(n, pending.data(), MPI_STATUSES_IGNORE);
    for (int from = 0; from < n; ++from) {
        turn.expect_none(in[from]->check(w.slot(), key(me, 5, turn.salt(23))), "rget", from);
    }
    MPI_Win_unlock_all(w.win());
    MPI_Barrier(MPI_COMM_WORLD);
}

// Every second word of the target, out of packed memory; and a window that memory is added to.
void laid_out(Turn& turn) {
    const int n = turn.world.size, me = turn.world.rank, right = (me + 1) % n;
    const int words = turn.number % 2 == 0 ? 300 : 9000;
    MPI_Datatype spread;
    MPI_Type_vector(words, 1, 2, MPI_UINT64_T, &spread);
    MPI_Type_commit(&spread);
    MPI_Win win;
    MPI_Win_create_dynamic(MPI_INFO_NULL, MPI_COMM_WORLD, &win);
    std::vector<uint64_t> memory(static_cast<size_t>(2 * words), 5), out(words);
    MPI_Win_attach(win, memory.data(), static_cast<MPI_Aint>(memory.size() * 8));
    MPI_Aint here = 0, there = 0;
    MPI_Get_address(memory.data(), &here);
    MPI_Sendrecv(&here, 1, MPI_AINT, (me + n - 1) % n, 8, &there, 1, MPI_AINT, right, 8,
                 MPI_COMM_WORLD, MPI_STATUS_IGNORE);
    fill(out.data(), out.size() * 8, key(me, 6, turn.salt(24)));
    MPI_Win_fence(0, win);
    MPI_Put(out.data(), words, MPI_UINT64_T, right, there, 1, spread, win);
    MPI_Win_fence(0, win);
    std::vector<uint64_t> expected(words);
    fill(expected.data(), expected.size() * 8, key((me + n - 1) % n, 6, turn.salt(24)));
    size_t bad = 0;
    for (int i = 0; i < words; ++i) {
        bad += memory[2 * i] != expected[i] || memory[2 * i + 1] != 5 ? 1 : 0;
    }
    turn.expect_none(bad, "put by a vector into a dynamic window", words);
    MPI_Win_detach(win, memory.data());
    MPI_Win_free(&win);
    MPI_Type_free(&spread);
}

// Locks that nobody else can want, short and long ones, several times.
void unchecked_locks(Turn& turn) {
    const int n = turn.world.size, me = turn.world.rank, right = (me + 1) % n;
    const Window w(turn.world, slot_of(turn), turn.number % 2 == 0);
    Bytes out(w.slot());
    for (int i = 0; i < 3; ++i) {
        fill(out.data(), out.size(), key(me, i, turn.salt(25)));
        MPI_Win_lock(MPI_LOCK_EXCLUSIVE, right, MPI_MODE_NOCHECK, w.win());
        for (size_t bytes : {size_t{8}, w.slot()}) {
            MPI_Put(out.data(), count_of(bytes), MPI_BYTE, right, w.place(me), count_of(bytes),
                    MPI_BYTE, w.win());
        }
        MPI_Win_unlock(right, w.win());
        MPI_Barrier(MPI_COMM_WORLD);
        turn.expect_none(
            wrong(w.at((me + n - 1) % n), w.slot(), key((me + n - 1) % n, i, turn.salt(25))),
            "put under a lock without a check", i);
        MPI_Barrier(MPI_COMM_WORLD);
    }
}

// Every rank gives `mine` by `op` to the word of rank 0, which begins as `first`.
template <typename T>
void reduces(Turn& turn, MPI_Datatype type, MPI_Op op, T first, T mine, T expected) {
    const Window w(turn.world, 64, true);
    T* word = reinterpret_cast<T*>(w.at(0));
    T got = first;
    word[1] = first;
    MPI_Win_fence(0, w.win());
    MPI_Accumulate(&mine, 1, type, 0, sizeof(T), 1, type, op, w.win());
    MPI_Win_fence(0, w.win());
    MPI_Get(&got, 1, type, 0, sizeof(T), 1, type, w.win());
    MPI_Win_fence(0, w.win());
    turn.expect(got == expected, "an accumulate of one word", static_cast<int64_t>(sizeof(T)));
}

// Types and operations that a transport's own operations on words are not made for.
void operations(Turn& turn) {
    const int n = turn.world.size, me = turn.world.rank;
    constexpr uint64_t high = uint64_t{1} << 63;
    reduces<uint64_t>(turn, MPI_UINT64_T, MPI_MAX, 1, high + static_cast<uint64_t>(me),
                      high + static_cast<uint64_t>(n) - 1);
    reduces<int64_t>(turn, MPI_INT64_T, MPI_MIN, 1, -me, 1 - n < 1 ? 1 - n : 1);
    reduces<double>(turn, MPI_DOUBLE, MPI_SUM, 0.5, me, 0.5 + n * (n - 1) / 2);
    reduces<float>(turn, MPI_FLOAT, MPI_SUM, 0.5F, 1, 0.5F + static_cast<float>(n));
    reduces<int32_t>(turn, MPI_INT32_T, MPI_SUM, -7, 1, n - 7);
    reduces<uint16_t>(turn, MPI_UINT16_T, MPI_BOR, 0, static_cast<uint16_t>(1U << me),
                      static_cast<uint16_t>((1U << n) - 1));
    reduces<uint8_t>(turn, MPI_UINT8_T, MPI_MAX, 200, static_cast<uint8_t>(me), 200);
}

// A window of one rank.
void alone(Turn& turn) {
    int64_t* memory = nullptr;
    const int64_t one = 1;
    MPI_Win win;
    MPI_Win_allocate(64, 8, MPI_INFO_NULL, MPI_COMM_SELF, &memory, &win);
    memory[0] = 5;
    int64_t was = 0;
    MPI_Win_lock(MPI_LOCK_EXCLUSIVE, 0, 0, win);
    MPI_Put(&one, 1, MPI_INT64_T, 0, 2, 1, MPI_INT64_T, win);
    MPI_Fetch_and_op(&one, &was, MPI_INT64_T, 0, 0, MPI_SUM, win);
    MPI_Win_unlock(0, win);
    turn.expect(was == 5 && memory[0] == 6 && memory[2] == 1, "a window of one rank", was);
    MPI_Win_free(&win);
}

constexpr Phase phases[] = {
    {"windows", "fence", fences},
    {"windows", "accumulate", accumulates},
    {"windows", "pscw", post_start},
    {"windows", "locks", locks},
    {"windows", "atomics", atomics},
    {"windows", "requests", requests},
    {"windows", "nocheck", unchecked_locks},
    {"windows", "operations", operations},
    {"windows", "alone", alone},
    {"windows", "dynamic", laid_out},
    {"windows", "standing", standing_run, standing_begin, standing_end},
};

}  // namespace

std::span<const Phase> windows() {
    return phases;
}

}  // namespace mpitest
