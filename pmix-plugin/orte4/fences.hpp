// Job-wide fences while a rank is between two daemons.
//
// A fence (MPI_Finalize, PMIx_Fence) completes in mpirun when as many daemons as host ranks have
// contributed (orte/mca/grpcomm/direct). During a move that number is not right for a moment, so it
// is raised by one and, after the switch, set to the contributions the daemons say they will make.
#pragma once

#include <set>
#include <string>

#include "pmix-plugin/orte4/loop.hpp"

namespace ghost::plugin::orte4 {

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

// In every daemon: ranks that came here while a fence was open to which this daemon had contributed
// already. Their own contribution is sent when they call the fence. ORTE's main thread.
class LateCallers {
  public:
    explicit LateCallers(Loop& loop) : loop_(loop) {}
    void add(RankId rank);
    // The rank leaves again: true if it has still not called.
    bool remove(RankId rank);

  private:
    void look();
    bool contribute_if_called(RankId rank);

    Loop& loop_;
    std::set<RankId> waiting_;
    bool looking_ = false;
};

}  // namespace ghost::plugin::orte4
