// SPDX-License-Identifier: BSD-3-Clause
// Messages between the daemons of a job, over ORTE's RML.
#pragma once

#include <memory>
#include <optional>
#include <set>
#include <string>

#include "pmix-plugin/runtime/interface/message_seal.hpp"
#include "pmix-plugin/runtime/interface/runtime_adapter.hpp"
#include "pmix-plugin/settings/job_secret.hpp"

namespace ghost::plugin::orte41 {

// ORTE sends what it is given over TCP as it is, so messages are sealed, unless the secret itself
// comes with the launch message (settings/job_secret.hpp). Used on ORTE's main thread only.
// Construct once RML is up; receiving ends with stop().
class RmlMessenger {
  public:
    RmlMessenger();
    ~RmlMessenger() { stop(); }
    RmlMessenger(const RmlMessenger&) = delete;
    RmlMessenger& operator=(const RmlMessenger&) = delete;

    void send(NodeId to, const std::string& packet);
    template <typename T>
    void tell(NodeId to, const T& message) {
        send(to, schema::encode(message));
    }
    // By mpirun, down the routing tree: the same order everywhere, this daemon included.
    void broadcast(const std::string& packet);
    void add_handler(DaemonInbox::Handler handler) { inbox_.add(std::move(handler)); }
    // No handler is called any more. Does not touch RML, which may be gone already.
    void stop();

  private:
    void deliver(NodeId from, const std::string& life, const std::string& text);
    void refuse(NodeId from, const std::string& why);
    void deliver_sealed(NodeId from, const std::string& sealed);

    // Null: messages are not sealed, because the launch message has the secret.
    MessageSeal* seal();
    std::string life();

    std::optional<JobSecret> job_;  // of this process, if messages are sealed
    std::unique_ptr<MessageSeal> seal_;
    std::set<NodeId> refused_;  // whose messages could not be read; told once
    DaemonInbox inbox_;
};

}  // namespace ghost::plugin::orte41
