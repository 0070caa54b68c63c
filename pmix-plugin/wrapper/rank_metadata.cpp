// SPDX-License-Identifier: BSD-3-Clause
#include "pmix-plugin/wrapper/rank_metadata.hpp"

#include <limits>

#include "base/encoding.hpp"
#include "base/schema_json.hpp"
#include "ghost-core/engine/ghost_metadata.hpp"

namespace ghost::plugin {

using schema::Field;
using schema::field;
using schema::Record;
using schema::record;

namespace {

// As many files as a process can have open, and as many ranks and mappings as can be on a node.
constexpr size_t most_files = 1 << 20, most_shared = 1 << 16;

constexpr Field end_fields[] = {
    field<&StandardEnd::kind>("kind", "what it is").or_default(),
    field<&StandardEnd::key>("key", "criu's name of it, if it leads out of the tree").or_default(),
    field<&StandardEnd::modes>("modes", "of a terminal").or_default(),
    field<&StandardEnd::size>("size", "of a terminal").or_default(),
    field<&StandardEnd::place>("place", "of output: all that the rank has written"),
    field<&StandardEnd::skips_to>("skips_to", "the same: nothing is to be shown before that"),
};
constexpr Field stdio_fields[] = {
    field<&RankStdio::input>("stdin", "its end").or_default(),
    field<&RankStdio::output>("stdout", "its end").or_default(),
    field<&RankStdio::error>("stderr", "its end").or_default(),
    field<&RankStdio::is_open>("stdin_open", "input has not ended").or_default(),
    field<&RankStdio::unread>("unread", "input that the rank has not read").or_default(),
    field<&RankStdio::taken>("stdin_bytes", "input taken so far; -1: not known")
        .at_least(-1)
        .or_default(),
};
constexpr Field mapping_fields[] = {
    field<&SharedMapping::id>("id", "which one it is"),
    field<&SharedMapping::key>("key", "criu's name of it"),
    field<&SharedMapping::size>("size", "of the file behind it")
        .in("bytes")
        .at_most(std::numeric_limits<off_t>::max()),
    field<&SharedMapping::mode>("mode", "its permissions").at_most(07777),
};
constexpr Field mappings_fields[] = {
    field<&SharedMappings::ranks>("ranks", "that have to be together")
        .items_at_most(most_shared)
        .or_default(),
    field<&SharedMappings::memory>("memory", "each of it").items_at_most(most_shared).or_default(),
};
constexpr Field file_fields[] = {
    field<&ListedFile::path>("path", "its name"),
    field<&ListedFile::path_hex>("path_hex", "instead: a name that is no text"),
    field<&ListedFile::size>("size", "at the snapshot").in("bytes").or_default(),
    field<&ListedFile::mode>("mode", "permissions, with contents"),
    field<&ListedFile::owner>("owner", "with contents"),
    field<&ListedFile::group>("group", "with contents"),
    field<&ListedFile::contents>("contents", "if they are kept"),
};
constexpr Field metadata_fields[] = {
    field<&RankMetadata::job>("job", "of the rank"),
    field<&RankMetadata::rank>("rank", "which one"),
    field<&RankMetadata::seq>("seq", "the operation"),
    field<&RankMetadata::snapshot>("snapshot", "its name, if it is of one"),
    field<&RankMetadata::agent>("agent", "thread to be signalled"),
    field<&RankMetadata::stdio>("stdio", "standard input, output and error"),
    field<&RankMetadata::shared>("shared", "memory it shares with other ranks"),
    field<&RankMetadata::files>("files", "open for writing")
        .items_at_most(most_files)
        .only_if_any(),
};

const char* name_missing(const void* object) {
    const auto& file = *static_cast<const ListedFile*>(object);
    const bool named = file.path_hex ? decode_hex(*file.path_hex).has_value() : bool(file.path);
    return named ? nullptr : "has no path";
}

}  // namespace

constinit const Record StandardEnd::table =
    record<StandardEnd>("standard end", "one of them", end_fields);
constinit const Record RankStdio::table =
    record<RankStdio>("stdio", "standard input, output and error of a rank", stdio_fields);
constinit const Record SharedMapping::table =
    record<SharedMapping>("shared mapping", "memory of several ranks", mapping_fields);
constinit const Record SharedMappings::table =
    record<SharedMappings>("shared", "all of it", mappings_fields);
constinit const Record ListedFile::table = record<ListedFile>(
    "file", "that a rank writes", file_fields, schema::Form::object, name_missing);
constinit const Record RankMetadata::table =
    record<RankMetadata>("rank", "in the metadata of its ghost", metadata_fields);

Result<RankMetadata> rank_metadata_in(const nlohmann::json& metadata) {
    if (!metadata.is_object())
        return make_error(Code::corrupt, "read the metadata of a rank's ghost");
    return schema::from_json<RankMetadata>(core::described_in(metadata, RankMetadata::table));
}

}  // namespace ghost::plugin
