// JSON messages between the daemons of a job, over ORTE's RML.
#pragma once

#include <functional>
#include <vector>

#include "pmix-plugin/runtime/interface/runtime_adapter.hpp"

namespace ghost::plugin::orte41 {

// Used on ORTE's main thread only. Construct once RML is up; receiving ends with stop().
class Messenger {
  public:
    Messenger();
    ~Messenger() { stop(); }
    Messenger(const Messenger&) = delete;
    Messenger& operator=(const Messenger&) = delete;

    void send(NodeId to, const Json& message) const;
    // By mpirun, down the routing tree: the same order everywhere, this daemon included.
    void broadcast(const Json& message) const;
    void add_handler(std::function<void(NodeId, const Json&)> handler);
    // No handler is called any more. Does not touch RML, which may be gone already.
    void stop();

  private:
    void deliver(NodeId from, const char* text) const;

    std::vector<std::function<void(NodeId, const Json&)>> handlers_;
};

}  // namespace ghost::plugin::orte41
