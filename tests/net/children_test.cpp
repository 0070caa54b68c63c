// SPDX-License-Identifier: BSD-3-Clause
// Ranks that have made children, in every way in which a program does: they move, are saved and
// begun again with them (tests/mpi/children). Needs root; without it every case is skipped.
#include <gtest/gtest.h>

#include <string>

#include "tests/net/on_lab.hpp"

namespace {

using nettest::Background;
using nettest::Job;
using nettest::Words;

class Children : public nettest::OnLab, public ::testing::WithParamInterface<const char*> {};

// There and back: the second move takes what the first has made.
TEST_P(Children, MoveWithTheirRank) {
    Job job(lab(), 2, "gn1:2,gn2:1,gn3:1", endless("children", {"--how", GetParam()}));
    ASSERT_TRUE(job.wait_for("round 1:")) << job.mpirun().err();
    for (const char* node : {"gn3", "gn2", "gn1"}) {
        expect_moved(job, 1, node);
        ASSERT_TRUE(job.wait_for_more("round ", 2)) << job.mpirun().err();
    }
    expect_clean_end(job, "children:");
}

TEST_P(Children, RestartWithTheirRank) {
    Job job(lab(), 2, "gn1:2,gn2:1,gn3:1", endless("children", {"--how", GetParam()}));
    expect_restart(job, "children:");
}

INSTANTIATE_TEST_SUITE_P(How, Children,
                         ::testing::Values("fork", "exec", "posix_spawn", "daemon", "popen",
                                           "system", "fork_exit"),
                         [](const auto& info) { return std::string(info.param); });

}  // namespace

int main(int argc, char** argv) {
    return nettest::run_suites(argc, argv);
}
