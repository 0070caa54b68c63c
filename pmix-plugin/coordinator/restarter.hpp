// SPDX-License-Identifier: BSD-3-Clause
// Restarts the job from a snapshot: the state machine of PROTOCOL.md, "A restart of the job",
// coordinator's side.
#pragma once

#include <functional>
#include <memory>
#include <optional>

#include "pmix-plugin/runtime/interface/background.hpp"
#include "pmix-plugin/coordinator/job_lock.hpp"
#include "pmix-plugin/coordinator/liveness.hpp"
#include "pmix-plugin/coordinator/restart.hpp"

namespace ghost::plugin {

// Loop thread only; owned by the coordinator.
class Restarter {
  public:
    struct Context {
        RuntimeAdapter& adapter;
        const CoordinatorSettings& settings;
        Liveness& liveness;
        Background& background;
        std::shared_ptr<JobLock> lock;
        std::function<void(const kernet::Location&)> publish;
    };
    using Finished = std::function<void(const Restart&)>;

    explicit Restarter(Context context) : c_(std::move(context)) {}

    bool busy() const { return restart_.has_value(); }
    const Restart* current() const { return restart_ ? &*restart_ : nullptr; }
    // Starts it; `finished` is called once if it works. Otherwise the job is ended with all that is
    // missing, and nothing else may begin.
    void begin(const std::string& folder, Finished finished);
    // snap_up and snap_progress of this node's own agent, seq 0.
    void message(const schema::Received& m);
    void node_lost(NodeId node);
    void stop();

  private:
    struct Known;

    void change(RestartState next);
    void arm_limit();
    void known(const Known& known);
    void wait_for_launch();
    void fail(const std::string& why);

    Context c_;
    std::optional<Restart> restart_;
    Finished finished_;
    std::optional<TimerId> limit_;
    std::optional<TimerId> poll_;
};

}  // namespace ghost::plugin
