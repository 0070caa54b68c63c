// SPDX-License-Identifier: BSD-3-Clause
// Derived datatypes: one message for each, into room whose gaps must stay as they were.
#include <algorithm>

#include "tests/mpi/coverage.hpp"

namespace mpitest {
namespace {

constexpr unsigned char untouched = 0xA5;

// A datatype and which bytes of its extent it has, in the order in which they are sent.
struct Layout {
    MPI_Datatype type;
    std::vector<size_t> places;
    size_t room;
};

Layout committed(MPI_Datatype type, std::vector<size_t> places) {
    MPI_Type_commit(&type);
    const size_t end = places.empty() ? 0 : *std::max_element(places.begin(), places.end()) + 1;
    return {type, std::move(places), end};
}

void add_run(std::vector<size_t>& places, size_t from, size_t bytes) {
    for (size_t i = 0; i < bytes; ++i) places.push_back(from + i);
}

Layout strided(int count, int length, int stride) {
    MPI_Datatype type;
    MPI_Type_create_hvector(count, length, stride, MPI_BYTE, &type);
    std::vector<size_t> places;
    for (int i = 0; i < count; ++i)
        add_run(places, static_cast<size_t>(i) * stride, static_cast<size_t>(length));
    return committed(type, std::move(places));
}

Layout scattered(int count, uint64_t seed) {
    std::vector<int> lengths;
    std::vector<MPI_Aint> at;
    std::vector<size_t> places;
    size_t end = 0;
    for (int i = 0; i < count; ++i) {
        lengths.push_back(static_cast<int>(mix(seed + static_cast<uint64_t>(i)) % 90));
        at.push_back(static_cast<MPI_Aint>(end + mix(seed * 3 + static_cast<uint64_t>(i)) % 17));
        add_run(places, static_cast<size_t>(at.back()), static_cast<size_t>(lengths.back()));
        end = static_cast<size_t>(at.back()) + static_cast<size_t>(lengths.back());
    }
    MPI_Datatype type;
    MPI_Type_create_hindexed(count, lengths.data(), at.data(), MPI_BYTE, &type);
    return committed(type, std::move(places));
}

Layout backwards(int count, int length) {
    std::vector<int> at;
    std::vector<size_t> places;
    for (int i = count - 1; i >= 0; --i) {
        at.push_back(i * 2 * length);
        add_run(places, static_cast<size_t>(i) * 2 * static_cast<size_t>(length),
                static_cast<size_t>(length));
    }
    MPI_Datatype type;
    MPI_Type_create_indexed_block(count, length, at.data(), MPI_BYTE, &type);
    return committed(type, std::move(places));
}

// The inner block of a matrix of words.
Layout inner_block(int rows, int columns) {
    const int whole[] = {rows, columns}, part[] = {rows - 2, columns / 2}, from[] = {1, 3};
    MPI_Datatype type;
    MPI_Type_create_subarray(2, whole, part, from, MPI_ORDER_C, MPI_UINT64_T, &type);
    std::vector<size_t> places;
    for (int row = 0; row < part[0]; ++row) {
        add_run(places, static_cast<size_t>((row + 1) * columns + 3) * 8,
                static_cast<size_t>(part[1]) * 8);
    }
    return committed(type, std::move(places));
}

// A struct of other derived types.
Layout nested() {
    MPI_Datatype inner, type;
    MPI_Type_vector(50, 3, 7, MPI_SHORT, &inner);
    const int lengths[] = {1, 2, 5};
    const MPI_Aint at[] = {0, 1000, 4000};
    const MPI_Datatype parts[] = {inner, MPI_DOUBLE, MPI_INT};
    MPI_Type_create_struct(3, lengths, at, parts, &type);
    MPI_Type_free(&inner);
    std::vector<size_t> places;
    for (size_t i = 0; i < 50; ++i) add_run(places, i * 14, 6);
    add_run(places, 1000, 16);
    add_run(places, 4000, 20);
    return committed(type, std::move(places));
}

// Around the ring, and the same packed by hand one way and taken as bytes the other.
void around(Turn& turn, Layout layout, int tag, const char* name) {
    const Group all(MPI_COMM_WORLD, turn.salt(1));
    std::vector<unsigned char> out(layout.room), in(layout.room, untouched);
    std::vector<unsigned char> content(layout.places.size()), expected(layout.places.size());
    fill(content.data(), content.size(), key(all.rank, tag, all.salt));
    fill(expected.data(), expected.size(), key(all.left(), tag, all.salt));
    for (size_t i = 0; i < layout.places.size(); ++i) out[layout.places[i]] = content[i];
    MPI_Sendrecv(out.data(), 1, layout.type, all.right(), tag, in.data(), 1, layout.type,
                 all.left(), tag, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
    std::vector<unsigned char> right(layout.room, untouched);
    for (size_t i = 0; i < layout.places.size(); ++i) right[layout.places[i]] = expected[i];
    size_t bad = 0;
    for (size_t i = 0; i < in.size(); ++i) bad += in[i] != right[i] ? 1 : 0;
    turn.expect_none(bad, name, static_cast<int64_t>(layout.places.size()));

    std::vector<unsigned char> packed(content.size()), got(content.size());
    int at = 0;
    MPI_Pack(out.data(), 1, layout.type, packed.data(), count_of(packed.size()), &at,
             MPI_COMM_WORLD);
    MPI_Sendrecv(packed.data(), at, MPI_PACKED, all.left(), tag + 1, got.data(),
                 count_of(got.size()), MPI_BYTE, all.right(), tag + 1, MPI_COMM_WORLD,
                 MPI_STATUS_IGNORE);
    turn.expect_none(wrong(got.data(), got.size(), key(all.right(), tag, all.salt)), "packed",
                     static_cast<int64_t>(got.size()));
    MPI_Type_free(&layout.type);
}

void every_type(Turn& turn) {
    const int big = turn.number % 4 == 0 ? 8 : 1;
    around(turn, strided(500 * big, 300, 700), 1000, "hvector");
    around(turn, strided(40000 * big / 8, 8, 24), 1010, "fine hvector");
    around(turn, scattered(700 * big, turn.number), 1020, "hindexed");
    around(turn, backwards(300 * big, 100), 1030, "indexed block, backwards");
    around(turn, inner_block(40 * big, 60), 1040, "subarray");
    around(turn, nested(), 1050, "struct");
}

constexpr Phase phases[] = {{"types", "types", every_type}};

}  // namespace

std::span<const Phase> types() {
    return phases;
}

}  // namespace mpitest
