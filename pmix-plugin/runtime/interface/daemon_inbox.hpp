// SPDX-License-Identifier: BSD-3-Clause
// Where messages of other daemons arrive: read once, by the rules of their schema, and handed to
// everybody in this daemon who takes some.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "pmix-plugin/protocol/daemons.hpp"

namespace ghost::plugin {

using NodeId = uint32_t;  // the daemon's number in the job family; 0 is mpirun's own

// Loop thread only.
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

}  // namespace ghost::plugin
