// What is needed to know of CRIU's image files (images/*.proto of CRIU).
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/result.hpp"
#include "ghost-core/format/format.hpp"

namespace ghost::core {

// The inner pid a file "pagemap-PID.img" belongs to; 0 for every other name.
int pagemap_owner(std::string_view name);

// The pages that the skeleton names but does not hold (entries with PE_LAZY), merged, ascending.
Result<std::vector<PageRun>> lazy_ranges(std::string_view pagemap);

}  // namespace ghost::core
