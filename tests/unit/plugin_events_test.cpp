// SPDX-License-Identifier: BSD-3-Clause
// What the coordinator writes into the job's event log, under the simulated runtime: each
// operation's begin and end, once, in order, and the job's.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <string>
#include <vector>

#include "pmix-plugin/events/event.hpp"
#include "pmix-plugin/events/files.hpp"
#include "tests/unit/plugin_checks.hpp"

namespace ghost::plugin::sim {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

class EventsOfJob : public testing::Test {
  protected:
    EventsOfJob() {
        std::string made = "/tmp/ghost-events-test.XXXXXX";
        folder_ = ::mkdtemp(made.data());
        settings_.events = folder_;
    }
    ~EventsOfJob() override { std::filesystem::remove_all(folder_); }

    std::vector<Event> told() const {
        const auto files = list_events_files(folder_);
        if (!files.ok() || files->empty()) return {};
        const auto text = read_own_log(files->front().path);
        const EventsRead read = read_events(text.ok() ? text->text : "");
        EXPECT_EQ(read.unread, 0u);
        return read.events;
    }
    // Without what every log begins and ends with.
    std::vector<std::string> names() const {
        std::vector<std::string> out;
        for (const Event& event : told())
            if (event.kind() != EventKind::started && event.kind() != EventKind::ended)
                out.push_back(event.event);
        return out;
    }
    void ask(Cluster& c, const Json& order) {
        Client& user = c.client();
        user.ask(order);
        ASSERT_TRUE(c.run(120 * second, [&] { return !user.results.empty(); })) << order;
    }

    std::string folder_;
    CoordinatorSettings settings_;
};

TEST_F(EventsOfJob, BeginsWithPlacesAndEndsOnce) {
    Cluster c(1, 3, {0, 1, 1}, 0, settings_);
    c.end_mpirun();
    c.end_mpirun();
    const auto all = told();
    ASSERT_EQ(all.size(), 2u);
    EXPECT_EQ(all[0].kind(), EventKind::started);
    EXPECT_EQ(all[0].ranks, 3u);
    ASSERT_EQ(all[0].places.size(), 3u);
    EXPECT_EQ(all[0].places[1].node, "gn1");
    EXPECT_THAT(all[0].places[1].ranks, ElementsAre(1, 2));
    EXPECT_EQ(all[1].kind(), EventKind::ended);
}

TEST_F(EventsOfJob, MoveHasItsBeginAndItsFigures) {
    Cluster c(2, 3, {0, 1}, 0, settings_);
    ask(c, migrate({1}, "gn2"));
    EXPECT_THAT(names(), ElementsAre("asked", "moving", "move"));
    const Event move = told().back();
    EXPECT_EQ(move.rank, 1u);
    EXPECT_EQ(move.from, "gn1");
    EXPECT_EQ(move.to, "gn2");
    EXPECT_EQ(move.mode, "stop");
    EXPECT_GT(move.downtime_us, 0);
    EXPECT_GE(move.total_us, move.downtime_us);
    EXPECT_EQ(move.epoch, 1u);
    expect_sound(c);
}

TEST_F(EventsOfJob, RefusedMoveSaysWhy) {
    Cluster c(3, 3, {0, 1}, 0, settings_);
    ask(c, migrate({7}, "gn2"));
    ASSERT_THAT(names(), ElementsAre("asked", "no_move"));
    EXPECT_THAT(*told().back().why, HasSubstr("there is no rank 7"));
    expect_sound(c);
}

TEST_F(EventsOfJob, RankThatIsThereAlreadyIsNoEvent) {
    Cluster c(4, 3, {0, 1}, 0, settings_);
    ask(c, migrate({1}, "gn1"));
    EXPECT_THAT(names(), ElementsAre("asked"));
    expect_sound(c);
}

TEST_F(EventsOfJob, DrainGrowAndSnapshot) {
    Cluster c(5, 3, {0, 1}, 4, settings_);
    ask(c, {{"t", "drain"}, {"node", "gn1"}, {"to", Json::array()}});
    EXPECT_THAT(names(),
                ElementsAre("draining", "asked", "moving", "move", "node_left", "drained"));
    ask(c, checkpoint());
    const auto all = names();
    ASSERT_GE(all.size(), 2u);
    EXPECT_EQ(all[all.size() - 2], "snapshotting");
    EXPECT_EQ(all.back(), "snapshot");
    EXPECT_GT(told().back().pause_us, 0);
    expect_sound(c);
}

// The job goes away while a rank moves.
TEST_F(EventsOfJob, WhatIsUnderWayAtTheEndIsTold) {
    Cluster c(6, 3, {0, 1}, 0, settings_);
    Client& user = c.client();
    user.ask(migrate({1}, "gn2"));
    ASSERT_TRUE(c.run(10 * second, [&] { return names().size() == 2; }));
    c.end_mpirun();
    ASSERT_THAT(names(), ElementsAre("asked", "moving", "no_move"));
    EXPECT_EQ(told().back().kind(), EventKind::ended);
}

}  // namespace
}  // namespace ghost::plugin::sim
