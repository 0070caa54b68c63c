// SPDX-License-Identifier: BSD-3-Clause
#include "base/schema.hpp"

#include <algorithm>
#include <cstring>
#include <fmt/format.h>

#include "base/encoding.hpp"
#include "base/json_text.hpp"
#include "base/log.hpp"
#include "base/schema_json.hpp"

namespace ghost::schema {
namespace {

using Json = nlohmann::json;

constexpr size_t most_unknown = 16;  // types of one peer that are remembered as logged

constexpr Field complaint_fields[] = {
    field<&Complaint::why>("why", "what is wrong").or_default(),
};

// --- numbers of any width ---

uint64_t bits_of(const Value& value, const void* at) {
    uint64_t bits = 0;
    std::memcpy(&bits, at, value.size);  // little endian
    if (value.is_signed && value.size < sizeof bits && (bits >> (value.size * 8 - 1)) != 0)
        bits |= ~uint64_t{0} << (value.size * 8);
    return bits;
}

bool fits(const Value& value, const Json& json, uint64_t& bits) {
    if (!json.is_number_integer()) return false;
    if (!json.is_number_unsigned() && json.get<int64_t>() < 0) {
        const auto number = json.get<int64_t>();
        bits = static_cast<uint64_t>(number);
        return number >= value.least;
    }
    bits = json.get<uint64_t>();
    return bits <= value.most && (value.least <= 0 || bits >= static_cast<uint64_t>(value.least));
}

// --- writing ---

Json value_json(const Value& value, const void* at) {
    switch (value.kind) {
        case Kind::boolean:
            return *static_cast<const bool*>(at);
        case Kind::integer: {
            const uint64_t bits = bits_of(value, at);
            return value.is_signed ? Json(static_cast<int64_t>(bits)) : Json(bits);
        }
        case Kind::real:
            return *static_cast<const double*>(at);
        case Kind::text:
            return *static_cast<const std::string*>(at);
        case Kind::name:
            return bytes_json(*static_cast<const std::string*>(at));  // Name has nothing else
        case Kind::bytes: {
            const std::string& data = static_cast<const Bytes*>(at)->data;
            return encode_base64(data);
        }
        case Kind::choice: {
            const uint64_t index = bits_of(value, at);
            return index < value.names.size() ? value.names[index] : "?";
        }
        case Kind::record:
            return to_json(*value.record, at);
        case Kind::raw: {
            Json json = parse_json(static_cast<const Raw*>(at)->text);
            return json.is_discarded() ? Json() : json;
        }
    }
    return {};
}

// What a member is in JSON; false: an optional without a value, or a list to be left out.
bool member_json(const Field& field, const void* object, Json& out) {
    // The table's functions give the address only.
    const void* at = field.member(const_cast<void*>(object));
    if (field.shape == Shape::one) {
        out = value_json(field.value, at);
        return true;
    }
    const size_t count = field.container->count(at);
    if (field.shape == Shape::optional) {
        if (count != 0) out = value_json(field.value, field.container->at(at, 0));
        return count != 0;
    }
    if (count == 0 && field.if_any) return false;
    if (field.shape == Shape::map) {
        out = Json::object();
        for (size_t i = 0; i < count; ++i)
            out[field.container->name(at, i)] = value_json(field.value, field.container->at(at, i));
        return true;
    }
    out = Json::array();
    for (size_t i = 0; i < count; ++i)
        out.push_back(value_json(field.value, field.container->at(at, i)));
    return true;
}

// --- reading ---

// Where in a message something is wrong, and what; the first of it counts.
class Fault {
  public:
    explicit Fault(const char* record) : record_(record) {}
    bool none() const { return what_.empty(); }
    bool set(std::string what) {
        if (none()) what_ = std::move(what);
        return false;
    }
    // What was wrong is in this field of what is read now.
    bool inside(const std::string& field) {
        path_ = path_.empty() || path_[0] == '[' ? field + path_ : field + "." + path_;
        return false;
    }
    Error error() const {
        return make_error(Code::corrupt, "read message", record_,
                          fmt::format("{}{}{}", path_, path_.empty() ? "" : " ", what_));
    }

