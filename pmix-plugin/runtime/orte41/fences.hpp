// SPDX-License-Identifier: BSD-3-Clause
// Job-wide fences while a rank is between two daemons.
//
// A fence (MPI_Finalize, PMIx_Fence) completes in mpirun when as many daemons as host ranks have
// contributed (orte/mca/grpcomm/direct). During moves that number is not right for a moment, so it
// is raised out of reach and, after the last switch, set to the contributions the daemons say they
// will make.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "pmix-plugin/runtime/orte41/loop.hpp"

namespace ghost::plugin::orte41 {

// In mpirun. Holds nothing of its own but the fact that it holds. ORTE's main thread.
class FenceHold {
  public:
    // False: one is completing at this moment; ask again a millisecond later.
    bool hold();
    void release();
    void settle(int votes);

  private:
    bool held_ = false;
};

// A call of some processes, by their names as they were given (PMIx_Connect, PMIx_Disconnect,
// PMIx_Fence; pmix_collectives.h).
using NamedCall = std::vector<std::pair<uint32_t, uint32_t>>;  // job, process

// Does ORTE know on which daemon the process runs? Where it is asked for one it does not know, it
// ends mpirun.
bool is_known_process(uint32_t jobid, uint32_t rank);

// In every daemon, at the switch: calls that name the rank wait for contributions of the daemons
// that now host their processes.
void recount_calls_of(RankId rank);

// In mpirun: to such a call one contribution more is made than daemons take part, or not after all.
void expect_late_call(const NamedCall& call, bool expected);

// In every daemon: ranks that came here while a fence was open to which this daemon had contributed
// already. Their own contribution is sent when they call the fence. ORTE's main thread.
class LateCallers {
  public:
    // `tell` tells mpirun (expect_late_call()).
    LateCallers(Loop& loop, std::function<void(const NamedCall&, bool)> tell)
        : loop_(loop), tell_(std::move(tell)) {}
    // All of the rank has arrived, and the switch is yet to come.
    void expect(RankId rank);
    // It does not come.
    void expect_no_more(RankId rank);
    // It is here. `late`: in a fence of the whole job.
    void add(RankId rank, bool late);
    // The rank leaves again: true if it has still not called.
    bool remove(RankId rank);
    // Nobody calls any more.
    void forget();

  private:
    void look();
    static bool contribute_if_called(RankId rank);
    static bool contribute_to_calls(RankId rank, std::vector<NamedCall>& calls);

    Loop& loop_;
    std::function<void(const NamedCall&, bool)> tell_;
    std::set<RankId> waiting_;
    std::map<RankId, std::vector<NamedCall>> calls_;     // that wait for a rank which is here
    std::map<RankId, std::vector<NamedCall>> expected_;  // the same of one that is to come
    bool looking_ = false;
};

}  // namespace ghost::plugin::orte41
