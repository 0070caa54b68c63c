// SPDX-License-Identifier: BSD-3-Clause
// The targets of KerNet, in two files by what reads: links between processes, streams on them.
#pragma once

#include "tests/fuzz/targets.hpp"

namespace ghost::fuzz {

// Frames, packets, rings and the handshakes of links.
std::vector<Target> kernet_link_targets();
// Channels, the directory, locations, messages and handles of sockets.
std::vector<Target> kernet_stream_targets();

// Reads values out of fuzzed bytes, zeros behind their end.
class Input {
  public:
    Input(const uint8_t* data, size_t size) : data_(data), left_(size) {}
    size_t left() const { return left_; }
    const uint8_t* data() const { return data_; }
    // At most so many bytes; `data()` before the call is where they are.
    size_t skip(size_t size) {
        const size_t part = size < left_ ? size : left_;
        data_ += part;
        left_ -= part;
        return part;
    }
    template <typename T>
    T take() {
        T out{};
        const uint8_t* from = data_;
        const size_t part = skip(sizeof out);
        if (part > 0) __builtin_memcpy(static_cast<void*>(&out), from, part);
        return out;
    }

  private:
    const uint8_t* data_;
    size_t left_;
};

template <typename T>
void append(Bytes& bytes, const T& value) {
    const auto* raw = reinterpret_cast<const uint8_t*>(&value);
    bytes.insert(bytes.end(), raw, raw + sizeof value);
}

}  // namespace ghost::fuzz
