// SPDX-License-Identifier: BSD-3-Clause
#include "base/json_member.hpp"
#include "tools/verbs/job_snapshots.hpp"

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fmt/format.h>
#include <set>
#include <sstream>
#include <sys/stat.h>
#include <unistd.h>

#include "base/json_text.hpp"
#include "base/paths.hpp"
#include "config.h"
#include "ghost-core/format/host.hpp"
#include "ghost-core/format/reader.hpp"
#include "ghost-core/engine/node_memory.hpp"
#include "ghost-core/engine/preflight.hpp"
#include "ghost-core/criu/written_files.hpp"
#include "tools/ghost_files.hpp"
#include "tools/terminal.hpp"

namespace ghost::tools {
namespace {

namespace fs = std::filesystem;
using plugin::Manifest;

bool runnable(const std::string& path) {
    return path.find('/') != std::string::npos && !find_in_path(path).empty();
}

// As mpirun looks for a program: in the folder it is to run in, or along PATH.
std::string find_program(const std::string& name, const std::string& cwd) {
    if (name.find('/') != std::string::npos)
        return find_in_path(name[0] == '/' ? name : cwd + "/" + name);
    return find_in_path(name, search_path() + ":" + cwd);
}

class Look {
  public:
    Look(const plugin::Snapshot& snapshot, bool elsewhere, const Signer& signer)
        : snapshot_(snapshot),
          manifest_(*snapshot.manifest),
          elsewhere_(elsewhere),
          signed_(signer.has_value()) {}

    void tools(const Paths& paths) {
        if (manifest_.version != PACKAGE_VERSION)
            here(fmt::format("Ghost {}: this is {}", manifest_.version, PACKAGE_VERSION));
        if (!runnable(paths.mpirun)) here("mpirun: not in PATH");
        if (!runnable(paths.wrapper)) here("ghost-wrapper: not found; `ghost doctor` says more");
        if (!runnable(paths.criu)) here("criu: not found; `ghost doctor` says more");
        if (manifest_.job.uid != ::geteuid())
            here(fmt::format("user {}: the snapshot is of that user's job", manifest_.job.uid));
    }

    void programs() {
        for (const auto& app : manifest_.apps) {
            std::error_code failed;
            if (!app.cwd.empty() && !fs::is_directory(app.cwd, failed))
                local(fmt::format("folder {}: programs ran in it", app.cwd));
            if (find_program(app.argv[0], app.cwd).empty())
                local(fmt::format("program {}: not found or not executable", app.argv[0]));
        }
    }

    void files() {
        for (const auto& file : manifest_.files)
            if (file.copy)
                may(file.path, core::may_put_back(file.path));
            else if (size(file.path, file.size, local_) && file.begin)
                may(file.path, core::may_cut_back(
                                   file.path, file.size,
                                   {{file.begin->size, file.begin->hash, file.begin->modified}}));
        if (!manifest_.input.path.empty())
            size(manifest_.input.path, manifest_.input.offset, false);
    }

    void memory() {
        uint64_t needed = 0;
        for (const auto& rank : manifest_.ranks) needed += rank.memory;
        const uint64_t free = core::memory_available();
        if (needed > free)
            local(fmt::format("memory: {} needed if all ranks start here, {} free",
                              bytes_text(needed), bytes_text(free)));
    }

    // Processor, kernel and files of every rank, as its ghost says.
    void hosts() {
        auto registry = all_classes();
        if (!registry) return here(registry.error().message());
        (*registry)->trust_only(core::Whose::own);
        std::set<std::string> seen;
        for (const auto& rank : manifest_.ranks) {
            auto differences = differences_of(**registry, rank);
            if (!differences) {
                here(fmt::format("rank {}: {}", rank.rank, differences.error().message()));
                continue;
            }
            for (const auto& line : *differences)
                if (seen.insert(line).second) local(line);
        }
    }

    Shortcomings found;

  private:
    // What the ghost says of files that are cut back before the ranks look at them does not count;
    // their sizes are looked at by files().
    std::string facts_without_written(const std::string& host) const {
        Json facts = parse_json(host);
        if (!facts.is_object() || !facts.contains("files") || !facts["files"].is_array())
            return host;
        Json kept = Json::array();
        for (const Json& file : facts["files"]) {
            const std::string path = member(file, "path", "");
            const bool written =
                std::any_of(manifest_.files.begin(), manifest_.files.end(),
                            [&](const Manifest::File& one) { return one.path == path; });
            if (!written) kept.push_back(file);
        }
        facts["files"] = kept;
        return facts.dump(-1, ' ', false, Json::error_handler_t::replace);
    }

    Result<std::unique_ptr<core::Resource>> open(const core::ResourceRegistry& registry,
                                                 const Manifest::Rank& rank) const {
        const auto file = snapshot_.path + "/" + rank.file;
        if (!signed_) return registry.open(file, nullptr);
        const auto signer = PublicKey::from_hex(rank.signer.value_or(""));
        if (!signer) return signer.error();
        return registry.expecting(*signer).open(file, nullptr);
    }

    Result<std::vector<std::string>> differences_of(const core::ResourceRegistry& registry,
                                                    const Manifest::Rank& rank) const {
        auto in = open(registry, rank);
        if (!in) return in.error();
        core::GhostReader reader(**in);
        core::GhostHead head;
        GHOST_TRY(reader.head(head));
        return core::host_differences(facts_without_written(head.host));
    }

    void may(const std::string& path, const Status& change) {
        if (!change.ok()) local(fmt::format("file {}: {}", path, change.error().message()));
    }

    // False: it is said.
    bool size(const std::string& path, uint64_t needed, bool only_here) {
        struct stat info {};
        std::string line;
        if (::stat(path.c_str(), &info) != 0)
            line = fmt::format("file {}: not there", path);
        else if (static_cast<uint64_t>(info.st_size) < needed)
            line = fmt::format("file {}: {} bytes, {} at the time of the snapshot", path,
                               info.st_size, needed);
        if (line.empty()) return true;
        only_here ? local(line) : here(line);
        return false;
    }

    void here(std::string line) { found.here.push_back(std::move(line)); }
    // Only of importance on a node that gets a rank.
    void local(std::string line) { (elsewhere_ ? found.perhaps : found.here).push_back(line); }

    static constexpr bool local_ = true;
    const plugin::Snapshot& snapshot_;
    const Manifest& manifest_;
    bool elsewhere_;
    bool signed_;  // as the manifest says
};

}  // namespace

Shortcomings find_shortcomings(const plugin::Snapshot& snapshot, const Paths& paths, bool elsewhere,
                               const Signer& signer) {
    Look look(snapshot, elsewhere, signer);
    look.tools(paths);
    look.programs();
    look.files();
    look.memory();
    look.hosts();
    return look.found;
}

}  // namespace ghost::tools
