// SPDX-License-Identifier: BSD-3-Clause
// Event logs of jobs: lines of any kind, files that come and go, disks that are full, and the
// history and the page that are made of them.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sys/file.h>
#include <unistd.h>

#include "base/clock.hpp"
#include "base/file.hpp"
#include "base/own_file.hpp"
#include "base/utc.hpp"
#include "pmix-plugin/events/event.hpp"
#include "pmix-plugin/events/files.hpp"
#include "pmix-plugin/events/writer.hpp"
#include "tools/history.hpp"
#include "tools/report_page.hpp"

namespace ghost::plugin {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;
using testing::Not;

constexpr int64_t second = 1'000'000;  // us
constexpr int64_t begin = 1'738'367'999'000'000;

class Logs : public testing::Test {
  protected:
    Logs() {
        std::string made = "/tmp/ghost-events-test.XXXXXX";
        folder_ = ::mkdtemp(made.data());
        ::setenv("OMPI_MCA_ghost_events", folder_.c_str(), 1);
    }
    ~Logs() override {
        ::unsetenv("OMPI_MCA_ghost_events");
        fs::remove_all(folder_);
    }
    std::string put(const std::string& name, const std::string& text) const {
        std::ofstream(folder_ + "/" + name) << text;
        fs::permissions(folder_ + "/" + name, fs::perms::owner_read | fs::perms::owner_write);
        return folder_ + "/" + name;
    }
    std::string folder_;
};

Event event_at(EventKind kind, int64_t after_us) {
    Event event = make_event(kind);
    event.time = utc_text(begin + after_us);
    return event;
}

Event start(const std::vector<NodePlace>& places, const std::string& life = "a") {
    Event event = event_at(EventKind::started, 0);
    event.job = "4711";
    event.life = life;
    event.host = "gn1";
    event.program = "./app";
    event.pid = 12;
    event.ranks = 2;
    event.places = places;
    return event;
}

Event move_at(int64_t after_us, uint32_t rank, const std::string& from, const std::string& to) {
    Event event = event_at(EventKind::move, after_us);
    event.rank = rank;
    event.from = from;
    event.to = to;
    event.mode = "stop";
    event.bytes = 1 << 20;
    event.downtime_us = 20'000;
    event.total_us = 100'000;
    return event;
}

Event end_at(int64_t after_us, int status) {
    Event event = event_at(EventKind::ended, after_us);
    event.status = status;
    return event;
}

std::string some_log() {
    return line_of(start({{"gn1", {0}}, {"gn2", {1}}})) +
           line_of(move_at(2 * second, 1, "gn2", "gn3")) + line_of(end_at(5 * second, 0));
}

// --- time ---

TEST(Utc, IsReadAsItWasWritten) {
    for (const int64_t us : {int64_t{0}, begin, begin + 123'456, int64_t{-1}})
        EXPECT_EQ(utc_us(utc_text(us)), us);
    EXPECT_EQ(utc_text(begin), "2025-01-31T23:59:59.000000Z");
    EXPECT_EQ(utc_us("2025-01-31T23:59:59Z"), begin);
    EXPECT_EQ(utc_us("2025-01-31T23:59:59.5Z"), begin + 500'000);
    for (const char* wrong :
         {"", "Z", "2025-01-31", "2025-13-31T23:59:59Z", "2025-01-31T24:59:59Z",
          "2025-01-31T23:59:59", "2025-01-31T23:59:59.Z", "2025-01-31T23:59:59.1234567Z",
          "2025-01-31T23:59:-9Z", "+025-01-31T23:59:59Z", "2025-01-31T23:59:59.-5Z"})
        EXPECT_EQ(utc_us(wrong), std::nullopt) << wrong;
}

// --- lines ---

TEST(Lines, EveryKindIsReadAsItWasWritten) {
    for (size_t kind = 0; kind < static_cast<size_t>(EventKind::other); ++kind) {
        const Event event = make_event(static_cast<EventKind>(kind));
        const EventsRead read = read_events(line_of(event));
        ASSERT_EQ(read.events.size(), 1u);
        EXPECT_EQ(read.events[0].kind(), static_cast<EventKind>(kind));
        EXPECT_GT(read.events[0].at_us(), begin);
    }
}

TEST(Lines, WhatIsTornOrForeignIsPassedOver) {
    std::string text = some_log();
    text.insert(text.find('\n') + 1, "{\"time\":\"x\n\nnone at all\n[1]\n{}\n\xff\xfe\n");
    text.resize(text.size() - 9);  // the last line has no end
    const EventsRead read = read_events(text);
    EXPECT_EQ(read.events.size(), 2u);
    EXPECT_EQ(read.unread, 6u);
    EXPECT_FALSE(read.cut);
    EXPECT_TRUE(read_events("").events.empty());
    EXPECT_EQ(read_events(std::string(5, '\0')).unread, 1u);
}

TEST(Lines, NewerAndOlderOnesAreShown) {
    const EventsRead read = read_events(
        R"({"time":"2030-01-01T00:00:00Z","event":"beamed","rank":3,"warp":9})"
        "\n"
        R"({"time":"2024-01-01T00:00:00.000001Z","event":"move","rank":1,"from":"a","to":"b"})"
        "\n"
        R"({"time":"2024-01-01T00:00:00Z","event":"move","rank":"one"})"
        "\n");
    ASSERT_EQ(read.events.size(), 2u);
    EXPECT_EQ(read.events[0].kind(), EventKind::other);
    EXPECT_EQ(tools::words_of(read.events[0]), "beamed (of a newer Ghost)");
    EXPECT_EQ(read.unread, 1u) << "a rank is a number";
}

TEST(Page, ShowsRecoveriesAndLevels) {
    std::string log = line_of(start({{"gn1", {0}}, {"gn2", {1}}}));
    for (const char* level : {"partner", "partner", "partner and disk"}) {
        Event saved = event_at(EventKind::snapshot, 2 * second);
        saved.level = level;
        log += line_of(saved);
    }
    for (const int64_t redone : {1 * second, 3 * second}) {
        Event back = start({{"gn1", {0, 1}}}, "2");
        back.event = "recovered";
        back.time = utc_text(begin + 4 * second);
        back.snapshot = "4711-000003";
        back.total_us = 200'000;
        back.redone_us = redone;
        back.why = "node gn2 was lost";
        log += line_of(back);
    }
    const tools::JobHistory history = tools::history_of(read_events(log));
    EXPECT_EQ(history.recoveries, 2U);
    EXPECT_EQ(history.recovered_us, 400'000);
    EXPECT_EQ(history.redone_us, 4 * second);
    const std::string page = tools::report_page(history);
    for (const char* part :
         {"3 (0 not made; partner: 2; partner and disk: 1)", "2, 400.0 ms in all; 4.00 s",
          "the job goes on from snapshot 4711-000003, in 200.0 ms, 3.00 s are computed again: node "
          "gn2 was lost",
          "#c60"})
        EXPECT_THAT(page, HasSubstr(part));
    EXPECT_EQ(tools::history_json(history, false)["levels"]["partner"], 2);
    EXPECT_THAT(tools::line_about(history), HasSubstr("2 recoveries"));
}

TEST(Lines, DeepAndHugeOnesHarmNobody) {
    EXPECT_EQ(read_events(std::string(1 << 20, '[')).unread, 1u);
    std::string many;
    for (size_t i = 0; i < most_events + 10; ++i) many += "{}\n";
    EXPECT_TRUE(read_events(many).cut);
    Event event = make_event(EventKind::no_move);
    event.why = std::string(100'000, 'x');
    EXPECT_EQ(read_events(line_of(event)).unread, 1u);
}

// --- files ---

TEST_F(Logs, NamesAreInTheOrderOfTime) {
    const auto file = parse_events_file("/x/20250131T235959Z-4711-12.events");
    ASSERT_TRUE(file);
    EXPECT_EQ(file->job, "4711");
    EXPECT_EQ(file->pid, 12);
    EXPECT_EQ(parse_events_file(new_events_file(folder_, "4711", 12))->job, "4711");
    for (const char* wrong : {"", "x.events", "4711.events", "20250131T235959Z-4711-12.events.old",
                              "20250131T235959Z-12.events", "20250131T235959Z--12.events",
                              "20250131T235959Z-4711-x.events", "20250131T235959Z-4711-0.events"})
        EXPECT_FALSE(parse_events_file(wrong)) << wrong;
}

TEST_F(Logs, FolderIsTheUsersOwn) {
    EXPECT_EQ(*events_folder("none"), "");
    EXPECT_EQ(*events_folder("/a/../b"), "/b");
    ::setenv("XDG_STATE_HOME", "/state", 1);
    EXPECT_EQ(*events_folder(std::nullopt), "/state/ghost");
    EXPECT_EQ(*events_folder("auto"), "/state/ghost");
    ::unsetenv("XDG_STATE_HOME");
    const std::string home = std::getenv("HOME") != nullptr ? std::getenv("HOME") : "";
    ::setenv("HOME", folder_.c_str(), 1);
    EXPECT_EQ(*events_folder("auto"), folder_ + "/.local/state/ghost");
    fs::permissions(folder_, fs::perms::all);
    EXPECT_EQ(events_folder("auto").error().code, Code::refused);
    ::setenv("HOME", home.c_str(), 1);
}

TEST_F(Logs, OldOnesGoButNoneThatIsHeld) {
    for (int i = 10; i < 20; ++i)
        put("202501" + std::to_string(i) + "T000000Z-7-" + std::to_string(i) + ".events", "");
    put("20250111T000000Z-7-11.events.old", "");
    put("notes", "");
    auto held = open_own_file(folder_ + "/20250110T000000Z-7-10.events");
    ASSERT_EQ(::flock(held->get(), LOCK_EX | LOCK_NB), 0);
    remove_old_events(folder_, 5);
    const auto left = list_events_files(folder_);
    ASSERT_EQ(left->size(), 6u);
    EXPECT_EQ(left->front().pid, 19);
    EXPECT_EQ(left->back().pid, 10);
    EXPECT_TRUE(fs::exists(folder_ + "/notes"));
    EXPECT_FALSE(fs::exists(folder_ + "/20250111T000000Z-7-11.events.old"));
}

TEST_F(Logs, LinkIsNotWrittenThrough) {
    put("precious", "kept");
    const std::string path = folder_ + "/20250131T235959Z-7-1.events";
    fs::create_symlink(folder_ + "/precious", path);
    testing::internal::CaptureStderr();
    EventWriter writer(true);
    writer.open(path);
    writer.write("{}\n");
    writer.stop();
    EXPECT_THAT(testing::internal::GetCapturedStderr(), HasSubstr("event log is not complete"));
    EXPECT_EQ(*read_file(folder_ + "/precious"), "kept");
}

TEST_F(Logs, WriterMakesFolderAndRotates) {
    const std::string path = folder_ + "/a/b/20250131T235959Z-7-1.events";
    EventWriter writer(true);
    writer.open(path);
    writer.write(line_of(start({{"gn1", {0, 1}}})));
    writer.rotate();
    writer.write(line_of(end_at(second, 3)));
    writer.stop();
    EXPECT_EQ(fs::status(path).permissions(), fs::perms::owner_read | fs::perms::owner_write);
    const auto text = read_own_log(path);
    ASSERT_TRUE(text.ok()) << text.error().message();
    const EventsRead read = read_events(text->text);
    ASSERT_EQ(read.events.size(), 2u);
    EXPECT_EQ(read.events[0].kind(), EventKind::started);
    EXPECT_EQ(read.events[1].status, 3);
}

// Once, and what comes later is dropped.
TEST_F(Logs, FullDiskIsSaidOnce) {
    const std::string path = folder_ + "/20250131T235959Z-7-1.events";
    EventWriter writer(false);
    int tried = 0;
    writer.also([&](const std::string&) {
        ++tried;
        return std::string("cannot write: No space left on device");
    });
    testing::internal::CaptureStderr();
    for (int i = 0; i < 5; ++i) writer.write("{}\n");
    writer.open(path);
    writer.write("{}\n");
    writer.stop();
    writer.write("{}\n");
    const std::string said = testing::internal::GetCapturedStderr();
    EXPECT_EQ(tried, 6);
    EXPECT_EQ(said.find("No space"), said.rfind("No space")) << said;
    EXPECT_THAT(said, HasSubstr("the job is unharmed"));
    EXPECT_EQ(*read_file(path), "{}\n");
}

// A file server that hangs: the job ends all the same.
TEST_F(Logs, WriterThatHangsIsNotWaitedFor) {
    auto wakes = std::make_shared<std::atomic<bool>>(false);
    const int64_t before = realtime_us();
    {
        EventWriter writer(true);
        writer.also([wakes](const std::string&) {
            while (!*wakes) ::usleep(1000);
            return std::string();
        });
        testing::internal::CaptureStderr();
        for (int i = 0; i < 20'000; ++i) writer.write("{}\n");
        writer.stop();
        EXPECT_THAT(testing::internal::GetCapturedStderr(), HasSubstr("lacks"));
    }
    EXPECT_LT(realtime_us() - before, 20 * second);
    *wakes = true;
}

// --- history ---

TEST_F(Logs, HistoryFollowsTheRanks) {
    const auto history = tools::history_of(read_events(some_log()));
    EXPECT_EQ(history.job, "4711");
    EXPECT_TRUE(history.ended);
    EXPECT_EQ(history.moves, 1u);
    EXPECT_EQ(history.lasted_us(), 5 * second);
    EXPECT_EQ(history.nodes, (std::vector<std::string>{"gn1", "gn2", "gn3"}));
    ASSERT_EQ(history.ranks.at(1).size(), 2u);
    EXPECT_EQ(history.nodes[history.ranks.at(1)[1].node], "gn3");
    EXPECT_EQ(history.ranks.at(1)[0].until_us, begin + 2 * second);
    EXPECT_EQ(history.ranks.at(0)[0].until_us, begin + 5 * second);
    EXPECT_THAT(tools::line_about(history),
                HasSubstr("2 ranks of ./app  ended with status 0, 5.00 s  1 move, 0 snapshots"));
}

// As each part of a long log begins: what is known already stays.
TEST_F(Logs, StartOfTheSameLifeChangesNothing) {
    Event again = start({{"gn1", {0}}, {"gn3", {1}}});
    again.time = utc_text(begin + 3 * second);
    std::string text = some_log();
    const auto before = tools::history_of(read_events(text));
    text.insert(text.rfind("{\""), line_of(again));
    const auto history = tools::history_of(read_events(text));
    EXPECT_EQ(history.ranks.at(0).size(), before.ranks.at(0).size());
    EXPECT_EQ(history.ranks.at(1).size(), before.ranks.at(1).size());
}

TEST_F(Logs, JobsAreFoundByPidNameOrAsTheNewest) {
    put("20250131T235959Z-4711-12.events", some_log());
    put("20250201T000000Z-4712-13.events", line_of(start({{"gn1", {0}}})));
    std::vector<std::string> unreadable;
    const auto all = tools::all_histories(unreadable);
    ASSERT_EQ(all->size(), 2u);
    EXPECT_EQ(tools::find_history("12")->job, "4711");
    EXPECT_EQ(tools::find_history("4711")->moves, 1u);
    EXPECT_EQ(tools::find_history("")->path, folder_ + "/20250201T000000Z-4712-13.events");
    EXPECT_EQ(tools::find_history("13")->ended, false);
    EXPECT_EQ(tools::state_of(*tools::find_history("13")), "mpirun was killed");
    auto held = open_own_file(folder_ + "/20250201T000000Z-4712-13.events");
    ASSERT_EQ(::flock(held->get(), LOCK_EX | LOCK_NB), 0);
    EXPECT_EQ(tools::state_of(*tools::find_history("13")), "running");
    EXPECT_EQ(tools::find_history("99").error().code, Code::not_found);
    EXPECT_EQ(tools::read_history(folder_ + "/nothing").error().code, Code::not_found);
    EXPECT_EQ(tools::read_history(folder_).error().code, Code::invalid);
    EXPECT_EQ(tools::read_history(put("x.events", "none\n")).error().code, Code::invalid);
}

// --- the page ---

TEST_F(Logs, PageShowsRanksMovesAndEvents) {
    const std::string page = tools::report_page(tools::history_of(read_events(some_log())));
    EXPECT_THAT(page, HasSubstr("rank 1 on gn3"));
    EXPECT_THAT(page, HasSubstr("rank 1 from gn2 to gn3 moved, stop, 1.0 MiB, stood 20.0 ms"));
    EXPECT_THAT(page, HasSubstr("mpirun ends with status 0"));
    for (const char* never :
         {"<script", "http-equiv=\"refresh", "src=", "href=", "@import", "url("})
        EXPECT_THAT(page, Not(HasSubstr(never)));
}

TEST_F(Logs, NamesOfOthersAreNoMarkup) {
    Event event = start({{"<script>alert(1)</script>", {0}}, {"\"onload='x'&", {1}}});
    event.program = "</title><img src=x onerror=alert(1)>\x1b[31m";
    event.job = "<b>";
    Event failed = event_at(EventKind::no_move, second);
    failed.why = "</td><script>\x1b]0;title\x07";
    const std::string page =
        tools::report_page(tools::history_of(read_events(line_of(event) + line_of(failed))));
    for (const char* never : {"<script", "<img", "<b>", "\"onload", "\x1b", "\x07"})
        EXPECT_THAT(page, Not(HasSubstr(never)));
    EXPECT_THAT(page, HasSubstr("&lt;script&gt;alert(1)&lt;/script&gt;"));
    EXPECT_THAT(page, HasSubstr("&quot;onload=&#39;x&#39;&amp;"));
}

TEST_F(Logs, PageOfManyRanksIsBounded) {
    NodePlace place{"gn1", {}};
    for (uint32_t rank = 0; rank < 20'000; ++rank) place.ranks.push_back(rank);
    const std::string page =
        tools::report_page(tools::history_of(read_events(line_of(start({place})))));
    EXPECT_LT(page.size(), 400'000u);
    EXPECT_THAT(page, HasSubstr("The first 512 ranks are shown"));
}

}  // namespace
}  // namespace ghost::plugin
