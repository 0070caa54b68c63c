// SPDX-License-Identifier: BSD-3-Clause
// `ghost env`: the exports that make stock mpirun use this tree.
#include <fmt/format.h>

#include "tools/paths.hpp"
#include "tools/verbs/verb.hpp"

namespace ghost::tools {

void define_env(CommandLine app, int& exit_status) {
    auto json = add_json(app);
    app.footer("Use: eval \"$(ghost env)\"");
    app.callback([=, &exit_status] {
        Json object = Json::object();
        for (const auto& [name, value] : ghost_environment(find_paths())) {
            object[name] = value;
            if (!*json) fmt::print("export {}={}\n", name, shell_quote(value));
        }
        if (*json) print_json(object);
        exit_status = exit_done;
    });
}

}  // namespace ghost::tools
