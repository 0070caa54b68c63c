// SPDX-License-Identifier: BSD-3-Clause
// The steps of one round of the message-pattern program. Each is called by all ranks and returns
// the number of wrong bytes (or values) this rank has seen.
#pragma once

#include "tests/mpi/common.hpp"

namespace mpitest {

struct Round {
    const World& world;
    uint64_t number;   // salts every pattern: a message of another round is an error
    size_t max_bytes;  // largest message of this round
    uint64_t salt(int step) const { return number * 64 + static_cast<uint64_t>(step); }
};

// Sizes up to the limit: empty, odd, around the limits of eager protocols, large.
std::vector<size_t> sizes_up_to(size_t limit);

size_t blocking_exchange(const Round& r);    // Send/Recv, Ssend, Sendrecv, both orders
size_t nonblocking_storm(const Round& r);    // Isend/Irecv of many tags, completed in several ways
size_t wildcard_fan_in(const Round& r);      // ANY_SOURCE, ANY_TAG, Probe; order per pair kept
size_t persistent_requests(const Round& r);  // Send_init/Recv_init, several starts
size_t derived_types(const Round& r);        // vector, indexed, struct
size_t late_receives(const Round& r);        // large, of memory that is unmapped when sent
size_t collectives(const Round& r);          // the common ones
size_t vector_collectives(const Round& r);   // the ones with counts, and non-blocking ones
size_t communicators(const Round& r);        // dup, split, traffic in all of them at once

}  // namespace mpitest
