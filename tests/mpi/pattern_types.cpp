// SPDX-License-Identifier: BSD-3-Clause
#include <algorithm>
#include <cstddef>

#include "tests/mpi/pattern.hpp"

namespace mpitest {
namespace {

// Sends `from`, laid out by `type`, around the ring into `to`; both are count elements of type.
void around(const Round& r, const void* from, void* to, int count, MPI_Datatype type, int tag) {
    const int n = r.world.size;
    MPI_Sendrecv(from, count, type, (r.world.rank + 1) % n, tag, to, count, type,
                 (r.world.rank + n - 1) % n, tag, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
}

int left_of(const Round& r) {
    return (r.world.rank + r.world.size - 1) % r.world.size;
}

// Every third block of 5 words; what lies between must stay as it was.
size_t strided(const Round& r) {
    constexpr int blocks = 700, length = 5, stride = 15;
    MPI_Datatype type;
    MPI_Type_vector(blocks, length, stride, MPI_UINT64_T, &type);
    MPI_Type_commit(&type);
    std::vector<uint64_t> out(blocks * stride), in(blocks * stride, 1);
    fill(out.data(), out.size() * 8, key(r.world.rank, 1, r.salt(10)));
    around(r, out.data(), in.data(), 1, type, 5000);
    MPI_Type_free(&type);
    std::vector<uint64_t> expected(blocks * stride);
    fill(expected.data(), expected.size() * 8, key(left_of(r), 1, r.salt(10)));
    size_t bad = 0;
    for (size_t i = 0; i < in.size(); ++i) {
        bad += in[i] != (i % stride < length ? expected[i] : 1) ? 1 : 0;
    }
    return bad;
}

// Blocks of growing length at irregular places, in descending order.
size_t indexed(const Round& r) {
    constexpr int blocks = 60;
    std::vector<int> lengths(blocks), places(blocks);
    int end = 0;
    for (int i = 0; i < blocks; ++i) {
        lengths[i] = 1 + i * 3;
        places[i] = end + i % 4;
        end = places[i] + lengths[i];
    }
    std::vector<bool> used(static_cast<size_t>(end), false);
    for (int i = 0; i < blocks; ++i) {
        std::fill_n(used.begin() + places[i], lengths[i], true);
    }
    std::reverse(lengths.begin(), lengths.end());
    std::reverse(places.begin(), places.end());
    MPI_Datatype type;
    MPI_Type_indexed(blocks, lengths.data(), places.data(), MPI_UNSIGNED_CHAR, &type);
    MPI_Type_commit(&type);
    std::vector<unsigned char> out(end), in(end, 9), expected(end);
    fill(out.data(), out.size(), key(r.world.rank, 2, r.salt(11)));
    around(r, out.data(), in.data(), 1, type, 5001);
    MPI_Type_free(&type);
    fill(expected.data(), expected.size(), key(left_of(r), 2, r.salt(11)));
    size_t bad = 0;
    for (size_t i = 0; i < in.size(); ++i) bad += in[i] != (used[i] ? expected[i] : 9) ? 1 : 0;
    return bad;
}

struct Record {
    char letter;
    double value;
    int numbers[3];
    short last;
};

size_t records(const Round& r) {
    constexpr int count = 3000;
    int lengths[] = {1, 1, 3, 1};
    MPI_Aint places[] = {offsetof(Record, letter), offsetof(Record, value),
                         offsetof(Record, numbers), offsetof(Record, last)};
    MPI_Datatype parts[] = {MPI_CHAR, MPI_DOUBLE, MPI_INT, MPI_SHORT};
    MPI_Datatype packed, type;
    MPI_Type_create_struct(4, lengths, places, parts, &packed);
    MPI_Type_create_resized(packed, 0, sizeof(Record), &type);
    MPI_Type_commit(&type);
    auto make = [&](int source, int i) {
        uint64_t k = key(source, i, r.salt(12));
        return Record{static_cast<char>(k),
                      static_cast<double>(k >> 12),
                      {static_cast<int>(k >> 7), i, source},
                      static_cast<short>(k >> 30)};
    };
    std::vector<Record> out(count), in(count);
    for (int i = 0; i < count; ++i) out[i] = make(r.world.rank, i);
    around(r, out.data(), in.data(), count, type, 5002);
    MPI_Type_free(&type);
    MPI_Type_free(&packed);
    size_t bad = 0;
    for (int i = 0; i < count; ++i) {
        Record e = make(left_of(r), i);
        bool same = in[i].letter == e.letter && in[i].value == e.value && in[i].last == e.last &&
                    std::equal(e.numbers, e.numbers + 3, in[i].numbers);
        bad += same ? 0 : 1;
    }
    return bad;
}

// The two halves of the job, each with its own traffic, while the whole exchanges as well.
size_t in_group(const Round& r, MPI_Comm comm, int step) {
    int rank = 0, size = 0;
    MPI_Comm_rank(comm, &rank);
    MPI_Comm_size(comm, &size);
    const size_t bytes = std::min<size_t>(r.max_bytes, 70000);
    std::vector<unsigned char> out(bytes);
    Guarded in(bytes);
    // The same tag in every communicator: only the context keeps them apart.
    constexpr int tag = 6000;
    const int to = (rank + 1) % size, from = (rank + size - 1) % size;
    fill(out.data(), bytes, key(rank, step, r.salt(13)));
    MPI_Sendrecv(out.data(), static_cast<int>(bytes), MPI_BYTE, to, tag, in.data(),
                 static_cast<int>(bytes), MPI_BYTE, from, tag, comm, MPI_STATUS_IGNORE);
    size_t bad = in.check(bytes, key(from, step, r.salt(13)));
    int64_t sum = 0, mine = rank + step;
    MPI_Allreduce(&mine, &sum, 1, MPI_INT64_T, MPI_SUM, comm);
    int64_t expected = int64_t{size} * (size - 1) / 2 + int64_t{step} * size;
    return bad + (sum != expected ? 1 : 0);
}

}  // namespace

size_t derived_types(const Round& r) {
    return strided(r) + indexed(r) + records(r);
}

size_t communicators(const Round& r) {
    MPI_Comm copy, half;
    MPI_Comm_dup(MPI_COMM_WORLD, &copy);
    MPI_Comm_split(MPI_COMM_WORLD, r.world.rank % 2, -r.world.rank, &half);
    size_t bad = in_group(r, copy, 1) + in_group(r, half, 2) + in_group(r, MPI_COMM_WORLD, 3);
    MPI_Comm_free(&half);
    MPI_Comm_free(&copy);
    return bad;
}

}  // namespace mpitest
