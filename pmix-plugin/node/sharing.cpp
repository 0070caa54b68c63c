// SPDX-License-Identifier: BSD-3-Clause
// Ranks of this node that share memory: a snapshot saves it while all of them are frozen, a restart
// gives all of them one file for it.
#include <algorithm>
#include <fcntl.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <unistd.h>

#include "pmix-plugin/node/impl.hpp"

namespace ghost::plugin {

namespace {

const SharedPart* find_part(const RankSlot* s, const std::string& id) {
    if (s == nullptr) return nullptr;
    const auto found = std::ranges::find(s->snap.shared, id, &SharedPart::id);
    return found == s->snap.shared.end() ? nullptr : &*found;
}

}  // namespace

// The rank, whoever shares memory with it, whoever shares some with those, and so on.
std::set<RankId> NodeAgent::Impl::unit_of(const RankSlot& s) {
    std::set<RankId> unit;
    std::vector<RankId> wanted{s.rank};
    while (!wanted.empty()) {
        const RankId rank = wanted.back();
        wanted.pop_back();
        if (!unit.insert(rank).second) continue;
        if (const RankSlot* one = find(rank); one != nullptr)
            for (const SharedPart& part : one->snap.shared)
                wanted.insert(wanted.end(), part.ranks.begin(), part.ranks.end());
    }
    return unit;
}

// Why they cannot be saved together; empty: they can.
std::string NodeAgent::Impl::add_sharers(const RankSlot& s, SnapFreeze& order) {
    if (s.snap.shared.empty()) return {};
    for (const RankId rank : unit_of(s)) order.unit.push_back(rank);
    for (const SharedPart& part : s.snap.shared) {
        if (part.ranks.front() == s.rank) order.saves.push_back(part.id);
        for (const RankId rank : part.ranks) {
            const RankSlot* other = find(rank);
            if (other == nullptr || !other->snap.participates || !find_part(other, part.id))
                return fmt::format("rank {} shares memory with rank {}, which is not saved with it",
                                   s.rank, rank);
        }
    }
    return {};
}

// Those it waits for have come as far as it has: they go on together.
void NodeAgent::Impl::on_still(RankSlot& s) {
    ++s.snap.stills;
    const auto unit = unit_of(s);
    for (const RankId rank : unit)
        if (const RankSlot* one = find(rank); one == nullptr || one->snap.stills < s.snap.stills)
            return;
    for (const RankId rank : unit)
        if (RankSlot* one = find(rank); one->wrapper) one->wrapper->tell(SnapShare{one->seq});
}

// Empty: all who share it start here.
std::string NodeAgent::Impl::why_apart(const std::vector<SharedPart>& shared) const {
    for (const SharedPart& part : shared)
        for (const RankInfo& info : adapter_.ranks())
            if (info.node != adapter_.self() &&
                std::ranges::find(part.ranks, info.rank) != part.ranks.end())
                return fmt::format(
                    "ranks {} share memory (an MPI shared window): put them on one "
                    "node, by mpirun's --host, --map-by or --rankfile",
                    fmt::join(part.ranks, ", "));
    return {};
}

// They have no name, so that nothing is left of them whatever happens.
Result<std::vector<SharedFile>> NodeAgent::Impl::shared_files(const RankSlot& s) {
    constexpr const char* folder = "/dev/shm";
    std::vector<SharedFile> out;
    for (const SharedPart& part : s.snap.shared) {
        Fd& file = shared_files_[{part.ranks.front(), part.id}];
        if (!file) file.reset(::open(folder, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600));
        if (!file) return sys_error("make a file for memory that ranks share in", folder);
        out.push_back({part.id, fmt::format("/proc/{}/fd/{}", ::getpid(), file.get())});
    }
    return out;
}

}  // namespace ghost::plugin
