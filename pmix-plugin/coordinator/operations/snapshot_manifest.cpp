// SPDX-License-Identifier: BSD-3-Clause
#include "pmix-plugin/coordinator/operations/snapshot.hpp"

#include <algorithm>
#include <map>
#include <tuple>
#include <unistd.h>

#include "pmix-plugin/protocol/message.hpp"

namespace ghost::plugin {
namespace {

const Json& part(const Json& whole, const char* key) {
    static const Json empty;
    const Json* found = field(whole, key);
    return found != nullptr ? *found : empty;
}

std::vector<std::string> texts(const Json& whole, const char* key) {
    std::vector<std::string> out;
    for (const Json& item : part(whole, key)) {
        if (item.is_string()) out.push_back(item);
    }
    return out;
}

void take_facts(Manifest& m, const Json& facts) {
    const Json& runtime = part(facts, "runtime");
    m.runtime = text(runtime, "name");
    m.runtime_version = text(runtime, "version");
    m.pmix_version = text(runtime, "pmix");
    for (const Json& app : part(facts, "apps")) {
        m.apps.push_back(
            {texts(app, "argv"), static_cast<uint32_t>(number(app, "np")), text(app, "cwd")});
    }
    const Json& mpirun = part(facts, "mpirun");
    m.mpirun_argv = texts(mpirun, "argv");
    m.mpirun_cwd = text(mpirun, "cwd");
    const Json& parameters = part(mpirun, "parameters");
    if (parameters.is_object()) {
        for (const auto& [name, value] : parameters.items()) {
            if (value.is_string()) m.parameters.push_back({name, value});
        }
    }
    const Json& input = part(facts, "stdin");
    m.input = {static_cast<uint32_t>(number(input, "rank")), text(input, "path"),
               number(input, "offset")};
    for (const Json& node : part(facts, "nodes")) {
        m.nodes.push_back({static_cast<uint32_t>(number(node, "id")), text(node, "name"),
                           static_cast<int>(number(node, "slots"))});
    }
}

Manifest::Rank rank_of(const Written& row) {
    Manifest::Rank rank;
    rank.rank = row.rank;
    rank.node = row.node;
    rank.file = row.file;
    rank.kind = row.kind;
    rank.chain = row.chain;
    rank.digest = row.digest;
    rank.bytes = row.bytes;
    rank.page_bytes = row.page_bytes;
    rank.memory = row.memory;
    rank.pause_us = row.pause_us;
    return rank;
}

// What the ranks that have a file open say of it.
struct KnownFile {
    Manifest::File file;
    std::string which;  // of the files that nodes have by this name
    bool several = false;
    std::tuple<int64_t, int64_t, uint32_t> newest;  // changed, taken, rank
};

// Ranks are not frozen at the very same moment: who looked last knows what all of them have
// written. Changes of a file are told apart by its own clock, the same for all nodes, and looks
// between two changes (or in one tick of it) by the nodes'. Files of one name that nodes have each
// for itself are only cut back: where ranks will be is not known.
void take_file(KnownFile& seen, const SeenFile& given, uint32_t rank) {
    Manifest::File& file = seen.file;
    file.size = std::max(file.size, given.size);
    const bool first = file.ranks.empty();
    file.ranks.push_back(rank);
    if (first) seen.which = given.file;
    seen.several = seen.several || given.file != seen.which;
    const std::tuple when{given.changed, given.taken, rank};
    if (!first && when <= seen.newest) return;
    seen.newest = when;
    file.copy.reset();
    if (!given.hash.empty()) file.copy = {rank, given.size, given.hash};
}

void take_rows(Manifest& m, const std::vector<Written>& rows) {
    std::map<std::string, KnownFile> files;
    bool all = true;  // files of all ranks are known
    for (const Written& row : rows) {
        Manifest::Rank rank = rank_of(row);
        if (rank.kind != "full") m.kind = "incremental";
        if (rank.rank == m.input.rank && !m.input.path.empty()) {
            // Negative: its wrapper does not know. Better no input than the wrong part of it.
            const int64_t read = row.stdin_bytes;
            if (read < 0) m.input.path.clear();
            m.input.offset += read < 0 ? 0 : static_cast<uint64_t>(read);
        }
        for (const SeenFile& given : row.files) {
            const std::string& path = given.path.text;
            files[path].file.path = path;
            take_file(files[path], given, rank.rank);
        }
        all = all && row.all_files;
        m.ranks.push_back(std::move(rank));
    }
    std::ranges::sort(m.ranks, {}, &Manifest::Rank::rank);
    for (auto& [path, seen] : files) {
        Manifest::File& file = seen.file;
        if (!all || seen.several) file.copy.reset();
        std::ranges::sort(file.ranks);
        file.ranks.erase(std::unique(file.ranks.begin(), file.ranks.end()), file.ranks.end());
        m.files.push_back(std::move(file));
    }
}

// Which application a rank is of, and what it is bound to.
void take_places(Manifest& m, const Json& facts) {
    std::map<uint32_t, const Json*> places;
    for (const Json& place : part(facts, "ranks")) {
        places[static_cast<uint32_t>(number(place, "rank"))] = &place;
    }
    for (Manifest::Rank& rank : m.ranks) {
        auto it = places.find(rank.rank);
        if (it == places.end()) continue;
        rank.app = static_cast<uint32_t>(number(*it->second, "app"));
        rank.binding = text(*it->second, "binding");
    }
}

}  // namespace

Manifest manifest_of(const SnapshotRun& run, const std::string& job, uint64_t epoch) {
    Manifest m;
    m.name = run.name;
    m.time = utc_now();
    m.kind = "full";
    m.pause_us = run.pause;
    m.total_us = run.lasted;
    m.bytes = run.written.bytes;
    m.job = job;
    m.epoch = epoch;
    m.uid = ::geteuid();
    take_facts(m, run.facts);
    take_rows(m, run.written.written);
    take_places(m, run.facts);
    return m;
}

}  // namespace ghost::plugin
