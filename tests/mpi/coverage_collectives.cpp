// SPDX-License-Identifier: BSD-3-Clause
// Every collective operation, blocking and not, on any communicator.
//
// A table: for each one how its buffers are made, what must be in them afterwards, and the call.
// The same buffers serve the blocking call and the non-blocking one.
#include <algorithm>
#include <functional>
#include <memory>

#include "tests/mpi/coverage.hpp"

namespace mpitest {
namespace {

using Words = std::vector<int64_t>;

constexpr int64_t untouched = -77;

// Word i of what rank `source` contributes to operation `step` (for rank `to`, where that matters).
int64_t word(const Group& g, int source, int step, int i, int to = 0) {
    const uint64_t k = key(source * 1024 + to, step, g.salt);
    return static_cast<int64_t>(k % 1000000) + int64_t{i} * 11;
}

// What a call works on; lives until it is complete.
struct Call {
    const Group& g;
    int step;   // number in the table
    int words;  // of one rank's equal share
    int root;
    Words in, out, expected;
    std::vector<int> counts, places, back_counts, back_places;
    std::vector<MPI_Datatype> types;
    MPI_Request request = MPI_REQUEST_NULL;

    int me() const { return g.rank; }
    int size() const { return g.size; }
    int uneven(int rank) const { return words / 2 + 3 * rank; }
    bool at_root() const { return g.rank == root; }
    void add_in(int source, int count, int to = 0) {
        for (int i = 0; i < count; ++i) in.push_back(word(g, source, step, i, to));
    }
    void add_expected(int source, int count, int to = 0) {
        for (int i = 0; i < count; ++i) expected.push_back(word(g, source, step, i, to));
    }
    // Blocks of uneven length, one for each rank.
    void lay_out() {
        int at = 0;
        for (int s = 0; s < size(); ++s) {
            counts.push_back(uneven(s));
            places.push_back(at);
            at += uneven(s);
        }
    }
    // Room for what is expected; where nothing is, nothing may be written.
    void make_room() { out.assign(expected.size(), untouched); }
    void expect_untouched(size_t count) { expected.assign(count, untouched); }
    int64_t sum(int ranks, int i) const {
        int64_t total = 0;
        for (int s = 0; s < ranks; ++s) total += word(g, s, step, i);
        return total;
    }
    void expect_sums(int ranks, int from, int count) {
        for (int i = from; i < from + count; ++i) expected.push_back(sum(ranks, i));
    }
};

struct Collective {
    const char* name;
    void (*make)(Call&);
    void (*block)(Call&);
    void (*begin)(Call&);
};

// --- buffers ---

void make_barrier(Call&) {}
void make_bcast(Call& c) {
    c.add_expected(c.root, c.words);
    c.make_room();
    if (c.at_root()) c.out = c.expected;
}
void make_gather(Call& c) {
    c.add_in(c.me(), c.words);
    for (int s = 0; c.at_root() && s < c.size(); ++s) c.add_expected(s, c.words);
    c.make_room();
}
void make_gatherv(Call& c) {
    c.lay_out();
    c.add_in(c.me(), c.uneven(c.me()));
    for (int s = 0; c.at_root() && s < c.size(); ++s) c.add_expected(s, c.uneven(s));
    c.make_room();
}
void make_scatter(Call& c) {
    for (int s = 0; c.at_root() && s < c.size(); ++s) c.add_in(c.root, c.words, s);
    c.add_expected(c.root, c.words, c.me());
    c.make_room();
}
void make_scatterv(Call& c) {
    c.lay_out();
    for (int s = 0; c.at_root() && s < c.size(); ++s) c.add_in(c.root, c.uneven(s), s);
    c.add_expected(c.root, c.uneven(c.me()), c.me());
    c.make_room();
}
void make_allgather(Call& c) {
    c.add_in(c.me(), c.words);
    for (int s = 0; s < c.size(); ++s) c.add_expected(s, c.words);
    c.make_room();
}
void make_allgatherv(Call& c) {
    c.lay_out();
    c.add_in(c.me(), c.uneven(c.me()));
    for (int s = 0; s < c.size(); ++s) c.add_expected(s, c.uneven(s));
    c.make_room();
}
void make_alltoall(Call& c) {
    for (int s = 0; s < c.size(); ++s) {
        c.add_in(c.me(), c.words, s);
        c.add_expected(s, c.words, c.me());
    }
    c.make_room();
}
// To rank s as many as s has in an uneven layout; from everybody as many as I have.
void make_alltoallv(Call& c) {
    c.lay_out();
    for (int s = 0; s < c.size(); ++s) {
        c.add_in(c.me(), c.uneven(s), s);
        c.add_expected(s, c.uneven(c.me()), c.me());
        c.back_counts.push_back(c.uneven(c.me()));
        c.back_places.push_back(s * c.uneven(c.me()));
    }
    c.types.assign(static_cast<size_t>(c.size()), MPI_INT64_T);
    c.make_room();
}
void make_alltoallw(Call& c) {
    make_alltoallv(c);
    for (int& place : c.places) place *= 8;  // bytes here
    for (int& place : c.back_places) place *= 8;
}
void make_reduce(Call& c) {
    c.add_in(c.me(), c.words);
    if (c.at_root()) c.expect_sums(c.size(), 0, c.words);
    c.make_room();
}
void make_allreduce(Call& c) {
    c.add_in(c.me(), c.words);
    c.expect_sums(c.size(), 0, c.words);
    c.make_room();
}
void make_reduce_scatter(Call& c) {
    c.lay_out();
    c.add_in(c.me(), c.places.back() + c.counts.back());
    c.expect_sums(c.size(), c.places[c.me()], c.counts[c.me()]);
    c.make_room();
}
void make_reduce_scatter_block(Call& c) {
    c.add_in(c.me(), c.words * c.size());
    c.expect_sums(c.size(), c.words * c.me(), c.words);
    c.make_room();
}
void make_scan(Call& c) {
    c.add_in(c.me(), c.words);
    c.expect_sums(c.me() + 1, 0, c.words);
    c.make_room();
}
void make_exscan(Call& c) {
    c.add_in(c.me(), c.words);
    if (c.me() > 0) c.expect_sums(c.me(), 0, c.words);
    c.out.assign(static_cast<size_t>(c.words), untouched);
}

// --- calls ---

// The arguments that a call and its non-blocking form share.
#define IN c.in.data()
#define OUT c.out.data()
#define LAID c.counts.data(), c.places.data()
#define BACK c.back_counts.data(), c.back_places.data()
#define WORDS c.words, MPI_INT64_T
#define MINE c.uneven(c.me()), MPI_INT64_T
#define SUMS MPI_INT64_T, MPI_SUM, c.g.comm
#define ROOT c.root, c.g.comm
#define BOTH(name, ...)                       \
    [](Call& c) { MPI_##name(__VA_ARGS__); }, \
        [](Call& c) { MPI_I##name##_(__VA_ARGS__, &c.request); }
// MPI_Ibcast, not MPI_IBcast: the table below names operations as MPI_Bcast does.
#define MPI_IBarrier_ MPI_Ibarrier
#define MPI_IBcast_ MPI_Ibcast
#define MPI_IGather_ MPI_Igather
#define MPI_IGatherv_ MPI_Igatherv
#define MPI_IScatter_ MPI_Iscatter
#define MPI_IScatterv_ MPI_Iscatterv
#define MPI_IAllgather_ MPI_Iallgather
#define MPI_IAllgatherv_ MPI_Iallgatherv
#define MPI_IAlltoall_ MPI_Ialltoall
#define MPI_IAlltoallv_ MPI_Ialltoallv
#define MPI_IAlltoallw_ MPI_Ialltoallw
#define MPI_IReduce_ MPI_Ireduce
#define MPI_IAllreduce_ MPI_Iallreduce
#define MPI_IReduce_scatter_ MPI_Ireduce_scatter
#define MPI_IReduce_scatter_block_ MPI_Ireduce_scatter_block
#define MPI_IScan_ MPI_Iscan
#define MPI_IExscan_ MPI_Iexscan

constexpr Collective table[] = {
    {"barrier", make_barrier, BOTH(Barrier, c.g.comm)},
    {"bcast", make_bcast, BOTH(Bcast, OUT, WORDS, ROOT)},
    {"gather", make_gather, BOTH(Gather, IN, WORDS, OUT, WORDS, ROOT)},
    {"gatherv", make_gatherv, BOTH(Gatherv, IN, MINE, OUT, LAID, MPI_INT64_T, ROOT)},
    {"scatter", make_scatter, BOTH(Scatter, IN, WORDS, OUT, WORDS, ROOT)},
    {"scatterv", make_scatterv, BOTH(Scatterv, IN, LAID, MPI_INT64_T, OUT, MINE, ROOT)},
    {"allgather", make_allgather, BOTH(Allgather, IN, WORDS, OUT, WORDS, c.g.comm)},
    {"allgatherv", make_allgatherv, BOTH(Allgatherv, IN, MINE, OUT, LAID, MPI_INT64_T, c.g.comm)},
    {"alltoall", make_alltoall, BOTH(Alltoall, IN, WORDS, OUT, WORDS, c.g.comm)},
    {"alltoallv", make_alltoallv,
     BOTH(Alltoallv, IN, LAID, MPI_INT64_T, OUT, BACK, MPI_INT64_T, c.g.comm)},
    {"alltoallw", make_alltoallw,
     BOTH(Alltoallw, IN, LAID, c.types.data(), OUT, BACK, c.types.data(), c.g.comm)},
    {"reduce", make_reduce, BOTH(Reduce, IN, OUT, c.words, MPI_INT64_T, MPI_SUM, ROOT)},
    {"allreduce", make_allreduce, BOTH(Allreduce, IN, OUT, c.words, SUMS)},
    {"reduce_scatter", make_reduce_scatter, BOTH(Reduce_scatter, IN, OUT, c.counts.data(), SUMS)},
    {"reduce_scatter_block", make_reduce_scatter_block,
     BOTH(Reduce_scatter_block, IN, OUT, c.words, SUMS)},
    {"scan", make_scan, BOTH(Scan, IN, OUT, c.words, SUMS)},
    {"exscan", make_exscan, BOTH(Exscan, IN, OUT, c.words, SUMS)},
};

void check(Turn& turn, const Call& call) {
    size_t bad = 0;
    for (size_t i = 0; i < call.expected.size(); ++i) {
        bad += call.out[i] != call.expected[i] ? 1 : 0;
    }
    turn.expect_none(bad, table[call.step].name, call.words);
}

std::unique_ptr<Call> prepared(const Group& group, int step, int words) {
    const int root = static_cast<int>(mix(group.salt + static_cast<uint64_t>(step)) %
                                      static_cast<uint64_t>(group.size));
    std::unique_ptr<Call> call(new Call{group, step, words, root, {}, {}, {}, {}, {}, {}, {}, {}});
    table[step].make(*call);
    return call;
}

// --- operators ---

// Composition of affine functions modulo 2^64: associative, not commutative.
void compose(void* in, void* inout, int* pairs, MPI_Datatype*) {
    const auto* first = static_cast<const uint64_t*>(in);
    auto* then = static_cast<uint64_t*>(inout);
    for (int i = 0; i < *pairs; ++i, first += 2, then += 2) {
        then[1] += then[0] * first[1];
        then[0] *= first[0];
    }
}

std::vector<uint64_t> functions(const Group& g, int source, int count) {
    std::vector<uint64_t> out;
    for (int i = 0; i < 2 * count; ++i) out.push_back(key(source, 900 + i, g.salt) | 1);
    return out;
}

void own_operator(Turn& turn, const Group& g) {
    constexpr int count = 900;
    MPI_Op op;
    MPI_Datatype pair;
    MPI_Op_create(compose, 0, &op);
    MPI_Type_contiguous(2, MPI_UINT64_T, &pair);
    MPI_Type_commit(&pair);
    std::vector<uint64_t> expected = functions(g, 0, count), part;
    for (int s = 1; s < g.size; ++s) {
        if (s == g.rank + 1) part = expected;
        std::vector<uint64_t> next = functions(g, s, count);
        int pairs = count;
        compose(expected.data(), next.data(), &pairs, nullptr);
        expected = std::move(next);
    }
    if (g.rank == g.size - 1) part = expected;
    const std::vector<uint64_t> mine = functions(g, g.rank, count);
    std::vector<uint64_t> all(mine.size());
    MPI_Allreduce(mine.data(), all.data(), count, pair, op, g.comm);
    turn.expect(all == expected, "allreduce, own operator", count);
    MPI_Scan(mine.data(), all.data(), count, pair, op, g.comm);
    turn.expect(all == part, "scan, own operator", count);
    MPI_Type_free(&pair);
    MPI_Op_free(&op);
}

void built_in_operators(Turn& turn, const Group& g) {
    struct Place {
        double value;
        int rank;
    };
    const int highest = static_cast<int>(turn.number % static_cast<uint64_t>(g.size));
    Place mine{g.rank == highest ? 7.5 : 1.0 / (g.rank + 2), g.rank}, best{};
    MPI_Allreduce(&mine, &best, 1, MPI_DOUBLE_INT, MPI_MAXLOC, g.comm);
    turn.expect(best.value == 7.5 && best.rank == highest, "maxloc", best.rank);
    uint64_t bits = uint64_t{1} << (g.rank % 64);
    MPI_Allreduce(MPI_IN_PLACE, &bits, 1, MPI_UINT64_T, MPI_BOR, g.comm);
    turn.expect(bits == (g.size >= 64 ? ~uint64_t{0} : (uint64_t{1} << g.size) - 1), "bor", 0);
    int all = g.rank == highest ? 0 : 1;
    MPI_Allreduce(MPI_IN_PLACE, &all, 1, MPI_INT, MPI_LAND, g.comm);
    turn.expect(all == 0, "land", all);
    int64_t least = 100 - g.rank;
    MPI_Allreduce(MPI_IN_PLACE, &least, 1, MPI_INT64_T, MPI_MIN, g.comm);
    turn.expect(least == 101 - g.size, "min", least);
}

// --- phases ---

int words_of(const Turn& turn) {
    constexpr int some[] = {1, 40, 900, 20000};
    return turn.max_bytes >= (1U << 20) ? 20000 : some[turn.number % 3];
}

void blocking(Turn& turn) {
    one_by_one(turn, Group(MPI_COMM_WORLD, turn.salt(2)), words_of(turn));
}
void nonblocking(Turn& turn) {
    all_at_once(turn, Group(MPI_COMM_WORLD, turn.salt(3)), words_of(turn));
}
void operators(Turn& turn) {
    const Group all(MPI_COMM_WORLD, turn.salt(4));
    own_operator(turn, all);
    built_in_operators(turn, all);
}
// Barriers only, many.
void barriers(Turn& turn) {
    for (int i = 0; i < 200; ++i) MPI_Barrier(MPI_COMM_WORLD);
    turn.expect(true, "barrier", 0);
}

constexpr Phase phases[] = {{"collectives", "blocking", blocking},
                            {"collectives", "nonblocking", nonblocking},
                            {"collectives", "operators", operators},
                            {"collectives", "barriers", barriers}};

}  // namespace

void one_by_one(Turn& turn, const Group& group, int words) {
    for (int step = 0; step < static_cast<int>(std::size(table)); ++step) {
        auto call = prepared(group, step, words);
        table[step].block(*call);
        check(turn, *call);
    }
}

// All begun, in the same order everywhere, before any is waited for.
void all_at_once(Turn& turn, const Group& group, int words) {
    std::vector<std::unique_ptr<Call>> calls;
    for (int step = 0; step < static_cast<int>(std::size(table)); ++step) {
        calls.push_back(prepared(group, step, words));
        table[step].begin(*calls.back());
    }
    for (auto& call : calls) MPI_Wait(&call->request, MPI_STATUS_IGNORE);
    for (auto& call : calls) check(turn, *call);
}

std::span<const Phase> collectives() {
    return phases;
}

}  // namespace mpitest
