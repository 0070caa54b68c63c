// SPDX-License-Identifier: BSD-3-Clause
// What `ghost supervise` takes a job's end for, and where it goes on.
#include <gtest/gtest.h>

#include "tools/supervised.hpp"

namespace {

using namespace ghost::tools;
using ghost::plugin::Event;
using ghost::plugin::EventKind;
using ghost::plugin::make_event;

Event started() {
    Event event = make_event(EventKind::started);
    event.job = "4711";
    event.host = "gn1";
    return event;
}

Event lost_rank(int64_t status) {
    Event event = make_event(EventKind::rank_lost);
    event.rank = 1;
    event.node = "gn2";
    event.status = status;
    return event;
}

Event lost_node(const std::vector<uint32_t>& ranks) {
    Event event = make_event(EventKind::node_lost);
    event.node = "gn2";
    event.which = ranks;
    return event;
}

Event ended(int64_t status) {
    Event event = make_event(EventKind::ended);
    event.status = status;
    return event;
}

Event saved() {
    Event event = make_event(EventKind::snapshot);
    event.folder = "/shared";
    event.snapshot = "4711-000002";
    return event;
}

TEST(Supervised, WhatIsALossAndWhatIsTheProgramsOwnEnd) {
    const auto loss = [](const std::vector<Event>& more) {
        std::vector<Event> all{started()};
        all.insert(all.end(), more.begin(), more.end());
        return read_life(all).loss;
    };
    EXPECT_EQ(loss({}), "its mpirun was lost");
    EXPECT_EQ(loss({ended(0)}), "");
    EXPECT_EQ(loss({ended(7)}), "");
    EXPECT_EQ(loss({lost_rank(137), ended(137)}), "rank 1 on gn2 was lost with status 137");
    EXPECT_NE(loss({lost_rank(135), ended(135)}), "");
    EXPECT_NE(loss({lost_rank(195), ended(195)}), "");
    EXPECT_EQ(loss({lost_rank(139), ended(139)}), "") << "SIGSEGV is the program's own";
    EXPECT_EQ(loss({lost_rank(136), ended(136)}), "") << "SIGFPE is, too";
    EXPECT_EQ(loss({lost_node({1}), ended(1)}), "node gn2 was lost");
    EXPECT_EQ(loss({lost_node({}), ended(7)}), "") << "no rank was there";
    Event harmed = make_event(EventKind::no_move);
    harmed.rank = 3;
    EXPECT_EQ(loss({harmed, ended(7)}), "");
    harmed.harmed = true;
    EXPECT_EQ(loss({harmed, ended(1)}), "rank 3 was lost on its way");
}

TEST(Supervised, TheNewestSnapshotIsKnown) {
    JobLife life = read_life({started()});
    EXPECT_EQ(life.snapshot, "");
    Event again = make_event(EventKind::restarted);
    again.job = "4711";
    again.folder = "/shared/4711-000001";
    again.snapshot = "4711-000001";
    life = read_life({again});
    EXPECT_EQ(life.folder + "/" + life.snapshot, "/shared/4711-000001");
    EXPECT_EQ(life.job, "4711");
    EXPECT_FALSE(life.saved);
    life = read_life({again, saved(), lost_node({0})});
    EXPECT_EQ(life.folder + "/" + life.snapshot, "/shared/4711-000002");
    EXPECT_TRUE(life.saved);
    EXPECT_EQ(life.lost, std::set<std::string>{"gn2"});
}

TEST(Supervised, RanksGoToTheNodesThatAreLeft) {
    ghost::plugin::Manifest manifest;
    manifest.nodes = {{0, "gn1", 1}, {1, "gn2", 2}, {2, "gn3", 0}};
    manifest.ranks.resize(2);
    manifest.apps.push_back({{"./a"}, 2, ""});
    manifest.mpirun.argv = {"mpirun", "--map-by", "node", "--host",    "gn1",
                            "-np",    "2",        "./a",  "--bind-to", "none"};
    auto places = places_without(manifest, {});
    ASSERT_TRUE(places.ok());
    EXPECT_EQ(places->options,
              (std::vector<std::string>{"--map-by", "node", "--host", "gn1:1,gn2:2"}));
    EXPECT_FALSE(places->crowded);
    places = places_without(manifest, {"gn2"});
    ASSERT_TRUE(places.ok());
    EXPECT_TRUE(places->crowded);
    EXPECT_EQ(places->options.back(), "--oversubscribe");
    EXPECT_FALSE(places_without(manifest, {"gn1", "gn2"}).ok());
}

TEST(Supervised, TheSameCommandInTheSameFolderIsTheSame) {
    const auto one = supervision_file({"mpirun", "a"}, "/x");
    EXPECT_EQ(one, supervision_file({"mpirun", "a"}, "/x"));
    EXPECT_NE(one, supervision_file({"mpirun", "a"}, "/y"));
    EXPECT_NE(one, supervision_file({"mpirun", "b"}, "/x"));
    EXPECT_EQ(parameter_in({"mpirun", "--mca", "ghost", "1", "a"}, "ghost"), "1");
    EXPECT_EQ(parameter_in({"mpirun", "a"}, "ghost"), std::nullopt);
}

}  // namespace
