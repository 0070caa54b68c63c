// SPDX-License-Identifier: BSD-3-Clause
// What is read of ghosts' metadata: of older ones, of newer ones, and of what nobody has written.
#include <gtest/gtest.h>

#include "base/schema_json.hpp"
#include "ghost-core/engine/ghost_metadata.hpp"
#include "ghost-core/engine/migration.hpp"
#include "ghost-core/engine/tree_facts.hpp"
#include "ghost-core/format/writer.hpp"
#include "ghost-core/resource/memory.hpp"

namespace ghost::core {
namespace {

using Json = nlohmann::json;

// As `ghost run` and `ghost export` have written it from the beginning.
const char* const plain_text = R"({
  "needs": {"descriptors": 5, "folders": ["/", "/srv"], "groups": [10, 4294967295],
            "limits": {"open files": 1024, "processes": 18446744073709551615}, "memory": 8192,
            "pipes": [], "removed": {"/tmp": 4096}, "spaces": ["pid"]},
  "process": {"command": "sleep 100", "inner": 2, "nested": true,
              "original": {"boot": "b", "host": "gn1", "pid": 77, "space": "s", "start": "9"},
              "pid": 77,
              "stdio": [{"key": "", "kind": "null"}, {"key": "pipe:[3]", "kind": "pipe"},
                        {"key": "tty[8801:18]", "kind": "tty"}]}})";

TEST(GhostMetadata, WrittenAsItHasAlwaysBeen) {
    const auto json = Json::parse(plain_text);
    auto known = known_in(json);
    ASSERT_TRUE(known.ok()) << known.error().message();
    EXPECT_EQ(known->process->pid, 77);
    EXPECT_EQ(known->process->stdio[1].key, "pipe:[3]");
    EXPECT_EQ(known->needs->limits.at("processes"), ~uint64_t{0});
    EXPECT_EQ(known->needs->removed.at("/tmp"), 4096U);
    EXPECT_EQ(schema::to_json(*known), json);
}

TEST(GhostMetadata, OlderNewerAndOthersAreRead) {
    for (const char* text : {"{}", "null", R"({"needs": null})", R"({"rank": 1, "needs": {}})"}) {
        auto known = known_in(Json::parse(text));
        ASSERT_TRUE(known.ok()) << text << known.error().message();
        EXPECT_FALSE(known->process) << text;
    }
    auto newer = known_in(Json::parse(
        R"({"process": {"pid": 3, "later": [1]}, "needs": {"memory": 9, "colour": "red"}})"));
    ASSERT_TRUE(newer.ok()) << newer.error().message();
    EXPECT_EQ(newer->process->pid, 3);
    EXPECT_EQ(newer->needs->memory, 9U);
}

Result<Importer> opened(const std::string& metadata, MemoryResource& memory) {
    GhostWriter writer(memory);
    GHOST_TRY(memory.init());
    GHOST_TRY(writer.head("{}", metadata));
    GHOST_TRY(writer.skeleton_end(0));
    GHOST_TRY(writer.end());
    GHOST_TRY(memory.finalize());
    return Importer::open(memory, false);
}

TEST(GhostMetadata, DamagedIsAnErrorWhenGhostIsOpened) {
    for (const char* text :
         {R"({"process": {"pid": "77"}})", R"({"process": [1]})",
          R"({"process": {"stdio": [{"kind": 1}]}})", R"({"needs": {"memory": -1}})",
          R"({"needs": {"removed": {"/tmp": "much"}}})", R"({"needs": {"spaces": [1]}})",
          R"({"needs": {"groups": ["root"]}})", R"({"needs": {"limits": {"open files": null}}})"}) {
        MemoryResource memory;
        auto importer = opened(text, memory);
        ASSERT_FALSE(importer.ok()) << text;
        EXPECT_EQ(importer.error().code, Code::corrupt) << importer.error().message();
    }
    MemoryResource memory;
    auto importer = opened(plain_text, memory);
    ASSERT_TRUE(importer.ok()) << importer.error().message();
    EXPECT_EQ(importer->known().needs->memory, 8192U);
}

// A path is any bytes; as text those would be others where the ghost comes to.
TEST(GhostMetadata, NamesAreAnyBytes) {
    Needs needs;
    needs.folders = {"/srv/caf\xe9"};
    Json metadata = {{"needs", Json::object()}};
    put_needs(needs, metadata);
    const auto text = metadata.dump(-1, ' ', false, Json::error_handler_t::replace);
    auto known = known_in(Json::parse(text));
    ASSERT_TRUE(known.ok()) << known.error().message();
    EXPECT_EQ(known->needs->folders, needs.folders);
}

TEST(GhostMetadata, NeedsAtStopSayWhatHasChanged) {
    TreeFacts told, stopped;
    told.needs = Needs{.folders = {"/a", "/b"}, .pipes = {"/p"}};
    stopped.needs = told.needs;
    EXPECT_FALSE(needs_at_stop(told, stopped));
    stopped.needs->folders = {"/b", "/c"};
    const auto changed = needs_at_stop(told, stopped);
    ASSERT_TRUE(changed);
    EXPECT_EQ(schema::to_json(*changed), Json::parse(R"({"released": ["/a"], "files": [],
        "needs": {"folders": ["/c"], "pipes": []}})"));
}

}  // namespace
}  // namespace ghost::core
