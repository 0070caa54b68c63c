// SPDX-License-Identifier: BSD-3-Clause
// Makes a rank of a ghost in the wrapper, for a move or a restart, until it runs: import, hold, go.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/control_socket.hpp"
#include "ghost-core/engine/migration.hpp"
#include "pmix-plugin/wrapper/ghost_source.hpp"
#include "pmix-plugin/wrapper/guard.hpp"
#include "pmix-plugin/wrapper/identity.hpp"
#include "pmix-plugin/wrapper/signals.hpp"
#include "pmix-plugin/wrapper/stdio.hpp"
#include "pmix-plugin/wrapper/supervisor.hpp"
#include "pmix-plugin/wrapper/work_folder.hpp"
#include "pmix-plugin/wrapper/worker.hpp"

namespace ghost::plugin {

enum class RestoreState {
    waiting,    // for `prepare`
    warming,    // the worker runs criu once, and looks at a ghost that is there
    listening,  // `ready` said; for the ghost's coming. A restart: `checked` said; for `import`
    importing,  // the worker takes the ghost in
    held,       // `held` said: the tree is there and stands
    running,    // `go` came: handed over to a supervisor
    failed,     // or called off: nothing is left
};

// Main thread only.
class Restorer {
  public:
    Restorer(Identity who, const Signals& signals, Guard guard, ControlSocket control,
             std::unique_ptr<GhostSource> source);

    // Returns the rank's tree when it runs, or nothing when it has ended in any other way; then
    // nothing of it is left.
    std::optional<RankTree> run();

  private:
    void change(RestoreState to);
    bool ended() const { return state_ == RestoreState::running || state_ == RestoreState::failed; }
    void wait_for_something();
    void take_signals();
    void take_control();
    void handle(const schema::Received& message);
    void prepare(uint64_t seq);
    void go(const Go& word);
    void look_at_daemon();
    void look_at_source();
    void look_at_worker();
    void begin_import();
    Outgoing import_ghost();
    bool wait_for_the_end();
    void say_why() const;
    void fail(const char* stage, const std::string& why);
    void call_off(const std::string& why);
    void send(const std::string& packet, const std::vector<int>& fds = {});

    Identity who_;
    const Signals& signals_;
    Guard guard_;
    ControlSocket control_;
    schema::Reader reader_{to_wrapper, "the node agent"};
    Fd daemon_;
    RestoreState state_ = RestoreState::waiting;
    bool called_off_ = false;  // and the worker has not ended yet
    std::string why_;          // it failed
    uint64_t seq_ = 0;
    WorkFolder folder_;
    std::unique_ptr<GhostSource> source_;  // the worker's while it imports
    // Made by the worker, the loop's when it has ended.
    Stdio stdio_;
    std::optional<AgentThread> agent_;
    core::HeldTree held_;
    Worker worker_;
};

}  // namespace ghost::plugin
