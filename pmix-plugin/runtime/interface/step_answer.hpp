// What goes up the tree of daemons in one step of a snapshot or a restart (docs/PROTOCOL.md, "A
// snapshot of the job"): the body of `snap_up`.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "pmix-plugin/protocol/message.hpp"
#include "pmix-plugin/runtime/interface/runtime_adapter.hpp"

namespace ghost::plugin {

// What a node and all below it have to say to one step.
struct StepAnswer {
    static constexpr size_t most_named = 8;

    uint64_t ranks = 0;
    uint64_t busy_ranks = 0;    // of which most_named are in `busy`
    uint64_t failed_ranks = 0;  // the same
    std::vector<Json> busy;     // {rank, why}
    std::vector<Json> failed;   // {rank, node, stage, why}
    std::vector<Json> rows;
    uint64_t own_folders = 0;  // daemons that keep the snapshot on a disk of their own
    uint64_t own_seconds = 0;  // the same in the second folder
    uint64_t bytes = 0;
    int64_t pause_us = 0;  // the longest

    void add_busy(RankId rank, const std::string& why);
    void add_failed(RankId rank, const std::string& node, const std::string& stage,
                    const std::string& why);
    void merge(StepAnswer other);
    // The fields of `snap_up` that carry it.
    void write(Json& message) &&;
    static StepAnswer read(const Json& message);
};

// "rank 3 at gn2: check: descriptor 7 …; and 12 more": a list of `busy` or `failed` for the user.
std::string describe(const std::vector<Json>& list, uint64_t all);

}  // namespace ghost::plugin
