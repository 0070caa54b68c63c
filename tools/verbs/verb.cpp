// SPDX-License-Identifier: BSD-3-Clause
#include "tools/verbs/verb.hpp"

#include <fmt/format.h>

namespace ghost::tools {

std::shared_ptr<bool> add_json(CommandLine app) {
    auto json = std::make_shared<bool>(false);
    app.add_flag("--json", *json, "print one JSON object");
    return json;
}

std::string json_lines(const Json& object) {
    return object.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

void print_json(const Json& object) {
    fmt::print("{}", json_lines(object));
}

int report(const Error& error, bool json, int exit_status) {
    fmt::print(stderr, "ghost: {}\n", error.message());
    if (json) print_json({{"error", error.message()}, {"exit", exit_status}});
    return exit_status;
}

int report(const Error& error, bool json) {
    return report(error, json, error.code == Code::invalid ? exit_usage : exit_unharmed);
}

}  // namespace ghost::tools
