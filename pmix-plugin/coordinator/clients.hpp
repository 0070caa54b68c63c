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
#include "pmix-plugin/coordinator/mover.hpp"
#include "pmix-plugin/coordinator/queue.hpp"
#include "pmix-plugin/coordinator/snapshotter.hpp"

namespace ghost::plugin {

// Loop thread only; owned by the coordinator.
class Clients {
  public:
    // What the coordinator does for a client. Each calls `finished` once; `owner` is the client.
    struct Services {
        std::function<Json()> ps;  // the answer to `ps`
        std::function<void(uint64_t owner, const SnapshotOrder&, Snapshotter::Progress,
                           Snapshotter::Finished)>
            snapshot;
        std::function<void(const Move&)> moved;  // for the event log
    };

    Clients(RuntimeAdapter& adapter, Queue& queue, Mover& mover, Services services);

    Status listen(const std::string& path);
    void stop();

  private:
    using ClientId = uint64_t;
    struct Client {
        std::shared_ptr<ControlConnection> connection;
        schema::Reader reader;
    };
    // One `migrate`: its ranks move one after the other. Once begun it is carried out whether or
    // not the client stays; a request that has not begun goes with its client.
    struct Request {
        ClientId client = 0;
        std::vector<RankId> ranks;
        size_t next = 0;
        std::string to;
        std::string mode;
        Json rows = Json::array();
        int exit = 0;
        std::string error;
    };

    void accept();
    void packet(ClientId id, std::string_view text);
    void message(ClientId id, const schema::Received& m);
    void closed(ClientId id);
    void migrate(ClientId id, const MigrateRequest& m);
    void checkpoint(ClientId id, const CheckpointRequest& m);
    void next(const std::shared_ptr<Request>& request);
    void progress(ClientId id, const Move& move);
    void finished(const std::shared_ptr<Request>& request, const Move& move);
    void answer(const Request& request);
    template <typename Message>
    void tell(ClientId id, const Message& m) {
        auto it = clients_.find(id);
        if (it != clients_.end()) it->second.connection->tell(m);
    }
    void refuse(ClientId id, const std::string& why);

    RuntimeAdapter& adapter_;
    Queue& queue_;
    Mover& mover_;
    Services services_;
    ControlListener listener_;
    WatchId watch_ = 0;
    std::map<ClientId, Client> clients_;
    ClientId last_id_ = 0;
    std::shared_ptr<Request> begun_;  // whose ranks move now
    std::optional<TimerId> soon_;
};

}  // namespace ghost::plugin
