// SPDX-License-Identifier: BSD-3-Clause
// Messages between the daemons of a job: reliable, in order per pair.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "pmix-plugin/protocol/daemons.hpp"

namespace ghost::plugin {

using NodeId = uint32_t;  // the daemon's number in the job family; 0 is mpirun's own

// Where messages of other daemons arrive: read once, by the rules of their schema, and handed to
// everybody in this daemon who takes some. Loop thread only.
class DaemonInbox {
  public:
    using Handler = std::function<void(NodeId from, const schema::Received& message)>;

    void add(Handler handler) { handlers_.push_back(std::move(handler)); }
    void clear() { handlers_.clear(); }
    // What is to be sent back, if anything.
    std::string deliver(NodeId from, std::string_view packet);

  private:
    std::vector<Handler> handlers_;
    std::map<NodeId, schema::Reader> readers_;
};

class Messenger {
  public:
    virtual ~Messenger() = default;

    virtual NodeId self() const = 0;
    virtual void send(NodeId to, const std::string& packet) = 0;
    // To every live daemon, this one included, in the same order everywhere.
    virtual void broadcast(const std::string& packet) = 0;
    // Handlers add up (in mpirun both coordinator and node agent register one): each is called with
    // every message and takes the types that are its own. An empty handler is never passed.
    virtual void on_message(DaemonInbox::Handler handler) = 0;
    template <typename T>
    void tell(NodeId to, const T& message) {
        send(to, schema::encode(message));
    }
    template <typename T>
    void tell_all(const T& message) {
        broadcast(schema::encode(message));
    }
};

}  // namespace ghost::plugin
