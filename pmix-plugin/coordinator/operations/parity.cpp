// SPDX-License-Identifier: BSD-3-Clause
#include "pmix-plugin/coordinator/operations/parity.hpp"

#include <algorithm>
#include <fmt/format.h>
#include <utility>

namespace ghost::plugin {
namespace {

struct Place {
    const ParitySet* set = nullptr;
    size_t member = 0, file = 0;
};

// All groups that protect a file: that of its own snapshot, or of one that is based on it.
std::vector<Place> places_of(const Job& job, const std::string& folder, const std::string& file) {
    std::vector<Place> out;
    for (const KeptSnapshot& one : job.snapshots.kept()) {
        if (one.folder != folder) continue;
        for (const ParitySet& set : one.parity)
            for (size_t m = 0; m < set.members.size(); m++)
                for (size_t f = 0; f < set.members[m].files.size(); f++)
                    if (set.members[m].files[f].file == file) out.push_back({&set, m, f});
    }
    return out;
}

// The nodes whose part is lacking, but for the one whose file it is.
std::set<NodeId> gone(const Job& job, const Place& place) {
    std::set<NodeId> out;
    for (size_t m = 0; m < place.set->members.size(); m++)
        if (const NodeId node = place.set->members[m].id;
            m != place.member && !job.liveness.alive(node))
            out.insert(node);
    return out;
}

std::optional<NodeId> node_of(const Job& job, RankId rank) {
    for (const RankInfo& info : job.adapter.ranks())
        if (info.rank == rank) return info.node;
    return std::nullopt;
}

uint64_t bytes_of(const Job& job, const std::string& folder, const std::string& file) {
    for (const Place& place : places_of(job, folder, file))
        return place.set->members[place.member].files[place.file].bytes;
    return 0;
}

// A living node that has a rank's ghost, the one it runs on rather than another.
std::optional<NodeId> holder_of(const Job& job, const KeptSnapshot& one, RankId rank) {
    std::optional<NodeId> out;
    const auto holders = one.holders.find(rank);
    if (holders == one.holders.end()) return out;
    for (const NodeId node : holders->second)
        if (job.liveness.alive(node) && (!out || node_of(job, rank) == node)) out = node;
    return out;
}

}  // namespace

std::vector<std::vector<NodeId>> parity_groups(const std::vector<NodeId>& ring, uint32_t most) {
    if (ring.size() < 2 || most < 2) return {};
    const size_t groups = std::min((ring.size() + most - 1) / most, ring.size() / 2);
    std::vector<std::vector<NodeId>> out(groups);
    for (size_t i = 0; i < ring.size(); i++) out[i * groups / ring.size()].push_back(ring[i]);
    return out;
}

std::vector<ParitySet> parity_sets(const Job& job, const std::string& snapshot, uint64_t seq,
                                   uint32_t most, const NodeFiles& files) {
    std::vector<ParitySet> out;
    for (const auto& group : parity_groups(ring_of(job), most)) {
        ParitySet set{fmt::format("{}.{}", seq, out.size()), snapshot, {}};
        for (const NodeId node : group) {
            const auto has = files.find(node);
            set.members.push_back(
                {node, job.liveness.name_of(node),
                 has != files.end() ? has->second : std::vector<ParitySet::File>()});
        }
        out.push_back(std::move(set));
    }
    return out;
}

std::vector<XorStream> parity_streams(const std::vector<ParitySet>& sets, const std::string& now,
                                      uint64_t attempt) {
    std::vector<XorStream> out;
    for (const ParitySet& set : sets) {
        auto more = parity_streams(set, now, attempt);
        out.insert(out.end(), std::make_move_iterator(more.begin()),
                   std::make_move_iterator(more.end()));
    }
    return out;
}

std::optional<std::vector<XorStream>> rebuild(const Job& job, const KeptSnapshot& one, RankId rank,
                                              NodeId to, uint64_t attempt, std::set<NodeId>* lost) {
    std::vector<XorStream> out;
    const auto files = one.run->files.find(rank);
    if (files == one.run->files.end()) return std::nullopt;
    for (const std::string& file : files->second) {
        const auto places = places_of(job, one.folder, file);
        const auto whole = std::ranges::find_if(
            places, [&](const Place& place) { return gone(job, place).empty(); });
        if (whole == places.end()) {
            if (lost != nullptr && !places.empty()) lost->merge(gone(job, places.front()));
            return std::nullopt;
        }
        auto more = rebuild_streams(*whole->set, whole->member, whole->file, to, attempt);
        out.insert(out.end(), std::make_move_iterator(more.begin()),
                   std::make_move_iterator(more.end()));
    }
    return out;
}

ParityMend plan_parity(const Job& job, const KeptSnapshot& one, uint64_t seq) {
    ParityMend out;
    const auto ring = ring_of(job);
    const auto part_of_it = [&](NodeId node) {
        return std::ranges::find(ring, node) != ring.end();
    };
    for (const auto& [rank, files] : one.run->files) {
        if (holder_of(job, one, rank)) continue;
        const auto to = node_of(job, rank);
        const auto streams = to ? rebuild(job, one, rank, *to, seq) : std::nullopt;
        if (!streams) return {};
        out.streams.insert(out.streams.end(), streams->begin(), streams->end());
        out.rebuilt.emplace_back(rank, *to);
    }
    const bool broken = std::ranges::any_of(one.parity, [&](const ParitySet& set) {
        return std::ranges::any_of(set.members,
                                   [&](const auto& member) { return !part_of_it(member.id); });
    });
    if (!out.streams.empty() || !broken) return out;
    NodeFiles has;
    for (const auto& [rank, files] : one.run->files)
        for (const std::string& file : files)
            has[*holder_of(job, one, rank)].push_back({file, bytes_of(job, one.folder, file)});
    out.sets = parity_sets(job, one.run->name, seq, one.run->xor_of, has);
    out.streams = parity_streams(out.sets, one.run->name, seq);
    return out;
}

}  // namespace ghost::plugin
