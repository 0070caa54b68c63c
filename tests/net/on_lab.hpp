// SPDX-License-Identifier: BSD-3-Clause
// What suites of jobs on a virtual cluster of three nodes share: the cluster, a folder, and what is
// expected of jobs and moves. Needs root; without it every case is skipped.
#pragma once

#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <string>

#include "tests/net/lab.hpp"

namespace nettest {

// A program of tests/mpi, as built.
std::string program(const std::string& name);

// One cluster for each suite, repaired before every case.
class OnLab : public ::testing::Test {
  protected:
    static void SetUpTestSuite() { make_lab(3); }
    static void TearDownTestSuite();
    void SetUp() override;

    // For a suite's own SetUpTestSuite().
    static void make_lab(int nodes);
    Lab& lab() { return *lab_; }
    // A name in a folder of this case, which all nodes see.
    std::string path(const std::string& name) const { return scratch_->path(name); }
    // A program that runs until stop(), and its options.
    Words endless(const std::string& name, const Words& options = {}) const;
    void stop() const { touch(path("stop")); }

    // What a command of ghost's about jobs says on gn1.
    Move verb(const Words& words, double seconds = 90);
    // It tells so many rounds more.
    void expect_goes_on(Job& job, size_t rounds = 2);
    // ghost migrate does it, says what it did, and the rank is there.
    void expect_moved(Job& job, int rank, const std::string& node);
    // What ends by itself, that it has: these processes of a node, however long that takes it.
    void expect_gone(const std::string& node, const std::string& pattern);
    // How often it went on after a loss (ghost_recover). So often at last, the loss is told, and it
    // tells its rounds again.
    static size_t recoveries(Job& job);
    static void expect_recovered(Job& job, const std::string& why, size_t times = 1);
    // A computation that writes a file for each rank to `folder`, which is made.
    Words ledger(const std::string& folder, int steps, int pause_us, int memory_mb) const;
    // Two of them, of so many ranks, have written the same.
    void expect_same_ledgers(const std::string& a, const std::string& b, int ranks) const;
    // A job of `talk --stdin` tells each line it is given, once and in order; `move` brings rank 0
    // to a node meanwhile.
    void expect_input_follows(Job& job, const std::function<void(const std::string&)>& move);
    // A job of programs that tell their rounds: saved, saved again and killed, it begins again from
    // there and ends clean.
    void expect_restart(Job& job, const std::string& last_line_start);
    // What `ghost restart` came to: a job that begins again tells two rounds before it is stopped.
    Finished restart(const std::string& folder, const Words& options = {});
    // Status 0, and no error in the program's last line, which begins like that.
    void expect_clean(const Finished& end, const std::string& last_line_start);
    // The same, of a job that is stopped for it.
    void expect_clean_end(Job& job, const std::string& last_line_start);

  private:
    static inline std::string reason_;  // why there is no lab
    static inline std::unique_ptr<Lab> lab_;
    std::unique_ptr<Scratch> scratch_;
};

// What mpirun says when a job goes on after a loss: in front of it the loss, behind it from where.
inline const std::string goes_on = ": the job goes on from snapshot ";

// main() of a suite: 77 if nothing could be tried at all, as automake calls a skipped test.
int run_suites(int argc, char** argv);

}  // namespace nettest
