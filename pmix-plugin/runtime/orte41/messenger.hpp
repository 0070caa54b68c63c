// SPDX-License-Identifier: BSD-3-Clause
// Messages between the daemons of a job, over ORTE's RML.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "pmix-plugin/runtime/interface/message_seal.hpp"
#include "pmix-plugin/runtime/interface/runtime_adapter.hpp"
#include "pmix-plugin/settings/secret_exchange.hpp"

namespace ghost::plugin::orte41 {

// ORTE sends what it is given over TCP as it is, so messages are sealed with the job's secret. A
// daemon that has not been told it by what started it asks mpirun (settings/secret_exchange.hpp) as
// soon as it has the launch message; until then messages wait, both ways. Used on ORTE's main
// thread only. Construct once RML is up; receiving ends with stop().
class RmlMessenger {
  public:
    // doubtful: in mpirun, a second process has asked for the secret as the same daemon.
    explicit RmlMessenger(std::function<void(const std::string& why)> doubtful);
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
    // Does what can be done for the secret now: true once this process has it.
    bool has_secret();
    std::string secret() const { return job_ ? job_->secret : std::string(); }
    // No handler is called any more. Does not touch RML, which may be gone already.
    void stop();

  private:
    struct Waiting {
        NodeId peer;
        std::string bytes;
    };

    void received(NodeId from, const std::string& sealed);
    void deliver(NodeId from, const std::string& text);
    void refuse(NodeId from, const std::string& why);

    void asked_or_told(NodeId from, const std::string& bytes);
    void give_secret(NodeId to, const std::string& key);
    void take_secret(JobSecret job);

    std::function<void(const std::string& why)> doubtful_;
    std::optional<JobSecret> job_;            // of this process, with seal_
    std::unique_ptr<MessageSeal> seal_;       // null until it is known
    std::unique_ptr<SecretGiver> giver_;      // in mpirun, once somebody has asked
    std::unique_ptr<SecretAsker> asker_;      // once this daemon has asked
    std::vector<Waiting> to_send_, to_read_;  // until the secret is known
    std::set<NodeId> refused_;                // whose messages could not be read; told once
    DaemonInbox inbox_;
};

}  // namespace ghost::plugin::orte41
