// SPDX-License-Identifier: BSD-3-Clause
// Requests of every kind (migrate, checkpoint, cancelled, too short, refused, mistyped, two at a
// time) at random to a job that does what programs may do (tests/mpi/restless): no rank hangs, no
// job is lost, every exit status is true. GHOST_TEST_REQUESTS=N: how many (60; with
// GHOST_TEST_LONG=1 10,000), GHOST_TEST_SEED=S: which. Needs root; else every case is skipped.
#include <gtest/gtest.h>

#include <cctype>
#include <fstream>
#include <map>
#include <random>

#include "tests/net/on_lab.hpp"
#include "tests/rounds.hpp"

namespace {

using nettest::Background;
using nettest::Finished;
using nettest::Job;
using nettest::Words;

constexpr int ranks = 4;
// No request may take longer, and no round: what Ghost waits for has limits below it.
constexpr double patience = 60;

class Requests : public nettest::OnLab {
  protected:
    uint64_t below(uint64_t limit) { return random_() % limit; }
    std::string a_rank() { return std::to_string(below(ranks)); }
    std::string a_node() { return "gn" + std::to_string(1 + below(3)); }
    std::string folder() const { return path("snapshots"); }

    Words migrate() {
        const std::string rank = a_rank(), to = a_node();
        return nettest::migrate_words({"--rank", rank, "--to", to});
    }
    Words checkpoint() { return {"ghost", "checkpoint", "--to", folder()}; }
    Words any() { return below(4) == 0 ? checkpoint() : migrate(); }
    Finished ask(const Words& words) { return lab().on("gn1", words, patience); }

    void one();
    void expect_true(const Words& words, const Finished& end);
    void begin_again();
    void expect_progress(const std::string& after);
    uint64_t round() const {
        uint64_t number = 0;
        std::ifstream(path("round")) >> number;
        return number;
    }
    Words program() {
        Words words{"--map-by", "node", "--mca", "mpi_yield_when_idle", "1"};
        for (const std::string& word :
             endless("restless", {"--dir", path("."), "--seed", std::to_string(seed_)}))
            words.push_back(word);
        return words;
    }

    const long long seed_ = ghost::test::rounds("GHOST_TEST_SEED", 1, 2);
    std::mt19937_64 random_{static_cast<uint64_t>(seed_)};
    std::unique_ptr<Job> job_;
    bool saved_ = false;
    size_t done_ = 0, refused_ = 0;
    std::map<std::string, size_t> reasons_;  // of the refused
};

std::string text_of(const Words& words) {
    std::string text;
    for (const std::string& word : words) text += word + " ";
    return text;
}

// Its first line, without the numbers.
std::string reason_of(const std::string& error) {
    std::string reason;
    for (const char c : error.substr(0, error.find('\n'))) {
        if (std::isdigit(static_cast<unsigned char>(c)) == 0)
            reason += c;
        else if (reason.empty() || reason.back() != 'N')
            reason += 'N';
    }
    return reason;
}

// Done or refused with the reason; never harmed, never without an end.
void Requests::expect_true(const Words& words, const Finished& end) {
    if (end.status == 0) {
        done_++;
        saved_ = saved_ || words[1] == "checkpoint";
        return;
    }
    refused_++;
    reasons_[reason_of(end.err)]++;
    EXPECT_EQ(end.status, 1) << text_of(words) << end.out << end.err;
    EXPECT_EQ(end.err.rfind("ghost: ", 0), 0U) << end.err;
}

void Requests::expect_progress(const std::string& after) {
    const uint64_t before = round();
    ASSERT_TRUE(nettest::poll_until(
        patience, [&] { return round() > before + 1 || !job_->mpirun().running(); }))
        << "no rank goes on after " << after << job_->mpirun().err();
    ASSERT_TRUE(job_->mpirun().running())
        << "after " << after << job_->mpirun().out() << job_->mpirun().err();
}

void Requests::one() {
    const uint64_t kind = below(20);
    const Words words = any();
    if (kind == 0) {  // mistyped
        const Finished end = ask({"ghost", "migrate", "--rank", "one", "--to", a_node()});
        EXPECT_EQ(end.status, 2) << end.err;
    } else if (kind == 1) {  // refused
        EXPECT_EQ(ask({"ghost", "migrate", "--rank", "99", "--to", a_node()}).status, 1);
    } else if (kind == 2) {
        EXPECT_EQ(ask({"ghost", "migrate", "--rank", a_rank(), "--to", "gn9"}).status, 1);
    } else if (kind < 6) {  // cancelled at any moment, by Ctrl-C
        Words given_up{"timeout", "--signal=INT", "0." + std::to_string(100 + below(400))};
        given_up.insert(given_up.end(), words.begin(), words.end());
        const int status = ask(given_up).status;
        EXPECT_TRUE(status == 124 || status == 0 || status == 1) << status << text_of(words);
    } else if (kind < 9) {  // two at a time
        const Words other = any();
        Background beside = lab().start_on("gn1", other);
        expect_true(words, ask(words));
        expect_true(other, beside.finish(patience));
    } else if (words[1] == "migrate") {
        const int rank = std::stoi(words[3]);
        const std::string before = job_->node_of(rank);
        const Finished end = ask(words);
        expect_true(words, end);
        EXPECT_EQ(job_->node_of(rank), end.status == 0 ? words[5] : before) << end.err;
    } else {
        expect_true(words, ask(words));
    }
    expect_progress(text_of(words));
}

// Killed, and restarted from its last snapshot.
void Requests::begin_again() {
    ASSERT_TRUE(nettest::poll_until(patience, [&] {
        const Finished end = ask({"ghost", "checkpoint", "--to", folder(), "--then", "kill"});
        return end.status != 1;
    }));
    EXPECT_EQ(job_->finish().status, 85) << job_->mpirun().err();
    job_ = std::make_unique<Job>(lab(), Words{"ghost", "restart", folder()});
    expect_progress("ghost restart");
}

TEST_F(Requests, AtRandomToARestlessJob) {
    RecordProperty("seed", std::to_string(seed_));
    const long long count = ghost::test::rounds("GHOST_TEST_REQUESTS", 60, 10000);
    job_ = std::make_unique<Job>(lab(), ranks, "gn1:4,gn2:4,gn3:4", program());
    ASSERT_TRUE(nettest::poll_until(patience, [&] { return round() > 2; })) << job_->mpirun().err();
    for (long long i = 0; i < count && !HasFailure(); i++) {
        SCOPED_TRACE("request " + std::to_string(i) + " of seed " + std::to_string(seed_));
        one();
        if (saved_ && i % 500 == 499) begin_again();
    }
    std::printf("    %zu done, %zu refused\n", done_, refused_);
    for (const auto& [reason, times] : reasons_)
        std::printf("    %zu: %s\n", times, reason.c_str());
    EXPECT_GT(done_, refused_);
    expect_clean_end(*job_, "restless: ");
}

}  // namespace

int main(int argc, char** argv) {
    return nettest::run_suites(argc, argv);
}
