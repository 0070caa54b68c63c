// SPDX-License-Identifier: BSD-3-Clause
// Prints how many messages a snapshot and a recovery cost each party, and how deep they go, for
// jobs of up to 100,000 ranks: the real coordinator and the real tree over the daemons, ranks that
// are counted. usage: snapshot_scale [RANKS [PER_NODE]]
#include <cstdio>
#include <cstdlib>
#include <fmt/format.h>

#include "base/log.hpp"
#include "benchmarks/scale/job_model.hpp"

using namespace ghost::plugin::scale;

namespace {

bool print(const char* what, const Report& r, uint32_t per_node) {
    uint64_t received = 0, sent = 0, all = 0;
    int depth = 0;
    for (const StepCost& c : r.steps) {
        received = std::max(received, c.most_received);
        sent = std::max(sent, c.most_sent);
        depth = std::max(depth, c.depth);
        all += c.all;
    }
    fmt::print("{:<9} {:>7} {:>8} {:>7} {:>7} {:>9} {:>6} {:>6} {:>8} {:>11} {:>7.2f}{}\n", what,
               r.ranks, per_node, r.nodes, r.orders, received, sent, depth, r.most_local, all,
               r.seconds, r.complete ? "" : "  " + r.error);
    return r.complete;
}

bool print(uint64_t ranks, uint32_t per_node) {
    const Reports reports = measure(ranks, per_node);
    return print("snapshot", reports.snapshot, per_node) &&
           print("recovery", reports.recovery, per_node);
}

}  // namespace

int main(int argc, char** argv) {
    ghost::log::setup("snapshot_scale", ghost::log::Level::error);
    fmt::print(
        "A snapshot, and the recovery after a lost node. In each step: answers received from\n"
        "daemons and sent, by the busiest daemon; depth: levels of the tree of answers. local:\n"
        "messages between one daemon and its wrappers and ranks, all steps of a snapshot "
        "together.\n"
        "answers: between all daemons, all steps.\n\n"
        "{:<9} {:>7} {:>8} {:>7} {:>7} {:>9} {:>6} {:>6} {:>8} {:>11} {:>7}\n",
        "", "ranks", "per node", "nodes", "orders", "received", "sent", "depth", "local", "answers",
        "s here");
    if (argc > 1) {
        const auto per_node = argc > 2 ? static_cast<uint32_t>(std::atol(argv[2])) : 64;
        return print(std::strtoull(argv[1], nullptr, 10), per_node) ? 0 : 1;
    }
    bool good = true;
    for (uint32_t per_node : {64u, 1u}) {
        for (uint64_t ranks : {128u, 1'000u, 10'000u, 100'000u}) {
            good = print(ranks, per_node) && good;
        }
    }
    return good ? 0 : 1;
}
