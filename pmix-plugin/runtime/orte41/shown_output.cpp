// SPDX-License-Identifier: BSD-3-Clause
#include "pmix-plugin/runtime/orte41/shown_output.hpp"

#include "base/log.hpp"
#include "pmix-plugin/runtime/orte41/job.hpp"
#include "pmix-plugin/runtime/orte41/output.h"

namespace ghost::plugin::orte41 {

void ShownOutputs::begin() {
    const auto heard = [](void* shown, unsigned job, unsigned rank, int error, const char* data,
                          size_t size) noexcept {
        if (job != app_jobid()) return;
        ShownOutput& its = static_cast<ShownOutputs*>(shown)->of(rank);
        (error != 0 ? its.error : its.output) += OutputPlace::of({data, size});
    };
    counts_ = ghost_output_count(heard, this) == 0;
    if (!counts_) log::warning("what is shown of the ranks' output cannot be counted");
}

ShownOutput& ShownOutputs::of(RankId rank) {
    return ranks_.try_emplace(rank, ShownOutput{rank, counts_, {}, {}}).first->second;
}

void ShownOutputs::given(RankId rank, const std::optional<OutputGiven>& what) {
    ShownOutput& its = of(rank);
    if (!what) {
        its.known = false;
        return;
    }
    its.output += what->output;
    its.error += what->error;
}

std::vector<ShownOutput> ShownOutputs::all() const {
    std::vector<ShownOutput> out;
    for (const auto& [rank, shown] : ranks_) out.push_back(shown);
    return out;
}

}  // namespace ghost::plugin::orte41
