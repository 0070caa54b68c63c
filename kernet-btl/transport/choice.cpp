// SPDX-License-Identifier: BSD-3-Clause
#include "kernet-btl/transport/choice.hpp"

#include "base/log.hpp"

namespace kernet {

namespace {

constexpr int most_failures = 3;

const char* name_of(wire::LinkKind kind) {
    const LinkLine* line = find_link(kind);
    return line ? line->name : "?";
}

}  // namespace

wire::LinkKind LinkChoices::kind(const std::string& between) const {
    const auto found = entries_.find(between);
    return found == entries_.end() ? wire::LinkKind::tcp : found->second.kind;
}

int64_t LinkChoices::doubt_at(const std::string& between) const {
    const auto found = entries_.find(between);
    return found == entries_.end() ? 0 : found->second.doubt_at;
}

bool LinkChoices::doubted(const std::string& between) const {
    const auto found = entries_.find(between);
    return found != entries_.end() && found->second.doubts > 0;
}

bool LinkChoices::doubt_due(const Entry& entry, int64_t now) {
    return entry.doubt_at != 0 && entry.doubt_at <= now;
}

bool LinkChoices::fresh(const std::string& between, int64_t now) const {
    const auto found = entries_.find(between);
    return found != entries_.end() && found->second.decided_at != 0 &&
           now - found->second.decided_at < fresh_us && !doubt_due(found->second, now);
}

std::optional<wire::LinkKind> LinkChoices::next(const std::string& between, int64_t now) {
    if (fresh(between, now)) return std::nullopt;
    Entry& entry = entries_[between];
    if (entry.decided_at != 0) {
        Entry anew;
        anew.kind = entry.kind;  // until there is another
        if (doubt_due(entry, now)) anew.doubts = entry.doubts + 1;
        entry = anew;
    }
    if (entry.at >= candidates_.size()) step(between, entry, now);
    if (entry.decided_at != 0) return std::nullopt;
    return candidates_[entry.at];
}

// To the next candidate; decides behind the last.
void LinkChoices::step(const std::string& between, Entry& entry, int64_t now) {
    entry.at++;
    entry.failures = 0;
    if (entry.at < candidates_.size()) return;
    decide(entry, entry.best, now);
    ghost::log::info("kernet: between {}: link {} from now on", between, name_of(entry.kind));
}

void LinkChoices::decide(Entry& entry, wire::LinkKind kind, int64_t now) const {
    entry.kind = kind;
    entry.decided_at = now;
    entry.doubt_at = 0;
    if (candidates_.empty() || kind == candidates_.front() || entry.doubts == most_doubts) return;
    int64_t after = first_doubt_us;
    for (int i = 0; i < entry.doubts; i++) after *= doubt_later;
    entry.doubt_at = now + after;
}

void LinkChoices::tried(const std::string& between, const TrialFigures& figures, double ratio,
                        int64_t now) {
    Entry& entry = entries_[between];
    if (entry.decided_at != 0 || entry.at >= candidates_.size()) return;
    const wire::LinkKind kind = candidates_[entry.at];
    const bool better = ratio > 0 && ratio <= entry.ratio;
    const char* why = better                 ? "is better"
                      : figures.packets == 0 ? "brings nothing across"
                      : figures.lossy()      ? "loses too much"
                                             : "is not clearly better";
    ghost::log::info("kernet: between {}: link {} {}: {}", between, name_of(kind), why,
                     figures.text());
    if (better) {
        entry.ratio = ratio;
        entry.best = kind;
        if (ratio <= well_enough) entry.at = candidates_.size() - 1;
    }
    step(between, entry, now);
}

void LinkChoices::failed(const std::string& between, const char* why, bool again, int64_t now) {
    Entry& entry = entries_[between];
    if (entry.decided_at != 0 || entry.at >= candidates_.size()) return;
    if (again && ++entry.failures < most_failures) return;
    ghost::log::info("kernet: between {}: link {} was not tried: {}", between,
                     name_of(candidates_[entry.at]), why);
    step(between, entry, now);
}

void LinkChoices::told(const std::string& between, wire::LinkKind kind, int64_t now) {
    Entry& entry = entries_[between];
    Entry anew;
    anew.doubts = entry.doubts;
    decide(anew, kind, now);
    entry = anew;
    ghost::log::info("kernet: between {}: link {} from now on: the other end has measured", between,
                     name_of(kind));
}

void LinkChoices::lost(const std::string& between, const char* why, int64_t now) {
    Entry anew;
    anew.doubts = most_doubts;
    decide(anew, wire::LinkKind::tcp, now);
    entries_[between] = anew;
    ghost::log::info("kernet: between {}: link {} from now on: {}", between, name_of(anew.kind),
                     why);
}

}  // namespace kernet
