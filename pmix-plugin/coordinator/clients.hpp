// The `ghost` command's side of the coordinator: connections, requests, the queue of moves.
#pragma once

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "pmix-plugin/channel.hpp"
#include "pmix-plugin/coordinator/mover.hpp"

namespace ghost::plugin {

// Loop thread only; owned by the coordinator.
class Clients {
  public:
    // ps: makes the answer to `ps`.
    Clients(RuntimeAdapter& adapter, Mover& mover, std::function<Json()> ps);

    Status listen(const std::string& path);
    void stop();
    size_t waiting() const { return queue_.size(); }

  private:
    using ClientId = uint64_t;
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
    void message(ClientId id, const Json& m);
    void closed(ClientId id);
    void migrate(ClientId id, const Json& m);
    void next();
    void progress(const Move& move);
    void finished(const Move& move);
    void answer(const Request& request);
    void tell(ClientId id, const Json& m);
    void refuse(ClientId id, const std::string& why);

    RuntimeAdapter& adapter_;
    Mover& mover_;
    std::function<Json()> ps_;
    ControlListener listener_;
    WatchId watch_ = 0;
    std::map<ClientId, std::shared_ptr<Channel>> clients_;
    ClientId last_id_ = 0;
    std::deque<Request> queue_;  // the first one is under way if begun_
    bool begun_ = false;
    std::optional<TimerId> soon_;
};

}  // namespace ghost::plugin
