// SPDX-License-Identifier: BSD-3-Clause
// The wrapper's work while its rank lives: moves its input and output, passes signals on, answers
// the node agent, and ends exactly as the rank ends.
#pragma once

#include <array>
#include <memory>
#include <optional>
#include <sys/types.h>
#include <vector>

#include "base/control_socket.hpp"
#include "base/loop.hpp"
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
    void say_hello();
    void begin_watching();
    void watch_what_changes();
    bool has_more_to_drain() const;
    void take_signals();
    void take_control();
    void handle(const schema::Received& message);
    void daemon_died();
    void tree_left();
    void look_for_status();
    bool operation(const schema::Received& message);
    void move_worker_done();
    void snapshot_worker_done();
    void move_stdio();
    bool is_frozen() const;
    void kill_if_stopped();
    void tree_ended(int status);
    bool done();
    void send(const std::string& packet);
    void lose_control();
    void give_way();

    struct Waiting {
        Interest what;
        Loop::Watch watch;
    };

    RankTree rank_tree_;
    const core::Signals& signals_;
    Fd daemon_;  // pidfd of our parent
    Fd tree_;    // pidfd of the init; closed when it has ended
    std::optional<int> status_;
    bool tree_gone_ = false;  // ended; for an adopted one the status may still be missing
    bool status_late_ = false;
    bool give_up_output_ = false;
    bool terminated_ = false;  // SIGTERM has come: the job is being ended
    bool bye_ = false;
    Snapshotter snapshotter_;
    Mover mover_;
    schema::Reader reader_{to_wrapper, "the node agent"};
    std::vector<schema::Received> later_;  // messages that wait until the snapshotter is idle
    Loop loop_;
    Loop::Watch on_signal_, on_control_, on_daemon_, on_tree_, on_move_, on_snapshot_;
    Loop::Watch on_progress_, on_status_late_, on_lost_;
    std::array<Waiting, 3> on_stdio_;
};

// The parent's pidfd; readable when it has ended, which it may have already.
Fd watch_parent();

}  // namespace ghost::plugin
