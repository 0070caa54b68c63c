// SPDX-License-Identifier: BSD-3-Clause
// Ranks as the command line names them: "1,4-7".
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/result.hpp"

namespace ghost::tools {

// Each word is a rank or a range of them, both ends included; in the order given.
Result<std::vector<uint32_t>> parse_ranks(const std::vector<std::string>& words);

}  // namespace ghost::tools
