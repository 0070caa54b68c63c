// SPDX-License-Identifier: BSD-3-Clause
// Where threads run that were bound on another machine, and the file of a ghost that says so.
#include <gtest/gtest.h>
#include <linux/mempolicy.h>

#include "base/json.hpp"
#include "ghost-core/criu/placement.hpp"

namespace ghost::core {
namespace {

cpu_set_t set_of(const std::vector<size_t>& processors) {
    cpu_set_t out;
    CPU_ZERO(&out);
    for (const size_t cpu : processors) CPU_SET(cpu, &out);
    return out;
}

TreePlacement machine(const std::vector<size_t>& usable, const std::vector<size_t>& binding) {
    TreePlacement out;
    out.usable = set_of(usable);
    out.binding = set_of(binding);
    return out;
}

bool is(const cpu_set_t& set, const std::vector<size_t>& processors) {
    const auto wanted = set_of(processors);
    return CPU_EQUAL(&set, &wanted) != 0;
}

TEST(Placement, BoundThreadsStayWhereThatIs) {
    const auto there = machine({0, 1, 2, 3}, {0, 1, 2, 3});
    const auto larger = machine({0, 1, 2, 3, 4, 5}, {0, 1, 2, 3, 4, 5});
    EXPECT_TRUE(is(processors_here(set_of({2}), there, larger), {2}));
    EXPECT_TRUE(is(processors_here(set_of({0, 3}), there, larger), {0, 3}));
    // nobody has bound it
    EXPECT_TRUE(is(processors_here(set_of({0, 1, 2, 3}), there, larger), {0, 1, 2, 3, 4, 5}));
}

TEST(Placement, ProcessorsThatAreNotHereBecomeTheJobs) {
    const auto there = machine({0, 1, 2, 3}, {0, 1, 2, 3});
    EXPECT_TRUE(is(processors_here(set_of({3}), there, machine({0, 1}, {1})), {1}));
    EXPECT_TRUE(is(processors_here(set_of({0, 3}), there, machine({0, 1}, {0, 1})), {0, 1}));
}

TEST(Placement, JobsBindingIsFollowed) {
    const auto there = machine({0, 1, 2, 3}, {1});
    const auto here = machine({0, 1, 2, 3}, {2});
    EXPECT_TRUE(is(processors_here(set_of({1}), there, here), {2}));
    EXPECT_TRUE(is(processors_here(set_of({3}), there, here), {3}));  // the program's own
    // mpirun has bound nothing here
    EXPECT_TRUE(is(processors_here(set_of({1}), there, machine({0, 1}, {0, 1})), {1}));
}

TEST(Placement, NextFreeSetOfTheSameShape) {
    const auto here = machine({0, 1, 2, 3, 4, 5, 6, 7}, {0, 1, 2, 3, 4, 5, 6, 7});
    const auto bound = [&](const std::vector<size_t>& binding, const std::vector<size_t>& taken) {
        return binding_here(machine({0, 1, 2, 3, 4, 5, 6, 7}, binding), here, set_of(taken));
    };
    EXPECT_TRUE(is(bound({2}, {}), {2}));
    EXPECT_TRUE(is(bound({2}, {2, 3}), {4}));
    EXPECT_TRUE(is(bound({7}, {7}), {0}));
    EXPECT_TRUE(is(bound({0, 4}, {0, 4}), {1, 5}));  // the two halves of a core
    EXPECT_TRUE(is(bound({0, 1, 2, 3}, {0, 1, 2, 3}), {4, 5, 6, 7}));
    EXPECT_TRUE(is(bound({2}, {0, 1, 2, 3, 4, 5, 6, 7}), {2}));
    EXPECT_TRUE(is(bound({0, 1, 2, 3, 4, 5, 6, 7}, {0}), {0, 1, 2, 3, 4, 5, 6, 7}));
}

TEST(Placement, IsReadAsWritten) {
    auto there = machine({0, 1, 2, 3, 8}, {1, 2});
    Placement one;
    one.inner = 1001;
    one.processors = set_of({1, 3, 8, 1023});
    one.attributes.policy = SCHED_RR;
    one.attributes.flags = 1;
    one.attributes.priority = 7;
    one.nice = -5;
    one.io_priority = 2 << 13 | 6;
    one.slack_ns = 123456789;
    there.threads = {one, one, one};
    there.threads[1].inner = 1002;
    there.threads[2].inner = 1003;
    there.threads[2].attributes.runtime = 3000000;
    there.threads[2].wait_ns = 4567890123;
    there.threads[1].stopped = true;
    auto& settings = there.settings[1];
    settings.personality = 0x40000;
    settings.core_filter = 0x55;
    settings.merges = true;
    settings.future_locks = 6;
    settings.session_nice = -7;
    settings.policies = {{1, "interleave:0-1"}, {1002, "prefer (many):0"}};
    settings.mappings = {{0x7f0000000000, 0x7f0000002000, "bind=static:1"}};
    settings.timers = {{0, 1796000000123456789}, {7, 1}};
    const auto read = decode_placement(encode(there));
    ASSERT_TRUE(read.ok());
    EXPECT_EQ(read->settings, there.settings);
    EXPECT_TRUE(is(read->usable, {0, 1, 2, 3, 8}));
    EXPECT_TRUE(is(read->binding, {1, 2}));
    ASSERT_EQ(read->threads.size(), 3U);
    for (const auto& thread : read->threads) {
        EXPECT_TRUE(is(thread.processors, {1, 3, 8, 1023}));
        EXPECT_EQ(thread.attributes.policy, static_cast<uint32_t>(SCHED_RR));
        EXPECT_EQ(thread.attributes.flags, 1U);
        EXPECT_EQ(thread.attributes.priority, 7U);
        EXPECT_EQ(thread.attributes.runtime, thread.inner == 1003 ? 3000000U : 0U);
        EXPECT_EQ(thread.wait_ns, thread.inner == 1003 ? 4567890123 : 0);
        EXPECT_EQ(thread.stopped, thread.inner == 1002);
        EXPECT_EQ(thread.nice, -5);
        EXPECT_EQ(thread.io_priority, 2 << 13 | 6);
        EXPECT_EQ(thread.slack_ns, 123456789U);
    }
}

TEST(Placement, DamageIsFound) {
    auto there = machine({0, 1}, {0, 1});
    Placement one;
    one.inner = 7;
    there.threads = {one};
    const auto text = encode(there);
    EXPECT_TRUE(decode_placement(text).ok());
    for (size_t size = 0; size < text.size(); size++)
        EXPECT_FALSE(decode_placement(text.substr(0, size)).ok());
    for (const auto* wrong : {"[]", R"({"usable": "0", "binding": "0"})",
                              R"({"usable": "0-", "binding": "0", "groups": []})",
                              R"({"usable": "0-9999", "binding": "0", "groups": []})",
                              R"({"usable": "0", "binding": "0", "groups": [{"threads": [1]}]})",
                              R"({"usable": "0", "binding": "0", "groups": [], "settings": {}})",
                              R"({"usable": "0", "binding": "0", "groups": [], "settings": [1]})"})
        EXPECT_EQ(decode_placement(wrong).error().code, Code::corrupt) << wrong;
}

// None is cut to what fits.
TEST(Placement, NumbersThatAreNoneOfTheirsAreDamage) {
    auto there = machine({0}, {0});
    Placement one;
    one.inner = 7;
    one.wait_ns = 5;
    one.stopped = true;
    there.threads = {one};
    there.settings[7].timers[1] = 2;
    const auto whole = nlohmann::json::parse(encode(there));
    ASSERT_TRUE(decode_placement(whole.dump()).ok());
    for (const char* place :
         {"/groups/0/policy", "/groups/0/nice", "/groups/0/clamps/0", "/groups/0/threads/0",
          "/waits/0/0", "/stopped/0", "/settings/0/process", "/settings/0/personality",
          "/settings/0/timers/0/0", "/settings/0/timers/0/1"}) {
        auto damaged = whole;
        auto& number = damaged[nlohmann::json::json_pointer(place)];
        ASSERT_TRUE(number.is_number()) << place;
        for (const auto& wrong : {nlohmann::json(1ULL << 63), nlohmann::json(1.5)}) {
            number = wrong;
            EXPECT_FALSE(decode_placement(damaged.dump()).ok()) << place << wrong;
        }
    }
    auto damaged = whole;
    damaged["waits"][0][1] = -1;
    EXPECT_FALSE(decode_placement(damaged.dump()).ok());
}

TEST(Placement, AnOlderGhostHasNoSettings) {
    const auto read = decode_placement(R"({"usable": "0", "binding": "0", "groups": []})");
    ASSERT_TRUE(read.ok());
    EXPECT_TRUE(read->settings.empty());
}

// What Linux writes (mpol_to_str() of mm/mempolicy.c), and what set_mempolicy(2) takes.
TEST(Settings, PoliciesAreTakenApart) {
    struct {
        const char* text;
        int mode;
        uint64_t first_nodes;
    } cases[] = {{"default", MPOL_DEFAULT, 0},
                 {"local", MPOL_LOCAL, 0},
                 {"prefer:3", MPOL_PREFERRED, 8},
                 {"prefer (many):0,2-3", MPOL_PREFERRED_MANY, 13},
                 {"bind=static:63", MPOL_BIND | MPOL_F_STATIC_NODES, 1ULL << 63},
                 {"bind=balancing:0", MPOL_BIND | 1 << 13, 1},
                 {"bind=static|balancing:1", MPOL_BIND | MPOL_F_STATIC_NODES | 1 << 13, 2},
                 {"interleave=relative:0-1", MPOL_INTERLEAVE, 3},
                 {"weighted interleave:0", 6, 1}};
    for (const auto& one : cases) {
        int mode = -1;
        std::vector<uint64_t> nodes;
        ASSERT_TRUE(take_apart(one.text, mode, nodes)) << one.text;
        EXPECT_EQ(mode, one.mode) << one.text;
        EXPECT_EQ(nodes[0], one.first_nodes) << one.text;
    }
    int mode = 0;
    std::vector<uint64_t> nodes;
    for (const auto* wrong : {"", "other:0", "bind:", "bind:1024", "bind:a", "bind 0"})
        EXPECT_FALSE(take_apart(wrong, mode, nodes)) << wrong;
    ASSERT_TRUE(take_apart("bind:1023", mode, nodes));
    EXPECT_EQ(nodes[15], 1ULL << 63);
}

}  // namespace
}  // namespace ghost::core
