// SPDX-License-Identifier: BSD-3-Clause
// What each party needs of the MPI runtime it lives in, put together from what the runtime offers.
//
// One implementation per runtime: orte41/ (Open MPI 4.1's mpirun and orted), later PRRTE, and
// simulated ones in the tests, which offer what their subject needs. Everything is called, and
// calls back, on the runtime's own event thread ("the loop"); nothing here blocks.
#pragma once

#include "pmix-plugin/runtime/interface/event_loop.hpp"
#include "pmix-plugin/runtime/interface/job_view.hpp"
#include "pmix-plugin/runtime/interface/lifecycle.hpp"
#include "pmix-plugin/runtime/interface/messenger.hpp"
#include "pmix-plugin/runtime/interface/rehoming.hpp"

namespace ghost::plugin {

// The coordinator, in mpirun.
class CoordinatorRuntime : public virtual EventLoop,
                           public virtual Messenger,
                           public virtual JobView,
                           public virtual RankView,
                           public JobFacts,
                           public JobFences,
                           public Lifecycle {};

// The node agent, in every daemon.
class NodeRuntime : public virtual EventLoop,
                    public virtual Messenger,
                    public virtual JobView,
                    public virtual RankView,
                    public Rehoming {};

// The stream managers of the job's daemons, and how they find each other.
class StreamsRuntime : public virtual EventLoop,
                       public virtual Messenger,
                       public virtual JobView {};

// All of it: what a runtime's adapter is.
class RuntimeAdapter : public CoordinatorRuntime, public NodeRuntime, public StreamsRuntime {
  public:
    virtual bool is_coordinator() const = 0;  // true in mpirun
};

}  // namespace ghost::plugin
