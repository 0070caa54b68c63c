// SPDX-License-Identifier: BSD-3-Clause
// Entries and changes as the managers and processes send them to each other.
#include <limits>

#include "kernet-btl/streams/directory_entry.hpp"
#include "kernet-btl/transport/json_number.hpp"

namespace kernet {

namespace {

using Json = nlohmann::json;

constexpr size_t max_text = 255;
constexpr size_t max_answered = 1024;

// Reads fields out of an object; remembers the first one that is wrong.
class Reader {
  public:
    explicit Reader(const Json& json) : json_(json) {
        if (!json.is_object()) wrong_ = "object expected";
    }

    template <typename T>
    void number(const char* field, T& out, uint64_t most = std::numeric_limits<T>::max()) {
        const Json* value = find(field);
        if (!value) return;
        if (!read_whole(*value, out, most)) fail(field);
    }
    void node(const char* field, int& out) {
        const Json* value = find(field);
        if (!value) return;
        if (!read_node(*value, out)) fail(field);
    }
    void flag(const char* field, bool& out) {
        const Json* value = find(field);
        if (!value) return;
        value->is_boolean() ? void(out = value->get<bool>()) : fail(field);
    }
    void text(const char* field, std::string& out) {
        const Json* value = find(field);
        if (!value) return;
        if (!value->is_string() || value->get_ref<const std::string&>().size() > max_text) {
            fail(field);
        } else {
            out = value->get<std::string>();
        }
    }
    template <typename T>
    void choice(const char* field, T& out, T last) {
        uint8_t number = 0;
        this->number(field, number, static_cast<uint64_t>(last));
        out = static_cast<T>(number);
    }
    const Json* array(const char* field, size_t most) {
        const Json* value = find(field);
        if (value && (!value->is_array() || value->size() > most)) fail(field);
        return ok() ? value : nullptr;
    }
    // Absent: stays as it is.
    void place(const char* field, Location& out) {
        if (!ok() || !json_.contains(field)) return;
        auto read = location_from_json(json_[field]);
        if (read) {
            out = std::move(*read);
        } else {
            fail(field);
        }
    }
    void fail(const char* field) {
        if (!wrong_) wrong_ = field;
    }
    bool ok() const { return wrong_ == nullptr; }
    ghost::Error error(const char* tried) const {
        return ghost::make_error(ghost::Code::corrupt, tried, wrong_);
    }

