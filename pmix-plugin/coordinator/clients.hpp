// SPDX-License-Identifier: BSD-3-Clause
// The `ghost` command's side of the coordinator: its connections, what it asks and is told.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "pmix-plugin/protocol/client_coordinator.hpp"
#include "pmix-plugin/runtime/interface/control_connection.hpp"
#include "pmix-plugin/coordinator/operations/drain.hpp"
#include "pmix-plugin/coordinator/operations/grow.hpp"
#include "pmix-plugin/coordinator/operations/snapshot.hpp"

namespace ghost::plugin {

// Loop thread only; owned by the coordinator.
class Clients {
  public:
    // What the coordinator does for a client. Each calls `finished` once; `owner` is the client.
    // Once begun a request is carried out whether or not the client stays; one that has not begun
    // goes with its client.
    struct Services {
        std::function<void(std::function<void(const Json&)> answer)> ps;
        std::function<void(uint64_t owner, MigrationOrder, MoveOperation::Progress,
                           std::function<void(const MigrationResult&)> finished)>
            migrate;
        std::function<void(uint64_t owner, SnapshotOrder, SnapshotOperation::Progress,
                           SnapshotOperation::Finished)>
            snapshot;
        std::function<void(uint64_t owner, DrainOrder, MoveOperation::Progress,
                           std::function<void(const DrainResult&)> finished)>
            drain;
        std::function<void(uint64_t owner, GrowOrder, GrowOperation::Progress,
                           GrowOperation::Finished)>
            grow;
        std::function<void(uint64_t id,
                           std::function<void(const std::vector<Engine::Undone>&)> over)>
            cancel;
        std::function<void(uint64_t owner)> gone;
    };

    Clients(EventLoop& loop, Services services);

    Status listen(const std::string& path);
    void stop();

  private:
    using ClientId = uint64_t;
    struct Client {
        std::shared_ptr<ControlConnection> connection;
        schema::Reader reader;
    };
    void came(ClientId id, ControlSocket socket);
    void out(ClientId id);
    void packet(ClientId id, std::string_view text);
    void message(ClientId id, const schema::Received& m);
    void closed(ClientId id);
    void migrate(ClientId id, const MigrateRequest& m);
    void cancel(ClientId id, const CancelRequest& m);
    void drain(ClientId id, const DrainRequest& m);
    void grow(ClientId id, const GrowRequest& m);
    void checkpoint(ClientId id, const CheckpointRequest& m);
    void progress(ClientId id, const Move& move);
    void migrated(ClientId id, const MigrationResult& result);
    template <typename Message>
    void tell(ClientId id, const Message& m) {
        auto it = clients_.find(id);
        if (it != clients_.end()) it->second.connection->tell(m);
    }
    void refuse(ClientId id, const std::string& why);

    EventLoop& loop_;
    Services services_;
    ControlEntrance entrance_;
    std::map<ClientId, Client> clients_;
};

}  // namespace ghost::plugin
