// SPDX-License-Identifier: BSD-3-Clause
// Ranks of this node that share memory: a snapshot or a move saves it while all of them are frozen,
// where they begin again all of them get one file for it.
#include <algorithm>
#include <fcntl.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <map>
#include <set>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/proc.hpp"
#include "pmix-plugin/node/impl.hpp"

namespace ghost::plugin {

namespace {

constexpr const char* memory_folder = "/dev/shm";

const SharedPart* find_part(const RankSlot* s, const std::string& id) {
    if (s == nullptr) return nullptr;
    const auto found = std::ranges::find(s->sharing.parts, id, &SharedPart::id);
    return found == s->sharing.parts.end() ? nullptr : &*found;
}

// How much of each such memory a process has mapped, by id.
std::map<std::string, uint64_t> memory_of(pid_t pid) {
    std::map<std::string, uint64_t> out;
    for (const FileMapping& one : file_mappings_of(pid)) {
        if (!one.is_shared_memory()) continue;
        uint64_t& bytes = out[one.file_id()];
        bytes = std::max(bytes, one.end_in_file());
    }
    return out;
}

// The process and all that descend from it.
void add_tree(pid_t root, std::set<pid_t>& out) {
    if (root <= 0 || !out.insert(root).second) return;
    for (const pid_t child : children_of(root)) add_tree(child, out);
}

bool takes_part(const RankSlot& s) {
    return s.snap.participates || s.transfer == Transfer::connected ||
           s.transfer == Transfer::exporting;
}

}  // namespace

// The rank, whoever shares memory with it, whoever shares some with those, and so on.
std::set<RankId> NodeAgent::Impl::unit_of(const RankSlot& s) {
    return sharers_of(s.rank, [this](RankId rank) {
        const RankSlot* one = find(rank);
        return one == nullptr ? std::vector<SharedPart>() : one->sharing.parts;
    });
}

// What the rank shares, for a wrapper of a user: it may not look at other ranks, which are in name
// spaces that are not below its own, and its daemon may.
std::vector<SharedPart> NodeAgent::Impl::seen_memory(const RankSlot& s) const {
    std::vector<SharedPart> out;
    if (!settings_.looks_for_sharers) return out;
    std::set<pid_t> own;
    add_tree(s.init, own);
    std::map<std::string, SharedPart> found;
    for (const pid_t pid : own)
        for (const auto& [id, bytes] : memory_of(pid)) {
            SharedPart& part = found.try_emplace(id, SharedPart{id, {s.rank}}).first->second;
            part.bytes = std::max(part.bytes, bytes);
        }
    if (found.empty()) return out;  // nearly always
    std::map<pid_t, RankId> ranks;
    for (const auto& [rank, slot] : slots_) {
        std::set<pid_t> tree;
        add_tree(slot.init, tree);
        for (const pid_t pid : tree) ranks.emplace(pid, rank);
    }
    for (const pid_t pid : numbers_in("/proc")) {
        if (own.contains(pid)) continue;
        for (const auto& [id, bytes] : memory_of(pid)) {
            const auto part = found.find(id);
            if (part == found.end()) continue;
            part->second.bytes = std::max(part->second.bytes, bytes);
            const auto rank = ranks.find(pid);
            part->second.strangers |= rank == ranks.end();
            if (rank != ranks.end()) part->second.ranks.push_back(rank->second);
        }
    }
    for (auto& [id, part] : found) {
        std::ranges::sort(part.ranks);
        const auto twice = std::ranges::unique(part.ranks);
        part.ranks.erase(twice.begin(), twice.end());
        if (part.ranks.size() > 1 || part.strangers) out.push_back(std::move(part));
    }
    return out;
}

// Why they cannot be saved or moved together; empty: they can.
std::string NodeAgent::Impl::add_sharers(const RankSlot& s, std::vector<uint32_t>& unit,
                                         std::vector<std::string>& saves) {
    if (seen_memory(s) != s.sharing.seen)
        return fmt::format("rank {}: what it shares with other ranks has just changed: try again",
                           s.rank);
    if (s.sharing.parts.empty()) return {};
    for (const RankId rank : unit_of(s)) unit.push_back(rank);
    for (const SharedPart& part : s.sharing.parts) {
        if (part.ranks.front() == s.rank) saves.push_back(part.id);
        for (const RankId rank : part.ranks) {
            const RankSlot* other = find(rank);
            if (other == nullptr || !takes_part(*other) || !find_part(other, part.id))
                return fmt::format("rank {} shares memory with rank {}, which does not take part",
                                   s.rank, rank);
        }
    }
    return {};
}

// A move: all of a unit leave their server, or none does, for one that is frozen keeps waiting
// whoever is inside a call.
void NodeAgent::Impl::gate_answered(RankSlot& s) {
    if (!waits_for_gate(s.transfer)) return;
    s.sharing.answered = true;
    std::vector<RankSlot*> unit;
    for (const RankId rank : unit_of(s)) {
        RankSlot* one = find(rank);
        if (one == nullptr || !waits_for_gate(one->transfer) || !one->sharing.answered) return;
        unit.push_back(one);
    }
    const RankSlot* busy = nullptr;
    for (RankSlot* one : unit) {
        one->sharing.answered = false;
        const bool shut = one->quiesce == Quiesce::gated && one->agent;
        if (shut && unit.size() > 1 && adapter_.may_detach(one->rank, one->tag) == PreMark::busy)
            one->busy = in_pmix_call;
        if (!shut || !one->busy.empty()) busy = one;
    }
    const std::string why =
        busy == nullptr ? "" : fmt::format("rank {}: {}", busy->rank, busy->busy);
    for (RankSlot* one : unit) {
        if (one->quiesce != Quiesce::gated) continue;
        if (busy == nullptr && leave_server(*one)) continue;
        if (one->busy.empty()) one->busy = busy == nullptr ? in_pmix_call : why;
        open_gate(*one);
    }
}

// Those it waits for have come as far as it has: they go on together.
void NodeAgent::Impl::on_still(RankSlot& s) {
    ++s.sharing.stills;
    const auto unit = unit_of(s);
    for (const RankId rank : unit)
        if (const RankSlot* one = find(rank);
            one == nullptr || one->sharing.stills < s.sharing.stills)
            return;
    for (const RankId rank : unit)
        if (RankSlot* one = find(rank); one->wrapper) one->wrapper->tell(Share{one->seq});
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

// For `unit`, or at a restart (0): the wrapper gets them, and may begin. They have no name, so that
// nothing is left of them whatever happens.
Status NodeAgent::Impl::give_files(RankSlot& s, uint64_t unit) {
    const uint64_t seq = unit == 0 ? 0 : s.seq;
    Import order{seq};
    std::vector<int> files;
    for (const SharedPart& part : s.sharing.parts) {
        if (files.size() == most_control_descriptors) {
            order.more = true;
            s.wrapper->tell(order, files);
            order = {seq};
            files.clear();
        }
        auto& known = shared_files_[{unit, part.ranks.front(), part.id}];
        auto file = known.lock();
        if (!file) {
            Fd made(::open(memory_folder, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600));
            if (!made)
                return sys_error("make a file for memory that ranks share in", memory_folder);
            known = file = std::make_shared<const Fd>(std::move(made));
        }
        order.shared.push_back(part.id);
        files.push_back(file->get());
        s.sharing.files.push_back(std::move(file));
    }
    s.wrapper->tell(order, files);
    std::erase_if(shared_files_, [](const auto& one) { return one.second.expired(); });
    return {};
}

// Of memory that ranks share, for all of them; empty: there is.
std::string NodeAgent::Impl::why_no_room(const std::vector<SharedPart>& shared) const {
    uint64_t bytes = 0;
    for (const SharedPart& part : shared) bytes += part.bytes;
    struct statvfs room {};
    if (bytes == 0 || ::statvfs(memory_folder, &room) != 0) return {};
    const uint64_t left = room.f_bavail * room.f_frsize;
    if (bytes <= left) return {};
    return fmt::format("{} MB of memory that ranks share do not fit into the {} MB left in {}",
                       bytes >> 20, left >> 20, memory_folder);
}

}  // namespace ghost::plugin
