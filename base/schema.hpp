// SPDX-License-Identifier: BSD-3-Clause
// Messages and documents in JSON, described once: a plain struct, and a table that says for each
// member its name, kind, limits and meaning. One codec (schema.cpp) reads and writes all of them by
// their tables, and the tables of docs/PROTOCOL.md are printed from them.
//
//     struct Connect {
//         uint64_t seq = 0;
//         std::string host;
//         std::optional<uint16_t> port;
//         static const schema::Record table;
//     };
//     constexpr schema::Field connect_fields[] = {
//         schema::field<&Connect::seq>("seq", "the operation"),
//         schema::field<&Connect::host>("host", "where the target listens").at_most(255),
//         schema::field<&Connect::port>("port", "its TCP port")};
//     constinit const schema::Record Connect::table =
//         schema::record<Connect>("connect", "the source's wrapper connects", connect_fields);
//
//     std::string text = schema::encode(connect);            // {"t":"connect","seq":1,...}
//     Result<Connect> read = schema::decode<Connect>(text);  // or which field is wrong, and how
//
// Reading is strict in what a message must have: a field that is missing, of another kind or out of
// its limits is an Error that names message, field and reason. Fields that are not described are
// ignored. Nothing throws. This header does not include the JSON library, so that those who have
// messages do not compile it (schema_json.hpp does).
//
// Tables are constants and the functions keep nothing: any thread.
#pragma once

#include <cstdint>
#include <limits>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "base/result.hpp"

namespace ghost::schema {

// Any JSON value, as its text; for what is really free in its form. Empty: null.
struct Raw {
    std::string text;
    bool operator==(const Raw&) const = default;
};

// Bytes, in JSON as base64.
struct Bytes {
    std::string data;
    bool operator==(const Bytes&) const = default;
};

// Text that may be any bytes, such as a path: {"hex": "…"} in JSON if it is no UTF-8.
struct Name {
    std::string text;
    bool operator==(const Name&) const = default;
};

enum class Kind : uint8_t { boolean, integer, real, text, name, bytes, choice, record, raw };
enum class Shape : uint8_t {
    one,
    optional,
    list,
    map,  // an object whose members' names are free
};

struct Record;

// How an optional, a list or a map is walked without knowing its type.
struct Container {
    size_t (*count)(const void* container);
    const void* (*at)(const void* container, size_t index);
    void (*clear)(void* container);
    void* (*add)(void* container);  // one more, default constructed; null for a map
    // of a map
    const std::string& (*name)(const void* container, size_t index) = nullptr;
    void* (*add_named)(void* container, const std::string& name) = nullptr;
};

// What one value is.
struct Value {
    Kind kind = Kind::boolean;
    uint8_t size = 0;                         // integer, choice: bytes
    bool is_signed = false;                   // integer
    int64_t least = 0;                        // integer
    uint64_t most = 0;                        // integer; length of a text; 0 for those: any
    std::span<const char* const> names = {};  // choice: of the values from 0
    const Record* record = nullptr;           // record
};

// A copy that has been changed. Not a member: clang 14 makes templates of a class too late for the
// constants of its constexpr functions.
template <typename T, typename Change>
constexpr T with(T out, Change change) {
    change(out);
    return out;
}

// One member of a struct.
struct Field {
    const char* name = "";
    const char* meaning = "";
    const char* unit = "";
    Value value;
    Shape shape = Shape::one;
    bool required = true;   // false: absent, it stays as the struct has it
    bool if_any = false;    // an empty list is not written
    size_t most_items = 0;  // of a list; 0: any
    void* (*member)(void* object) = nullptr;
    const Container* container = nullptr;  // optional, list, map

