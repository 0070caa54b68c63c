// SPDX-License-Identifier: BSD-3-Clause
// The first time that ranks have to do with each other is just when one of them moves
// (tests/mpi/first_contact): whoever calls waits for the end of a move by stop, and does not of a
// live one. Needs root; without it every case is skipped.
#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "tests/net/on_lab.hpp"

namespace {

using nettest::Background;
using nettest::Job;
using nettest::Move;
using nettest::program;
using nettest::Words;

struct Contact {
    const char* kind;
    const char* to;  // rank 0 is on gn1, rank 1 comes from gn2
};

class Contacts : public nettest::OnLab, public ::testing::WithParamInterface<Contact> {
  protected:
    std::unique_ptr<Job> strangers(const char* kind, const Words& more = {}) {
        Words words{"--map-by", "node",     program("first_contact"),
                    "--when",   path("go"), "--kind",
                    kind,       "--memory", "48"};
        words.insert(words.end(), more.begin(), more.end());
        auto job = std::make_unique<Job>(lab(), 3, "gn1:4,gn2:4,gn3:4", words);
        EXPECT_TRUE(job->wait_for("first_contact: ready", 3)) << job->mpirun().err();
        return job;
    }
    // By that mode, and its memory is on the wire, which is slow.
    Background on_its_way(Job& job, const char* mode) {
        lab().shape("gn2", "fast-ethernet");
        for (;;) {
            const uint64_t before = arrived();
            Background move = job.start_migrate(1, GetParam().to, {"--mode", mode});
            nettest::poll_until(20,
                                [&] { return !move.running() || arrived() > before + (4 << 20); });
            // It may have been asked too early: try again.
            if (move.running() || !job.mpirun().running()) return move;
        }
    }
    // Bytes that have come to the node it moves to.
    uint64_t arrived() { return lab().received(GetParam().to); }
    void meet() { nettest::touch(path("go.1")); }
    static bool have_met(Job& job) {
        return job.mpirun().out().find("first_contact: rank 1") != std::string::npos;
    }
    // It has moved by that mode, and then everybody ends.
    void expect_right(Job& job, Background& move, const char* mode) {
        const Move done = nettest::move_of(move.finish(60));
        EXPECT_EQ(done.status, 0) << done.err << job.mpirun().err();
        EXPECT_EQ(done.result.value("mode", ""), mode) << done.result.dump();
        EXPECT_EQ(job.node_of(1), GetParam().to);
        ASSERT_TRUE(job.wait_for("first_contact: rank 1")) << job.mpirun().err();
        nettest::touch(path("go.2"));
        expect_clean(job.finish(), "first_contact: 2 ranks");
    }
};

TEST_P(Contacts, WaitForTheMove) {
    auto job = strangers(GetParam().kind);
    Background move = on_its_way(*job, "stop");
    const uint64_t before = arrived();
    meet();
    ASSERT_TRUE(
        nettest::poll_until(20, [&] { return !move.running() || arrived() > before + (8 << 20); }));
    EXPECT_TRUE(move.running());
    EXPECT_FALSE(have_met(*job)) << job->mpirun().out();
    expect_right(*job, move, "stop");
}

class LiveContacts : public Contacts {};

// Between its skeleton and its last stop it is as any other rank, wherever it goes.
TEST_P(LiveContacts, MeetDuringTheMove) {
    auto job = strangers(GetParam().kind);
    Background move = on_its_way(*job, "live");
    meet();
    nettest::poll_until(20, [&] { return !move.running() || have_met(*job); });
    EXPECT_TRUE(move.running());
    EXPECT_TRUE(have_met(*job)) << job->mpirun().out();
    expect_right(*job, move, "live");
}

class FirstMessages : public nettest::OnLab {};

// From the node it moves to and from another one, with a wire as quick as it is.
TEST_F(FirstMessages, WaitAtAnyMomentOfAMove) {
    for (const char* to : {"gn1", "gn3"}) {
        SCOPED_TRACE(to);
        const std::string when = path(to);
        Job job(lab(), 9, "gn1:8,gn2:8,gn3:8",
                {"--map-by", "node", program("first_contact"), "--when", when});
        // Elsewhere, as soon as they can move: to wait inside MPI would be the first contact.
        const std::string nodes[] = {"gn1", "gn2", "gn3"};
        for (int rank = 1; rank < 8; rank++) {
            const auto& away = *std::ranges::find_if(
                nodes, [&](const auto& node) { return node != to && node != nodes[rank % 3]; });
            ASSERT_TRUE(
                nettest::poll_until(60, [&] { return job.migrate(rank, away).status == 0; }));
        }
        for (int rank = 1; rank < 8; rank++) {
            Background move = job.start_migrate(rank, to);
            usleep(static_cast<useconds_t>(rank) * 35000);
            nettest::touch(when + "." + std::to_string(rank));
            const Move done = nettest::move_of(move.finish(60));
            EXPECT_EQ(done.status, 0) << rank << done.err;
            ASSERT_TRUE(job.wait_for("first_contact: rank " + std::to_string(rank)))
                << job.mpirun().err();
        }
        nettest::touch(when + ".8");  // nobody has ended before
        expect_clean(job.finish(), "first_contact: 8 ranks");
    }
}

// --- with a rank that has ended ---

class Ended : public nettest::OnLab {
  protected:
    std::unique_ptr<Job> job_of(const char* kind) {
        auto job = std::make_unique<Job>(
            lab(), 2, "gn1:1,gn2:1",
            Words{"--mca", "orte_allowed_exit_without_sync", "1", program("first_contact"),
                  "--when", path("go"), "--kind", kind});
        EXPECT_TRUE(job->wait_for("first_contact: ready", 2)) << job->mpirun().err();
        return job;
    }
    void go(const char* number) { nettest::touch(path(std::string("go.") + number)); }
};

// It is an error that the program can treat.
TEST_F(Ended, FirstMessageFails) {
    auto job = job_of("ended");
    go("1");
    ASSERT_TRUE(nettest::poll_until(20, [&] {
        return lab().on("gn1", {"ghost", "ps", "--json"}).out.find("\"ended\"") !=
               std::string::npos;
    }));
    go("2");
    const auto over = job->finish();
    EXPECT_EQ(over.status, 0) << over.out << over.err;
    EXPECT_NE(over.out.find("rank 1 is told MPI_ERR"), std::string::npos) << over.out;
    EXPECT_NE(over.err.find("rank 1 has ended: what is sent to it fails"), std::string::npos)
        << over.err;
}

// What has been sent is not taken back, and its sender may wait for an answer.
TEST_F(Ended, MessageThatNeverArrivesEndsTheJob) {
    auto job = job_of("deaf");
    go("1");
    ASSERT_TRUE(job->wait_for("first_contact: deaf 1")) << job->mpirun().err();
    go("2");
    ASSERT_TRUE(job->wait_for("first_contact: sent to 1")) << job->mpirun().err();
    go("3");
    const auto over = job->finish();
    EXPECT_NE(over.status, 0) << over.out;
    EXPECT_NE(over.err.find("rank 1 has ended, and a message to it waits"), std::string::npos)
        << over.err;
}

std::vector<Contact> contacts(const std::vector<const char*>& targets) {
    std::vector<Contact> all;
    for (const char* kind : {"message", "window", "group", "intercomm", "connect", "spawn"})
        for (const char* to : targets) all.push_back({kind, to});
    return all;
}

std::string name_of(const ::testing::TestParamInfo<Contact>& info) {
    return std::string(info.param.kind) + "To" + info.param.to;
}

INSTANTIATE_TEST_SUITE_P(Kinds, Contacts, ::testing::ValuesIn(contacts({"gn1", "gn3"})), name_of);
INSTANTIATE_TEST_SUITE_P(Kinds, LiveContacts, ::testing::ValuesIn(contacts({"gn3"})), name_of);

}  // namespace

int main(int argc, char** argv) {
    return nettest::run_suites(argc, argv);
}
