// SPDX-License-Identifier: BSD-3-Clause
// The wrapper's work while its rank lives: moves its input and output, passes signals on, answers
// the node agent, and ends exactly as the rank ends.
#pragma once

#include <memory>
#include <optional>
#include <sys/types.h>
#include <vector>

#include "base/control_socket.hpp"
#include "ghost-core/criu/signals.hpp"
#include "ghost-core/supervisor/guard.hpp"
#include "pmix-plugin/wrapper/tree_parts.hpp"
#include "pmix-plugin/wrapper/mover.hpp"
#include "pmix-plugin/wrapper/snapshotter.hpp"
#include "pmix-plugin/wrapper/stdio.hpp"

namespace ghost::plugin {

// A rank's tree and everything that belongs to it, handed to its supervisor.
struct RankTree {
    Identity who;
    pid_t root = 0;        // init of the tree
    bool adopted = false;  // it is the daemon's child, not ours
    Stdio stdio;
    core::Guard guard;
    ControlSocket control;
    WrapperMode mode = WrapperMode::run;
};

class Supervisor {
  public:
    Supervisor(RankTree rank_tree, const core::Signals& signals);

    // Says hello and returns when the rank has ended or left: the wait status to end with.
    int run();

  private:
    TreeParts parts();
    int timeout_ms() const;
    void say_hello();
    void wait_for_something();
    void take_signals();
    void take_control();
    void handle(const schema::Received& message);
    void look_at_daemon();
    void look_at_tree();
    bool operation(const schema::Received& message);
    void look_at_worker();
    void look_at_snapshot();
    void kill_if_stopped();
    void tree_ended(int status);
    bool done();
    void send(const std::string& packet);

    RankTree rank_tree_;
    const core::Signals& signals_;
    Fd daemon_;  // pidfd of our parent
    Fd tree_;    // pidfd of the init; closed when it has ended
    std::optional<int> status_;
    bool tree_gone_ = false;  // ended; for an adopted one the status may still be missing
    int64_t gone_since_us_ = 0;
    bool give_up_output_ = false;
    bool terminated_ = false;  // SIGTERM has come: the job is being ended
    bool bye_ = false;
    Snapshotter snapshotter_;
    Mover mover_;
    schema::Reader reader_{to_wrapper, "the node agent"};
    std::vector<schema::Received> later_;  // messages that wait until the snapshotter is idle
};

// The parent's pidfd; readable when it has ended, which it may have already.
Fd watch_parent();

}  // namespace ghost::plugin
