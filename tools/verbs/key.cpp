// SPDX-License-Identifier: BSD-3-Clause
// `ghost key`: a pair of keys, to sign ghosts and to check who has made them.
#include <fmt/format.h>

#include "base/signing.hpp"
#include "tools/verbs/verb.hpp"

namespace ghost::tools {

void define_key(CommandLine app, int& exit_status) {
    auto file = std::make_shared<std::string>();
    app.add_option("file", *file,
                   "new file for the secret key, which signs; FILE.pub gets the public one")
        .required();
    auto json = add_json(app);
    app.footer("Nothing is written over. Exit status: 0 done; 1 refused or failed; 2 wrong usage.");
    app.callback([=, &exit_status] {
        auto made = make_keys(*file);
        if (!made) {
            exit_status = report(made.error(), *json);
            return;
        }
        const auto other = *file + ".pub";
        if (*json)
            print_json({{"secret", *file}, {"public", other}, {"key", made->hex()}});
        else
            fmt::print("{} signs, {} checks: {}\n", *file, other, made->hex());
    });
}

}  // namespace ghost::tools