  private:
    const Json* find(const char* field) {
        if (!ok()) return nullptr;
        const auto found = json_.find(field);
        if (found != json_.end()) return &*found;
        fail(field);
        return nullptr;
    }
    const Json& json_;
    const char* wrong_ = nullptr;
};

Json farewells_to_json(const Farewells& farewells) {
    Json out = Json::array();
    for (const auto& [writer, f] : farewells) out.push_back({writer, f.incarnation, f.count});
    return out;
}

void read_farewells(Reader& reader, Farewells& out) {
    const Json* list = reader.array("bye", max_sockets);
    if (!list) return;
    for (const Json& item : *list) {
        uint16_t writer = 0;
        Farewell farewell;
        if (!item.is_array() || item.size() != 3 || !read_whole(item[0], writer, max_sockets - 1) ||
            !read_whole(item[1], farewell.incarnation) || !read_whole(item[2], farewell.count) ||
            !out.emplace(writer, farewell).second) {
            return reader.fail("bye");
        }
    }
}

Json to_json(const SocketEntry& socket) {
    Json out{{"state", static_cast<int>(socket.state)},
             {"role", socket.role},
             {"lost", socket.lost},
             {"inc", socket.incarnation},
             {"key", socket.key},
             {"bye", farewells_to_json(socket.farewells)}};
    if (socket.state == SocketState::attached) out["at"] = to_json(socket.where);
    return out;
}

bool read_socket(const Json& json, SocketEntry& socket) {
    Reader reader(json);
    reader.choice("state", socket.state, SocketState::unattached);
    reader.number("role", socket.role, role_reader | role_writer);
    reader.flag("lost", socket.lost);
    reader.number("inc", socket.incarnation);
    reader.number("key", socket.key);
    read_farewells(reader, socket.farewells);
    // Attached to somewhere; of others it says nothing.
    if (socket.state == SocketState::attached) {
        if (!json.contains("at")) reader.fail("at");
        reader.place("at", socket.where);
    }
    return reader.ok();
}

}  // namespace

Json to_json(const Entry& entry) {
    Json sockets = Json::array(), answered = Json::array();
    for (const SocketEntry& socket : entry.sockets) sockets.push_back(to_json(socket));
    for (const Answered& a : entry.answered) answered.push_back({a.request, a.socket, a.key});
    return {{"id", entry.id},
            {"type", static_cast<int>(entry.type)},
            {"grows", entry.grows},
            {"destroyed", entry.destroyed},
            {"creator", entry.creator},
            {"class", entry.class_name},
            {"filters", entry.filters},
            {"term", entry.version.term},
            {"change", entry.version.change},
            {"sockets", std::move(sockets)},
            {"answered", std::move(answered)}};
}

Result<Entry> entry_from_json(const Json& json) {
    Entry entry;
    Reader reader(json);
    reader.number("id", entry.id);
    reader.choice("type", entry.type, StreamType::lifo);
    reader.flag("grows", entry.grows);
    reader.flag("destroyed", entry.destroyed);
    reader.node("creator", entry.creator);
    reader.text("class", entry.class_name);
    reader.text("filters", entry.filters);
    reader.number("term", entry.version.term);
    reader.number("change", entry.version.change);
    if (const Json* sockets = reader.array("sockets", max_sockets)) {
        for (const Json& item : *sockets) {
            entry.sockets.emplace_back();
            if (!read_socket(item, entry.sockets.back())) reader.fail("sockets");
        }
    }
    if (const Json* answered = reader.array("answered", max_answered)) {
        for (const Json& item : *answered) {
            Answered one;
            if (!item.is_array() || item.size() != 3 || !item[0].is_string() ||
                !read_whole(item[1], one.socket) || !read_whole(item[2], one.key)) {
                reader.fail("answered");
                break;
            }
            one.request = item[0].get<std::string>();
            entry.answered.push_back(std::move(one));
        }
    }
    if (entry.id == 0) reader.fail("id");
    if (entry.type == StreamType::direct && entry.sockets.size() != 2) reader.fail("sockets");
    if (!reader.ok()) return reader.error("read an entry of the directory");
    return entry;
}

Json to_json(const Change& change) {
    Json out{{"op", static_cast<int>(change.operation)},
             {"id", change.id},
             {"socket", change.socket},
             {"inc", change.incarnation},
             {"key", change.key},
             {"node", change.node},
             {"role", change.role},
             {"bye", farewells_to_json(change.farewells)},
             {"type", static_cast<int>(change.type)},
             {"sockets", change.sockets},
             {"class", change.class_name},
             {"filters", change.filters}};
    out["at"] = to_json(change.where);
    return out;
}

Result<Change> change_from_json(const Json& json) {
    Change change;
    Reader reader(json);
    reader.choice("op", change.operation, Operation::look);
    reader.number("id", change.id);
    reader.number("socket", change.socket);
    reader.number("inc", change.incarnation);
    reader.number("key", change.key);
    reader.node("node", change.node);
    reader.number("role", change.role, role_reader | role_writer);
    read_farewells(reader, change.farewells);
    reader.choice("type", change.type, StreamType::lifo);
    reader.number("sockets", change.sockets);
    reader.text("class", change.class_name);
    reader.text("filters", change.filters);
    reader.place("at", change.where);
    if (!reader.ok()) return reader.error("read a request to the directory");
    return change;
}

}  // namespace kernet
