// SPDX-License-Identifier: BSD-3-Clause
// One operation on the job at a time, moves and snapshots alike, in the order asked for.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <optional>
#include <string>

#include "pmix-plugin/runtime/interface/runtime_adapter.hpp"

namespace ghost::plugin {

struct Operation {
    uint64_t owner = 0;           // the client who asked; 0: nobody who could leave
    std::function<void()> begin;  // calls done() of the queue once, perhaps before it returns
    // It will not begin; the reason is a sentence.
    std::function<void(const std::string& why)> refuse;
};

// Loop thread only; owned by the coordinator.
class Queue {
  public:
    explicit Queue(RuntimeAdapter& adapter) : adapter_(adapter) {}
    ~Queue() { stop("mpirun is ending"); }

    // False: too many wait already (nothing of the operation is called).
    bool add(Operation operation);
    void done();
    // Forgets what `owner` has waiting; what has begun goes on.
    void drop(uint64_t owner);
    size_t waiting() const { return waiting_.size() + (begun_ ? 1 : 0); }
    bool idle() const { return !begun_ && waiting_.empty(); }
    // Refuses everything that waits; nothing begins any more.
    void stop(const std::string& why);

  private:
    void next();

    RuntimeAdapter& adapter_;
    std::deque<Operation> waiting_;
    bool begun_ = false;
    bool stopped_ = false;
    std::optional<TimerId> soon_;
};

}  // namespace ghost::plugin
