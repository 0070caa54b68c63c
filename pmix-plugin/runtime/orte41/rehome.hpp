// SPDX-License-Identifier: BSD-3-Clause
// The switch of a rank's entries in ORTE's tables from one daemon to another.
#pragma once

#include "pmix-plugin/runtime/orte41/job.hpp"

namespace ghost::plugin::orte41 {

// Every daemon: the rank is on `to`'s node from now on. The list of nodes with ranks, which is also
// the list of a fence's contributors, comes out the same everywhere.
void move_mapping(orte_proc_t& rank, orte_proc_t& to);

// At the source, before move_mapping(): the rank is no child of this daemon any more. Its wrapper's
// end is nobody's business then.
void remove_local_child(orte_proc_t& rank);

// At the target, after move_mapping(): `wrapper` is this daemon's child and stands for the rank.
// The PMIx server is told by ghost_pmix_join().
void add_local_child(orte_proc_t& rank, pid_t wrapper);

// ORTE drops its data about a job at a daemon, and its PMIx server's, when the last of the ranks
// there has ended, and tells mpirun of all of them then. Ranks may still come: a daemon keeps all
// of it until mpirun ends it.
void keep_job();

// mpirun is told so by us instead, of each rank when it ends.
void report_ended(const orte_proc_t& rank);

}  // namespace ghost::plugin::orte41
