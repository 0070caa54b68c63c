// SPDX-License-Identifier: BSD-3-Clause
// ledger --dir DIR [--steps N] [--pause US] [--memory MB] [--shared]
//
// A computation whose files and result depend only on the number of ranks and steps, however often
// it was stopped, moved or begun again from a snapshot. In every step each rank sends to its right
// neighbour (0 to 200 KB, every byte checked) and folds what it gets into its state; every fifth
// all states are folded together. Rank r writes DIR/rank-r, a line a step, even ranks byte for
// byte, odd ones through a buffer that is part of their memory; with --shared all write blocks of
// DIR/shared by MPI-IO. Rank 0 prints "ledger: step S" every tenth, at the end "ledger: N steps,
// state X, E errors".
#include <fcntl.h>

#include "tests/mpi/common.hpp"

namespace {

using mpitest::mix;
using mpitest::World;

constexpr int block_bytes = 64;

class Own {
  public:
    Own(const std::string& path, bool buffered) : buffered_(buffered) {
        if (buffered) {
            file_ = std::fopen(path.c_str(), "w");
        } else {
            fd_ = ::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0644);
        }
    }
    bool good() const { return file_ != nullptr || fd_ >= 0; }
    bool line(uint64_t step, uint64_t state) {
        char text[64];
        const int n = std::snprintf(text, sizeof text, "step %llu state %016llx\n",
                                    static_cast<unsigned long long>(step),
                                    static_cast<unsigned long long>(state));
        if (buffered_) return std::fwrite(text, 1, static_cast<size_t>(n), file_) > 0;
        return ::write(fd_, text, static_cast<size_t>(n)) == n;
    }
    bool close() { return buffered_ ? std::fclose(file_) == 0 : ::close(fd_) == 0; }

  private:
    bool buffered_;
    std::FILE* file_ = nullptr;
    int fd_ = -1;
};

class Ledger {
  public:
    Ledger(const World& world, const mpitest::Options& options)
        : world_(world),
          own_(options.text("--dir", ".") + "/rank-" + std::to_string(world.rank),
               world.rank % 2 == 1),
          ballast_(static_cast<size_t>(options.number("--memory", 4)) << 17),
          state_(mix(static_cast<uint64_t>(world.rank))) {
        if (!own_.good()) ++errors_;
        if (!options.flag("--shared")) return;
        const std::string path = options.text("--dir", ".") + "/shared";
        has_shared_ = MPI_File_open(MPI_COMM_WORLD, path.c_str(), MPI_MODE_CREATE | MPI_MODE_WRONLY,
                                    MPI_INFO_NULL, &shared_) == MPI_SUCCESS;
        errors_ += has_shared_ ? 0 : 1;
    }

    void step(uint64_t number) {
        exchange(number);
        if (number % 5 == 4) fold();
        touch(number);
        if (!own_.line(number, state_)) ++errors_;
        if (has_shared_ && number % 10 == 9) write_block(number / 10);
    }

    uint64_t finish() {
        if (!own_.close()) ++errors_;
        if (has_shared_) MPI_File_close(&shared_);
        fold();
        for (size_t i = 0; i < ballast_.size(); ++i) state_ = mix(state_ ^ ballast_[i]);
        fold();
        return world_.sum(errors_);
    }
    uint64_t state() const { return state_; }

  private:
    static size_t size_of(int sender, uint64_t number) {
        const uint64_t word = mixed(sender, number);
        return word % 4 == 0 ? word % 200'000 : word % 3000;
    }
    static uint64_t mixed(int sender, uint64_t number) { return mpitest::key(sender, 77, number); }

    void exchange(uint64_t number) {
        const int right = (world_.rank + 1) % world_.size;
        const int left = (world_.rank + world_.size - 1) % world_.size;
        const size_t out_size = 8 + size_of(world_.rank, number),
                     in_size = 8 + size_of(left, number);
        out_.resize(out_size);
        std::memcpy(out_.data(), &state_, 8);
        mpitest::fill(out_.data() + 8, out_size - 8, mpitest::key(world_.rank, 1, number));
        mpitest::Guarded in(in_size);
        MPI_Request request;
        MPI_Irecv(in.data(), static_cast<int>(in_size), MPI_BYTE, left, 5, MPI_COMM_WORLD,
                  &request);
        MPI_Send(out_.data(), static_cast<int>(out_size), MPI_BYTE, right, 5, MPI_COMM_WORLD);
        MPI_Wait(&request, MPI_STATUS_IGNORE);
        auto* bytes = static_cast<unsigned char*>(in.data());
        errors_ += mpitest::wrong(bytes + 8, in_size - 8, mpitest::key(left, 1, number));
        uint64_t theirs = 0;
        std::memcpy(&theirs, bytes, 8);
        state_ = mix(state_ ^ mix(theirs + number));
    }
    void fold() {
        uint64_t all = 0;
        MPI_Allreduce(&state_, &all, 1, MPI_UINT64_T, MPI_BXOR, MPI_COMM_WORLD);
        state_ = mix(state_ + all);
    }
    void touch(uint64_t number) {
        for (uint64_t i = 0; i < 64 && !ballast_.empty(); ++i)
            ballast_[mix(number * 64 + i) % ballast_.size()] += state_;
    }
    void write_block(uint64_t number) {
        char text[block_bytes + 1];
        std::snprintf(text, sizeof text, "%-63llx\n", static_cast<unsigned long long>(state_));
        const auto place = static_cast<MPI_Offset>(
            (number * static_cast<uint64_t>(world_.size) + static_cast<uint64_t>(world_.rank)) *
            block_bytes);
        MPI_Status status;
        int count = 0;
        MPI_File_write_at(shared_, place, text, block_bytes, MPI_BYTE, &status);
        MPI_Get_count(&status, MPI_BYTE, &count);
        errors_ += count == block_bytes ? 0 : 1;
    }

    const World& world_;
    Own own_;
    std::vector<uint64_t> ballast_;
    std::vector<unsigned char> out_;
    uint64_t state_;
    uint64_t errors_ = 0;
    MPI_File shared_ = MPI_FILE_NULL;
    bool has_shared_ = false;
};

}  // namespace

int main(int argc, char** argv) {
    mpitest::World world(&argc, &argv);
    mpitest::Options options(argc, argv);
    const auto steps = static_cast<uint64_t>(options.number("--steps", 200));
    const auto pause = static_cast<useconds_t>(options.number("--pause", 0));
    Ledger ledger(world, options);
    for (uint64_t i = 0; i < steps; ++i) {
        ledger.step(i);
        // May end early when a snapshot falls into it: nothing depends on its length.
        if (pause > 0) usleep(pause);
        if (world.rank == 0 && i % 10 == 0) {
            std::printf("ledger: step %llu\n", static_cast<unsigned long long>(i));
            std::fflush(stdout);
        }
    }
    const uint64_t errors = ledger.finish();
    if (world.rank == 0) {
        std::printf("ledger: %llu steps, state %016llx, %llu errors\n",
                    static_cast<unsigned long long>(steps),
                    static_cast<unsigned long long>(ledger.state()),
                    static_cast<unsigned long long>(errors));
        std::fflush(stdout);
    }
    MPI_Finalize();
    return errors == 0 ? 0 : 1;
}
