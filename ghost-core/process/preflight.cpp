#include "ghost-core/process/preflight.hpp"
namespace ghost::core {
Result<std::vector<std::string>> check_movable(pid_t, const std::string&,
                                               const std::vector<std::string>&) {
    return std::vector<std::string>{};
}
}  // namespace ghost::core
