// SPDX-License-Identifier: BSD-3-Clause
// `ghost gather`: a snapshot whose ghosts are on the nodes that made them, in one folder.
#include <algorithm>
#include <filesystem>
#include <fmt/format.h>
#include <set>
#include <unistd.h>
#include <utility>
#include <vector>

#include "ghost-core/resource/file.hpp"
#include "pmix-plugin/snapshots/parity.hpp"
#include "tools/ghost_files.hpp"
#include "tools/verbs/job_snapshots.hpp"
#include "tools/remote.hpp"
#include "tools/terminal.hpp"
#include "tools/verbs/verb.hpp"

namespace ghost::tools {
namespace {

namespace fs = std::filesystem;
using plugin::Manifest;
using plugin::ParitySet;
using plugin::Snapshot;

// Only of a file that is this user's alone: what is copied would be.
Status copy_own(const std::string& from, const std::string& to) {
    core::FileResource in(from, core::Use::read, core::Whose::own);
    core::FileResource out(to, core::Use::write);
    GHOST_TRY(in.init());
    GHOST_TRY(out.init());
    std::vector<char> piece(core::chunk_limit);
    for (;;) {
        auto got = in.read(piece.data(), piece.size());
        if (!got) return got.error();
        if (*got == 0) return out.finalize();
        GHOST_TRY(out.write(piece.data(), *got));
    }
}

class Gatherer {
  public:
    explicit Gatherer(std::string to) : to_(std::move(to)) {}

    // With the snapshots it is based on, the oldest first. Ones that are there already are left.
    Status gather(const std::string& folder) {
        Snapshot snapshot = plugin::look_at_snapshot(folder);
        if (!snapshot.whole)
            return make_error(Code::corrupt, "gather snapshot", snapshot.name, snapshot.why);
        std::set<std::string> parents;
        for (const auto& rank : snapshot.manifest->ranks)
            for (const auto& file : rank.chain) parents.insert(file.substr(0, file.find('/')));
        for (const auto& parent : parents)
            GHOST_TRY(
                one(plugin::look_at_snapshot(fs::path(snapshot.path).parent_path() / parent)));
        return one(snapshot);
    }
    uint64_t bytes() const { return bytes_; }

  private:
    Status one(const Snapshot& snapshot) {
        std::error_code ignored;
        if (fs::exists(fs::path(to_) / snapshot.name, ignored)) return {};
        if (!snapshot.whole)
            return make_error(Code::corrupt, "gather snapshot", snapshot.name, snapshot.why);
        auto partial = plugin::create_partial(to_, snapshot.name);
        if (!partial) return partial.error();
        Status filled = fill(snapshot, *partial);
        if (filled.ok()) return plugin::commit_snapshot(to_, snapshot.name);
        (void)plugin::discard_partial(to_, snapshot.name);
        return filled;
    }

    Status fill(const Snapshot& snapshot, const std::string& partial) {
        std::vector<std::pair<const Manifest::Rank*, Error>> lacking;
        for (const auto& rank : snapshot.manifest->ranks) {
            line_.show(fmt::format("{} rank {} of {}", snapshot.name, rank.rank, rank.node), bytes_,
                       0);
            const Status copied = bring(snapshot, rank, partial);
            if (!copied.ok() && !snapshot.manifest->parity) return copied;
            if (!copied.ok()) lacking.emplace_back(&rank, copied.error());
        }
        for (const auto& [rank, why] : lacking)
            if (const Status made = rebuild(snapshot, *rank, partial); !made.ok())
                return make_error(made.error().code, "make of parity", rank->file,
                                  fmt::format("{}; and of its own node: {}", made.error().message(),
                                              why.message()));
        for (const std::string& file : parity_) ::unlink(file.c_str());
        parity_.clear();
        for (const auto& rank : snapshot.manifest->ranks) {
            std::error_code failed;
            if (fs::file_size(fs::path(partial) / rank.file, failed) != rank.bytes)
                return make_error(Code::corrupt, "fetch all of",
                                  fs::path(snapshot.path) / rank.file);
            bytes_ += rank.bytes;
        }
        line_.clear();
        auto secret = plugin::read_secret(snapshot.path);
        if (!secret) return secret.error();
        GHOST_TRY(plugin::write_secret(partial, *secret));
        // as it is: it may be signed
        return copy_own(fs::path(snapshot.path) / plugin::manifest_file,
                        fs::path(partial) / plugin::manifest_file);
    }

