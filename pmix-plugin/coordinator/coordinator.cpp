#include "pmix-plugin/coordinator/coordinator.hpp"

namespace ghost::plugin {

class Coordinator::Impl {};

Coordinator::Coordinator(RuntimeAdapter&, CoordinatorSettings) {}
Coordinator::~Coordinator() = default;
Status Coordinator::start() { return make_error(Code::unsupported, "start the coordinator"); }
void Coordinator::stop() {}

}  // namespace ghost::plugin
