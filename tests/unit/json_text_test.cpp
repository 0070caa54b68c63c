// SPDX-License-Identifier: BSD-3-Clause
// JSON of others costs its reader little, whatever is in it.
#include "base/json_text.hpp"

#include "base/json_member.hpp"

#include <gtest/gtest.h>

namespace ghost {
namespace {

std::string nested(size_t depth) {
    return std::string(depth, '[') + std::string(depth, ']');
}

TEST(JsonText, OrdinaryTextIsRead) {
    const auto json = parse_json(R"({"a": [1, "]]]][[[,,,\"[[", {"b": null}], "c\\": "\\"})");
    ASSERT_FALSE(json.is_discarded());
    EXPECT_EQ(json["a"][1], "]]]][[[,,,\"[[");
    EXPECT_EQ(json["c\\"], "\\");
    for (const char* wrong : {"", "{", "[1,", "\"a", "\"\\", "]]", "{\"a\" 1}"})
        EXPECT_TRUE(parse_json(wrong).is_discarded()) << wrong;
    EXPECT_FALSE(parse_json(nested(json_depth_limit)).is_discarded());
    EXPECT_FALSE(parse_json('"' + nested(json_depth_limit + 1) + '"').is_discarded());
}

TEST(JsonText, DeepTextIsRefused) {
    EXPECT_TRUE(parse_json(nested(json_depth_limit + 1)).is_discarded());
    const auto deep = parse_json("{\"a\": " + nested(1 << 20) + "}");
    ASSERT_TRUE(deep.is_discarded()) << "copying or printing it would end this process";
    std::string objects;
    for (int i = 0; i < 1000; i++) objects += "{\"a\":";
    EXPECT_TRUE(parse_json(objects + "1" + std::string(1000, '}')).is_discarded());
}

TEST(JsonText, TextOfManyValuesIsRefused) {
    std::string many = "[";
    for (size_t i = 0; i < json_value_limit; i++) many += "[],";
    EXPECT_TRUE(parse_json(many + "1]").is_discarded());
}

TEST(JsonText, MembersThatDoNotFitAreNotCut) {
    const auto json = parse_json(
        R"({"ok": 7, "negative": -1, "big": 18446744073709551615, "huge": 1e300, "part": 0.5})");
    EXPECT_EQ(member(json, "ok", 1), 7);
    EXPECT_EQ(member(json, "ok", uint64_t{1}), 7u);
    EXPECT_EQ(member(json, "big", uint64_t{1}), 18446744073709551615u);
    EXPECT_EQ(member(json, "negative", int64_t{1}), -1);
    EXPECT_EQ(member(json, "negative", uint64_t{1}), 1u);
    EXPECT_EQ(member(json, "big", int64_t{1}), 1);
    EXPECT_EQ(member(json, "big", 1), 1);
    EXPECT_EQ(member(json, "huge", 1), 1);
    EXPECT_EQ(member(json, "part", 1), 1);
    EXPECT_EQ(member(json, "part", 1.0), 0.5);
    EXPECT_EQ(member(json, "none", 1), 1);
}

}  // namespace
}  // namespace ghost
