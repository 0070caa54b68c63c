// SPDX-License-Identifier: BSD-3-Clause
// JSON of others costs its reader little, whatever is in it.
#include "base/json_text.hpp"

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

}  // namespace
}  // namespace ghost
