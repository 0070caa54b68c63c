// SPDX-License-Identifier: BSD-3-Clause
#include "tools/verbs/job_snapshots.hpp"

#include <filesystem>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <set>

#include "base/json_member.hpp"

namespace ghost::tools {
namespace {

namespace fs = std::filesystem;
using plugin::Snapshot;

// Complete and every byte as it was written; else `why`.
bool usable(const Snapshot& snapshot, Verifier& verifier, const Signer& signer, std::string& why) {
    why = snapshot.why;
    if (!snapshot.whole) return false;
    const Status bytes = verify_ghosts(snapshot, verifier, signer);
    if (!bytes.ok()) why = bytes.error().message();
    return bytes.ok();
}

Result<Snapshot> newest_usable(const std::vector<Snapshot>& newest_first, const std::string& folder,
                               Verifier& verifier, const Signer& signer) {
    std::string last_why;
    for (const Snapshot& one : newest_first) {
        if (one.parts.job != newest_first.front().parts.job) break;
        if (usable(one, verifier, signer, last_why)) return one;
        fmt::print(stderr, "ghost: snapshot {} is damaged: {}; trying the one before it\n",
                   one.name, last_why);
    }
    return make_error(Code::not_found, "find a complete snapshot of a job in", folder);
}

// What else can be used in place of a damaged one, as an end of a message.
std::string advice(const Snapshot& damaged, const Signer& signer) {
    auto all =
        plugin::list_snapshots(fs::path(damaged.path).parent_path(), damaged.parts.job, signer);
    if (!all) return "";
    for (const Snapshot& one : *all)
        if (one.whole && one.name != damaged.name)
            return fmt::format("; `ghost restart {}` takes another one of this job", one.path);
    return "; there is no other complete one of this job";
}

}  // namespace

bool is_snapshot(const std::string& path) {
    std::error_code ignored;
    if (!fs::is_directory(path, ignored)) return false;
    const std::string name = fs::canonical(path, ignored).filename();
    return plugin::parse_snapshot_name(name).has_value() ||
           fs::exists(fs::path(path) / plugin::manifest_file, ignored);
}

bool means_job(const std::string& path) {
    if (is_snapshot(path)) return true;
    std::error_code failed;
    for (fs::directory_iterator it(path, failed), none; !failed && it != none; it.increment(failed))
        if (plugin::parse_snapshot_name(it->path().filename())) return true;
    return false;
}

Json snapshot_row(const Snapshot& snapshot) {
    Json row{{"name", snapshot.name}, {"path", snapshot.path}, {"whole", snapshot.whole}};
    if (!snapshot.whole) row["why"] = snapshot.why;
    if (!snapshot.away.empty()) row["away"] = snapshot.away;
    if (!snapshot.manifest) return row;
    const auto& manifest = *snapshot.manifest;
    std::set<std::string> nodes;
    for (const auto& rank : manifest.ranks) nodes.insert(rank.node);
    row.update({{"time", manifest.time},
                {"kind", manifest.kind},
                {"ranks", manifest.ranks.size()},
                {"bytes", manifest.bytes},
                {"pause_us", manifest.pause_us},
                {"total_us", manifest.total_us},
                {"job", manifest.job.name},
                {"epoch", manifest.job.epoch},
                {"nodes", nodes}});
    return row;
}

Status verify_ghosts(const Snapshot& snapshot, Verifier& verifier, const Signer& signer) {
    const fs::path folder = snapshot.path;
    const std::set<std::string> away(snapshot.away.begin(), snapshot.away.end());
    for (const auto& rank : snapshot.manifest->ranks) {
        if (away.contains(rank.node)) continue;
        std::vector<std::string> parents;
        for (const auto& parent : rank.chain) parents.push_back(folder.parent_path() / parent);
        Signer rank_signer;
        if (signer) {
            auto known = PublicKey::from_hex(rank.signer.value_or(""));
            if (!known) return known.error();
            rank_signer = *known;
        }
        const Json row = verifier.verify(folder / rank.file, parents, rank_signer);
        if (!member(row, "ok", false))
            return make_error(Code::corrupt, fmt::format("use the ghost of rank {}", rank.rank), {},
                              member(row, "error", ""));
        if (member(row, "digest", "") != rank.digest)
            return make_error(Code::corrupt, fmt::format("use the ghost of rank {}", rank.rank), {},
                              "it is another one than the manifest names");
    }
    return {};
}

namespace {

Result<Snapshot> choose(const std::string& path, Verifier& verifier, const Signer& signer) {
    if (!is_snapshot(path)) {
        auto all = plugin::list_snapshots(path, {}, signer);
        if (!all) return all.error();
        if (all->empty())
            return make_error(Code::not_found, "find a complete snapshot of a job in", path);
        return newest_usable(*all, path, verifier, signer);
    }
    Snapshot snapshot = plugin::look_at_snapshot(path, signer);
    std::string why;
    if (usable(snapshot, verifier, signer, why)) return snapshot;
    return make_error(Code::corrupt, "use the snapshot", snapshot.name,
                      why + advice(snapshot, signer));
}

}  // namespace

Result<Snapshot> choose_snapshot(const std::string& path, Verifier& verifier,
                                 const Signer& signer) {
    auto chosen = choose(path, verifier, signer);
    if (!chosen || chosen->away.empty()) return chosen;
    return make_error(
        Code::refused, "restart from", chosen->name,
        fmt::format("ghosts are on {}; `ghost gather {} --to DIR` brings them together",
                    fmt::join(chosen->away, ", "), chosen->path));
}

}  // namespace ghost::tools
