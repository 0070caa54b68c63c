// SPDX-License-Identifier: BSD-3-Clause
// The first time that ranks have to do with each other is just when one of them moves
// (tests/mpi/first_contact): whoever calls waits for the end of the move. Needs root; without it
// every case is skipped.
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
    // Its memory is on the wire, which is slow.
    Background on_its_way(Job& job, const std::string& to) {
        lab().shape("gn2", "fast-ethernet");
        for (;;) {
            const uint64_t before = lab().received(to);
            Background move = job.start_migrate(1, to);
            nettest::poll_until(
                20, [&] { return !move.running() || lab().received(to) > before + (4 << 20); });
            // It may have been asked too early: try again.
            if (move.running() || !job.mpirun().running()) return move;
        }
    }
    void meet() { nettest::touch(path("go.1")); }
};

TEST_P(Contacts, WaitForTheMove) {
    auto job = strangers(GetParam().kind);
    Background move = on_its_way(*job, GetParam().to);
    meet();
    const Move done = nettest::move_of(move.finish(60));
    EXPECT_EQ(done.status, 0) << done.err << job->mpirun().err();
    ASSERT_TRUE(job->wait_for("first_contact: rank 1")) << job->mpirun().err();
    for (const char* rank : {"2", "3"}) nettest::touch(path(std::string("go.") + rank));
    expect_clean(job->finish(), "first_contact: 2 ranks");
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

std::vector<Contact> contacts() {
    std::vector<Contact> all;
    for (const char* kind : {"message", "window", "group", "intercomm", "connect", "spawn"})
        for (const char* to : {"gn1", "gn3"}) all.push_back({kind, to});
    return all;
}

INSTANTIATE_TEST_SUITE_P(Kinds, Contacts, ::testing::ValuesIn(contacts()), [](const auto& info) {
    return std::string(info.param.kind) + "To" + info.param.to;
});

}  // namespace

int main(int argc, char** argv) {
    return nettest::run_suites(argc, argv);
}
