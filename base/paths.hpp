// SPDX-License-Identifier: BSD-3-Clause
// Where programs are, and what the environment says. No state: any thread that does not change it.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace ghost {

// Of this process; nothing: it is not set.
std::optional<std::string> environment_variable(const std::string& name);

// This program's file; empty if /proc is not mounted.
std::string own_program();

// PATH, or what exec(3) takes where there is none.
std::string search_path();

// `name` in the first folder of `path` (as PATH has them) that has such a program; as it is, if it
// names a folder itself. Empty: there is none.
std::string find_in_path(const std::string& name, std::string_view path = search_path());

}  // namespace ghost