    constexpr Field at_most(uint64_t most) const {
        return with(*this, [&](Field& f) { f.value.most = most; });
    }
    constexpr Field at_least(int64_t least) const {
        return with(*this, [&](Field& f) { f.value.least = least; });
    }
    constexpr Field items_at_most(size_t most) const {
        return with(*this, [&](Field& f) { f.most_items = most; });
    }
    constexpr Field in(const char* unit_of) const {
        return with(*this, [&](Field& f) { f.unit = unit_of; });
    }
    // It may be left out.
    constexpr Field or_default() const {
        return with(*this, [](Field& f) { f.required = false; });
    }
    // The same, of a list: it is left out if it is empty, as by whoever did not know it yet.
    constexpr Field only_if_any() const {
        return with(*this, [](Field& f) {
            f.required = false;
            f.if_any = true;
        });
    }
    // A text that may be any bytes, as a Name.
    constexpr Field as_name() const {
        return with(*this, [](Field& f) { f.value.kind = Kind::name; });
    }
    // A choice that is its number in JSON.
    constexpr Field as_number() const {
        return with(*this, [](Field& f) {
            f.value.most = f.value.names.empty() ? f.value.most : f.value.names.size() - 1;
            f.value.kind = Kind::integer;
        });
    }
};

enum class Form : uint8_t {
    object,
    array,  // its fields in their order, for what is there in large numbers
};

// A struct: a message, or a part of one.
struct Record {
    const char* name;     // a message's type, "t" in JSON; of a part: what errors call it
    const char* meaning;  // one line
    std::span<const Field> fields;
    Form form = Form::object;
    // What contradicts what, after every field was read; nullptr: nothing.
    const char* (*check)(const void* object) = nullptr;
    std::shared_ptr<void> (*make)() = nullptr;
};

// --- describing ---
//
// An enum that is a choice says the names of its values from 0 beside it:
//     inline constexpr const char* mode_names[] = {"stop", "live"};
//     constexpr std::span<const char* const> names_of(Mode) { return mode_names; }

template <typename T>
struct Unwrap {
    using type = T;
    static constexpr Shape shape = Shape::one;
    static constexpr const Container* container = nullptr;
};

template <typename T>
struct Unwrap<std::optional<T>> {
    using type = T;
    static constexpr Shape shape = Shape::optional;
    static constexpr Container functions{
        [](const void* c) -> size_t {
            return static_cast<const std::optional<T>*>(c)->has_value();
        },
        [](const void* c, size_t) -> const void* {
            return &**static_cast<const std::optional<T>*>(c);
        },
        [](void* c) { static_cast<std::optional<T>*>(c)->reset(); },
        [](void* c) -> void* { return &static_cast<std::optional<T>*>(c)->emplace(); }};
    static constexpr const Container* container = &functions;
};

template <typename T>
struct Unwrap<std::vector<T>> {
    using type = T;
    static constexpr Shape shape = Shape::list;
    static constexpr Container functions{
        [](const void* c) { return static_cast<const std::vector<T>*>(c)->size(); },
        [](const void* c, size_t i) -> const void* {
            return &(*static_cast<const std::vector<T>*>(c))[i];
        },
        [](void* c) { static_cast<std::vector<T>*>(c)->clear(); },
        [](void* c) -> void* { return &static_cast<std::vector<T>*>(c)->emplace_back(); }};
    static constexpr const Container* container = &functions;
};

template <typename T>
struct Unwrap<std::map<std::string, T>> {
    using type = T;
    using Map = std::map<std::string, T>;
    static constexpr Shape shape = Shape::map;
    static const auto& entry(const void* c, size_t i) {
        return *std::next(static_cast<const Map*>(c)->begin(), static_cast<std::ptrdiff_t>(i));
    }
    static constexpr Container functions{
        [](const void* c) { return static_cast<const Map*>(c)->size(); },
        [](const void* c, size_t i) -> const void* { return &entry(c, i).second; },
        [](void* c) { static_cast<Map*>(c)->clear(); },
        nullptr,
        [](const void* c, size_t i) -> const std::string& { return entry(c, i).first; },
        [](void* c, const std::string& name) -> void* { return &(*static_cast<Map*>(c))[name]; }};
    static constexpr const Container* container = &functions;
};

template <typename T>
constexpr Value value_of() {
    if constexpr (std::is_same_v<T, bool>) {
        return {.kind = Kind::boolean};
    } else if constexpr (std::is_integral_v<T>) {
        return {
            .kind = Kind::integer,
            .size = sizeof(T),
            .is_signed = std::is_signed_v<T>,
            .least = std::is_signed_v<T> ? static_cast<int64_t>(std::numeric_limits<T>::min()) : 0,
            .most = static_cast<uint64_t>(std::numeric_limits<T>::max())};
    } else if constexpr (std::is_same_v<T, double>) {
        return {.kind = Kind::real};
    } else if constexpr (std::is_same_v<T, std::string>) {
        return {.kind = Kind::text};
    } else if constexpr (std::is_same_v<T, Name>) {
        return {.kind = Kind::name};
    } else if constexpr (std::is_same_v<T, Bytes>) {
        return {.kind = Kind::bytes};
    } else if constexpr (std::is_same_v<T, Raw>) {
        return {.kind = Kind::raw};
    } else if constexpr (std::is_enum_v<T>) {
        return {.kind = Kind::choice, .size = sizeof(T), .names = names_of(T{})};
    } else {
        return {.kind = Kind::record, .record = &T::table};
    }
}

template <typename M>
struct MemberOf;
template <typename T, typename Object>
struct MemberOf<T Object::*> {
    using type = T;
    using object = Object;
};

// A row of a struct's table, with the kind that the member's type asks for.
template <auto Member>
constexpr Field field(const char* name, const char* meaning) {
    using M = MemberOf<decltype(Member)>;
    using T = Unwrap<typename M::type>;
    Field out;
    out.name = name;
    out.meaning = meaning;
    out.value = value_of<typename T::type>();
    out.shape = T::shape;
    out.required = T::shape != Shape::optional;
    out.member = [](void* object) -> void* {
        return &(static_cast<typename M::object*>(object)->*Member);
    };
    out.container = T::container;
    return out;
}

// --- how many members a struct has, so that none is forgotten in its table ---

template <typename T>
inline constexpr bool is_optional = false;
template <typename T>
inline constexpr bool is_optional<std::optional<T>> = true;

struct Anything {
    template <typename T>
    requires(!is_optional<T>) operator T() const;  // NOLINT: implicit, never defined
};
template <typename T, typename... Args>
constexpr size_t members_of() {
    if constexpr (requires { T{Args()..., Anything()}; }) {
        return members_of<T, Args..., Anything>();
    } else {
        return sizeof...(Args);
    }
}

// The table of T. Every member must be in it.
template <typename T, size_t count>
constexpr Record record(const char* name, const char* meaning, const Field (&fields)[count],
                        Form form = Form::object, const char* (*check)(const void*) = nullptr) {
    static_assert(members_of<T>() == count, "a member is not in the table, or one is there twice");
    return {name, meaning, fields,
            form, check,   []() -> std::shared_ptr<void> { return std::make_shared<T>(); }};
}
template <typename T>
constexpr Record record(const char* name, const char* meaning) {
    static_assert(members_of<T>() == 0, "a member is not in the table");
    return {name,         meaning, {},
            Form::object, nullptr, []() -> std::shared_ptr<void> { return std::make_shared<T>(); }};
}

// --- the codec ---

// {"t": NAME, …}; bytes of a text that are no UTF-8 are replaced.
std::string encode(const Record& record, const void* object);
// corrupt: it is no JSON object, a field is missing, or one is wrong (`object` says which and how).
// The type is not looked at.
Status decode(const Record& record, std::string_view text, void* object);

template <typename T>
std::string encode(const T& message) {
    return encode(T::table, &message);
}
template <typename T>
Result<T> decode(std::string_view text) {
    T out;
    if (Status read = decode(T::table, text, &out); !read.ok()) return read.error();
    return out;
}

// --- what one side says to another ---

// What a message's "seq", the operation it belongs to, is compared with by who receives it.
enum class Sequence : uint8_t {
    none,    // it belongs to no operation
    order,   // late if the receiver knows of a newer operation, or of the end of this one
    answer,  // late if it is not of the operation that the receiver is at
};

// One type of message in a family.
struct Message {
    size_t index;  // the value of the family's enum
    const Record* record;
    Sequence sequence = Sequence::none;
    // Of a struct that is more than one type; else the struct's.
    const char* own_name = nullptr;
    const char* own_meaning = nullptr;

