// SPDX-License-Identifier: BSD-3-Clause
// Jobs whose messages go by links of packets (docs/WIRE.md) between the nodes of a virtual cluster:
// while ranks move, over a restart, over a bad network, and sealed. What passes on the network
// says which link it was. Needs root; else every case is skipped.
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fmt/format.h>
#include <fstream>
#include <regex>
#include <sstream>

#include "tests/net/ear.hpp"
#include "tests/net/on_lab.hpp"
#include "tests/rounds.hpp"

namespace {

using nettest::Background;
using nettest::Ear;
using nettest::Finished;
using nettest::Heard;
using nettest::Job;
using nettest::Words;

struct Link {
    const char* name;
    const char* packets;     // what its packets are of
    uint64_t Heard::*bytes;  // what carries them
    bool alone = true;       // nothing large goes by TCP
};

class LinksOnNodes : public nettest::OnLab, public ::testing::WithParamInterface<Link> {
  protected:
    // The program's words behind those that choose the link; ranks on the nodes in turn.
    Words by_link(const Words& program, const Words& options = {}) const {
        Words words{"--map-by", "node", "--mca", "btl_kernet_links",
                    std::string(GetParam().name) + ",tcp"};
        words.insert(words.end(), options.begin(), options.end());
        words.insert(words.end(), program.begin(), program.end());
        return words;
    }
    // Ranks talk over the node's network by this link and no other. (The runtime's own connections
    // are TCP's.)
    void expect_carried(const Heard& heard) {
        const uint64_t most = GetParam().alone ? heard.all() / 100 * 97 : 0;
        EXPECT_GT(heard.*GetParam().bytes, most) << heard.text;
    }
    // Where large messages go by TCP, more than several of the largest (8 MB) in a row are listened
    // to.
    void expect_carried(const std::string& node) {
        const uint64_t enough = GetParam().alone ? 3'000'000 : 60'000'000;
        expect_carried(Ear(lab(), node, enough).finish());
    }
};

TEST_P(LinksOnNodes, RanksMoveThereAndBackOnEachLink) {
    Job job(lab(), 3, "gn1:2,gn2:2,gn3:2", by_link(endless("pattern")));
    ASSERT_TRUE(job.wait_for("round 0:")) << job.mpirun().err();
    expect_carried("gn2");
    for (auto [rank, node] : {std::pair{1, "gn3"}, {0, "gn2"}, {1, "gn2"}, {0, "gn1"}}) {
        ASSERT_NO_FATAL_FAILURE(expect_moved(job, rank, node));
        ASSERT_TRUE(job.wait_for_more("round ")) << job.mpirun().err();
    }
    expect_carried("gn3");
    expect_clean_end(job, "pattern:");
}

// Sealed, too: what is kept to be sent again is kept sealed, and goes by other links later.
TEST_P(LinksOnNodes, RestartedJobUsesSameLink) {
    const std::string shots = path("shots");
    Job job(lab(), 2, "gn1:1,gn2:1,gn3:1",
            by_link(endless("pattern"), {"--mca", "ghost_filters", "crypto"}));
    ASSERT_TRUE(job.wait_for("round 0:")) << job.mpirun().err();
    ASSERT_NO_FATAL_FAILURE(expect_moved(job, 1, "gn3"));
    ASSERT_TRUE(job.wait_for_more("round ")) << job.mpirun().err();
    const Finished taken =
        lab().on("gn1", {"ghost", "checkpoint", "--to", shots, "--then", "kill", "--json"});
    ASSERT_EQ(taken.status, 0) << taken.err << job.mpirun().err();
    job.finish();
    Background again = lab().start_on(
        "gn2", {"ghost", "restart", shots, "--bind-to", "none", "--host", "gn2:1,gn3:1"});
    ASSERT_TRUE(nettest::poll_until(60, [&] {
        return nettest::count_of(again.out(), "round ") > 2 || !again.running();
    })) << again.err();
    expect_carried("gn3");
    stop();
    expect_clean(again.finish(60), "pattern:");
}

TEST_P(LinksOnNodes, MovesUnderPacketFaults) {
    const std::string log = path("log");
    Job job(lab(), 2, "gn1:1,gn2:1,gn3:1",
            by_link(endless("pattern"),
                    {"-x",
                     "GHOST_LINK_FAULTS=drop=300,duplicate=200,reorder=300,delay=200,"
                     "corrupt=200",
                     "-x", "GHOST_LOG=" + log, "--mca", "ghost_verbose", "4"}));
    ASSERT_TRUE(job.wait_for("round 0:")) << job.mpirun().err();
    for (auto [rank, node] : {std::pair{1, "gn3"}, {0, "gn2"}}) {
        ASSERT_NO_FATAL_FAILURE(expect_moved(job, rank, node));
        ASSERT_TRUE(job.wait_for_more("round ")) << job.mpirun().err();
    }
    expect_carried("gn2");
    expect_clean_end(job, "pattern:");
    // That it was bad: what the links counted.
    std::stringstream lines;
    lines << std::ifstream(log).rdbuf();
    const std::string text = lines.str();
    const std::regex counts(
        fmt::format("link {}: .* packets sent, ([0-9]+) of them again .*, "
                    "([0-9]+) refused, ([0-9]+) repeated, ([0-9]+) early",
                    GetParam().packets));
    uint64_t sums[4] = {};
    for (std::sregex_iterator at(text.begin(), text.end(), counts), end; at != end; ++at) {
        for (size_t i = 0; i < 4; ++i) sums[i] += std::stoull((*at)[i + 1]);
    }
    for (const uint64_t sum : sums) EXPECT_GT(sum, 10U) << text.substr(0, 4000);
}

TEST_P(LinksOnNodes, SealedTrafficStaysSealed) {
    const std::string text = "what-only-the-ranks-may-read";
    for (const char* filters : {"none", "crypto"}) {
        SCOPED_TRACE(filters);
        std::filesystem::remove(path("stop"));
        Job job(lab(), 2, "gn1:1,gn2:1,gn3:1",
                by_link(endless("pingpong", {"--text", text, "--bytes", "200"}),
                        {"--mca", "ghost_filters", filters}));
        ASSERT_TRUE(job.wait_for("pingpong: started")) << job.mpirun().err();
        ASSERT_NO_FATAL_FAILURE(expect_moved(job, 1, "gn3"));
        const Heard heard = Ear(lab(), "gn3", 3'000'000, text).finish();
        EXPECT_GT(heard.*GetParam().bytes, 0U) << heard.text;
        EXPECT_EQ(heard.found, std::string(filters) == "none") << heard.text;
        if (!heard.found) {
            expect_carried(heard);
        }
        ASSERT_NO_FATAL_FAILURE(expect_moved(job, 0, "gn2"));
        expect_clean_end(job, "pingpong:");
    }
}

// Unmodified, from the distribution.
TEST_P(LinksOnNodes, NetPipe) {
    if (nettest::run({"sh", "-c", "command -v NPopenmpi"}, 10).status != 0) {
        GTEST_SKIP() << "NPopenmpi (package netpipe-openmpi) is not installed";
    }
    const std::string out = path("np.out");
    Ear ear(lab(), "gn2", 5'000'000);
    Job job(lab(), 2, "gn1:1,gn2:1",
            by_link({"NPopenmpi", "-l", "1", "-u", "4194304", "-n", "4", "-p", "0", "-o", out}));
    const Finished end = job.finish(120);
    EXPECT_EQ(end.status, 0) << end.out << end.err;
    expect_carried(ear.finish());
    std::ifstream lines(out);
    uint64_t first = 0, last = 0, size = 0;
    for (std::string line; std::getline(lines, line);) {
        std::istringstream(line) >> size;
        if (first == 0) first = size;
        last = std::max(last, size);
    }
    EXPECT_EQ(first, 1U);
    EXPECT_GE(last, 4194304U) << end.err;
}

INSTANTIATE_TEST_SUITE_P(All, LinksOnNodes,
                         ::testing::Values(Link{"udp", "udp", &Heard::udp},
                                           Link{"netdevice", "netdevice", &Heard::raw},
                                           Link{"pair", "udp", &Heard::udp, false},
                                           Link{"framepair", "netdevice", &Heard::raw, false}),
                         [](const auto& info) { return std::string(info.param.name); });

class WorstOnNodes : public LinksOnNodes {};

// Everything at once: six ranks on three nodes, sealed and packed, every fault, connections cut,
// and a move after the other, GHOST_TEST_MOVES of them.
TEST_P(WorstOnNodes, MovesUnderAllFaultsAtOnce) {
    const auto moves = static_cast<int>(ghost::test::rounds("GHOST_TEST_MOVES", 3, 30));
    Job job(lab(), 6, "gn1:4,gn2:4,gn3:4",
            by_link(endless("pattern", {"--max-bytes", "1000000"}),
                    {"--mca", "ghost_filters", "crypto,compress", "-x",
                     "GHOST_LINK_FAULTS=drop=300,duplicate=200,reorder=300,delay=200,corrupt=200,"
                     "cut=2"}));
    ASSERT_TRUE(job.wait_for("round 0:")) << job.mpirun().err();
    // Where each of them is: one after the other goes to the next node.
    int at[6] = {0, 1, 2, 0, 1, 2};
    for (int move = 0; move < moves; ++move) {
        const int rank = move * 5 % 6;
        at[rank] = (at[rank] + 1) % 3;
        ASSERT_NO_FATAL_FAILURE(expect_moved(job, rank, fmt::format("gn{}", at[rank] + 1)));
        ASSERT_TRUE(job.wait_for_more("round ")) << "move " << move << job.mpirun().err();
    }
    expect_clean_end(job, "pattern:");
}

INSTANTIATE_TEST_SUITE_P(All, WorstOnNodes, ::testing::Values(Link{"udp", "udp", &Heard::udp}),
                         [](const auto& info) { return std::string(info.param.name); });

using MeasuredOnNodes = nettest::OnLab;

std::string contents_of(const std::string& path) {
    std::stringstream lines;
    lines << std::ifstream(path).rdbuf();
    return lines.str();
}

// Measured between each two nodes a pair of ranks has been on; what loses packets is not taken.
TEST_F(MeasuredOnNodes, LinksAreChosenAgainAfterEveryMove) {
    for (const char* faults : {"seed=1", "drop=3000"}) {
        SCOPED_TRACE(faults);
        std::filesystem::remove(path("stop"));
        const std::string log = path(fmt::format("log-{}", faults));
        Words words{"--map-by",
                    "node",
                    "--mca",
                    "btl_kernet_links",
                    "auto",
                    "-x",
                    "GHOST_LINK_FAULTS=" + std::string(faults),
                    "-x",
                    "GHOST_LOG=" + log,
                    "--mca",
                    "ghost_verbose",
                    "3"};
        const Words program = endless("pattern");
        words.insert(words.end(), program.begin(), program.end());
        Job job(lab(), 2, "gn1:1,gn2:1,gn3:1", words);
        ASSERT_TRUE(job.wait_for("round 0:")) << job.mpirun().err();
        const auto chosen = [&](const char* one, const char* other) {
            return nettest::poll_until(30, [&] {
                const std::regex line(
                    fmt::format("between ({0} and {1}|{1} and {0}): link {2} from now on", one,
                                other, std::string(faults) == "seed=1" ? "\\w+" : "tcp"));
                return std::regex_search(contents_of(log), line);
            });
        };
        EXPECT_TRUE(chosen("gn1", "gn2")) << contents_of(log);
        for (auto [rank, node, one, other] :
             {std::tuple{1, "gn3", "gn1", "gn3"}, {0, "gn2", "gn2", "gn3"}}) {
            ASSERT_NO_FATAL_FAILURE(expect_moved(job, rank, node));
            ASSERT_TRUE(job.wait_for_more("round ")) << job.mpirun().err();
            EXPECT_TRUE(chosen(one, other)) << contents_of(log);
        }
        expect_clean_end(job, "pattern:");
        const std::string text = contents_of(log);
        for (size_t at = 0; (at = text.find("pair is ", at)) != std::string::npos; at++) {
            printf("%s\n", text.substr(at, text.find('\n', at) - at).c_str());
        }
    }
}

// Each message there and back is longer than what is sent at once in shared memory.
TEST_F(MeasuredOnNodes, EagerLimitFollowsThePlaces) {
    const std::string log = path("limits");
    Words words{"--map-by", "node", "-x", "GHOST_LOG=" + log, "--mca", "ghost_verbose", "4"};
    const Words program = endless("pingpong", {"--bytes", "60000"});
    words.insert(words.end(), program.begin(), program.end());
    Job job(lab(), 2, "gn1:1,gn2:2", words);
    ASSERT_TRUE(job.wait_for("pingpong: started")) << job.mpirun().err();
    const auto said = [&](size_t limit) {
        return nettest::count_of(contents_of(log),
                                 fmt::format("messages of up to {} bytes are sent at once", limit));
    };
    EXPECT_EQ(said(16640), 0U);
    for (const auto& [node, limit] : {std::pair<const char*, size_t>{"gn2", 16640},
                                      {"gn1", 131328},
                                      {"gn2", 16640},
                                      {"gn1", 131328}}) {
        const auto before = said(limit);
        ASSERT_NO_FATAL_FAILURE(expect_moved(job, 0, node));
        EXPECT_TRUE(nettest::poll_until(30, [&] { return said(limit) >= before + 2; }))
            << node << "\n"
            << contents_of(log);
    }
    expect_clean_end(job, "pingpong:");
}

// Ranks that are to have faults and cannot read which do not run without.
TEST_F(MeasuredOnNodes, MalformedFaultsAreRefused) {
    Words words{"--map-by", "node", "-x", "GHOST_LINK_FAULTS=drip=300"};
    const Words program = endless("pattern");
    words.insert(words.end(), program.begin(), program.end());
    Job job(lab(), 2, "gn1:1,gn2:1", words);
    const Finished end = job.finish(60);
    EXPECT_NE(end.status, 0);
    EXPECT_NE(end.err.find("faults of links"), std::string::npos) << end.err;
    EXPECT_NE(end.err.find("drip=300"), std::string::npos) << end.err;
}

}  // namespace

int main(int argc, char** argv) {
    return nettest::run_suites(argc, argv);
}
