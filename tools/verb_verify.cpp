// `ghost verify`: reads ghosts to their last byte, with their parents.
#include <fmt/format.h>

#include "tools/ghost_files.hpp"
#include "tools/ghost_verifier.hpp"
#include "tools/terminal.hpp"
#include "tools/verb.hpp"

namespace ghost::tools {
namespace {

struct VerifyArgs {
    std::vector<std::string> files;
};

int run_verify(const VerifyArgs& args, const std::string& key_file, bool json) {
    auto registry = all_classes();
    if (!registry) return report(registry.error(), json);
    auto key = load_key(key_file);
    if (!key) return report(key.error(), json);
    Verifier verifier(**registry, *key);
    Json rows = Json::array();
    bool all_good = true;
    for (const auto& file : args.files) {
        const auto row = verifier.verify(file, args.files);
        rows.push_back(row);
        const bool good = row.value("ok", false);
        all_good = all_good && good;
        if (!good) fmt::print(stderr, "ghost: {}: {}\n", file, row.value("error", ""));
        if (good && !json)
            fmt::print("{}: good  {}  digest {}{}\n", file,
                       bytes_text(row.value("bytes", uint64_t{0})), row.value("digest", ""),
                       row["parents"].empty()
                           ? std::string()
                           : fmt::format("  with {} parents", row["parents"].size()));
    }
    const int exit_status = all_good ? exit_done : exit_unharmed;
    if (json) print_json({{"ghosts", rows}, {"exit", exit_status}});
    return exit_status;
}

}  // namespace

void define_verify(CLI::App& app, int& exit_status) {
    auto args = std::make_shared<VerifyArgs>();
    app.add_option("file", args->files, "ghosts; their parents are found beside them")->required();
    auto key = add_key(app);
    auto json = add_json(app);
    app.footer(
        "Exit status: 0 every byte is right; 1 something is not, and what and where; 2 usage.");
    app.callback([=, &exit_status] { exit_status = run_verify(*args, *key, *json); });
}

}  // namespace ghost::tools
