// SPDX-License-Identifier: BSD-3-Clause
// Copies of ghosts between nodes, for snapshots that are in the nodes' memory or on disks of their
// own (docs/PROTOCOL.md, "Copies"). A process of its own works at each end of a copy, and is killed
// when nobody wants it any more.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "pmix-plugin/protocol/copier.hpp"
#include "pmix-plugin/runtime/interface/background.hpp"
#include "pmix-plugin/runtime/interface/control_connection.hpp"
#include "pmix-plugin/runtime/interface/runtime_adapter.hpp"

namespace ghost::plugin {

// Loop thread only; owned by the node agent.
class Copies {
  public:
    // `program`: ghost-wrapper. `background` is stopped before this goes.
    Copies(NodeRuntime& adapter, Background& background, std::string program)
        : adapter_(adapter), background_(background), program_(std::move(program)) {}
    ~Copies() { stop(); }
    Copies(const Copies&) = delete;
    Copies& operator=(const Copies&) = delete;

    // The coordinator's order: answered once, when all that this node has to send is there.
    void make(const MakeCopies& order);
    // Another node is to send some here; the folder is there.
    void take(NodeId from, const CopyOffer& offer);
    void taken(NodeId by, const CopyTaken& answer);
    // Nobody wants what is under way.
    void stop();

  private:
    struct Helper {
        std::shared_ptr<ControlConnection> control;
        std::shared_ptr<pid_t> pid;  // 0: it has ended
    };
    // What goes to one node.
    struct Outgoing {
        std::vector<std::vector<std::string>> files;  // of each rank
        std::vector<XorStream> streams;
        Helper helper;
        uint64_t bytes = 0, total = 0;
        bool sent = false;
    };
    struct Incoming {
        uint64_t seq = 0;
        Helper helper;
        bool told = false;  // the source knows where to connect, or why not
    };
    using Said = std::function<void(const schema::Received&)>;

    Result<Helper> start(const Said& said, std::function<void()> closed);
    static void end(Helper& helper);
    void stop_sending();
    std::string proof() const;
    static void say(ControlConnection& control, XorStream stream);
    void offer();
    void sender_said(NodeId to, const schema::Received& m);
    void taker_said(NodeId from, const schema::Received& m);
    void refuse(NodeId from, uint64_t seq, const std::string& why);
    void progressed();
    void fail(const std::string& why);
    void finish_if_done();

    NodeRuntime& adapter_;
    Background& background_;
    const std::string program_;
    MakeCopies order_;
    bool under_way_ = false;  // and not answered
    std::map<NodeId, Outgoing> outgoing_;
    std::map<NodeId, Incoming> incoming_;
    std::optional<TimerId> progress_timer_;
};

}  // namespace ghost::plugin
