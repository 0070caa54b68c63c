// SPDX-License-Identifier: BSD-3-Clause
#include "ghost-core/engine/ghost_metadata.hpp"

#include "base/schema_json.hpp"

namespace ghost::core {

using schema::Field;
using schema::field;
using schema::Record;
using schema::record;

namespace {

constexpr Field lock_fields[] = {
    field<&NeededLock::path>("path", "of the file").as_name(),
    field<&NeededLock::kind>("kind", "0 of a process, 1 flock(2), 2 of an open file").or_default(),
    field<&NeededLock::start>("start", "of the range").in("bytes").or_default(),
    field<&NeededLock::bytes>("bytes", "of it; 0: to the end").or_default(),
};
constexpr Field needs_fields[] = {
    field<&Needs::memory>("memory", "that it has in use").in("bytes").or_default(),
    field<&Needs::folders>("folders", "working, root and open ones, but for removed ones")
        .as_name()
        .or_default(),
    field<&Needs::pipes>("pipes", "named pipes that are open").as_name().or_default(),
    field<&Needs::descriptors>("descriptors", "the highest number of one").or_default(),
    field<&Needs::removed>("removed", "of each folder: what files without a name take in it")
        .in("bytes")
        .or_default(),
    field<&Needs::limits>("limits",
                          "the highest hard limit of each kind, named as in /proc/PID/limits")
        .or_default(),
    field<&Needs::spaces>("spaces", "name spaces it has of its own").or_default(),
    field<&Needs::groups>("groups", "supplementary ones of an ordinary user").or_default(),
    field<&Needs::locks>("locks", "exclusive ones, of a tree that is to move").only_if_any(),
};
constexpr Field stdio_fields[] = {
    field<&StdioEnd::kind>("kind", "what it is").or_default(),
    field<&StdioEnd::key>("key", "criu's name of it, if it leads out of the tree").or_default(),
};
constexpr Field original_fields[] = {
    field<&OriginalProcess::host>("host", "name of its node").or_default(),
    field<&OriginalProcess::boot>("boot", "of that node").or_default(),
    field<&OriginalProcess::space>("space", "PID name space that its number is of").or_default(),
    field<&OriginalProcess::pid>("pid", "its number there").or_default(),
    field<&OriginalProcess::start>("start", "time of its start, as proc(5) has it").or_default(),
};
constexpr Field process_fields[] = {
    field<&PlainProcess::command>("command", "program and arguments").or_default(),
    field<&PlainProcess::pid>("pid", "its number").or_default(),
    field<&PlainProcess::inner>("inner", "its number in its own name space").or_default(),
    field<&PlainProcess::nested>("nested", "it has a PID name space of its own").or_default(),
    field<&PlainProcess::stdio>("stdio", "descriptors 0 to 2").or_default(),
    field<&PlainProcess::original>("original", "whether it still runs is looked for by this")
        .or_default(),
};
constexpr Field metadata_fields[] = {
    field<&GhostMetadata::process>("process", "of a tree outside of MPI"),
    field<&GhostMetadata::needs>("needs", "of the tree, beside files"),
};

}  // namespace

constinit const Record NeededLock::table =
    record<NeededLock>("lock", "an exclusive lock of a file", lock_fields);
constinit const Record Needs::table = record<Needs>("needs", "of a tree", needs_fields);
constinit const Record StdioEnd::table =
    record<StdioEnd>("stdio", "a standard descriptor", stdio_fields);
constinit const Record OriginalProcess::table =
    record<OriginalProcess>("original", "what a ghost was made of", original_fields);
constinit const Record PlainProcess::table =
    record<PlainProcess>("process", "a tree outside of MPI", process_fields);
constinit const Record GhostMetadata::table =
    record<GhostMetadata>("metadata", "of a ghost", metadata_fields);

nlohmann::json described_in(const nlohmann::json& metadata, const Record& table) {
    auto out = nlohmann::json::object();
    for (const Field& field : table.fields) {
        const auto at = metadata.find(field.name);
        if (at != metadata.end() && !at->is_null()) out[field.name] = *at;
    }
    return out;
}

Result<GhostMetadata> known_in(const nlohmann::json& metadata) {
    return schema::from_json<GhostMetadata>(described_in(metadata, GhostMetadata::table));
}

void put_needs(const std::optional<Needs>& needs, nlohmann::json& metadata) {
    const auto at = metadata.find("needs");
    if (needs && at != metadata.end() && at->is_object()) *at = schema::to_json(*needs);
}

}  // namespace ghost::core
