// SPDX-License-Identifier: BSD-3-Clause
#include "ghost-core/format/chain.hpp"

#include <algorithm>
#include <fmt/format.h>
#include <iterator>

namespace ghost::core {
namespace {

std::string quoted(const std::string& name) {
    return name.empty() ? std::string() : fmt::format(" \"{}\"", name);
}

}  // namespace

void PageSet::add(PageRun run) {
    uint64_t start = run.start, end = run.end();
    auto at = runs_.upper_bound(start);
    if (at != runs_.begin() && std::prev(at)->second >= start) --at;
    while (at != runs_.end() && at->first <= end) {
        start = std::min(start, at->first);
        end = std::max(end, at->second);
        at = runs_.erase(at);
    }
    runs_.emplace_hint(at, start, end);
}

void PageSet::remove(PageRun run) {
    auto at = runs_.upper_bound(run.start);
    if (at != runs_.begin() && std::prev(at)->second > run.start) --at;
    while (at != runs_.end() && at->first < run.end()) {
        const auto [start, end] = *at;
        at = runs_.erase(at);
        if (start < run.start) runs_.emplace(start, run.start);
        if (end > run.end()) runs_.emplace(run.end(), end);
    }
}

void PageSet::intersect(PageRun run, std::vector<PageRun>& out) const {
    auto at = runs_.upper_bound(run.start);
    if (at != runs_.begin() && std::prev(at)->second > run.start) --at;
    for (; at != runs_.end() && at->first < run.end(); ++at) {
        const auto start = std::max(at->first, run.start);
        out.push_back({start, std::min(at->second, run.end()) - start});
    }
}

std::vector<PageRun> PageSet::list() const {
    std::vector<PageRun> out;
    out.reserve(runs_.size());
    for (const auto& [start, end] : runs_) out.push_back({start, end - start});
    return out;
}

Status Inheritance::add(PageSet& set, std::span<const PageRun> runs) {
    for (const auto& run : runs) {
        kept_ -= set.size();
        set.add(run);
        kept_ += set.size();
        if (kept_ > most_)
            return make_error(Code::refused, "read incremental ghost", {},
                              fmt::format("its memory is in more than {} pieces", most_));
    }
    return {};
}

Status Inheritance::owns(int inner_pid, std::span<const PageRun> runs) {
    return add(owned_[inner_pid], runs);
}

Status Inheritance::present(int inner_pid, std::span<const PageRun> runs) {
    return add(present_[inner_pid], runs);
}

std::vector<PageRun> Inheritance::wanted(int inner_pid, PageRun run) const {
    if (newest_) return {run};
    std::vector<PageRun> out;
    if (const auto found = wanted_.find(inner_pid); found != wanted_.end())
        found->second.intersect(run, out);
    return out;
}

bool Inheritance::next() {
    std::map<int, PageSet> wanted;
    for (auto& [pid, exists] : present_) {
        PageSet set;
        for (const auto& run : exists.list())
            for (const auto& part : this->wanted(pid, run)) set.add(part);
        for (const auto& run : owned_[pid].list()) set.remove(run);
        if (!set.empty()) wanted.emplace(pid, std::move(set));
    }
    wanted_ = std::move(wanted);
    owned_.clear();
    present_.clear();
    kept_ = 0;
    newest_ = false;
    return !wanted_.empty();
}

Status check_parent_head(const ParentRef& named, const GhostHead& found) {
    if (named.id != found.id)
        return make_error(Code::refused, "read incremental ghost", {},
                          fmt::format("its parent{} is ghost {}, not {}", quoted(named.name),
                                      named.id.hex(), found.id.hex()));
    if (found.rounds)
        return make_error(Code::unsupported, "read incremental ghost", {},
                          "its parent's pages come in rounds");
    const int generation = found.parent ? found.parent->generation : 0;
    if (named.generation != generation + 1)
        return make_error(
            Code::corrupt, "read incremental ghost", {},
            fmt::format("it is generation {} and its parent {}", named.generation, generation));
    return {};
}

Status check_parent_digest(const ParentRef& named, const Contents& found) {
    if (named.digest == found.digest) return {};
    return make_error(Code::refused, "read incremental ghost", {},
                      fmt::format("its parent{} has digest {}, not {}", quoted(named.name),
                                  named.digest.hex(), found.digest.hex()));
}

}  // namespace ghost::core
