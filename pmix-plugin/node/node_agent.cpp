#include "pmix-plugin/node/node_agent.hpp"

namespace ghost::plugin {

class NodeAgent::Impl {};

NodeAgent::NodeAgent(RuntimeAdapter&, NodeSettings) {}
NodeAgent::~NodeAgent() = default;
Status NodeAgent::start() { return make_error(Code::unsupported, "start the node agent"); }
Status NodeAgent::listen_now() { return {}; }
void NodeAgent::stop() {}

}  // namespace ghost::plugin
