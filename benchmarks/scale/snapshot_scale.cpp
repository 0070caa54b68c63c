// SPDX-License-Identifier: BSD-3-Clause
// Prints how many messages a snapshot costs each party, and how deep they go, for jobs of up to
// 100,000 ranks: the real coordinator and the real tree over the daemons, ranks that are counted.
// usage: snapshot_scale [RANKS [PER_NODE]]
#include <cstdio>
#include <cstdlib>
#include <fmt/format.h>

#include "base/log.hpp"
#include "benchmarks/scale/job_model.hpp"

using namespace ghost::plugin::scale;

namespace {

bool print(uint64_t ranks, uint32_t per_node) {
    const Report r = measure(ranks, per_node);
    uint64_t received = 0, sent = 0, all = 0;
    int depth = 0;
    for (const StepCost& c : r.steps) {
        received = std::max(received, c.most_received);
        sent = std::max(sent, c.most_sent);
        depth = std::max(depth, c.depth);
        all += c.all;
    }
    fmt::print("{:>7} {:>8} {:>7} {:>7} {:>9} {:>6} {:>6} {:>8} {:>11} {:>7.2f}{}\n", r.ranks,
               per_node, r.nodes, r.orders, received, sent, depth, r.most_local, all, r.seconds,
               r.complete ? "" : "  " + r.error);
    return r.complete;
}

}  // namespace

int main(int argc, char** argv) {
    ghost::log::setup("snapshot_scale", ghost::log::Level::error);
    fmt::print(
        "One snapshot. In each step: answers received from daemons and sent, by the busiest\n"
        "daemon; depth: levels of the tree of answers. local: messages between one daemon and its\n"
        "wrappers and ranks, all steps together. answers: between all daemons, all steps.\n\n"
        "{:>7} {:>8} {:>7} {:>7} {:>9} {:>6} {:>6} {:>8} {:>11} {:>7}\n",
        "ranks", "per node", "nodes", "orders", "received", "sent", "depth", "local", "answers",
        "s here");
    if (argc > 1) {
        const auto per_node = argc > 2 ? static_cast<uint32_t>(std::atol(argv[2])) : 64;
        return print(std::strtoull(argv[1], nullptr, 10), per_node) ? 0 : 1;
    }
    bool good = true;
    for (uint32_t per_node : {64u, 1u}) {
        for (uint64_t ranks : {16u, 100u, 1'000u, 10'000u, 100'000u}) {
            good = print(ranks, per_node) && good;
        }
    }
    return good ? 0 : 1;
}
