// SPDX-License-Identifier: BSD-3-Clause
// Messages between the daemons of a job, over ORTE's RML.
#pragma once

#include <string>

#include "pmix-plugin/runtime/interface/runtime_adapter.hpp"

namespace ghost::plugin::orte41 {

// Used on ORTE's main thread only. Construct once RML is up; receiving ends with stop().
class RmlMessenger {
  public:
    RmlMessenger();
    ~RmlMessenger() { stop(); }
    RmlMessenger(const RmlMessenger&) = delete;
    RmlMessenger& operator=(const RmlMessenger&) = delete;

    void send(NodeId to, const std::string& packet) const;
    template <typename T>
    void tell(NodeId to, const T& message) const {
        send(to, schema::encode(message));
    }
    // By mpirun, down the routing tree: the same order everywhere, this daemon included.
    void broadcast(const std::string& packet) const;
    void add_handler(DaemonInbox::Handler handler) { inbox_.add(std::move(handler)); }
    // No handler is called any more. Does not touch RML, which may be gone already.
    void stop();

  private:
    void deliver(NodeId from, const std::string& life, const char* text);

    DaemonInbox inbox_;
};

}  // namespace ghost::plugin::orte41
