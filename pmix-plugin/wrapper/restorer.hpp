// SPDX-License-Identifier: BSD-3-Clause
// Makes a rank of a ghost in the wrapper, for a move or a restart, until it runs: import, hold, go.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/control_socket.hpp"
#include "base/loop.hpp"
#include "base/state_machine.hpp"
#include "ghost-core/engine/migration.hpp"
#include "ghost-core/criu/signals.hpp"
#include "ghost-core/supervisor/guard.hpp"
#include "ghost-core/supervisor/work_folder.hpp"
#include "pmix-plugin/wrapper/ghost_source.hpp"
#include "pmix-plugin/wrapper/tree_parts.hpp"
#include "pmix-plugin/wrapper/stdio.hpp"
#include "pmix-plugin/wrapper/supervisor.hpp"
#include "pmix-plugin/wrapper/worker.hpp"

namespace ghost::plugin {

enum class RestoreState {
    waiting,      // for `prepare`
    warming,      // the worker runs criu once, and looks at a ghost that is there
    listening,    // `ready` said; for the ghost's coming. A restart: `checked` said; for `import`
    importing,    // the worker takes the ghost in
    held,         // `held` said: the tree is there and is frozen
    calling_off,  // and the worker has not ended yet
    running,      // `go` came: handed over to a supervisor
    failed,       // or called off: nothing is left
};

struct RestoreRow {
    RestoreState state;
    const char* name;
    uint32_t next;
};
constexpr StateTable restore_states(std::to_array<RestoreRow>({
    {RestoreState::waiting, "waiting", to({RestoreState::warming, RestoreState::failed})},
    {RestoreState::warming, "warming",
     to({RestoreState::listening, RestoreState::calling_off, RestoreState::failed})},
    {RestoreState::listening, "listening", to({RestoreState::importing, RestoreState::failed})},
    {RestoreState::importing, "importing",
     to({RestoreState::held, RestoreState::calling_off, RestoreState::failed})},
    {RestoreState::held, "held", to({RestoreState::running, RestoreState::failed})},
    {RestoreState::calling_off, "calling off", to({RestoreState::failed})},
    {RestoreState::running, "running", 0},
    {RestoreState::failed, "failed", 0},
}));

// Main thread only.
class Restorer {
  public:
    Restorer(Identity who, const core::Signals& signals, core::Guard guard, ControlSocket control,
             std::unique_ptr<GhostSource> source);

    // Returns the rank's tree when it runs, or nothing when it has ended in any other way; then
    // nothing of it is left.
    std::optional<RankTree> run();
    // It returned nothing because the node agent has closed the connection.
    bool was_given_up() const { return !control_.valid(); }

  protected:
    // False: the table has no such change, which is a bug of ours: the wrapper gives up.
    bool change(RestoreState to);

  private:
    bool may(RestoreState next) const { return restore_states.allows(state_, next); }
    bool ended() const { return restore_states.is_final(state_); }
    void begin_watching();
    void take_signals();
    void take_control();
    void handle(const schema::Received& message, std::vector<Fd> fds);
    void import(const Import& order, std::vector<Fd> files);
    void prepare(const Prepare& order);
    void go(const Go& word);
    void daemon_died();
    void worker_done();
    void tell_progress();
    void begin_import();
    void watch_held();
    Outgoing import_ghost();
    Outgoing import_live(core::Resource& link);
    Outgoing import_failed(const Error& error) const;
    Outgoing hold(const core::HeldTree& held, Stdio& stdio);
    bool wait_for_the_end();
    void say_why() const;
    void fail(Stage stage, const std::string& why);
    void call_off(const std::string& why);
    void send(const std::string& packet, const std::vector<int>& fds = {});
    void lose_control();

    Identity who_;
    const core::Signals& signals_;
    core::Guard guard_;
    ControlSocket control_;
    schema::Reader reader_{to_wrapper, "the node agent"};
    Fd daemon_;
    RestoreState state_ = RestoreState::waiting;
    std::string why_;                   // it failed
    std::map<std::string, Fd> shared_;  // by what they take the place of; before the import
    uint64_t seq_ = 0;
    std::optional<ShownOutput> shown_;  // of a recovery
    core::WorkFolder folder_;
    std::unique_ptr<GhostSource> source_;  // the worker's while it imports
    // Made by the worker, the loop's when it has ended.
    Stdio stdio_;
    std::optional<AgentThread> agent_;
    core::HeldTree held_;
    Worker worker_;
    Loop loop_;
    Fd held_fd_;  // readable when the tree that is held has ended
    Loop::Watch on_signal_, on_control_, on_daemon_, on_source_, on_worker_, on_progress_, on_held_;
};

}  // namespace ghost::plugin
