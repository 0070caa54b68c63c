// SPDX-License-Identifier: BSD-3-Clause
// The processes of a tree that moves live, as the source knows them. Private to ghost-core/engine.
#pragma once

#include <optional>
#include <string>
#include <sys/types.h>
#include <utility>
#include <vector>

#include "ghost-core/criu/kernel_state.hpp"
#include "ghost-core/engine/live.hpp"
#include "ghost-core/engine/live_batches.hpp"
#include "ghost-core/memory/huge_pages.hpp"
#include "ghost-core/memory/page_set.hpp"
#include "ghost-core/memory/tracker.hpp"

namespace ghost::core {

// One process of the tree.
struct LiveMember {
    pid_t pid = 0;
    int inner = 0;
    std::optional<Tracker> tracker;
    KernelState kernel_state;  // as of the skeleton
    std::string other_maps;    // likewise
    PageRuns ranges;           // whose pages the skeleton leaves to us
    PageRuns known;            // pages the target may have contents of
    PageRuns again;            // to be sent in the next round, whatever the tracker says
    PageRuns deferred;         // to be asked for when the copy runs
    PageRuns huge;             // what is to lie in huge pages again
    PageRuns used_at_once;     // by the kernel when the copy is called in: never deferred
    PageHashes copies;         // of the process's own pages of files
};

inline PageRuns copies_in(const OwnMappings& maps) {
    return as_set(maps.altered);
}

// It had no place at the target.
inline void send_again(LiveMember& member, const PageRun& run) {
    member.again.push_back(run);
    for (uint64_t page = run.start; page < run.end(); page += 4096) member.copies.erase(page);
}

// As if nothing had been.
inline void stay(std::vector<LiveMember>& members) {
    HugePages huge;
    for (auto& member : members) {
        if (member.tracker) member.tracker->release();
        huge.add(member.pid, member.huge);
    }
    huge.start();
    huge.wait();
}

// Of a tree that has been handed over, until it is known what becomes of it.
class TreeTracking : public LiveTracking {
  public:
    explicit TreeTracking(std::vector<LiveMember> members) : members_(std::move(members)) {}
    void stay() override { core::stay(members_); }

  private:
    std::vector<LiveMember> members_;
};

}  // namespace ghost::core
