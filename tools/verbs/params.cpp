// SPDX-License-Identifier: BSD-3-Clause
// `ghost params`: the parameters a user can set, from the table the plugin registers.
#include <fmt/format.h>

#include "pmix-plugin/settings/parameters.hpp"
#include "tools/verbs/verb.hpp"

namespace ghost::tools {

void define_params(CommandLine app, int& exit_status) {
    auto json = add_json(app);
    app.footer("Set one by `mpirun --mca NAME VALUE` or by OMPI_MCA_NAME in the environment.");
    app.callback([=, &exit_status] {
        Json list = Json::array();
        for (const plugin::Parameter& p : plugin::parameters()) {
            list.push_back({{"name", p.name}, {"default", p.fallback}, {"meaning", p.meaning}});
            if (!*json) fmt::print("{:<26} {:<18} {}\n", p.name, p.fallback, p.meaning);
        }
        if (*json) print_json({{"parameters", list}});
        exit_status = exit_done;
    });
}

}  // namespace ghost::tools
