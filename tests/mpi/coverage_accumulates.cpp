// SPDX-License-Identifier: BSD-3-Clause
// Accumulates of types that are not words one behind the other: pairs with gaps, vectors,
// structures, other layouts at the origin than at the target. The expected result is made here,
// value by value.
#include <algorithm>
#include <array>
#include <limits>

#include "tests/mpi/coverage.hpp"

namespace mpitest {
namespace {

// A window of `count` elements of T, all of them `first`.
template <typename T>
class Elements {
  public:
    Elements(size_t count, const T& first) : memory_(count, first) {
        MPI_Win_create(memory_.data(), static_cast<MPI_Aint>(count * sizeof(T)), sizeof(T),
                       MPI_INFO_NULL, MPI_COMM_WORLD, &win_);
    }
    ~Elements() { MPI_Win_free(&win_); }
    Elements(const Elements&) = delete;
    Elements& operator=(const Elements&) = delete;
    MPI_Win win() const { return win_; }
    std::vector<T>& memory() { return memory_; }

  private:
    std::vector<T> memory_;
    MPI_Win win_ = MPI_WIN_NULL;
};

template <typename T>
struct Pair {
    T value;
    int place;
    bool operator==(const Pair&) const = default;
};

// Everybody gives what is larger the higher its rank is; and gets it back whole.
template <typename T>
void pairs_of(Turn& turn, MPI_Datatype type, int64_t which) {
    constexpr int count = 37;
    const int n = turn.world.size, me = turn.world.rank, right = (me + 1) % n;
    Elements<Pair<T>> w(count, Pair<T>{-1, -1});
    std::vector<Pair<T>> out(count), got(count, Pair<T>{7, 7}), one(1, Pair<T>{7, 7});
    for (int i = 0; i < count; ++i) out[i] = {static_cast<T>(me + i), me * 100 + i};
    MPI_Win_fence(0, w.win());
    for (int to = 0; to < n; ++to)
        MPI_Accumulate(out.data(), count, type, to, 0, count, type, MPI_MAXLOC, w.win());
    MPI_Win_fence(0, w.win());
    MPI_Get_accumulate(nullptr, 0, MPI_DATATYPE_NULL, got.data(), count, type, right, 0, count,
                       type, MPI_NO_OP, w.win());
    MPI_Fetch_and_op(nullptr, one.data(), type, right, 5, MPI_NO_OP, w.win());
    MPI_Win_fence(0, w.win());
    size_t bad = 0;
    for (int i = 0; i < count; ++i) {
        const Pair<T> expected{static_cast<T>(n - 1 + i), (n - 1) * 100 + i};
        bad += w.memory()[i] == expected && got[i] == expected ? 0 : 1;
    }
    turn.expect_none(bad, "maxloc of pairs", which);
    turn.expect(one[0] == got[5], "fetch of one pair", which);
    // replaced, what was there before comes back
    MPI_Win_fence(0, w.win());
    std::vector<Pair<T>> before(count, Pair<T>{7, 7});
    MPI_Get_accumulate(out.data(), count, type, before.data(), count, type, right, 0, count, type,
                       MPI_REPLACE, w.win());
    MPI_Win_fence(0, w.win());
    turn.expect(before == got, "replaced pairs' result", which);
    for (int i = bad = 0; i < count; ++i) {
        const int left = (me + n - 1) % n;
        bad += w.memory()[i] == Pair<T>{static_cast<T>(left + i), left * 100 + i} ? 0 : 1;
    }
    turn.expect_none(bad, "replaced pairs", which);
}

void pairs(Turn& turn) {
    pairs_of<short>(turn, MPI_SHORT_INT, 0);
    pairs_of<int>(turn, MPI_2INT, 1);
    pairs_of<long>(turn, MPI_LONG_INT, 2);
    pairs_of<float>(turn, MPI_FLOAT_INT, 3);
    pairs_of<double>(turn, MPI_DOUBLE_INT, 4);
    pairs_of<long double>(turn, MPI_LONG_DOUBLE_INT, 5);
}

// A committed datatype.
class Type {
  public:
    explicit Type(MPI_Datatype made) : type_(made) { MPI_Type_commit(&type_); }
    ~Type() { MPI_Type_free(&type_); }
    Type(const Type&) = delete;
    Type& operator=(const Type&) = delete;
    operator MPI_Datatype() const { return type_; }

