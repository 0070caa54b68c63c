// SPDX-License-Identifier: BSD-3-Clause
// The little of protobuf's wire format that CRIU's requests and page maps need.
// https://protobuf.dev/programming-guides/encoding/
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace ghost::core {

struct ProtoField {
    uint32_t number = 0;
    uint64_t value = 0;     // of a number
    std::string_view text;  // of a string or bytes
    std::string_view raw;   // all of it, tag included
};

// Takes fields off the front of one message.
class ProtoReader {
  public:
    explicit ProtoReader(std::string_view message) : rest_(message) {}

    // Nothing at the end, or if the message is damaged (then good() is false).
    std::optional<ProtoField> next();
    bool good() const { return good_; }

  private:
    std::optional<uint64_t> varint();
    std::optional<ProtoField> fail();
    std::optional<ProtoField> take();
    bool skip(size_t count);

    std::string_view rest_;
    bool good_ = true;
};

// The other direction, for single fields.
std::string proto_number(uint32_t field, uint64_t value);
std::string proto_text(uint32_t field, std::string_view text);

}  // namespace ghost::core
