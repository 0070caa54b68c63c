// SPDX-License-Identifier: BSD-3-Clause
#include "tools/supervised.hpp"

#include <algorithm>
#include <csignal>
#include <filesystem>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include "base/encoding.hpp"
#include "base/exit_status.hpp"
#include "base/signing.hpp"
#include "tools/restart_line.hpp"

namespace ghost::tools {
namespace {

using plugin::Event;
using plugin::EventKind;
using schema::field;
using schema::Field;

constexpr uint64_t most_word = 65536;

constexpr Field supervision_fields[] = {
    field<&Supervision::words>("words", "the command"),
    field<&Supervision::folder>("folder", "it was started in").at_most(most_word),
    field<&Supervision::host>("host", "mpirun's node").at_most(most_word),
    field<&Supervision::pid>("pid", "mpirun's"),
    field<&Supervision::began>("began", "that one, UTC").at_most(64),
    field<&Supervision::asked>("asked", "it was ended by a signal: it may go on later"),
};

// Not the program's own end: SIGSEGV, SIGFPE and the like are.
bool is_from_outside(int64_t status) {
    return status == 128 + SIGKILL || status == 128 + SIGBUS || status == lost_server_status;
}

void named(JobLife& life, const Event& event) {
    if (event.job) life.job = *event.job;
    if (event.host) life.host = *event.host;
}

void take(JobLife& life, const Event& event) {
    switch (event.kind()) {
        case EventKind::restarted:  // with the folder of the snapshot itself
            life.folder = std::filesystem::path(event.folder.value_or("")).parent_path();
            life.snapshot = event.snapshot.value_or("");
            return named(life, event);
        case EventKind::started:
            return named(life, event);
        case EventKind::recovered:  // under the same mpirun
            life.loss.clear();
            return;
        case EventKind::snapshot:
            life.saved = true;
            life.folder = event.folder.value_or("");
            life.snapshot = event.snapshot.value_or("");
            return;
        case EventKind::node_lost:
            life.lost.insert(event.node.value_or(""));
            if (event.which.empty()) return;  // the job goes on
            life.loss = fmt::format("node {} was lost", event.node.value_or("?"));
            return;
        case EventKind::rank_lost:
            if (!is_from_outside(event.status.value_or(0))) return;
            life.loss = fmt::format("rank {} on {} was lost with status {}", event.rank.value_or(0),
                                    event.node.value_or("?"), event.status.value_or(0));
            return;
        case EventKind::no_move:
            if (event.harmed.value_or(false))
                life.loss = fmt::format("rank {} was lost on its way", event.rank.value_or(0));
            return;
        case EventKind::ended:
            life.ended = true;
            life.status = event.status.value_or(0);
            return;
        default:
            return;
    }
}

}  // namespace

constinit const schema::Record Supervision::table =
    schema::record<Supervision>("supervision", "a job that is supervised", supervision_fields);

JobLife read_life(const std::vector<Event>& events) {
    JobLife life;
    for (const Event& event : events) take(life, event);
    if (!life.ended && life.loss.empty()) life.loss = "its mpirun was lost";
    return life;
}

Result<Places> places_without(const plugin::Manifest& manifest, const std::set<std::string>& lost) {
    std::vector<std::string> hosts;
    size_t slots = 0;
    for (const auto& node : manifest.nodes) {
        if (lost.contains(node.name) || node.slots <= 0) continue;
        hosts.push_back(fmt::format("{}:{}", node.name, node.slots));
        slots += static_cast<size_t>(node.slots);
    }
    if (hosts.empty())
        return make_error(Code::refused, "go on", {}, "none of the job's nodes can be reached");
    Places out{mapping_options(manifest), slots < manifest.ranks.size()};
    out.options.insert(out.options.end(), {"--host", fmt::format("{}", fmt::join(hosts, ","))});
    if (out.crowded) out.options.emplace_back("--oversubscribe");
    return out;
}

std::optional<std::string> parameter_in(const std::vector<std::string>& words,
                                        const std::string& name) {
    for (size_t i = 0; i + 2 < words.size(); ++i)
        if ((words[i] == "--mca" || words[i] == "-mca") && words[i + 1] == name)
            return words[i + 2];
    return std::nullopt;
}

std::string supervision_file(const std::vector<std::string>& words, const std::string& folder) {
    const auto hash = short_hash(fmt::format("{}\n{}", folder, fmt::join(words, "\n")));
    const std::string_view some(reinterpret_cast<const char*>(hash.data()), 8);
    return "supervised-" + encode_hex(some) + ".json";
}

}  // namespace ghost::tools
