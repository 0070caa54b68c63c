// SPDX-License-Identifier: BSD-3-Clause
// `ghost verify`: reads ghosts to their last byte, with their parents.
#include <fmt/format.h>

#include "base/json_member.hpp"
#include "tools/ghost_files.hpp"
#include "tools/verbs/job_snapshots.hpp"
#include "tools/terminal.hpp"
#include "tools/verbs/verb.hpp"

namespace ghost::tools {
namespace {

struct VerifyArgs {
    std::vector<std::string> files;
};

// A snapshot of a job: its manifest, its files and every byte of its ghosts.
Json snapshot_verified(const plugin::Snapshot& snapshot, Verifier& verifier, const Signer& signer) {
    Json row = snapshot_row(snapshot);
    row["file"] = snapshot.path;
    Status status;
    if (snapshot.whole) status = verify_ghosts(snapshot, verifier, signer);
    row["ok"] = snapshot.whole && status.ok();
    if (!row["ok"]) row["error"] = snapshot.whole ? status.error().message() : snapshot.why;
    return row;
}

Json rows_of(const std::string& file, const VerifyArgs& args, Verifier& verifier,
             const Signer& signer) {
    Json rows = Json::array();
    if (!means_job(file)) {
        rows.push_back(verifier.verify(file, args.files));
    } else if (is_snapshot(file)) {
        rows.push_back(snapshot_verified(plugin::look_at_snapshot(file, signer), verifier, signer));
    } else if (auto all = plugin::list_snapshots(file, {}, signer); all.ok()) {
        for (const auto& one : *all) rows.push_back(snapshot_verified(one, verifier, signer));
    } else {
        rows.push_back({{"file", file}, {"ok", false}, {"error", all.error().message()}});
    }
    return rows;
}

void print_good(const Json& row) {
    if (row.contains("ranks"))
        return fmt::print("{}: good  {} ranks  {}\n", member(row, "file", ""),
                          member(row, "ranks", 0), bytes_text(member(row, "bytes", uint64_t{0})));
    fmt::print("{}: good  {}  digest {}{}\n", member(row, "file", ""),
               bytes_text(member(row, "bytes", uint64_t{0})), member(row, "digest", ""),
               row["parents"].empty() ? std::string()
                                      : fmt::format("  with {} parents", row["parents"].size()));
}

int run_verify(const VerifyArgs& args, const std::string& key_file, const std::string& signer,
               bool json) {
    auto registry = all_classes();
    if (!registry) return report(registry.error(), json);
    (*registry)->trust_only(core::Whose::anybodys);  // nothing is made of it
    const auto expected = signer_of(signer);
    if (!expected) return report(expected.error(), json);
    if (*expected) (*registry)->expect_signer(**expected);
    auto key = load_key(key_file);
    if (!key) return report(key.error(), json);
    Verifier verifier(**registry, *key);
    Json rows = Json::array();
    bool all_good = true;
    for (const auto& file : args.files) {
        for (const Json& row : rows_of(file, args, verifier, *expected)) {
            rows.push_back(row);
            const bool good = member(row, "ok", false);
            all_good = all_good && good;
            if (!good)
                fmt::print(stderr, "ghost: {}: {}\n", member(row, "file", ""),
                           member(row, "error", ""));
            if (good && !json) print_good(row);
        }
    }
    const int exit_status = all_good ? exit_done : exit_unharmed;
    if (json) print_json({{"ghosts", rows}, {"exit", exit_status}});
    return exit_status;
}

}  // namespace

void define_verify(CommandLine app, int& exit_status) {
    auto args = std::make_shared<VerifyArgs>();
    app.add_option("file", args->files,
                   "ghosts (parents are found beside them) or snapshots of jobs")
        .required();
    auto key = add_key(app);
    auto signer = add_signer(app);
    auto json = add_json(app);
    app.footer(
        "Exit status: 0 every byte is right; 1 something is damaged, and it is named; 2 wrong "
        "usage.");
    app.callback([=, &exit_status] { exit_status = run_verify(*args, *key, *signer, *json); });
}

}  // namespace ghost::tools
