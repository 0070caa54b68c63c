// SPDX-License-Identifier: BSD-3-Clause
// A user's class of resource objects, out of a shared object.
#pragma once

#include <string>

#include "ghost-core/include/ghost/resource_class.h"
#include "ghost-core/resource/registry.hpp"

namespace ghost::core {

// The class whose table the loaded library exports (ghost/resource_class.h). invalid: it has none,
// or one with holes. The library must stay loaded as long as the class and its objects are used.
Result<ResourceKind> user_class(void* library, const std::string& path);

// The same of a table that is there already, and stays.
Result<ResourceKind> user_class(const ghost_resource_class* table, const std::string& path);

}  // namespace ghost::core
