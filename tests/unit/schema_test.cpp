// SPDX-License-Identifier: BSD-3-Clause
// The codec of messages: every kind of member there and back, and every way to be wrong.
#include "base/schema.hpp"

#include <gtest/gtest.h>

#include "base/encoding.hpp"
#include "base/schema_json.hpp"

namespace ghost::schema {

namespace {

using Json = nlohmann::json;

enum class Colour { red, green, blue };
constexpr const char* colours[] = {"red", "green", "blue"};
constexpr std::span<const char* const> names_of(Colour) {
    return colours;
}

struct Address {
    std::string host;
    uint16_t port = 0;
    static const Record table;
};
constexpr Field address_fields[] = {
    field<&Address::host>("host", "numeric").at_most(8),
    field<&Address::port>("port", "TCP port").at_least(1),
};
constinit const Record Address::table = record<Address>("address", "a listener", address_fields);

struct Pair {
    uint32_t left = 0;
    int16_t right = 0;
    static const Record table;
};
constexpr Field pair_fields[] = {field<&Pair::left>("left", "one"),
                                 field<&Pair::right>("right", "other")};
constinit const Record Pair::table =
    record<Pair>("pair", "two numbers", pair_fields, Form::array, [](const void* object) {
        const auto& pair = *static_cast<const Pair*>(object);
        return pair.left == 13 ? "is unlucky" : nullptr;
    });

struct All {
    bool flag = false;
    int32_t small = 0;
    int64_t large = 0;
    uint8_t byte = 0;
    uint64_t huge = 0;
    double real = 0;
    std::string text;
    Name name;
    Bytes bytes;
    Colour colour = Colour::red;
    Colour number = Colour::red;
    Address address;
    Raw raw;
    std::optional<std::string> maybe;
    std::optional<Address> maybe_address;
    std::vector<uint32_t> numbers;
    std::vector<std::string> texts;
    std::vector<Address> addresses;
    std::vector<Pair> pairs;
    std::vector<std::string> paths;
    std::map<std::string, Address> by_name;
    uint32_t preset = 7;
    static const Record table;
};
constexpr Field all_fields[] = {
    field<&All::flag>("flag", ""),
    field<&All::small>("small", ""),
    field<&All::large>("large", ""),
    field<&All::byte>("byte", ""),
    field<&All::huge>("huge", "").in("bytes"),
    field<&All::real>("real", ""),
    field<&All::text>("text", ""),
    field<&All::name>("name", ""),
    field<&All::bytes>("bytes", ""),
    field<&All::colour>("colour", ""),
    field<&All::number>("number", "").as_number(),
    field<&All::address>("address", ""),
    field<&All::raw>("raw", ""),
    field<&All::maybe>("maybe", ""),
    field<&All::maybe_address>("maybe_address", ""),
    field<&All::numbers>("numbers", "").items_at_most(3),
    field<&All::texts>("texts", ""),
    field<&All::addresses>("addresses", ""),
    field<&All::pairs>("pairs", ""),
    field<&All::paths>("paths", "").as_name(),
    field<&All::by_name>("by_name", ""),
    field<&All::preset>("preset", "").or_default(),
};
constinit const Record All::table = record<All>("all", "one of each kind", all_fields);

struct Empty {
    static const Record table;
};
constinit const Record Empty::table = record<Empty>("empty", "nothing");

All some() {
    All all;
    all.flag = true;
    all.small = -5;
    all.large = INT64_MIN;
    all.byte = 255;
    all.huge = UINT64_MAX;
    all.real = 2.5;
    all.text = "a \"text\"\n\xc3\xa4";
    all.name.text = std::string("/tmp/\xff", 6);
    all.bytes.data = std::string("\0\xff\x01z", 4);
    all.colour = Colour::blue;
    all.number = Colour::green;
    all.address = {"10.0.0.1", 99};
    all.raw.text = R"({"any":[1,null,"x"]})";
    all.maybe = "";
    all.maybe_address = Address{"::1", 1};
    all.numbers = {0, 1, UINT32_MAX};
    all.texts = {"", "x"};
    all.addresses = {{"a", 1}, {"b", 65535}};
    all.pairs = {{1, -1}, {UINT32_MAX, INT16_MIN}};
    all.paths = {"/a", "\xff"};
    all.by_name = {{"", {"a", 1}}, {"b c", {"b", 2}}};
    all.preset = 8;
    return all;
}

// `some()` as JSON with one field another value, or without it (discarded).
std::string with(const char* field, const Json& value) {
    Json json = to_json(some());
    if (value.is_discarded()) {
        json.erase(field);
    } else {
        json[field] = value;
    }
    return json.dump();
}

std::string fault(const char* field, const Json& value) {
    auto read = decode<All>(with(field, value));
    return read.ok() ? "" : read.error().object + ": " + read.error().why;
}

const Json missing(Json::value_t::discarded);

TEST(Schema, EveryKindSurvivesEncoding) {
    const All sent = some();
    auto read = decode<All>(encode(sent));
    ASSERT_TRUE(read.ok()) << read.error().message();
    EXPECT_TRUE(read->flag);
    EXPECT_EQ(read->small, -5);
    EXPECT_EQ(read->large, INT64_MIN);
    EXPECT_EQ(read->byte, 255);
    EXPECT_EQ(read->huge, UINT64_MAX);
    EXPECT_EQ(read->real, 2.5);
    EXPECT_EQ(read->text, sent.text);
    EXPECT_EQ(read->name, sent.name);
    EXPECT_EQ(read->bytes, sent.bytes);
    EXPECT_EQ(read->colour, Colour::blue);
    EXPECT_EQ(read->number, Colour::green);
    EXPECT_EQ(read->address.host, "10.0.0.1");
    EXPECT_EQ(read->address.port, 99);
    EXPECT_EQ(read->raw, sent.raw);
    EXPECT_EQ(read->maybe, "");
    EXPECT_EQ(read->maybe_address.value().port, 1);
    EXPECT_EQ(read->numbers, sent.numbers);
    EXPECT_EQ(read->texts, sent.texts);
    ASSERT_EQ(read->addresses.size(), 2U);
    EXPECT_EQ(read->addresses[1].port, 65535);
    ASSERT_EQ(read->pairs.size(), 2U);
    EXPECT_EQ(read->pairs[1].right, INT16_MIN);
    EXPECT_EQ(read->paths, sent.paths);
    ASSERT_EQ(read->by_name.size(), 2U);
    EXPECT_EQ(read->by_name["b c"].port, 2);
    EXPECT_EQ(read->preset, 8U);
    EXPECT_EQ(encode(*read), encode(sent));
}

TEST(Schema, WireIsPlainJson) {
    EXPECT_EQ(Json::parse(encode(Empty{})), (Json{{"t", "empty"}}));
    const Json json = Json::parse(encode(some()));
    EXPECT_EQ(json["t"], "all");
    EXPECT_EQ(json["colour"], "blue");
    EXPECT_EQ(json["number"], 1);
    EXPECT_EQ(json["name"], (Json{{"hex", "2f746d702fff"}}));
    EXPECT_EQ(json["bytes"], "AP8Beg==");
    EXPECT_EQ(json["pairs"], (Json{{1, -1}, {4294967295, -32768}}));
    EXPECT_EQ(json["raw"], (Json{{"any", {1, nullptr, "x"}}}));
    EXPECT_EQ(json["paths"], (Json{"/a", {{"hex", "ff"}}}));
    EXPECT_EQ(json["by_name"]["b c"], (Json{{"host", "b"}, {"port", 2}}));
    EXPECT_EQ(json["addresses"][0], (Json{{"host", "a"}, {"port", 1}}));
}

TEST(Schema, EmptyOptionalIsOmitted) {
    All all = some();
    all.maybe.reset();
    all.maybe_address.reset();
    const Json json = Json::parse(encode(all));
    EXPECT_FALSE(json.contains("maybe") || json.contains("maybe_address"));
    auto read = decode<All>(json.dump());
    ASSERT_TRUE(read.ok());
    EXPECT_FALSE(read->maybe || read->maybe_address);
}

TEST(Schema, AbsentFieldKeepsDefault) {
    auto read = decode<All>(with("preset", missing));
    ASSERT_TRUE(read.ok());
    EXPECT_EQ(read->preset, 7U);
    EXPECT_EQ(fault("preset", "x"), "all: preset is no whole number from 0 to 4294967295");
}

TEST(Schema, UnknownFieldsAreIgnored) {
    EXPECT_EQ(fault("later", Json{1, 2}), "");
}

TEST(Schema, EachMissingFieldIsNamed) {
    for (const Field& field : All::table.fields) {
        if (!field.required) continue;
        EXPECT_EQ(fault(field.name, missing), std::string("all: ") + field.name + " is missing");
    }
}

TEST(Schema, EachFieldOfAnotherKindIsNamed) {
    for (const Field& field : All::table.fields) {
        if (field.value.kind == Kind::raw) continue;
        for (const Json& wrong : {Json(nullptr), Json(Json::object()), Json{{"hex", 5}}}) {
            if (field.shape == Shape::map && wrong.empty() && wrong.is_object()) continue;  // right
            const std::string said = fault(field.name, wrong);
            EXPECT_TRUE(said.starts_with(std::string("all: ") + field.name)) << said;
        }
    }
}

TEST(Schema, NumberOutOfRangeIsRefused) {
    EXPECT_EQ(fault("byte", 256), "all: byte is no whole number from 0 to 255");
    EXPECT_EQ(fault("byte", -1), "all: byte is no whole number from 0 to 255");
    EXPECT_EQ(fault("byte", 1.0), "all: byte is no whole number from 0 to 255");
    EXPECT_NE(fault("small", int64_t{INT32_MAX} + 1), "");
    EXPECT_NE(fault("small", int64_t{INT32_MIN} - 1), "");
    EXPECT_EQ(fault("small", INT32_MIN), "");
    EXPECT_NE(fault("large", UINT64_MAX), "");
    EXPECT_EQ(fault("huge", UINT64_MAX), "");
    EXPECT_NE(fault("huge", 1e30), "");
    EXPECT_NE(fault("number", 3), "");
    EXPECT_NE(fault("number", "green"), "");
}

TEST(Schema, OverlongTextIsRefused) {
    EXPECT_EQ(fault("address", Json{{"host", "123456789"}, {"port", 1}}),
              "all: address.host is longer than 8 bytes");
    EXPECT_EQ(fault("name", Json{{"hex", "0g"}}), "all: name is no text");
    EXPECT_EQ(fault("name", Json{{"hex", "012"}}), "all: name is no text");
    EXPECT_EQ(fault("bytes", "AP8B*g=="), "all: bytes is no base64");
    EXPECT_EQ(fault("colour", "pink"), "all: colour is none of its values");
}

TEST(Schema, NestedErrorNamesPath) {
    EXPECT_EQ(fault("addresses", Json{{{"host", "a"}, {"port", 1}}, {{"host", "b"}, {"port", 0}}}),
              "all: addresses[1].port is no whole number from 1 to 65535");
    EXPECT_EQ(fault("maybe_address", Json{{"host", "b"}}), "all: maybe_address.port is missing");
    EXPECT_EQ(fault("pairs", Json{{1, 2}, {1}}), "all: pairs[1] is no list of its fields");
    EXPECT_EQ(fault("pairs", Json{{1, "2"}}),
              "all: pairs[0].right is no whole number from -32768 to 32767");
    EXPECT_EQ(fault("pairs", Json{{13, 2}}), "all: pairs[0] is unlucky");
    EXPECT_EQ(fault("numbers", Json{1, 2, 3, 4}), "all: numbers has more than 3 entries");
    EXPECT_EQ(fault("numbers", Json{1, -2}),
              "all: numbers[1] is no whole number from 0 to 4294967295");
}

TEST(Schema, NonObjectIsRefused) {
    for (const char* text : {"", "5", "[]", "null", "{", "\xff", "{\"t\":\"all\"} x"}) {
        auto read = decode<Empty>(text);
        ASSERT_FALSE(read.ok()) << text;
        EXPECT_EQ(read.error().code, Code::corrupt);
        EXPECT_EQ(read.error().message(), "cannot read message empty: is no object");
    }
}

TEST(Schema, InvalidUtf8IsReplaced) {
    All all = some();
    all.text = "a\xff";
    auto read = decode<All>(encode(all));
    ASSERT_TRUE(read.ok());
    EXPECT_EQ(read->text, "a\xef\xbf\xbd");
}

TEST(Schema, MalformedBase64IsRefused) {
    EXPECT_EQ(encode_base64("foobar"), "Zm9vYmFy");
    EXPECT_EQ(encode_base64("fooba"), "Zm9vYmE=");
    EXPECT_EQ(encode_base64("foob"), "Zm9vYg==");
    for (const char* wrong : {"Z", "Zg=", "Zg===", "Z===", "====", "Zg==Zg==", "Zm9 "})
        EXPECT_FALSE(decode_base64(wrong)) << wrong;
    std::string bytes;
    for (int i = 0; i < 256; ++i) {
        bytes += static_cast<char>(i);
        EXPECT_EQ(decode_base64(encode_base64(bytes)), bytes);
    }
}

TEST(Schema, MalformedHexIsRefused) {
    EXPECT_EQ(encode_hex(std::string("\0\x1f\xff", 3)), "001fff");
    EXPECT_EQ(decode_hex("001FfF"), std::string("\0\x1f\xff", 3));
    EXPECT_EQ(decode_hex(""), "");
    for (const char* wrong : {"0", "000", "0g", " 0", "0x", "@0", "`0", "-1"})
        EXPECT_FALSE(decode_hex(wrong)) << wrong;
}

// --- reading what a peer says ---

enum class Type { empty, pair };
struct Note {
    uint64_t seq = 0;
    static const Record table;
};
constexpr Field note_fields[] = {field<&Note::seq>("seq", "")};
constinit const Record Note::table = record<Note>("note", "", note_fields);
constexpr Message messages[] = {message<Empty>(Type::empty), message<Note>(Type::pair)};
constexpr Family family_of_test = family("X to Y", messages);

// Nobody may send what the other side cannot read.
TEST(Schema, MalformedJsonIsNull) {
    for (const char* text : {"", "{", "nothing"}) {
        All all;
        all.raw.text = text;
        const Json json = Json::parse(encode(all), nullptr, false);
        ASSERT_TRUE(json.is_object()) << text;
        EXPECT_TRUE(json["raw"].is_null()) << text;
    }
}

TEST(SchemaReader, MessageIsReadAsItsStruct) {
    Reader reader(family_of_test, "peer");
    std::string answer;
    auto read = reader.read(encode(Note{44}), answer);
    ASSERT_TRUE(read.has_value());
    EXPECT_EQ(read->type<Type>(), Type::pair);
    EXPECT_TRUE(read->is<Note>() && !read->is<Empty>());
    EXPECT_EQ(read->as<Note>().seq, 44U);
    EXPECT_EQ(answer, "");
}

TEST(SchemaReader, UnknownOrMalformedIsAnswered) {
    Reader reader(family_of_test, "peer");
    std::string answer;
    const auto said = [&](const char* text) {
        EXPECT_FALSE(reader.read(text, answer)) << text;
        auto complaint = decode<Complaint>(answer);
        return complaint.ok() ? complaint->why : "no answer";
    };
    EXPECT_EQ(said(R"({"t":"nonsense"})"), "unknown message nonsense");
    EXPECT_EQ(said(R"({"t":"nonsense"})"), "unknown message nonsense");
    EXPECT_EQ(said(R"({"t":5})"), "a message has no type");
    EXPECT_EQ(said("{}"), "a message has no type");
    EXPECT_EQ(said("[1]"), "the packet is no object");
    EXPECT_EQ(said(R"({"t":"note"})"), "cannot read message note: seq is missing");
}

TEST(SchemaReader, ErrorIsNeverAnswered) {
    Reader reader(family_of_test, "peer");
    std::string answer = "x";
    for (const char* text :
         {R"({"t":"error","why":"no"})", R"({"t":"error"})", R"({"t":"error","why":5})"}) {
        EXPECT_FALSE(reader.read(text, answer));
        EXPECT_EQ(answer, "");
    }
}

}  // namespace
}  // namespace ghost::schema
