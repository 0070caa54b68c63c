// SPDX-License-Identifier: BSD-3-Clause
// Time limits of the coordinator, and what its surroundings decide for it.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "base/clock.hpp"

namespace ghost::plugin {

// Time limits are microseconds; PROTOCOL.md, "A move" and "A snapshot of the job", says what an
// expired one means.
struct CoordinatorSettings {
    int64_t prepare_us = 10'000'000;
    int64_t connect_us = 5'000'000;
    int64_t slow_us = 60'000'000;      // those two and `go`, of a node that answers
    int64_t hold_us = 10'000'000;      // until job-wide fences are held and every daemon answered
    int64_t hold_retry_us = 1'000;     // a fence is completing right now
    int64_t gate_us = 10'000'000;      // all tries together
    int64_t gate_retry_us = 5'000;     // the rank was inside a call that cannot be moved
    int64_t patience_us = 100'000;     // fences are held for a busy rank before they go on a moment
    int64_t transfer_us = 20'000'000;  // without any progress
    int64_t switch_us = 10'000'000;
    int64_t go_us = 10'000'000;
    int64_t abort_us = 15'000'000;   // for the rank to be back at the source
    int64_t still_us = 1'000'000;    // the same for one that cannot act, which has been told
    int64_t freeze_us = 20'000'000;  // every rank is frozen and is back
    int64_t defer_us = 60'000'000;   // a rank in MPI_Init is waited for
    int64_t defer_retry_us = 100'000;
    int64_t restart_us = 60'000'000;  // without any progress
    int64_t late_us = 1'000'000;      // a limit that is told so much later says nothing
    int64_t look_us = 300'000;        // for every daemon to look at its ranks, for `ps`
    int64_t leave_us = 10'000'000;    // for the daemon of a drained node to end
    int64_t start_us = 30'000'000;    // for the daemon of a node that joins to report
    int64_t join_us = 10'000'000;     // for every daemon to know of it
    int64_t ping_us = 2'000'000;
    int64_t silent_us = 10'000'000;  // a daemon silent for longer cannot be reached
    bool oversubscribe = false;      // ranks may outnumber a node's slots (rmaps' policy)
    int kill_status = 85;            // of mpirun, after a snapshot with then = kill
    bool threads = true;             // what blocks on a disk; false: the simulated clock
    // One line for the user, on standard error if this is empty.
    std::function<void(const std::string&)> say;
    std::string socket;                           // empty: <session dir>/ghost.sock
    std::string events;                           // folder of event logs; empty: none is kept
    std::function<int64_t()> now = monotonic_us;  // the tests have their own clock

    // So long after it went silent a daemon is given up for certain: more than any state that waits
    // for all of them may last, or the whole operation would be given up instead.
    int64_t until_given_up_us() const { return silent_us + 2 * ping_us; }
};

}  // namespace ghost::plugin
