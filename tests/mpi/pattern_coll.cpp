// SPDX-License-Identifier: BSD-3-Clause
#include <algorithm>
#include <numeric>

#include "tests/mpi/pattern.hpp"

namespace mpitest {
namespace {

constexpr int words = 4099;  // uneven on purpose

// What rank `source` contributes at index i.
int64_t value(const Round& r, int source, int i, int step) {
    return static_cast<int64_t>(key(source, step, r.salt(20)) % 100000) + i * int64_t{7};
}

std::vector<int64_t> contribution(const Round& r, int source, int count, int step) {
    std::vector<int64_t> out(count);
    for (int i = 0; i < count; ++i) out[i] = value(r, source, i, step);
    return out;
}

int64_t sum_over(const Round& r, int ranks, int i, int step) {
    int64_t sum = 0;
    for (int s = 0; s < ranks; ++s) sum += value(r, s, i, step);
    return sum;
}

size_t count_wrong(const std::vector<int64_t>& got, const std::vector<int64_t>& expected) {
    size_t bad = got.size() != expected.size() ? 1 : 0;
    for (size_t i = 0; i < std::min(got.size(), expected.size()); ++i) {
        bad += got[i] != expected[i] ? 1 : 0;
    }
    return bad;
}

// The blocks of all ranks, one after the other.
std::vector<int64_t> all_blocks(const Round& r, int count, int step) {
    std::vector<int64_t> out;
    for (int s = 0; s < r.world.size; ++s) {
        std::vector<int64_t> block = contribution(r, s, count, step);
        out.insert(out.end(), block.begin(), block.end());
    }
    return out;
}

size_t broadcast(const Round& r, int root) {
    size_t bad = 0;
    for (size_t bytes :
         {size_t{0}, size_t{3}, size_t{5000}, std::min<size_t>(r.max_bytes, 1 << 20)}) {
        Guarded data(bytes);
        if (r.world.rank == root) fill(data.data(), bytes, key(root, 1, r.salt(21)));
        MPI_Bcast(data.data(), static_cast<int>(bytes), MPI_BYTE, root, MPI_COMM_WORLD);
        bad += data.check(bytes, key(root, 1, r.salt(21)));
    }
    return bad;
}

size_t reductions(const Round& r, int root) {
    const int n = r.world.size, me = r.world.rank;
    std::vector<int64_t> mine = contribution(r, me, words, 2), got(words, -1);
    size_t bad = 0;
    MPI_Allreduce(mine.data(), got.data(), words, MPI_INT64_T, MPI_SUM, MPI_COMM_WORLD);
    for (int i = 0; i < words; ++i) bad += got[i] != sum_over(r, n, i, 2) ? 1 : 0;
    MPI_Reduce(mine.data(), got.data(), words, MPI_INT64_T, MPI_MAX, root, MPI_COMM_WORLD);
    for (int i = 0; me == root && i < words; ++i) {
        int64_t most = 0;
        for (int s = 0; s < n; ++s) most = std::max(most, value(r, s, i, 2));
        bad += got[i] != most ? 1 : 0;
    }
    MPI_Scan(mine.data(), got.data(), words, MPI_INT64_T, MPI_SUM, MPI_COMM_WORLD);
    for (int i = 0; i < words; ++i) bad += got[i] != sum_over(r, me + 1, i, 2) ? 1 : 0;
    MPI_Exscan(mine.data(), got.data(), words, MPI_INT64_T, MPI_SUM, MPI_COMM_WORLD);
    for (int i = 0; me > 0 && i < words; ++i) bad += got[i] != sum_over(r, me, i, 2) ? 1 : 0;
    std::vector<int64_t> wide = contribution(r, me, words * n, 3);
    MPI_Reduce_scatter_block(wide.data(), got.data(), words, MPI_INT64_T, MPI_SUM, MPI_COMM_WORLD);
    for (int i = 0; i < words; ++i) bad += got[i] != sum_over(r, n, me * words + i, 3) ? 1 : 0;
    return bad;
}

size_t gathers(const Round& r, int root) {
    const int n = r.world.size, me = r.world.rank;
    std::vector<int64_t> mine = contribution(r, me, words, 4);
    std::vector<int64_t> all(static_cast<size_t>(words) * n, -1),
        expected = all_blocks(r, words, 4);
    size_t bad = 0;
    MPI_Gather(mine.data(), words, MPI_INT64_T, all.data(), words, MPI_INT64_T, root,
               MPI_COMM_WORLD);
    if (me == root) bad += count_wrong(all, expected);
    std::fill(all.begin(), all.end(), -1);
    MPI_Allgather(mine.data(), words, MPI_INT64_T, all.data(), words, MPI_INT64_T, MPI_COMM_WORLD);
    bad += count_wrong(all, expected);
    std::vector<int64_t> part(words, -1);
    MPI_Scatter(expected.data(), words, MPI_INT64_T, part.data(), words, MPI_INT64_T, root,
                MPI_COMM_WORLD);
    bad += count_wrong(part, mine);
    std::vector<int64_t> to_all, from_all(static_cast<size_t>(words) * n, -1), wanted;
    for (int peer = 0; peer < n; ++peer) {
        for (int i = 0; i < words; ++i) {
            to_all.push_back(value(r, me * n + peer, i, 5));
            wanted.push_back(value(r, peer * n + me, i, 5));
        }
    }
    MPI_Alltoall(to_all.data(), words, MPI_INT64_T, from_all.data(), words, MPI_INT64_T,
                 MPI_COMM_WORLD);
    return bad + count_wrong(from_all, wanted);
}

// Rank s contributes 10 + 37 s words: blocks of different lengths.
int length_of(int source) {
    return 10 + 37 * source;
}

struct Layout {
    std::vector<int> counts, places;
    int total = 0;
    explicit Layout(int ranks) {
        for (int s = 0; s < ranks; ++s) {
            counts.push_back(length_of(s));
            places.push_back(total);
            total += length_of(s);
        }
    }
};

size_t uneven(const Round& r, int root) {
    const int n = r.world.size, me = r.world.rank;
    Layout layout(n);
    std::vector<int64_t> expected;
    for (int s = 0; s < n; ++s) {
        std::vector<int64_t> block = contribution(r, s, length_of(s), 6);
        expected.insert(expected.end(), block.begin(), block.end());
    }
    std::vector<int64_t> mine = contribution(r, me, length_of(me), 6);
    std::vector<int64_t> all(layout.total, -1);
    size_t bad = 0;
    MPI_Allgatherv(mine.data(), length_of(me), MPI_INT64_T, all.data(), layout.counts.data(),
                   layout.places.data(), MPI_INT64_T, MPI_COMM_WORLD);
    bad += count_wrong(all, expected);
    std::fill(all.begin(), all.end(), -1);
    MPI_Gatherv(mine.data(), length_of(me), MPI_INT64_T, all.data(), layout.counts.data(),
                layout.places.data(), MPI_INT64_T, root, MPI_COMM_WORLD);
    if (me == root) bad += count_wrong(all, expected);
    std::vector<int64_t> part(length_of(me), -1);
    MPI_Scatterv(expected.data(), layout.counts.data(), layout.places.data(), MPI_INT64_T,
                 part.data(), length_of(me), MPI_INT64_T, root, MPI_COMM_WORLD);
    bad += count_wrong(part, mine);
    // To peer p: as many words as p's length; from everyone: as many as my own.
    std::vector<int> counts(n, length_of(me)), places(n);
    for (int s = 0; s < n; ++s) places[s] = s * length_of(me);
    std::vector<int64_t> from_all(static_cast<size_t>(n) * length_of(me), -1), wanted;
    for (int s = 0; s < n; ++s) {
        std::vector<int64_t> block = contribution(r, s, length_of(s), 7);
        for (int i = 0; i < length_of(me); ++i) wanted.push_back(value(r, s, i, 7) + me);
    }
    std::vector<int64_t> to_all;
    for (int p = 0; p < n; ++p) {
        for (int i = 0; i < length_of(p); ++i) to_all.push_back(value(r, me, i, 7) + p);
    }
    MPI_Alltoallv(to_all.data(), layout.counts.data(), layout.places.data(), MPI_INT64_T,
                  from_all.data(), counts.data(), places.data(), MPI_INT64_T, MPI_COMM_WORLD);
    return bad + count_wrong(from_all, wanted);
}

// Three at once, completed together.
size_t overlapping(const Round& r, int root) {
    const int n = r.world.size, me = r.world.rank;
    Guarded data(20000);
    if (me == root) fill(data.data(), data.size(), key(root, 8, r.salt(22)));
    std::vector<int64_t> mine = contribution(r, me, words, 9), got(words, -1);
    MPI_Request requests[3];
    MPI_Ibcast(data.data(), static_cast<int>(data.size()), MPI_BYTE, root, MPI_COMM_WORLD,
               &requests[0]);
    MPI_Iallreduce(mine.data(), got.data(), words, MPI_INT64_T, MPI_SUM, MPI_COMM_WORLD,
                   &requests[1]);
    MPI_Ibarrier(MPI_COMM_WORLD, &requests[2]);
    MPI_Waitall(3, requests, MPI_STATUSES_IGNORE);
    size_t bad = data.check(data.size(), key(root, 8, r.salt(22)));
    for (int i = 0; i < words; ++i) bad += got[i] != sum_over(r, n, i, 9) ? 1 : 0;
    return bad;
}

int root_of(const Round& r) {
    return static_cast<int>(r.number % static_cast<uint64_t>(r.world.size));
}

}  // namespace

size_t collectives(const Round& r) {
    MPI_Barrier(MPI_COMM_WORLD);
    return broadcast(r, root_of(r)) + reductions(r, root_of(r)) + gathers(r, root_of(r));
}

size_t vector_collectives(const Round& r) {
    return uneven(r, root_of(r)) + overlapping(r, root_of(r));
}

}  // namespace mpitest