    static Status bring(const Snapshot& snapshot, const Manifest::Rank& rank,
                        const std::string& partial) {
        const auto from = fs::path(snapshot.path) / rank.file;
        const auto to = fs::path(partial) / rank.file;
        Status copied = copy_own(from, to);
        if (!copied.ok() && copied.error().code == Code::not_found)
            copied = fetch_file(rank.node, from, to);
        if (!copied.ok() && rank.copy) copied = fetch_file(*rank.copy, from, to);
        return copied;
    }

    // Of what the other nodes of its group have, which is here but for their parity.
    Status rebuild(const Snapshot& snapshot, const Manifest::Rank& rank,
                   const std::string& partial) {
        const std::string name = snapshot.name + "/" + rank.file;
        for (const auto& set : snapshot.manifest->parity->groups)
            for (size_t member = 0; member < set.members.size(); member++)
                for (size_t file = 0; file < set.members[member].files.size(); file++)
                    if (set.members[member].files[file].file == name)
                        return rebuild(snapshot, set, member, file, partial);
        return make_error(Code::not_found, "find parity of", name);
    }

    Status rebuild(const Snapshot& snapshot, const ParitySet& set, size_t member, size_t file,
                   const std::string& partial) {
        const auto here = [&](const std::string& name) {
            const bool of_it = name.starts_with(snapshot.name + "/");
            return of_it ? partial + name.substr(snapshot.name.size()) : to_ + "/" + name;
        };
        for (size_t row = 0; row < set.members.size(); row++) {
            const std::string to = here(set.file(row));
            std::error_code ignored;
            if (row == member || set.parity_bytes(row) == 0 || fs::exists(to, ignored)) continue;
            const auto from = fs::path(snapshot.path).parent_path() / set.file(row);
            Status copied = copy_own(from, to);
            if (!copied.ok() && copied.error().code == Code::not_found)
                copied = fetch_file(set.members[row].node, from, to);
            if (copied.ok()) parity_.push_back(to);
            GHOST_TRY(copied);
            GHOST_TRY(plugin::check_parity(to, set.file(row)));
        }
        return plugin::make_of_streams(plugin::rebuild_streams(set, member, file, 0, 0), here,
                                       here(set.members[member].files[file].file));
    }

    std::string to_;
    uint64_t bytes_ = 0;
    std::vector<std::string> parity_;  // files of it that are here as long as they are needed
    ProgressLine line_;
};

int run_gather(const std::string& snapshot, const std::string& to, bool json) {
    auto folder = plugin::open_snapshot_folder(to);
    if (!folder) return report(folder.error(), json);
    std::string path = snapshot;
    if (!is_snapshot(snapshot)) {
        auto all = plugin::list_snapshots(snapshot);
        if (all.ok() && all->empty())
            all = make_error(Code::not_found, "find a snapshot in", snapshot);
        if (!all) return report(all.error(), json);
        path = all->front().path;
    }
    Gatherer gatherer(*folder);
    const Status done = gatherer.gather(path);
    if (!done.ok()) return report(done.error(), json);
    const std::string made = *folder + "/" + fs::canonical(path).filename().string();
    auto registry = all_classes();
    if (!registry) return report(registry.error(), json);
    (*registry)->trust_only(core::Whose::own);
    Verifier verifier(**registry, nullptr);
    const Status whole = verify_ghosts(plugin::look_at_snapshot(made), verifier, {});
    if (!whole.ok()) return report(whole.error(), json);
    if (json)
        print_json({{"snapshot", made}, {"bytes", gatherer.bytes()}});
    else
        fmt::print("{}  {}\n", made, bytes_text(gatherer.bytes()));
    return exit_done;
}

}  // namespace

void define_gather(CommandLine app, int& exit_status) {
    auto snapshot = std::make_shared<std::string>();
    auto to = std::make_shared<std::string>();
    app.add_option("snapshot", *snapshot,
                   "a snapshot on mpirun's node, or a folder of snapshots (the newest is used)")
        .required();
    app.add_option("--to", *to, "folder that receives the snapshot and its parents").required();
    auto json = add_json(app);
    app.footer(
        "For snapshots in folders or memory local to each node: copies every node's part into one "
        "folder by ssh (or GHOST_RSH, or OMPI_MCA_plm_rsh_agent) and checks every byte. Of a "
        "snapshot with parity one node of each group may be lost.");
    app.callback([=, &exit_status] { exit_status = run_gather(*snapshot, *to, *json); });
}

}  // namespace ghost::tools