  private:
    MPI_Datatype type_;
};

MPI_Datatype vector_of(int count, int length, int stride, MPI_Datatype of) {
    MPI_Datatype made;
    MPI_Type_vector(count, length, stride, of, &made);
    return made;
}

MPI_Datatype indexed_of(const std::vector<int>& lengths, const std::vector<int>& places,
                        MPI_Datatype of) {
    MPI_Datatype made;
    MPI_Type_indexed(static_cast<int>(lengths.size()), lengths.data(), places.data(), of, &made);
    return made;
}

// Three of every five doubles there, two of every three here; what was there into a third layout.
void strided(Turn& turn) {
    const int n = turn.world.size, me = turn.world.rank;
    const int blocks = turn.number % 2 == 0 ? 50 : 6000;  // one message, several
    const auto words = static_cast<size_t>(blocks) * 6;
    const Type there(vector_of(2 * blocks, 3, 5, MPI_DOUBLE));
    const Type here(vector_of(3 * blocks, 2, 3, MPI_DOUBLE));
    const Type back(vector_of(6 * blocks, 1, 2, MPI_DOUBLE));
    Elements<double> w(static_cast<size_t>(blocks) * 10, 0.5);
    std::vector<double> out(static_cast<size_t>(blocks) * 9, -1), got(words * 2, -3);
    for (size_t i = 0; i < words; ++i)
        out[i / 2 * 3 + i % 2] = static_cast<double>(i + 1) * (me + 1);
    MPI_Win_lock_all(0, w.win());
    for (int to = 0; to < n; ++to)
        MPI_Accumulate(out.data(), 1, here, to, 0, 1, there, MPI_SUM, w.win());
    MPI_Win_flush_all(w.win());
    MPI_Barrier(MPI_COMM_WORLD);
    MPI_Get_accumulate(out.data(), 1, here, got.data(), 1, back, (me + 1) % n, 0, 1, there, MPI_SUM,
                       w.win());
    MPI_Win_flush((me + 1) % n, w.win());
    MPI_Barrier(MPI_COMM_WORLD);
    MPI_Win_unlock_all(w.win());
    const int left = (me + n - 1) % n;
    size_t bad = 0, changed = 0;
    for (size_t i = 0; i < words; ++i) {
        const double sum = 0.5 + static_cast<double>(i + 1) * (n * (n + 1) / 2);
        bad += got[2 * i] != sum || got[2 * i + 1] != -3 ? 1 : 0;
        bad += w.memory()[i / 3 * 5 + i % 3] != sum + static_cast<double>(i + 1) * (left + 1);
    }
    for (size_t i = 0; i < words / 3; ++i)
        changed += w.memory()[i * 5 + 3] != 0.5 || w.memory()[i * 5 + 4] != 0.5 ? 1 : 0;
    turn.expect_none(bad, "strided accumulates", blocks);
    turn.expect_none(changed, "what lies between strided accumulates", blocks);
}

// Pairs with gaps inside a layout with gaps, backwards.
void scattered_pairs(Turn& turn) {
    const int n = turn.world.size, me = turn.world.rank;
    const std::vector<int> lengths{2, 1, 3}, places{8, 5, 0};
    const std::vector<size_t> order{8, 9, 5, 0, 1, 2};
    const Type there(indexed_of(lengths, places, MPI_DOUBLE_INT));
    const Pair<double> untouched{1e6, -5};
    Elements<Pair<double>> w(11, untouched);
    std::array<Pair<double>, 6> out, got;
    for (int i = 0; i < 6; ++i) out[i] = {i - 10.0 * me, me * 10 + i};
    MPI_Win_fence(0, w.win());
    for (int to = 0; to < n; ++to)
        MPI_Accumulate(out.data(), 6, MPI_DOUBLE_INT, to, 0, 1, there, MPI_MINLOC, w.win());
    MPI_Win_fence(0, w.win());
    MPI_Get_accumulate(nullptr, 0, MPI_DATATYPE_NULL, got.data(), 6, MPI_DOUBLE_INT, (me + 1) % n,
                       0, 1, there, MPI_NO_OP, w.win());
    MPI_Win_fence(0, w.win());
    size_t bad = 0, changed = 0;
    for (size_t i = 0; i < 6; ++i) {
        const Pair<double> least{static_cast<double>(i) - 10.0 * (n - 1),
                                 (n - 1) * 10 + static_cast<int>(i)};
        bad += w.memory()[order[i]] == least && got[i] == least ? 0 : 1;
    }
    for (size_t i : {3, 4, 6, 7, 10}) changed += w.memory()[i] == untouched ? 0 : 1;
    turn.expect_none(bad, "minloc of scattered pairs", n);
    turn.expect_none(changed, "what lies between scattered pairs", n);
}

struct Record {
    char name;
    double value;
    short number;
    bool operator==(const Record&) const = default;
};

MPI_Datatype record_type() {
    const int lengths[] = {1, 1, 1};
    const MPI_Aint places[] = {offsetof(Record, name), offsetof(Record, value),
                               offsetof(Record, number)};
    const MPI_Datatype types[] = {MPI_CHAR, MPI_DOUBLE, MPI_SHORT};
    MPI_Datatype made, sized;
    MPI_Type_create_struct(3, lengths, places, types, &made);
    MPI_Type_create_resized(made, 0, sizeof(Record), &sized);
    MPI_Type_free(&made);
    return sized;
}

// Of several types at once: they can only be replaced and fetched.
void records(Turn& turn) {
    constexpr int count = 5000;
    const int n = turn.world.size, me = turn.world.rank, right = (me + 1) % n;
    const Type type(record_type());
    const Record first{'a', 1, 2};
    const auto record = [&](int of, int i) {
        return Record{static_cast<char>('b' + of), i + of * 0.25, static_cast<short>(i)};
    };
    Elements<Record> w(count, first);
    std::vector<Record> out(count), got(count, Record{'x', 0, 0});
    for (int i = 0; i < count; ++i) out[i] = record(me, i);
    MPI_Win_lock(MPI_LOCK_EXCLUSIVE, right, 0, w.win());
    MPI_Request request;
    MPI_Rget_accumulate(out.data(), count, type, got.data(), count, type, right, 0, count, type,
                        MPI_REPLACE, w.win(), &request);
    MPI_Wait(&request, MPI_STATUS_IGNORE);
    turn.expect_none(static_cast<size_t>(count) - std::count(got.begin(), got.end(), first),
                     "records that were replaced", count);
    MPI_Win_unlock(right, w.win());
    MPI_Barrier(MPI_COMM_WORLD);
    size_t bad = 0;
    for (int i = 0; i < count; ++i) bad += w.memory()[i] == record((me + n - 1) % n, i) ? 0 : 1;
    turn.expect_none(bad, "replaced records", count);
    MPI_Barrier(MPI_COMM_WORLD);
}

// Their origin is the caller's again when the request is done; all are there after the flush.
void with_requests(Turn& turn) {
    const int n = turn.world.size, me = turn.world.rank;
    const auto words = static_cast<size_t>(turn.max_bytes >= (1U << 20) ? 40000 : 3000);
    Elements<int64_t> w(words, 0);
    std::vector<int64_t> out(words);
    MPI_Win_lock_all(0, w.win());
    for (int to = 0; to < n; ++to) {
        for (size_t i = 0; i < words; ++i) out[i] = static_cast<int64_t>(i) * (me + 1) + to;
        MPI_Request request;
        MPI_Raccumulate(out.data(), count_of(words), MPI_INT64_T, to, 0, count_of(words),
                        MPI_INT64_T, MPI_SUM, w.win(), &request);
        MPI_Wait(&request, MPI_STATUS_IGNORE);
        std::fill(out.begin(), out.end(), -1);
    }
    MPI_Win_unlock_all(w.win());
    MPI_Barrier(MPI_COMM_WORLD);
    size_t bad = 0;
    for (size_t i = 0; i < words; ++i)
        bad += w.memory()[i] != static_cast<int64_t>(i) * n * (n + 1) / 2 + n * me ? 1 : 0;
    turn.expect_none(bad, "accumulates with requests", count_of(words));
    MPI_Barrier(MPI_COMM_WORLD);
}

template <typename T>
void swaps_of(Turn& turn, MPI_Datatype type) {
    const int n = turn.world.size, me = turn.world.rank, right = (me + 1) % n;
    Elements<T> w(3, static_cast<T>(1));
    const T five = 5, one = 1, nine = 9;
    T first = 0, second = 0;
    MPI_Win_lock(MPI_LOCK_SHARED, right, 0, w.win());
    MPI_Compare_and_swap(&five, &one, &first, type, right, 1, w.win());
    MPI_Compare_and_swap(&nine, &one, &second, type, right, 1, w.win());
    MPI_Win_unlock(right, w.win());
    MPI_Barrier(MPI_COMM_WORLD);
    turn.expect(first == 1 && second == 5, "what compare and swap found", sizeof(T));
    turn.expect(w.memory() == std::vector<T>{1, 5, 1}, "what compare and swap left", sizeof(T));
    MPI_Barrier(MPI_COMM_WORLD);
}

void swaps(Turn& turn) {
    swaps_of<int8_t>(turn, MPI_INT8_T);
    swaps_of<uint16_t>(turn, MPI_UINT16_T);
    swaps_of<int32_t>(turn, MPI_INT32_T);
    swaps_of<uint64_t>(turn, MPI_UINT64_T);
}

// Memory that is attached to a window, given back, and attached again elsewhere.
void attached(Turn& turn) {
    const int n = turn.world.size, me = turn.world.rank, right = (me + 1) % n;
    MPI_Win win;
    MPI_Win_create_dynamic(MPI_INFO_NULL, MPI_COMM_WORLD, &win);
    for (int turns = 0; turns < 2; ++turns) {
        std::vector<int32_t> memory(100, 3);
        MPI_Win_attach(win, memory.data(), static_cast<MPI_Aint>(memory.size() * 4));
        MPI_Aint here = 0, there = 0;
        MPI_Get_address(memory.data() + 10, &here);
        MPI_Sendrecv(&here, 1, MPI_AINT, (me + n - 1) % n, 9, &there, 1, MPI_AINT, right, 9,
                     MPI_COMM_WORLD, MPI_STATUS_IGNORE);
        const int32_t out[] = {1, 2, 3};
        int32_t got = 0;
        MPI_Win_lock(MPI_LOCK_EXCLUSIVE, right, 0, win);
        MPI_Accumulate(out, 3, MPI_INT32_T, right, there, 3, MPI_INT32_T, MPI_PROD, win);
        MPI_Fetch_and_op(nullptr, &got, MPI_INT32_T, right, there + 8, MPI_NO_OP, win);
        MPI_Win_unlock(right, win);
        MPI_Barrier(MPI_COMM_WORLD);
        const bool right_there =
            memory[9] == 3 && memory[10] == 3 && memory[11] == 6 && memory[12] == 9;
        turn.expect(right_there && got == 9, "accumulates in attached memory", got);
        MPI_Win_detach(win, memory.data());
        MPI_Barrier(MPI_COMM_WORLD);
    }
    MPI_Win_free(&win);
}

// Beyond the window's end: an error, nothing is changed, and the window works on.
void out_of_range(Turn& turn) {
    const int n = turn.world.size, me = turn.world.rank, right = (me + 1) % n;
    Elements<int64_t> w(10, 4);
    const int64_t out[] = {1, 1, 1};
    MPI_Win_set_errhandler(w.win(), MPI_ERRORS_RETURN);
    MPI_Win_lock(MPI_LOCK_SHARED, right, 0, w.win());
    int rc = MPI_Accumulate(out, 3, MPI_INT64_T, right, 8, 3, MPI_INT64_T, MPI_SUM, w.win());
    if (rc == MPI_SUCCESS) rc = MPI_Win_flush(right, w.win());
    int error_class = MPI_SUCCESS;
    MPI_Error_class(rc, &error_class);
    turn.expect(error_class == MPI_ERR_RMA_RANGE, "an accumulate out of range", error_class);
    rc = MPI_Accumulate(out, 3, MPI_INT64_T, right, 7, 3, MPI_INT64_T, MPI_SUM, w.win());
    turn.expect(rc == MPI_SUCCESS && MPI_Win_unlock(right, w.win()) == MPI_SUCCESS,
                "an accumulate after one out of range", rc);
    MPI_Barrier(MPI_COMM_WORLD);
    turn.expect(w.memory() == std::vector<int64_t>{4, 4, 4, 4, 4, 4, 4, 5, 5, 5},
                "memory after an accumulate out of range", w.memory()[9]);
    MPI_Barrier(MPI_COMM_WORLD);
}

// Of one origin they happen in their order, without a flush between them.
void in_order(Turn& turn) {
    const int n = turn.world.size, me = turn.world.rank, right = (me + 1) % n;
    Elements<int64_t> w(1, 0);
    std::vector<int64_t> got(300);
    MPI_Win_lock(MPI_LOCK_SHARED, right, 0, w.win());
    for (int64_t i = 0; i < 300; ++i) {
        MPI_Accumulate(&i, 1, MPI_INT64_T, right, 0, 1, MPI_INT64_T, MPI_REPLACE, w.win());
        MPI_Fetch_and_op(nullptr, &got[i], MPI_INT64_T, right, 0, MPI_NO_OP, w.win());
        const int64_t minus = -i;
        MPI_Accumulate(&minus, 1, MPI_INT64_T, right, 0, 1, MPI_INT64_T, MPI_SUM, w.win());
        MPI_Win_flush_local(right, w.win());
    }
    MPI_Win_unlock(right, w.win());
    size_t bad = 0;
    for (int64_t i = 0; i < 300; ++i) bad += got[i] != i ? 1 : 0;
    MPI_Barrier(MPI_COMM_WORLD);
    turn.expect_none(bad, "accumulates in order", n);
    turn.expect(w.memory()[0] == 0, "the last of accumulates in order", w.memory()[0]);
    MPI_Barrier(MPI_COMM_WORLD);
}

constexpr Phase phases[] = {
    {"accumulates", "pairs", pairs},
    {"accumulates", "strided", strided},
    {"accumulates", "scattered", scattered_pairs},
    {"accumulates", "records", records},
    {"accumulates", "with_requests", with_requests},
    {"accumulates", "swaps", swaps},
    {"accumulates", "attached", attached},
    {"accumulates", "out_of_range", out_of_range},
    {"accumulates", "in_order", in_order},
};

}  // namespace

std::span<const Phase> accumulates() {
    return phases;
}

}  // namespace mpitest
