// SPDX-License-Identifier: BSD-3-Clause
// Messages between the daemons of a job: reliable, in order per pair.
#pragma once

#include <string>

#include "pmix-plugin/runtime/interface/daemon_inbox.hpp"

namespace ghost::plugin {

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
