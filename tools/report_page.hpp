// SPDX-License-Identifier: BSD-3-Clause
// The page of `ghost report`: one HTML file with a picture in SVG, no script, nothing from
// elsewhere. Every text of the log is escaped: names of nodes and programs come from others.
// No state: any thread.
#pragma once

#include <string>

#include "tools/history.hpp"

namespace ghost::tools {

std::string report_page(const JobHistory& history);

// As text of an element or in a quoted attribute.
std::string escape_html(const std::string& text);

}  // namespace ghost::tools
