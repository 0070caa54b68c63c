// SPDX-License-Identifier: BSD-3-Clause
// Prints the tables of docs/PROTOCOL.md from the messages themselves (make check-protocol).
#include <cstdio>
#include <fmt/format.h>
#include <set>
#include <string>

#include "ghost-core/engine/holder_messages.hpp"
#include "kernet-btl/agent/messages.hpp"
#include "kernet-btl/streams/messages.hpp"
#include "pmix-plugin/protocol/client_coordinator.hpp"
#include "pmix-plugin/protocol/copier.hpp"
#include "pmix-plugin/protocol/daemons.hpp"
#include "pmix-plugin/protocol/node_wrapper.hpp"
#include "tools/clone_messages.hpp"

namespace ghost::tools {
namespace {

using schema::Family;
using schema::Field;
using schema::Kind;
using schema::Record;
using schema::Shape;

std::string kind_of(const Field& field) {
    const schema::Value& value = field.value;
    switch (value.kind) {
        case Kind::boolean:
            return "true or false";
        case Kind::integer:
            return value.is_signed && value.least < 0 ? "whole number, may be negative"
                                                      : "whole number";
        case Kind::real:
            return "number";
        case Kind::text:
            return "text";
        case Kind::name:
            return "text, or its bytes in hex";
        case Kind::bytes:
            return "base64";
        case Kind::choice: {
            std::string out;
            for (const char* name : value.names)
                out += (out.empty() ? "" : ", ") + std::string(name);
            return out;
        }
        case Kind::record:
            return std::string("*") + value.record->name + "*";
        case Kind::raw:
            return "anything";
    }
    return {};
}

void print_fields(const Record& record) {
    for (const Field& field : record.fields) {
        const bool list = field.shape == Shape::list;
        const char* many = list ? "list of " : field.shape == Shape::map ? "by name: " : "";
        fmt::print("| | `{}` | {}{}{} | {}{} |\n", field.name, many, kind_of(field),
                   *field.unit != '\0' ? fmt::format(", {}", field.unit) : "", field.meaning,
                   field.required ? "" : "; may be left out");
    }
}

// Parts of messages, each once, those that they have parts of first.
void collect(const Record& record, std::set<const Record*>& seen,
             std::vector<const Record*>& parts) {
    for (const Field& field : record.fields) {
        const Record* part = field.value.record;
        if (part == nullptr || !seen.insert(part).second) continue;
        collect(*part, seen, parts);
        parts.push_back(part);
    }
}

void print(const char* title, const Family& family, std::set<const Record*>& seen,
           std::vector<const Record*>& parts) {
    fmt::print("### {}\n\n| message | field | kind | meaning |\n|---|---|---|---|\n", title);
    for (const schema::Message& message : family.messages) {
        fmt::print("| **`{}`** | | | {} |\n", message.name(), message.meaning());
        print_fields(*message.record);
        collect(*message.record, seen, parts);
    }
    fmt::print("\n");
}

}  // namespace
}  // namespace ghost::tools

int main() {
    using namespace ghost::plugin;
    using namespace ghost::tools;
    std::set<const ghost::schema::Record*> seen;
    std::vector<const ghost::schema::Record*> parts;
    print("Between daemons", between_daemons, seen, parts);
    print("Wrapper to node agent", from_wrapper, seen, parts);
    print("Node agent to wrapper", to_wrapper, seen, parts);
    print("Rank's agent to node agent", kernet::from_rank, seen, parts);
    print("Node agent to rank's agent", kernet::to_rank, seen, parts);
    print("Node agent to copier", to_copier, seen, parts);
    print("Copier to node agent", from_copier, seen, parts);
    print("Copiers to each other", between_copiers, seen, parts);
    print("`ghost` command to coordinator", to_coordinator, seen, parts);
    print("Coordinator to `ghost` command", from_coordinator, seen, parts);
    print("Stream managers to each other", kernet::between_managers, seen, parts);
    print("Process to stream manager", kernet::to_manager, seen, parts);
    print("Stream manager to process", kernet::from_manager, seen, parts);
    print("Client to holder of ghosts in memory", ghost::core::to_holder, seen, parts);
    print("Holder of ghosts in memory to client", ghost::core::from_holder, seen, parts);
    print("`ghost dup` to `ghost receive`", to_receiver, seen, parts);
    print("`ghost receive` to `ghost dup`", from_receiver, seen, parts);
    fmt::print("### Parts of messages\n\n| part | field | kind | meaning |\n|---|---|---|---|\n");
    for (const auto* part : parts) {
        const bool array = part->form == ghost::schema::Form::array;
        fmt::print("| **{}** | | | {}{} |\n", part->name, part->meaning,
                   array ? "; a list of its fields" : "");
        print_fields(*part);
    }
    return 0;
}
