// SPDX-License-Identifier: BSD-3-Clause
#include "pmix-plugin/coordinator/policy.hpp"

#include <algorithm>
#include <filesystem>
#include <fmt/format.h>
#include <unistd.h>

#include "base/own_file.hpp"
#include "pmix-plugin/settings/job_settings.hpp"
#include "pmix-plugin/snapshots/folder.hpp"
#include "pmix-plugin/snapshots/manifest.hpp"

namespace ghost::plugin {
namespace {

class Reader {
  public:
    Reader(const JobView& job, std::vector<std::string>& wrong) : job_(job), wrong_(wrong) {}

    std::string text(const char* name) const {
        return job_.parameter(name).value_or(default_of(name));
    }

    // `parse` gives a Result; the default's text is one it can read.
    template <typename Parse>
    auto value(const char* name, Parse parse) const -> std::decay_t<decltype(*parse(""))> {
        auto parsed = parse(text(name));
        if (parsed.ok()) return *parsed;
        complain(name, parsed.error().message());
        return *parse(default_of(name));
    }

    std::string one_of(const char* name, const std::vector<std::string>& known) const {
        std::string given = text(name);
        for (const std::string& one : known) {
            if (one == given) return given;
        }
        complain(name, fmt::format("\"{}\" is none of {}", given, fmt::join(known, ", ")));
        return default_of(name);
    }

  private:
    void complain(const char* name, const std::string& why) const {
        wrong_.push_back(fmt::format("parameter {}: {}; its default is used", name, why));
    }

    const JobView& job_;
    std::vector<std::string>& wrong_;
};

Result<size_t> parse_at_once(const std::string& text) {
    if (text == "auto") return size_t{0};
    auto count = parse_count(text);
    GHOST_TRY(count);
    return static_cast<size_t>(std::max(1, *count));
}

// Nothing: auto.
Result<std::optional<int64_t>> parse_duration_or_auto(const std::string& text) {
    if (text == "auto") return std::optional<int64_t>();
    const auto us = parse_duration_us(text);
    GHOST_TRY(us);
    return std::optional<int64_t>(*us);
}

Result<uint64_t> parse_carried(const std::string& text) {
    auto bytes = parse_bytes(text);
    if (bytes && *bytes > most_carried)
        return make_error(Code::invalid, "carry files of", text, "at most 32M");
    return bytes;
}

Result<std::string> parse_places(const std::string& text) {
    const std::vector<std::string> known{"disk", "memory", "both", "partner"};
    if (std::ranges::find(known, text) != known.end()) return text;
    if (!goes_to_xor(text))
        return because(Code::invalid,
                       fmt::format("\"{}\" is none of {}, xor:N", text, fmt::join(known, ", ")));
    const auto nodes = parse_xor(text);
    GHOST_TRY(nodes);
    return text;
}

std::string absolute(const std::string& path) {
    std::error_code failed;
    auto whole = std::filesystem::absolute(path, failed).lexically_normal();
    std::string out = failed ? path : whole.string();
    while (out.size() > 1 && out.back() == '/') out.pop_back();
    return out;
}

// Where the snapshot is that the job goes on from, so that one folder has all of the job's; else
// where this user's are on this node. The other nodes use the same name.
std::string memory_folder(const std::string& restart) {
    const std::string prefix = memory_snapshots();
    const auto above = std::filesystem::path(restart).parent_path().string();
    if (above.starts_with(prefix + ".")) return above;
    const auto there = own_folders(prefix);
    return there.empty() ? fresh_name(prefix) : there.front();
}

}  // namespace

SnapshotPolicy read_policy(const JobView& job, std::vector<std::string>& wrong) {
    const Reader reader(job, wrong);
    SnapshotPolicy policy;
    const auto interval = reader.value("ghost_checkpoint_interval", parse_duration_or_auto);
    policy.interval_auto = !interval;
    policy.interval_us = interval.value_or(0);
    policy.mtbf_us = reader.value("ghost_mtbf", parse_duration_or_auto).value_or(0);
    policy.folder = absolute(reader.text("ghost_checkpoint_dir"));
    policy.to = reader.value("ghost_checkpoint_to", parse_places);
    policy.keep =
        static_cast<size_t>(std::max(1, reader.value("ghost_checkpoint_keep", parse_count)));
    policy.incremental = reader.value("ghost_incremental", parse_yes);
    policy.full_every = reader.value("ghost_full_every", parse_count);
    policy.compress = reader.one_of("ghost_compress", {"none", "lz4", "zstd"});
    policy.rate = reader.value("ghost_checkpoint_rate", parse_bytes);
    policy.disk_every = reader.value("ghost_checkpoint_disk_every", parse_count);
    policy.copy_rate = reader.value("ghost_checkpoint_copy_rate", parse_bytes);
    policy.carried = reader.value("ghost_checkpoint_files", parse_carried);
    if (const auto key = reader.text("ghost_checkpoint_sign"); !key.empty() && key != "none")
        policy.sign = absolute(key);
    (void)reader.value("ghost_own_ipc", parse_yes);  // the wrappers', who have nobody to tell
    policy.signal = reader.value("ghost_checkpoint_signal", parse_signal);
    policy.at_once = reader.value("ghost_migrate_at_once", parse_at_once);
    policy.mode = reader.one_of("ghost_migrate_mode", {"auto", "live", "stop"});
    policy.live_from = reader.value("ghost_migrate_live_from", parse_bytes);
    (void)reader.value("ghost_node_dead_after", parse_dead_after);  // the adapter's
    (void)reader.value("ghost_spares", parse_count);                // its also
    policy.recover = reader.value("ghost_recover", parse_recover);
    policy.recover_most = reader.value("ghost_recover_max", parse_count);
    policy.restart = reader.text("ghost_restart");
    policy.signer = reader.text("ghost_restart_signer");
    policy.memory = memory_folder(policy.restart);
    return policy;
}

SnapshotPlaces places_for(const SnapshotPolicy& policy, const std::string& to) {
    if (to.empty()) return places_for(policy, policy.to);
    if (to == "disk") return {policy.folder, {}};
    if (to == "memory") return {policy.memory, {}};
    if (to == "both") return {policy.folder, policy.memory};
    if (to == "partner") return {policy.memory, {}, true};
    if (const auto nodes = parse_xor(to)) return {policy.memory, {}, false, *nodes};
    return {absolute(to), {}};
}

}  // namespace ghost::plugin
