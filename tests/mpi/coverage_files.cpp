// SPDX-License-Identifier: BSD-3-Clause
// MPI-IO, on a file that stays open from the first round to the last and on one of each round.
#include <cinttypes>
#include <memory>

#include "tests/mpi/coverage.hpp"

namespace mpitest {
namespace {

using Bytes = std::vector<unsigned char>;

std::string folder;
MPI_File kept = MPI_FILE_NULL;

MPI_File open(const std::string& name) {
    MPI_File file = MPI_FILE_NULL;
    const std::string path = folder + "/" + name;
    const int rc = MPI_File_open(MPI_COMM_WORLD, path.c_str(), MPI_MODE_CREATE | MPI_MODE_RDWR,
                                 MPI_INFO_NULL, &file);
    if (rc != MPI_SUCCESS) {
        std::fprintf(stderr, "coverage: cannot open %s\n", path.c_str());
        MPI_Abort(MPI_COMM_WORLD, 96);
    }
    return file;
}

// What the others wrote is to be read.
void settle(MPI_File file) {
    MPI_File_sync(file);
    MPI_Barrier(MPI_COMM_WORLD);
    MPI_File_sync(file);
}

// Blocks at explicit places, one of each rank: written alone and together, each way non-blocking
// too; everybody reads its neighbour's.
void blocks(Turn& turn, MPI_File file) {
    const int n = turn.world.size, me = turn.world.rank, next = (me + 1) % n;
    const size_t bytes = turn.number % 2 == 0 ? 3000 : 70001;
    const auto place = [&](int way, int rank) {
        return static_cast<MPI_Offset>(bytes) * (way * n + rank);
    };
    std::vector<Bytes> out(4, Bytes(bytes));
    for (int way = 0; way < 4; ++way) {
        fill(out[way].data(), bytes, key(me, way, turn.salt(30)));
    }
    MPI_Request requests[2];
    MPI_File_write_at(file, place(0, me), out[0].data(), count_of(bytes), MPI_BYTE,
                      MPI_STATUS_IGNORE);
    MPI_File_write_at_all(file, place(1, me), out[1].data(), count_of(bytes), MPI_BYTE,
                          MPI_STATUS_IGNORE);
    MPI_File_iwrite_at(file, place(2, me), out[2].data(), count_of(bytes), MPI_BYTE, &requests[0]);
    MPI_File_iwrite_at_all(file, place(3, me), out[3].data(), count_of(bytes), MPI_BYTE,
                           &requests[1]);
    MPI_Waitall(2, requests, MPI_STATUSES_IGNORE);
    settle(file);
    for (int way = 0; way < 4; ++way) {
        Guarded in(bytes);
        MPI_Status status;
        int got = -1;
        if (way % 2 == 0) {
            MPI_File_read_at(file, place(way, next), in.data(), count_of(bytes), MPI_BYTE, &status);
        } else {
            MPI_File_read_at_all(file, place(way, next), in.data(), count_of(bytes), MPI_BYTE,
                                 &status);
        }
        MPI_Get_count(&status, MPI_BYTE, &got);
        turn.expect(got == count_of(bytes), "bytes of a file", got);
        turn.expect_none(in.check(bytes, key(next, way, turn.salt(30))), "a file's block", way);
    }
    MPI_Barrier(MPI_COMM_WORLD);
}

// Words of all ranks interleaved, through a view.
void interleaved(Turn& turn, MPI_File file) {
    const int n = turn.world.size, me = turn.world.rank;
    constexpr int words = 2500;
    MPI_Datatype every;
    MPI_Type_vector(words, 1, n, MPI_UINT64_T, &every);
    MPI_Type_commit(&every);
    MPI_File_set_view(file, static_cast<MPI_Offset>(me) * 8, MPI_UINT64_T, every, "native",
                      MPI_INFO_NULL);
    std::vector<uint64_t> out(words), all(static_cast<size_t>(words) * n);
    fill(out.data(), out.size() * 8, key(me, 9, turn.salt(31)));
    MPI_File_write_all(file, out.data(), words, MPI_UINT64_T, MPI_STATUS_IGNORE);
    settle(file);
    MPI_File_set_view(file, 0, MPI_BYTE, MPI_BYTE, "native", MPI_INFO_NULL);
    MPI_File_read_at_all(file, 0, all.data(), words * n, MPI_UINT64_T, MPI_STATUS_IGNORE);
    size_t bad = 0;
    for (int s = 0; s < n; ++s) {
        fill(out.data(), out.size() * 8, key(s, 9, turn.salt(31)));
        for (int i = 0; i < words; ++i)
            bad += all[static_cast<size_t>(i) * n + s] != out[i] ? 1 : 0;
    }
    turn.expect_none(bad, "interleaved words of a file", n);
    MPI_Type_free(&every);
    MPI_Barrier(MPI_COMM_WORLD);
}

// The pointer that all share: in the order of ranks, and in any order.
void shared_pointer(Turn& turn, MPI_File file) {
    const int n = turn.world.size, me = turn.world.rank;
    constexpr int times = 3;
    MPI_File_seek_shared(file, 0, MPI_SEEK_SET);
    uint64_t line[2] = {key(me, 10, turn.salt(32)), static_cast<uint64_t>(me)};
    MPI_File_write_ordered(file, line, 2, MPI_UINT64_T, MPI_STATUS_IGNORE);
    for (int i = 0; i < times; ++i) {
        MPI_File_write_shared(file, line, 2, MPI_UINT64_T, MPI_STATUS_IGNORE);
    }
    settle(file);
    std::vector<uint64_t> all(static_cast<size_t>(2 * n * (1 + times)), ~uint64_t{0});
    MPI_File_read_at(file, 0, all.data(), count_of(all.size()), MPI_UINT64_T, MPI_STATUS_IGNORE);
    std::vector<int> seen(static_cast<size_t>(n), 0);
    size_t bad = 0;
    for (size_t i = 0; i < all.size(); i += 2) {
        const uint64_t rank = all[i + 1];
        const bool known = rank < static_cast<uint64_t>(n);
        const bool right = known && all[i] == key(static_cast<int>(rank), 10, turn.salt(32)) &&
                           (i >= 2 * static_cast<size_t>(n) || rank == i / 2);
        bad += right ? 0 : 1;
        if (known) ++seen[rank];
    }
    for (int count : seen) bad += count != 1 + times ? 1 : 0;
    turn.expect_none(bad, "lines by the shared pointer", n);
    MPI_Barrier(MPI_COMM_WORLD);
}

void kept_begin(const World&, const Settings& settings) {
    folder = settings.folder;
    kept = open("coverage.kept");
}
void kept_run(Turn& turn) {
    blocks(turn, kept);
    interleaved(turn, kept);
}
void kept_end() {
    MPI_File_close(&kept);
}

void take_folder(const World&, const Settings& settings) {
    folder = settings.folder;
}
void anew(Turn& turn) {
    MPI_File file = open("coverage.anew");
    blocks(turn, file);
    interleaved(turn, file);
    MPI_File_close(&file);
}

// A file of its own: its pointer is in memory or a file of Open MPI's.
MPI_File counted = MPI_FILE_NULL;
void shared_begin(const World&, const Settings& settings) {
    folder = settings.folder;
    counted = open("coverage.shared");
}
void shared_run(Turn& turn) {
    shared_pointer(turn, counted);
}
void shared_end() {
    MPI_File_close(&counted);
}

constexpr Phase phases[] = {{"files", "kept", kept_run, kept_begin, kept_end},
                            {"files", "anew", anew, take_folder, nullptr},
                            {"files", "shared", shared_run, shared_begin, shared_end}};

}  // namespace

std::span<const Phase> files() {
    return phases;
}

}  // namespace mpitest
