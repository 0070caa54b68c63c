// SPDX-License-Identifier: BSD-3-Clause
// Parity over groups of nodes: whatever the nodes of a group have, what one of them had is made of
// what the others have; how much parity takes; who is a group; and files of parity that are not
// what they should be.
//
//   GHOST_TEST_SETS=100000 tests/unit/parity_test --gtest_filter=*Any*
#include "pmix-plugin/snapshots/parity.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <fstream>
#include <map>
#include <random>
#include <stdlib.h>
#include <string>
#include <vector>

#include "base/own_file.hpp"
#include "pmix-plugin/coordinator/operations/parity.hpp"
#include "pmix-plugin/settings/parameters.hpp"
#include "tests/rounds.hpp"

namespace ghost::plugin {
namespace {

using Random = std::mt19937_64;
using Files = std::map<std::string, std::string>;  // of one node

std::string some_bytes(Random& random, size_t size) {
    std::string out(size, '\0');
    for (char& c : out) c = static_cast<char>(random());
    return out;
}

// A group of any size, with nodes that have nothing among them.
ParitySet any_set(Random& random, std::map<uint32_t, Files>& nodes) {
    ParitySet set{"17.0", "4711-000003", {}};
    const size_t size = 2 + random() % 6, most = 1 + random() % 3000;
    int rank = 0;
    for (uint32_t node = 0; node < size; node++) {
        ParitySet::Member member{node, "gn" + std::to_string(node + 1), {}};
        for (uint64_t files = random() % 4; files > 0; files--) {
            const std::string file = (random() % 3 == 0 ? "4711-000002" : "4711-000003") +
                                     std::string("/rank-") + std::to_string(rank++) + ".ghost";
            nodes[node][file] = some_bytes(random, 1 + random() % most);
            member.files.push_back({file, nodes[node][file].size()});
        }
        set.members.push_back(member);
    }
    return set;
}

// What the receivers of streams do with them.
void send(const std::vector<XorStream>& streams, std::map<uint32_t, Files>& nodes) {
    std::map<std::pair<uint32_t, std::string>, uint32_t> came;
    for (const XorStream& one : streams) {
        std::string data;
        for (const XorPiece& piece : one.pieces) {
            if (piece.file.empty()) {
                data.append(piece.bytes, '\0');
                continue;
            }
            const auto file = nodes[one.from].find(piece.file);
            ASSERT_NE(file, nodes[one.from].end()) << piece.file;
            ASSERT_LE(piece.offset + piece.bytes, file->second.size()) << piece.file;
            data += file->second.substr(piece.offset, piece.bytes);
        }
        const std::string& head = one.target.head.data;
        std::string& file = nodes[one.to][one.file + ".now"];
        file.resize(one.target.size);
        std::copy(head.begin(), head.end(), file.begin());
        const auto offset = static_cast<long>(one.target.offset);
        ASSERT_LE(one.target.offset + data.size(), file.size());
        XorBuffer buffer(data.size());
        std::copy_n(file.begin() + offset, data.size(), buffer.old());
        std::copy(data.begin(), data.end(), buffer.more());
        const auto both = buffer.combine(data.size());
        ASSERT_TRUE(both.ok());
        std::copy_n(*both, data.size(), file.begin() + offset);
        if (++came[{one.to, one.file}] != one.target.streams) continue;
        nodes[one.to][one.file] = file;
        nodes[one.to].erase(one.file + ".now");
    }
}

TEST(Parity, WhatAnyNodeHadIsMadeOfWhatTheOthersHave) {
    const auto sets = ghost::test::rounds("GHOST_TEST_SETS", 400, 20'000);
    for (uint64_t seed = 1; seed <= static_cast<uint64_t>(sets); seed++) {
        SCOPED_TRACE(seed);
        Random random(seed);
        std::map<uint32_t, Files> nodes;
        const ParitySet set = any_set(random, nodes);
        const auto before = nodes;
        ASSERT_NO_FATAL_FAILURE(send(parity_streams(set, "4711-000003", 17), nodes));
        uint64_t longest = 0;
        for (const auto& member : set.members) longest = std::max(longest, member.length());
        for (size_t row = 0; row < set.members.size(); row++) {
            const Files& has = nodes[set.members[row].id];
            const auto file = has.find(set.file(row));
            if (set.parity_bytes(row) == 0) {
                EXPECT_EQ(file, has.end());
                continue;
            }
            ASSERT_NE(file, has.end());
            const uint64_t parity = file->second.size() - parity_head(set, row).size();
            EXPECT_EQ(parity, set.parity_bytes(row));
            EXPECT_LE(parity, (longest + set.members.size() - 2) / (set.members.size() - 1));
        }
        const size_t lost = random() % set.members.size();
        const uint32_t to = static_cast<uint32_t>((lost + 1) % set.members.size());
        nodes.erase(set.members[lost].id);
        for (size_t file = 0; file < set.members[lost].files.size(); file++) {
            const std::string& name = set.members[lost].files[file].file;
            ASSERT_NO_FATAL_FAILURE(send(rebuild_streams(set, lost, file, to, 18), nodes));
            EXPECT_EQ(nodes[to][name], before.at(set.members[lost].id).at(name)) << name;
        }
        EXPECT_FALSE(nodes.contains(set.members[lost].id)) << "what is lost is asked for";
    }
}

TEST(Parity, IsAnNthOfTheLongest) {
    ParitySet set{"17.0", "4711-000003", {}};
    for (uint32_t node = 0; node < 4; node++)
        set.members.push_back({node, "gn", {{"4711-000003/rank-0.ghost", 3000}}});
    for (size_t row = 0; row < 4; row++) EXPECT_EQ(set.parity_bytes(row), 1000U);
    set.members[1].files.front().bytes = 9001;
    EXPECT_EQ(set.parity_bytes(0), 3001U);
    EXPECT_EQ(set.parity_bytes(1), 3000U) << "it keeps nothing for itself";
    EXPECT_EQ(set.parity_bytes(3), 2999U);
}

// As long as it is made its snapshot has another name; those it is based on have theirs.
TEST(Parity, StreamsOfASnapshotThatIsBeingMade) {
    const ParitySet set{"17.0",
                        "4711-000003",
                        {{0, "gn1", {{"4711-000003/rank-0.ghost", 10}}},
                         {1, "gn2", {{"4711-000002/rank-1.ghost", 10}}}}};
    const auto streams = parity_streams(set, "4711-000003.life.partial", 17);
    ASSERT_EQ(streams.size(), 2U);
    EXPECT_EQ(streams[0].file, "4711-000003.life.partial/parity-17.0.0");
    EXPECT_EQ(streams[0].pieces.front().file, "4711-000002/rank-1.ghost");
    EXPECT_EQ(streams[1].pieces.front().file, "4711-000003.life.partial/rank-0.ghost");
}

TEST(Parity, GroupsOfNeighbours) {
    const auto sizes = [](size_t nodes, uint32_t most) {
        std::vector<NodeId> ring;
        for (size_t i = 0; i < nodes; i++) ring.push_back(static_cast<NodeId>(10 + i));
        std::vector<size_t> out;
        std::vector<NodeId> all;
        for (const auto& group : parity_groups(ring, most)) {
            out.push_back(group.size());
            all.insert(all.end(), group.begin(), group.end());
        }
        EXPECT_TRUE(all.empty() || all == ring);
        return out;
    };
    using Sizes = std::vector<size_t>;
    EXPECT_EQ(sizes(0, 4), Sizes());
    EXPECT_EQ(sizes(1, 4), Sizes());
    EXPECT_EQ(sizes(4, 4), Sizes({4}));
    EXPECT_EQ(sizes(8, 4), Sizes({4, 4}));
    EXPECT_EQ(sizes(4, 3), Sizes({2, 2}));
    EXPECT_EQ(sizes(3, 2), Sizes({3}));
    for (size_t nodes = 2; nodes < 70; nodes++)
        for (uint32_t most = 2; most < 20; most++) {
            const auto all = sizes(nodes, most);
            EXPECT_GE(*std::ranges::min_element(all), 2U) << nodes << " by " << most;
            EXPECT_LE(*std::ranges::max_element(all), std::max(most, 3U)) << nodes;
            EXPECT_LE(*std::ranges::max_element(all) - *std::ranges::min_element(all), 1U);
        }
}

TEST(Parity, GroupsThatAreAskedFor) {
    EXPECT_EQ(parse_xor("xor:2").value(), 2U);
    EXPECT_EQ(parse_xor("xor:64").value(), 64U);
    for (const char* wrong :
         {"xor:", "xor:1", "xor:65", "xor:-4", "xor:4 ", "xor:four", "xor", "4"})
        EXPECT_FALSE(parse_xor(wrong).ok()) << wrong;
}

// --- files of it ---

class ParityFile : public testing::Test {
  protected:
    ParityFile() {
        char name[] = "/tmp/ghost-parity-XXXXXX";
        folder_ = mkdtemp(name);
        set_.members = {{0, "gn1", {{"4711-000003/rank-0.ghost", 700}}},
                        {1, "gn2", {{"4711-000003/rank-1.ghost", 500}}}};
        whole_ = parity_head(set_, 0) + std::string(set_.parity_bytes(0), 'x');
        keep(whole_);
        const auto fd = open_own_file(path(), O_RDWR);
        EXPECT_TRUE(fd.ok() && seal_parity(fd->get(), path()).ok());
        std::ifstream in(path(), std::ios::binary);
        whole_.assign(std::istreambuf_iterator<char>(in), {});
    }
    ~ParityFile() override { (void)std::system(("rm -rf " + folder_).c_str()); }
    std::string path() const { return folder_ + "/parity-17.0.0"; }
    void keep(const std::string& bytes) const {
        const auto fd = open_own_file(path(), O_WRONLY | O_CREAT | O_TRUNC);
        ASSERT_TRUE(fd.ok());
        ASSERT_EQ(::write(fd->get(), bytes.data(), bytes.size()),
                  static_cast<ssize_t>(bytes.size()));
    }
    std::string refusal(const std::string& bytes, const std::string& name) const {
        keep(bytes);
        const Status checked = check_parity(path(), name);
        return checked.ok() ? "" : checked.error().message();
    }
    void expect_refused(const std::string& bytes, const std::string& why,
                        const std::string& name = "4711-000003/parity-17.0.0") const {
        const std::string said = refusal(bytes, name);
        EXPECT_NE(said.find(why), std::string::npos) << said;
    }

    ParitySet set_{"17.0", "4711-000003", {}};
    std::string folder_, whole_;
};

TEST_F(ParityFile, IsWhatWasWritten) {
    EXPECT_EQ(refusal(whole_, set_.file(0)), "");
}

TEST_F(ParityFile, DamagedCutOffAndForeignOnesAreRefused) {
    std::string other = whole_;
    other.back() ^= 1;
    expect_refused(other, "its checksum is another");
    expect_refused(whole_.substr(0, whole_.size() - 1), "bytes of");
    expect_refused(whole_ + "x", "bytes of");
    expect_refused(whole_.substr(0, 40), "cut off");
    expect_refused("", "cut off");
    expect_refused(std::string(5000, 'g'), "it is no parity");
    other = whole_;
    other[8] = 9;
    expect_refused(other, "it is of format 9");
    other = whole_;
    other[70] ^= 1;
    expect_refused(other, "its head has been changed");
    expect_refused(whole_, "it is of 4711-000003/parity-17.0.0", "4711-000003/parity-17.0.1");
    expect_refused(whole_, "it is of 4711-000003/parity-17.0.0", "4712-000003/parity-17.0.0");
}

TEST_F(ParityFile, NoByteOfItCanBeChanged) {
    for (size_t at = 0; at < whole_.size(); at++) {
        std::string other = whole_;
        other[at] ^= 0x10;
        EXPECT_NE(refusal(other, set_.file(0)), "") << at;
    }
}

}  // namespace
}  // namespace ghost::plugin
