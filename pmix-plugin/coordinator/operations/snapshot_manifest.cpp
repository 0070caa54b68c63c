// SPDX-License-Identifier: BSD-3-Clause
#include "pmix-plugin/coordinator/operations/snapshot.hpp"

#include <algorithm>
#include <map>
#include <tuple>
#include <unistd.h>

namespace ghost::plugin {
namespace {

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
    if (!row.signer.empty()) rank.signer = row.signer;
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
    file.begin.reset();
    if (!given.hash.empty()) file.copy = {rank, given.size, given.hash};
    if (!given.begin.empty()) file.begin = {given.size, given.begin, given.modified};
}

// Beside the node that a rank ran on; the daemons' numbers are in the job's description.
void take_copies(Manifest& m, const std::map<NodeId, NodeId>& copied) {
    std::map<std::string, NodeId> numbers;
    std::map<NodeId, std::string> names;
    for (const auto& node : m.nodes) {
        numbers[node.name] = node.id;
        names[node.id] = node.name;
    }
    for (Manifest::Rank& rank : m.ranks) {
        const auto node = numbers.find(rank.node);
        const auto other = node != numbers.end() ? copied.find(node->second) : copied.end();
        if (other != copied.end()) rank.copy = names[other->second];
    }
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
        if (!all || seen.several) {
            file.copy.reset();
            file.begin.reset();
        }
        std::ranges::sort(file.ranks);
        file.ranks.erase(std::unique(file.ranks.begin(), file.ranks.end()), file.ranks.end());
        m.files.push_back(std::move(file));
    }
}

void take_places(Manifest& m, const std::vector<JobDescription::Place>& places) {
    std::map<uint32_t, const JobDescription::Place*> by_rank;
    for (const auto& place : places) by_rank[place.rank] = &place;
    for (Manifest::Rank& rank : m.ranks) {
        auto it = by_rank.find(rank.rank);
        if (it == by_rank.end()) continue;
        rank.app = it->second->app;
        rank.binding = it->second->binding;
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
    m.job = {job, epoch, run.written.written.size(), ::geteuid()};
    m.runtime = run.job.runtime;
    m.apps = run.job.apps;
    m.mpirun = run.job.mpirun;
    m.input = run.job.input;
    m.nodes = run.job.nodes;
    take_rows(m, run.written.written);
    take_places(m, run.job.ranks);
    take_copies(m, run.copied);
    if (!run.parity.empty()) m.parity = {run.parity};
    return m;
}

}  // namespace ghost::plugin
