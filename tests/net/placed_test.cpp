// SPDX-License-Identifier: BSD-3-Clause
// Ranks whose threads are bound to processors and scheduled each in its own way: they still are
// after moves and restarts (tests/mpi/placed). Needs root; without it every case is skipped.
#include <gtest/gtest.h>

#include <string>

#include "tests/net/on_lab.hpp"

namespace {

using nettest::Finished;
using nettest::Job;
using nettest::Words;

// As a user binds, or mpirun where it has been told to.
class Placed : public nettest::OnLab, public ::testing::WithParamInterface<const char*> {
  protected:
    Words bound_by(const char* policy, const Words& options = {}) const {
        Words out = {"--map-by", "node", "--bind-to", policy};
        const Words program = endless("placed", options);
        out.insert(out.end(), program.begin(), program.end());
        return out;
    }
};

TEST_P(Placed, MovesAndIsAsBefore) {
    Job job(lab(), 2, "gn1:2,gn2:2,gn3:2", bound_by(GetParam()));
    ASSERT_TRUE(job.wait_for("round 1:")) << job.mpirun().err();
    for (const char* node : {"gn3", "gn2", "gn3"}) {
        expect_moved(job, 1, node);
        ASSERT_TRUE(job.wait_for_more("round ", 2)) << job.mpirun().err();
    }
    // What criu has made is stopped once more, and stays.
    const Finished saved = lab().on("gn1", {"ghost", "checkpoint", "--to", path("saved")});
    EXPECT_EQ(saved.status, 0) << saved.err;
    ASSERT_TRUE(job.wait_for_more("round ", 2)) << job.mpirun().err();
    expect_clean_end(job, "placed:");
}

TEST_P(Placed, RestartsAndIsAsBefore) {
    Job job(lab(), 2, "gn1:2,gn2:2,gn3:2", bound_by(GetParam()));
    expect_restart(job, "placed:");
}

class BoundRank : public Placed {};

// mpirun gives each rank a processor of its own: so has one that comes to another one's node, and
// one that leaves again keeps it.
TEST_P(BoundRank, SharesNoProcessorWithAnother) {
    Job job(lab(), 2, "gn1:2,gn2:2,gn3:2", bound_by(GetParam(), {"--say"}));
    ASSERT_TRUE(job.wait_for("processors: 1 1.")) << job.mpirun().out();
    expect_moved(job, 1, "gn1");
    ASSERT_TRUE(job.wait_for("processors: 1 2.")) << job.mpirun().out();
    expect_moved(job, 0, "gn3");
    expect_moved(job, 1, "gn2");
    ASSERT_TRUE(job.wait_for_more("processors: 1 2.", 2)) << job.mpirun().out();
    expect_clean_end(job, "placed:");
}

INSTANTIATE_TEST_SUITE_P(Binding, Placed, ::testing::Values("none", "core"),
                         [](const auto& info) { return std::string(info.param); });

INSTANTIATE_TEST_SUITE_P(Binding, BoundRank, ::testing::Values("core"),
                         [](const auto& info) { return std::string(info.param); });

}  // namespace

int main(int argc, char** argv) {
    return nettest::run_suites(argc, argv);
}
