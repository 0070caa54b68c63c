// SPDX-License-Identifier: BSD-3-Clause
#include <algorithm>
#include <memory>
#include <sys/mman.h>

#include "tests/mpi/pattern.hpp"

namespace mpitest {
namespace {

// Memory that is gone, pages and all, as soon as this object is.
class Mapped {
  public:
    explicit Mapped(size_t size) : size_(size) {
        void* base =
            mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (base == MAP_FAILED) MPI_Abort(MPI_COMM_WORLD, 98);
        bytes_ = static_cast<unsigned char*>(base);
    }
    ~Mapped() { munmap(bytes_, size_); }
    Mapped(const Mapped&) = delete;
    Mapped& operator=(const Mapped&) = delete;
    unsigned char* data() { return bytes_; }

  private:
    unsigned char* bytes_;
    size_t size_;
};

constexpr size_t block = 512;

// A message that is there before its receive; in one piece or as every second block of the room.
size_t late(const Round& r, size_t blocks, bool apart, int tag) {
    const int n = r.world.size;
    const int to = (r.world.rank + 1) % n, from = (r.world.rank + n - 1) % n;
    const size_t bytes = blocks * block;
    auto out = std::make_unique<Mapped>(bytes);
    fill(out->data(), bytes, key(r.world.rank, tag, r.salt(14)));
    MPI_Request sent;
    MPI_Isend(out->data(), static_cast<int>(bytes), MPI_BYTE, to, tag, MPI_COMM_WORLD, &sent);
    MPI_Status status;
    MPI_Probe(from, tag, MPI_COMM_WORLD, &status);
    int token = 0;
    MPI_Sendrecv_replace(&token, 1, MPI_INT, from, tag + 1, to, tag + 1, MPI_COMM_WORLD, &status);
    MPI_Datatype type;
    MPI_Type_vector(static_cast<int>(blocks), block, apart ? 2 * block : block, MPI_BYTE, &type);
    MPI_Type_commit(&type);
    std::vector<unsigned char> in(2 * bytes), expected(bytes);
    MPI_Recv(in.data(), 1, type, from, tag, MPI_COMM_WORLD, &status);
    MPI_Wait(&sent, MPI_STATUS_IGNORE);
    out.reset();
    MPI_Type_free(&type);
    fill(expected.data(), bytes, key(from, tag, r.salt(14)));
    size_t bad = 0;
    for (size_t i = 0; i < blocks; i++) {
        const unsigned char* got = in.data() + i * block * (apart ? 2 : 1);
        bad += std::equal(got, got + block, expected.data() + i * block) ? 0 : 1;
    }
    return bad;
}

}  // namespace

size_t late_receives(const Round& r) {
    size_t bad = 0;
    int tag = 7000;
    for (size_t blocks : {300, 700, 1500, 3000}) {
        if (blocks * block > r.max_bytes) break;
        bad += late(r, blocks, false, tag) + late(r, blocks, true, tag + 2);
        tag += 4;
    }
    return bad;
}

}  // namespace mpitest
