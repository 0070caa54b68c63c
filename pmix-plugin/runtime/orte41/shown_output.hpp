// SPDX-License-Identifier: BSD-3-Clause
// mpirun: what it has been given to show of the ranks' output, so that after a recovery none of it
// is shown twice.
#pragma once

#include <map>
#include <optional>
#include <vector>

#include "pmix-plugin/protocol/node_wrapper.hpp"
#include "pmix-plugin/runtime/interface/job_view.hpp"

namespace ghost::plugin::orte41 {

// ORTE's main thread only; may not be moved once it counts.
class ShownOutputs {
  public:
    // From now on all that comes from other daemons is counted. Before the first of it.
    void begin();
    // A rank of this node, whose output ORTE reads itself: its wrapper has told; nothing: it could
    // not.
    void given(RankId rank, const std::optional<OutputGiven>& what);
    std::vector<ShownOutput> all() const;

  private:
    ShownOutput& of(RankId rank);

    bool counts_ = false;
    std::map<RankId, ShownOutput> ranks_;
};

}  // namespace ghost::plugin::orte41
