// SPDX-License-Identifier: BSD-3-Clause
// Which link to take with the processes of another node, by what was measured (`auto` among the
// names of links).
//
// Remembered for each pair of nodes, ours and the peer's, so that not every connection measures
// again, and for a while only. The connection itself is what the others are compared with, and what
// it stays with unless one of them is clearly better. That it is not the first of them is doubted
// some times: while a job starts or a rank has just arrived its processors are busy, and then
// nothing looks better. Pure logic; the connector's thread.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "kernet-btl/link/table.hpp"
#include "kernet-btl/link/trial.hpp"

namespace kernet {

class LinkChoices {
  public:
    // For so long a choice is not questioned.
    static constexpr int64_t fresh_us = 60'000'000;
    // A link is taken when it needs this much of the connection's time at most: figures of the same
    // link differ by some hundredths.
    static constexpr double clearly = 0.95;
    // With this much nobody asks for an even better one: a trial takes a rank's processor.
    static constexpr double well_enough = 0.75;
    // Another choice than the first candidate is doubted after so long, and each time after this
    // many times as long, so many times.
    static constexpr int64_t first_doubt_us = 2'000'000;
    static constexpr int64_t doubt_later = 4;
    static constexpr int most_doubts = 5;

    // The links to be compared with the connection, as they can be had here.
    void set_candidates(std::vector<wire::LinkKind> candidates) {
        candidates_ = std::move(candidates);
    }

    // What was chosen last; tcp if nothing was.
    wire::LinkKind kind(const std::string& between) const;
    // When what was chosen is to be measured again though nothing has changed; 0: never.
    int64_t doubt_at(const std::string& between) const;
    // It is being measured, or was last, only because it was doubted.
    bool doubted(const std::string& between) const;
    // It need not be measured again now.
    bool fresh(const std::string& between, int64_t now) const;
    // What is to be tried next; none: it is decided.
    std::optional<wire::LinkKind> next(const std::string& between, int64_t now);

    // What came of a trial of next(). ratio: as TrialFigures::ratio().
    void tried(const std::string& between, const TrialFigures& figures, double ratio, int64_t now);
    // It could not be tried. again: it may be in a moment, but not for ever.
    void failed(const std::string& between, const char* why, bool again, int64_t now);
    // The other end has measured.
    void told(const std::string& between, wire::LinkKind kind, int64_t now);
    // Packets have been lost since: the connection, and no doubts.
    void lost(const std::string& between, const char* why, int64_t now);

  private:
    struct Entry {
        wire::LinkKind kind = wire::LinkKind::tcp;
        int64_t decided_at = 0;  // 0: it is being measured
        int64_t doubt_at = 0;    // 0: never
        int doubts = 0;          // there have been
        size_t at = 0;           // of the candidates: the one that is tried
        int failures = 0;        // of it
        wire::LinkKind best = wire::LinkKind::tcp;
        double ratio = clearly;  // of the best so far
    };
    static bool doubt_due(const Entry& entry, int64_t now);
    void step(const std::string& between, Entry& entry, int64_t now);
    void decide(Entry& entry, wire::LinkKind kind, int64_t now) const;

    std::vector<wire::LinkKind> candidates_;
    std::map<std::string, Entry> entries_;
};

}  // namespace kernet
