// SPDX-License-Identifier: BSD-3-Clause
// The phases of the coverage program: each is called by all ranks, again and again, and checks
// every byte it gets. What is wrong is said at once, with rank, phase, round and place.
#pragma once

#include <atomic>
#include <span>

#include "tests/mpi/common.hpp"

namespace mpitest {

// One round of one phase. Its functions may be called by several threads.
class Turn {
  public:
    Turn(const World& its_world, const char* phase, uint64_t its_number, size_t bytes)
        : world(its_world), number(its_number), max_bytes(bytes), phase_(phase) {}

    const World& world;
    const uint64_t number;   // salts every pattern: a message of another round is an error
    const size_t max_bytes;  // of a message
    uint64_t salt(int step) const { return number * 64 + static_cast<uint64_t>(step); }

    // Counts what is wrong and says it (the first few of a turn): what, in `where`, and with
    // which rank or at which size or index.
    void expect(bool right, const char* where, int64_t which) {
        expect_none(right ? 0 : 1, where, which);
    }
    void expect_none(size_t wrong, const char* where, int64_t which);
    size_t errors() const { return errors_; }

  private:
    static constexpr size_t most_said = 8;
    const char* phase_;
    std::atomic<size_t> errors_{0};
    std::atomic<size_t> said_{0};
};

struct Settings {
    std::string folder;  // for files that all ranks see
    int threads = 0;     // more than 1: MPI_THREAD_MULTIPLE
};

struct Phase {
    const char* kind;
    const char* name;
    void (*run)(Turn&);
    // Null, or: what stays open from the first round to the end, made and given back by all ranks.
    void (*begin)(const World&, const Settings&) = nullptr;
    void (*end)() = nullptr;
};

// By kind, in the order in which they are run.
std::span<const Phase> messages();
std::span<const Phase> types();
std::span<const Phase> collectives();
std::span<const Phase> communicators();
std::span<const Phase> windows();
std::span<const Phase> accumulates();
std::span<const Phase> files();
std::span<const Phase> threads();

// Ranks of a communicator that see the same data; what it is salted with.
struct Group {
    MPI_Comm comm;
    int rank = 0, size = 1;
    uint64_t salt;
    Group(MPI_Comm its_comm, uint64_t its_salt) : comm(its_comm), salt(its_salt) {
        MPI_Comm_rank(comm, &rank);
        MPI_Comm_size(comm, &size);
    }
    int right() const { return (rank + 1) % size; }
    int left() const { return (rank + size - 1) % size; }
};

// coverage_collectives.cpp: every collective operation, one after the other or all at once.
void one_by_one(Turn& turn, const Group& group, int words);
void all_at_once(Turn& turn, const Group& group, int words);

inline int count_of(size_t bytes) {
    return static_cast<int>(bytes);
}

}  // namespace mpitest
