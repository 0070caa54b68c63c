// SPDX-License-Identifier: BSD-3-Clause
// Messages between the daemons of a job: reliable, in order per pair.
#pragma once

#include <functional>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "pmix-plugin/protocol/daemons.hpp"

namespace ghost::plugin {

using NodeId = uint32_t;  // the daemon's number in the job family; 0 is mpirun's own

// Where messages of other daemons arrive: read once, by the rules of their schema, and handed to
// everybody in this daemon who takes some. Loop thread only.
//
// A daemon of an earlier life of the job has the number of one of this life, and may be heard
// again when its node can be reached again: nothing it says counts.
class DaemonInbox {
  public:
    using Handler = std::function<void(NodeId from, const schema::Received& message)>;

    // life: JobView::life() of this daemon.
    explicit DaemonInbox(std::function<std::string()> life) : own_life_(std::move(life)) {}

    void add(Handler handler) { handlers_.push_back(std::move(handler)); }
    void clear() { handlers_.clear(); }
    // life: as the sender knows it; "" of one that has not heard of the job yet, which one of an
    // earlier life has. What is to be sent back, if anything.
    std::string deliver(NodeId from, const std::string& life, std::string_view packet);

  private:
    bool is_stranger(NodeId from, const std::string& life);

    const std::function<std::string()> own_life_;
    std::vector<Handler> handlers_;
    std::map<NodeId, schema::Reader> readers_;
    std::set<NodeId> strangers_;  // that have been told of
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
