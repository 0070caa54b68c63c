// SPDX-License-Identifier: BSD-3-Clause
// The source's part of a move in the wrapper: connect, export, then resume or die.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <sys/types.h>

#include "ghost-core/engine/migration.hpp"
#include "ghost-core/criu/realtime_priority.hpp"
#include "ghost-core/resource/network.hpp"
#include "pmix-plugin/wrapper/tree_parts.hpp"
#include "pmix-plugin/wrapper/work_folder.hpp"
#include "pmix-plugin/wrapper/worker.hpp"

namespace ghost::plugin {

enum class MoveState {
    idle,         // no move
    connecting,   // the worker connects to the target and warms criu
    connected,    // the target's wrapper waits for the ghost
    exporting,    // the worker freezes and sends
    calling_off,  // the same, but the move was called off meanwhile
    exported,     // the tree stands, whole, at both ends
    leaving,      // decided: what the rank wrote goes out, then the tree is killed
    gone,         // killed and said so
};

// Main thread only.
class Mover {
  public:
    // `before`: called by the worker before a move begins, while the rank runs; tells what of its
    // memory is to lie in huge pages again, beside what does now.
    Mover(TreeParts parts, std::function<core::HugeMemory()> before);

    // Takes a message of the node agent; false: not one of a move.
    bool handle(const schema::Received& message);
    int fd() const { return worker_.fd(); }  // readable: call worker_done()
    void worker_done();
    // Call in every round, after the pumps ran.
    void step();
    // The tree has ended by itself, or must: whatever goes on is broken off.
    void break_off();

    bool idle() const { return state_ == MoveState::idle && !worker_.busy(); }
    bool busy() const { return worker_.busy(); }
    bool stopped() const { return state_ == MoveState::exported; }
    bool leaving() const { return state_ == MoveState::leaving; }
    bool gone() const { return state_ == MoveState::gone; }

  private:
    void change(MoveState to);
    void connect(const Connect& where);
    core::ExportRequest request() const;
    void start_export(uint64_t seq);
    void call_off(const schema::Received& word);
    void resume(const schema::Received& word);
    void die(uint64_t seq);
    void drop_connection();
    void finished_connecting(const Outgoing& answer);
    void finished_exporting(const Outgoing& answer);

    TreeParts parts_;
    const std::function<core::HugeMemory()> before_;
    core::HugeMemory huge_;
    MoveState state_ = MoveState::idle;
    uint64_t seq_ = 0;
    Worker worker_;
    WorkFolder folder_;
    std::unique_ptr<core::NetworkResource> target_;
    std::optional<core::TreeDump> ahead_;        // waits for `export`, in folder_
    std::vector<std::string> externals_;         // of it
    std::optional<Connect> waiting_;             // to be done when the worker is free
    std::optional<schema::Received> last_word_;  // Resume or Cancel while the worker was busy
    bool carried_ = false;
    std::optional<core::RealtimePriority> realtime_;  // as long as there is a move
};

}  // namespace ghost::plugin