    const char* name() const { return own_name != nullptr ? own_name : record->name; }
    const char* meaning() const { return own_meaning != nullptr ? own_meaning : record->meaning; }
};

// All messages that one side says to another, in the order of the enum of their types.
struct Family {
    const char* name;  // "C to N"
    std::span<const Message> messages;
};

template <typename T, typename Type>
constexpr Message message(Type type, Sequence sequence = Sequence::none) {
    return {static_cast<size_t>(type), &T::table, sequence};
}
// For one struct that is more than one type of message.
template <typename T, typename Type>
constexpr Message message(Type type, const char* name, const char* meaning,
                          Sequence sequence = Sequence::none) {
    return {static_cast<size_t>(type), &T::table, sequence, name, meaning};
}
template <size_t count>
consteval Family family(const char* name, const Message (&messages)[count]) {
    for (size_t i = 0; i < count; ++i)
        if (messages[i].index != i) throw "a family's messages stand in the order of their enum";
    return {name, messages};
}

// The same as encode(), for a struct that is more than one type.
std::string encode_as(const Message& message, const void* object);
template <typename Type, typename T>
std::string encode_as(const Family& family, Type type, const T& object) {
    return encode_as(family.messages[static_cast<size_t>(type)], &object);
}

// A message that came, as its struct.
class Received {
  public:
    Received(const Message& message, std::shared_ptr<const void> body)
        : message_(&message), body_(std::move(body)) {}

    template <typename Type>
    Type type() const {
        return static_cast<Type>(message_->index);
    }
    const char* name() const { return message_->name(); }
    Sequence sequence() const { return message_->sequence; }
    // Its "seq"; 0 if it has none.
    uint64_t seq() const;
    template <typename T>
    bool is() const {
        return message_->record == &T::table;
    }
    // Only of a message that is one.
    template <typename T>
    const T& as() const {
        return *static_cast<const T*>(body_.get());
    }

  private:
    const Message* message_;
    std::shared_ptr<const void> body_;
};

// Both sides say this of a message they do not know or cannot read; it is never answered.
struct Complaint {
    std::string why;
    static const Record table;
};

// Reads what one peer says, and holds the rules for what is not as it should be: a type that is not
// known is answered by an `error` and logged once; a message of a known type that cannot be read is
// answered and logged; an `error` is logged. Those three come to nothing here.
class Reader {
  public:
    // `peer` names the other side in the log.
    Reader(const Family& family, std::string peer) : family_(&family), peer_(std::move(peer)) {}

    // The message, if it is one to act upon; `answer`, if it is not empty, is to be sent back.
    std::optional<Received> read(std::string_view text, std::string& answer);

  private:
    std::optional<Received> refuse(std::string why, std::string& answer);
    const Family* family_;
    std::string peer_;
    std::vector<std::string> unknown_;  // types that are in the log already
};

}  // namespace ghost::schema