  private:
    const char* record_;
    std::string path_, what_;
};

bool read_record(const Record& record, const Json& json, void* object, Fault& fault);

bool read_integer(const Value& value, const Json& json, void* at, Fault& fault) {
    uint64_t bits = 0;
    if (!fits(value, json, bits))
        return fault.set(fmt::format("is no whole number from {} to {}", value.least, value.most));
    std::memcpy(at, &bits, value.size);
    return true;
}

bool read_text(const Value& value, const Json& json, std::string& out, Fault& fault) {
    if (!json.is_string()) return fault.set("is no text");
    const auto& text = json.get_ref<const std::string&>();
    if (value.most != 0 && text.size() > value.most)
        return fault.set(fmt::format("is longer than {} bytes", value.most));
    out = text;
    return true;
}

bool read_name(const Value& value, const Json& json, std::string& out, Fault& fault) {
    if (!json.is_object()) return read_text(value, json, out, fault);
    return bytes_from(json, out) || fault.set("is no text");
}

bool read_bytes(const Json& json, Bytes& out, Fault& fault) {
    if (!json.is_string()) return fault.set("is no base64");
    auto data = decode_base64(json.get_ref<const std::string&>());
    if (!data) return fault.set("is no base64");
    out.data = std::move(*data);
    return true;
}

bool read_choice(const Value& value, const Json& json, void* at, Fault& fault) {
    for (uint64_t i = 0; json.is_string() && i < value.names.size(); ++i) {
        if (json.get_ref<const std::string&>() != value.names[i]) continue;
        std::memcpy(at, &i, value.size);
        return true;
    }
    return fault.set("is none of its values");
}

bool read_value(const Value& value, const Json& json, void* at, Fault& fault) {
    switch (value.kind) {
        case Kind::boolean:
            if (!json.is_boolean()) return fault.set("is neither true nor false");
            *static_cast<bool*>(at) = json.get<bool>();
            return true;
        case Kind::integer:
            return read_integer(value, json, at, fault);
        case Kind::real:
            if (!json.is_number()) return fault.set("is no number");
            *static_cast<double*>(at) = json.get<double>();
            return true;
        case Kind::text:
            return read_text(value, json, *static_cast<std::string*>(at), fault);
        case Kind::name:
            return read_name(value, json, *static_cast<std::string*>(at), fault);
        case Kind::bytes:
            return read_bytes(json, *static_cast<Bytes*>(at), fault);
        case Kind::choice:
            return read_choice(value, json, at, fault);
        case Kind::record:
            return read_record(*value.record, json, at, fault);
        case Kind::raw:
            static_cast<Raw*>(at)->text = json.dump(-1, ' ', false, Json::error_handler_t::replace);
            return true;
    }
    return false;
}

bool read_list(const Field& field, const Json& json, void* at, Fault& fault) {
    if (!json.is_array()) return fault.set("is no list");
    if (field.most_items != 0 && json.size() > field.most_items)
        return fault.set(fmt::format("has more than {} entries", field.most_items));
    for (size_t i = 0; i < json.size(); ++i) {
        if (!read_value(field.value, json[i], field.container->add(at), fault))
            return fault.inside(fmt::format("[{}]", i));
    }
    return true;
}

bool read_map(const Field& field, const Json& json, void* at, Fault& fault) {
    if (!json.is_object()) return fault.set("is no object");
    for (const auto& [name, value] : json.items()) {
        if (!read_value(field.value, value, field.container->add_named(at, name), fault))
            return fault.inside(name);
    }
    return true;
}

bool read_many(const Field& field, const Json& json, void* at, Fault& fault) {
    field.container->clear(at);
    if (field.shape == Shape::list) return read_list(field, json, at, fault);
    if (field.shape == Shape::map) return read_map(field, json, at, fault);
    return read_value(field.value, json, field.container->add(at), fault);
}

bool read_member(const Field& field, const Json* json, void* object, Fault& fault) {
    if (json == nullptr) {
        if (!field.required) return true;
        fault.set("is missing");
        return fault.inside(field.name);
    }
    void* at = field.member(object);
    const bool read = field.shape == Shape::one ? read_value(field.value, *json, at, fault)
                                                : read_many(field, *json, at, fault);
    return read || fault.inside(field.name);
}

bool read_record(const Record& record, const Json& json, void* object, Fault& fault) {
    const bool array = record.form == Form::array;
    if (array ? !json.is_array() || json.size() != record.fields.size() : !json.is_object())
        return fault.set(array ? "is no list of its fields" : "is no object");
    for (size_t i = 0; i < record.fields.size(); ++i) {
        const Field& field = record.fields[i];
        const Json* value = nullptr;
        if (array) {
            value = &json[i];
        } else if (const auto found = json.find(field.name); found != json.end()) {
            value = &*found;
        }
        if (!read_member(field, value, object, fault)) return false;
    }
    if (record.check == nullptr) return true;
    const char* wrong = record.check(object);
    return wrong == nullptr || fault.set(wrong);
}

Json parsed(std::string_view text) {
    return parse_json(text);
}

}  // namespace

constinit const Record Complaint::table =
    record<Complaint>("error", "the last message was not understood", complaint_fields);

Json to_json(const Record& record, const void* object) {
    const bool array = record.form == Form::array;
    Json out = array ? Json::array() : Json::object();
    for (const Field& field : record.fields) {
        Json value;
        if (!member_json(field, object, value)) continue;
        if (array) {
            out.push_back(std::move(value));
        } else {
            out.emplace(field.name, std::move(value));
        }
    }
    return out;
}

Status from_json(const Record& record, const Json& json, void* object) {
    Fault fault(record.name);
    if (!read_record(record, json, object, fault)) return fault.error();
    return {};
}

namespace {

std::string text_of(const Record& record, const char* name, const void* object) {
    Json json = to_json(record, object);
    if (json.is_object()) json.emplace("t", name);
    return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

}  // namespace

std::string encode(const Record& record, const void* object) {
    return text_of(record, record.name, object);
}

std::string encode_as(const Message& message, const void* object) {
    return text_of(*message.record, message.name(), object);
}

Status decode(const Record& record, std::string_view text, void* object) {
    return from_json(record, parsed(text), object);
}

uint64_t Received::seq() const {
    for (const Field& field : message_->record->fields) {
        if (std::string_view(field.name) != "seq") continue;
        return bits_of(field.value, field.member(const_cast<void*>(body_.get())));
    }
    return 0;
}

std::optional<Received> Reader::refuse(std::string why, std::string& answer) {
    log::warning("{}: {}", peer_, why);
    answer = encode(Complaint{std::move(why)});
    return std::nullopt;
}

std::optional<Received> Reader::read(std::string_view text, std::string& answer) {
    answer.clear();
    const Json json = parsed(text);
    if (!json.is_object()) return refuse("the packet is no object", answer);
    const auto found = json.find("t");
    if (found == json.end() || !found->is_string()) return refuse("a message has no type", answer);
    const auto& type = found->get_ref<const std::string&>();
    for (const Message& message : family_->messages) {
        if (type != message.name()) continue;
        auto body = message.record->make();
        if (Status read = from_json(*message.record, json, body.get()); !read.ok())
            return refuse(read.error().message(), answer);
        return Received(message, std::move(body));
    }
    if (type == Complaint::table.name) {
        Complaint complaint;
        (void)from_json(Complaint::table, json, &complaint);
        log::warning("{} does not understand: {}", peer_, complaint.why);
        return std::nullopt;
    }
    answer = encode(Complaint{"unknown message " + type});
    if (unknown_.size() < most_unknown &&
        std::find(unknown_.begin(), unknown_.end(), type) == unknown_.end()) {
        log::warning("{} says {}, which is unknown to {}", peer_, type, family_->name);
        unknown_.push_back(type);
    }
    return std::nullopt;
}

}  // namespace ghost::schema
