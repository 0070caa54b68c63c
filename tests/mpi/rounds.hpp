// SPDX-License-Identifier: BSD-3-Clause
// What each rank has reached, in a file that all ranks can read: who comes out of a call too early
// shows. Not kept open: a file whose size changes while its rank is on the way is not the same.
#pragma once

#include "tests/mpi/common.hpp"

#include <fcntl.h>

namespace mpitest {

class Rounds {
  public:
    Rounds(std::string path, const World& world) : path_(std::move(path)), world_(world) {}
    // False if it could not be written.
    bool reach(uint64_t round) const {
        const int fd = ::open(path_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
        const bool good =
            ::pwrite(fd, &round, sizeof round, world_.rank * off_t{8}) == sizeof round;
        ::close(fd);
        return good;
    }
    // Ranks that have not reached the round.
    uint64_t behind(uint64_t round) const {
        const int fd = ::open(path_.c_str(), O_RDONLY | O_CLOEXEC);
        uint64_t late = 0;
        for (int r = 0; r < world_.size; ++r) {
            uint64_t there = 0;
            const bool read = ::pread(fd, &there, sizeof there, r * off_t{8}) == sizeof there;
            late += read && there >= round ? 0 : 1;
        }
        ::close(fd);
        return late;
    }
    // Each rank is late at random, so that moves find calls in every state.
    void wait_at_random(uint64_t round) const {
        const uint64_t late = mix(round * 64 + static_cast<uint64_t>(world_.rank)) % 8;
        ::usleep(static_cast<useconds_t>(late * late * 300));
    }

  private:
    std::string path_;
    const World& world_;
};

}  // namespace mpitest
