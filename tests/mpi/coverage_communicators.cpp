// SPDX-License-Identifier: BSD-3-Clause
// Other communicators than the world: parts of it, many at once, between two groups, and those with
// a topology.
#include <algorithm>
#include <memory>

#include "tests/mpi/coverage.hpp"

namespace mpitest {
namespace {

using Bytes = std::vector<unsigned char>;

// Around the ring of a communicator.
void ring(Turn& turn, const Group& g, size_t bytes, const char* where) {
    Bytes out(bytes + 1);
    Guarded in(bytes);
    fill(out.data(), bytes, key(g.rank, 1, g.salt));
    MPI_Sendrecv(out.data(), count_of(bytes), MPI_BYTE, g.right(), 9, in.data(), count_of(bytes),
                 MPI_BYTE, g.left(), 9, g.comm, MPI_STATUS_IGNORE);
    turn.expect_none(in.check(bytes, key(g.left(), 1, g.salt)), where, count_of(bytes));
}

// Halves, backwards, all but one: every collective in each of them.
void parts(Turn& turn) {
    const int rank = turn.world.rank, size = turn.world.size;
    const int out_of_it = static_cast<int>(turn.number % static_cast<uint64_t>(size));
    const int colours[] = {rank % 2, 0, rank == out_of_it && size > 1 ? MPI_UNDEFINED : 0};
    const int orders[] = {rank, -rank, rank};
    for (int i = 0; i < 3; ++i) {
        MPI_Comm part;
        MPI_Comm_split(MPI_COMM_WORLD, colours[i], orders[i], &part);
        if (part == MPI_COMM_NULL) continue;
        // The salt must be the same in the whole part and another one in each.
        const Group group(part, turn.salt(5 + i) * 2 + static_cast<uint64_t>(colours[i]));
        ring(turn, group, turn.max_bytes / 2, "a part's ring");
        one_by_one(turn, group, 300);
        all_at_once(turn, group, 700);
        MPI_Comm_free(&part);
    }
}

// The same tag in all of them at once: only their contexts keep the messages apart.
void many(Turn& turn) {
    constexpr int count = 24;
    const int rank = turn.world.rank, size = turn.world.size;
    const int to = (rank + 1) % size, from = (rank + size - 1) % size;
    std::vector<MPI_Comm> comms(count);
    for (int i = 0; i < count; ++i) MPI_Comm_dup(MPI_COMM_WORLD, &comms[i]);
    constexpr size_t bytes = 2000;
    std::vector<Bytes> out(count, Bytes(bytes));
    std::vector<std::unique_ptr<Guarded>> in;
    std::vector<int64_t> sums(count, rank + 1);
    std::vector<MPI_Request> requests(3 * count);
    for (int i = 0; i < count; ++i) {
        in.push_back(std::make_unique<Guarded>(bytes));
        fill(out[i].data(), bytes, key(rank, i, turn.salt(8)));
        MPI_Isend(out[i].data(), bytes, MPI_BYTE, to, 5, comms[i], &requests[3 * i]);
        MPI_Iallreduce(MPI_IN_PLACE, &sums[i], 1, MPI_INT64_T, MPI_SUM, comms[i],
                       &requests[3 * i + 1]);
    }
    for (int i = count - 1; i >= 0; --i) {
        MPI_Irecv(in[i]->data(), bytes, MPI_BYTE, from, 5, comms[i], &requests[3 * i + 2]);
    }
    MPI_Waitall(3 * count, requests.data(), MPI_STATUSES_IGNORE);
    for (int i = 0; i < count; ++i) {
        turn.expect_none(in[i]->check(bytes, key(from, i, turn.salt(8))), "many communicators", i);
        turn.expect(sums[i] == int64_t{size} * (size + 1) / 2, "a sum of many", i);
    }
    for (int i = 0; i < count; i += 2) MPI_Comm_free(&comms[i]);
    for (int i = 1; i < count; i += 2) MPI_Comm_free(&comms[i]);
}

// --- between two groups ---

void across(Turn& turn, MPI_Comm inter, int mine, int side, int others) {
    // From everybody to everybody on the other side.
    constexpr size_t bytes = 5000;
    std::vector<MPI_Request> requests;
    std::vector<Bytes> out;
    std::vector<std::unique_ptr<Guarded>> in;
    for (int peer = 0; peer < others; ++peer) {
        in.push_back(std::make_unique<Guarded>(bytes));
        requests.emplace_back();
        MPI_Irecv(in.back()->data(), bytes, MPI_BYTE, peer, 6, inter, &requests.back());
    }
    for (int peer = 0; peer < others; ++peer) {
        out.emplace_back(bytes);
        fill(out.back().data(), bytes, key(mine * 2 + side, peer, turn.salt(9)));
        requests.emplace_back();
        MPI_Isend(out.back().data(), bytes, MPI_BYTE, peer, 6, inter, &requests.back());
    }
    MPI_Waitall(static_cast<int>(requests.size()), requests.data(), MPI_STATUSES_IGNORE);
    for (int peer = 0; peer < others; ++peer) {
        turn.expect_none(in[peer]->check(bytes, key(peer * 2 + 1 - side, mine, turn.salt(9))),
                         "across an intercommunicator", peer);
    }
}

void collectives_across(Turn& turn, MPI_Comm inter, int mine, int side, int size, int others) {
    Guarded data(3000);
    const uint64_t k = key(0, 77, turn.salt(10));
    if (side == 0) {
        if (mine == 0) fill(data.data(), data.size(), k);
        MPI_Bcast(data.data(), 3000, MPI_BYTE, mine == 0 ? MPI_ROOT : MPI_PROC_NULL, inter);
    } else {
        MPI_Bcast(data.data(), 3000, MPI_BYTE, 0, inter);
        turn.expect_none(data.check(3000, k), "bcast across", 0);
    }
    int64_t value = 100 * (side + 1) + mine, sum = 0;
    MPI_Allreduce(&value, &sum, 1, MPI_INT64_T, MPI_SUM, inter);
    const int64_t wanted = int64_t{100} * (2 - side) * others + int64_t{others} * (others - 1) / 2;
    turn.expect(sum == wanted, "allreduce across", sum);
    std::vector<int64_t> theirs(static_cast<size_t>(others), -1);
    MPI_Allgather(&value, 1, MPI_INT64_T, theirs.data(), 1, MPI_INT64_T, inter);
    for (int s = 0; s < others; ++s) {
        turn.expect(theirs[s] == 100 * (2 - side) + s, "allgather across", s);
    }
    std::vector<int> to(static_cast<size_t>(others)), from(static_cast<size_t>(others), -1);
    for (int s = 0; s < others; ++s) to[s] = side * 10000 + mine * 100 + s;
    MPI_Alltoall(to.data(), 1, MPI_INT, from.data(), 1, MPI_INT, inter);
    for (int s = 0; s < others; ++s) {
        turn.expect(from[s] == (1 - side) * 10000 + s * 100 + mine, "alltoall across", s);
    }
    MPI_Barrier(inter);
    (void)size;
}

void between_groups(Turn& turn) {
    if (turn.world.size < 2) return;
    const int side = turn.world.rank % 2;
    MPI_Comm half, inter, merged;
    MPI_Comm_split(MPI_COMM_WORLD, side, turn.world.rank, &half);
    MPI_Intercomm_create(half, 0, MPI_COMM_WORLD, 1 - side, 7, &inter);
    int mine = 0, size = 0, others = 0;
    MPI_Comm_rank(inter, &mine);
    MPI_Comm_size(inter, &size);
    MPI_Comm_remote_size(inter, &others);
    across(turn, inter, mine, side, others);
    collectives_across(turn, inter, mine, side, size, others);
    MPI_Intercomm_merge(inter, side, &merged);
    const Group group(merged, turn.salt(11));
    ring(turn, group, 30000, "a merged ring");
    one_by_one(turn, group, 50);
    MPI_Comm_free(&merged);
    MPI_Comm_free(&inter);
    MPI_Comm_free(&half);
}

// --- topologies ---

// A periodic grid: each rank has two neighbours in each direction (the same one twice, or itself,
// where there are few).
void neighbours_of(Turn& turn, MPI_Comm grid, int dimensions) {
    const Group g(grid, turn.salt(12));
    std::vector<int> near;
    for (int d = 0; d < dimensions; ++d) {
        int before = 0, after = 0;
        MPI_Cart_shift(grid, d, 1, &before, &after);
        near.push_back(before);
        near.push_back(after);
    }
    constexpr int words = 500;
    const auto value = [&](int rank, int i) {
        return static_cast<int64_t>(key(rank, i, g.salt) >> 8);
    };
    std::vector<int64_t> mine(words), theirs(near.size() * words, -1), again(theirs);
    for (int i = 0; i < words; ++i) mine[i] = value(g.rank, i);
    MPI_Request request;
    MPI_Ineighbor_allgather(mine.data(), words, MPI_INT64_T, again.data(), words, MPI_INT64_T, grid,
                            &request);
    MPI_Neighbor_allgather(mine.data(), words, MPI_INT64_T, theirs.data(), words, MPI_INT64_T,
                           grid);
    MPI_Wait(&request, MPI_STATUS_IGNORE);
    size_t bad = 0;
    for (size_t n = 0; n < near.size(); ++n) {
        for (int i = 0; i < words; ++i) {
            bad += theirs[n * words + i] != value(near[n], i) ? 1 : 0;
            bad += again[n * words + i] != value(near[n], i) ? 1 : 0;
        }
    }
    turn.expect_none(bad, "neighbours' allgather", dimensions);
}

void grids(Turn& turn) {
    for (int dimensions : {1, 2}) {
        std::vector<int> sizes(static_cast<size_t>(dimensions), 0);
        const std::vector<int> periodic(static_cast<size_t>(dimensions), 1);
        MPI_Dims_create(turn.world.size, dimensions, sizes.data());
        MPI_Comm grid;
        MPI_Cart_create(MPI_COMM_WORLD, dimensions, sizes.data(), periodic.data(), 0, &grid);
        neighbours_of(turn, grid, dimensions);
        MPI_Comm_free(&grid);
    }
}

// A graph in which rank r sends to r + 1 and r + 2.
void graph(Turn& turn) {
    const int n = turn.world.size, me = turn.world.rank;
    const int to[] = {(me + 1) % n, (me + 2) % n};
    const int from[] = {(me + n - 1) % n, (me + 2 * n - 2) % n};
    MPI_Comm graph;
    MPI_Dist_graph_create_adjacent(MPI_COMM_WORLD, 2, from, MPI_UNWEIGHTED, 2, to, MPI_UNWEIGHTED,
                                   MPI_INFO_NULL, 0, &graph);
    constexpr int words = 3000;
    const auto value = [&](int source, int edge, int i) {
        return static_cast<int64_t>(key(source * 2 + edge, i, turn.salt(13)) >> 8);
    };
    std::vector<int64_t> out, in(2 * words, -1);
    for (int edge = 0; edge < 2; ++edge) {
        for (int i = 0; i < words; ++i) out.push_back(value(me, edge, i));
    }
    MPI_Neighbor_alltoall(out.data(), words, MPI_INT64_T, in.data(), words, MPI_INT64_T, graph);
    size_t bad = 0;
    for (int edge = 0; edge < 2; ++edge) {
        for (int i = 0; i < words; ++i) {
            bad += in[edge * words + i] != value(from[edge], edge, i) ? 1 : 0;
        }
    }
    // With one or two ranks both edges lead to the same one, in an order MPI leaves open.
    turn.expect_none(n > 2 ? bad : 0, "neighbours' alltoall", n);
    MPI_Comm_free(&graph);
}

constexpr Phase phases[] = {{"communicators", "parts", parts},
                            {"communicators", "many", many},
                            {"communicators", "intercomm", between_groups},
                            {"communicators", "grids", grids},
                            {"communicators", "graph", graph}};

}  // namespace

std::span<const Phase> communicators() {
    return phases;
}

}  // namespace mpitest
