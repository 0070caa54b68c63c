// SPDX-License-Identifier: BSD-3-Clause
// Facts about the criu program at hand; private to ghost-core/criu.
#pragma once

#include <string>

#include "base/result.hpp"

namespace ghost::core {

inline constexpr const char* criu_log = "criu.log";

// Full path of a program; unsupported if there is none.
Result<std::string> find_program(const std::string& program);

// Whether this build can leave lazy pages out of a dump without a page server (the change in
// packaging/criu/patches), told by the name of its switch in the file.
bool knows_lazy_holes(const std::string& program);

// Whether it can be started ahead of need and asks us at the points of the dump (likewise).
bool knows_control(const std::string& program);

// The error lines of criu.log in this folder, shortened; empty if there are none.
std::string last_log_error(const std::string& folder);

}  // namespace ghost::core
