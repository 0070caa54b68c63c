// SPDX-License-Identifier: BSD-3-Clause
// What is printed of a rank's move.
#pragma once

#include "base/json.hpp"

namespace ghost::tools {

// One line of a row of the coordinator's answer to `migrate`.
void print_move(const nlohmann::json& row);

}  // namespace ghost::tools
