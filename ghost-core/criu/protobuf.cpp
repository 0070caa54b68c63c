// SPDX-License-Identifier: BSD-3-Clause
#include "ghost-core/criu/protobuf.hpp"

namespace ghost::core {

std::optional<uint64_t> ProtoReader::varint() {
    uint64_t value = 0;
    for (unsigned shift = 0; shift < 64 && !rest_.empty(); shift += 7) {
        const auto byte = static_cast<unsigned char>(rest_.front());
        rest_.remove_prefix(1);
        value |= uint64_t{byte & 127U} << shift;
        if ((byte & 128U) == 0) return value;
    }
    return std::nullopt;
}

std::optional<ProtoField> ProtoReader::fail() {
    good_ = false;
    return std::nullopt;
}

bool ProtoReader::skip(size_t count) {
    if (count > rest_.size()) return false;
    rest_.remove_prefix(count);
    return true;
}

std::optional<ProtoField> ProtoReader::next() {
    const std::string_view before = rest_;
    auto field = take();
    if (field) field->raw = before.substr(0, before.size() - rest_.size());
    return field;
}

std::optional<ProtoField> ProtoReader::take() {
    if (rest_.empty() || !good_) return std::nullopt;
    const auto tag = varint();
    if (!tag) return fail();
    ProtoField field;
    field.number = static_cast<uint32_t>(*tag >> 3);
    switch (*tag & 7) {
        case 0: {
            const auto value = varint();
            if (!value) return fail();
            field.value = *value;
            return field;
        }
        case 1:
            return skip(8) ? std::optional(field) : fail();
        case 2: {
            const auto size = varint();
            if (!size || *size > rest_.size()) return fail();
            field.text = rest_.substr(0, *size);
            rest_.remove_prefix(*size);
            return field;
        }
        case 5:
            return skip(4) ? std::optional(field) : fail();
        default:
            return fail();
    }
}

namespace {

void put_varint(std::string& out, uint64_t value) {
    for (; value >= 128; value >>= 7) out += static_cast<char>(value | 128U);
    out += static_cast<char>(value);
}

}  // namespace

std::string proto_number(uint32_t field, uint64_t value) {
    std::string out;
    put_varint(out, uint64_t{field} << 3);
    put_varint(out, value);
    return out;
}

std::string proto_text(uint32_t field, std::string_view text) {
    std::string out;
    put_varint(out, uint64_t{field} << 3 | 2U);
    put_varint(out, text.size());
    return out += text;
}

}  // namespace ghost::core
