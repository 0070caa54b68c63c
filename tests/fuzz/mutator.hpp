// SPDX-License-Identifier: BSD-3-Clause
// Mutations of good inputs, the same for a seed on every machine.
#pragma once

#include <cstdlib>
#include <iterator>
#include <random>

#include "tests/fuzz/targets.hpp"

namespace ghost::fuzz {

// GHOST_FUZZ_SEED, or 1.
inline unsigned first_seed() {
    const char* text = std::getenv("GHOST_FUZZ_SEED");
    return text != nullptr ? static_cast<unsigned>(std::strtoul(text, nullptr, 10)) : 1;
}

class Mutator {
  public:
    explicit Mutator(unsigned seed) : random_(seed) {}
    unsigned number(size_t below) { return static_cast<unsigned>(random_() % below); }

    void mutate(Bytes& bytes) {
        for (unsigned i = 0, count = 1 + number(4); i < count && !bytes.empty(); i++) once(bytes);
    }

  private:
    void once(Bytes& bytes) {
        const size_t at = number(bytes.size()), length = 1 + number(64);
        const size_t end = std::min(bytes.size(), at + length);
        const auto place = [&](size_t i) { return bytes.begin() + static_cast<ptrdiff_t>(i); };
        switch (number(7)) {
            case 0:
                bytes[at] ^= static_cast<uint8_t>(1U << number(8));
                break;
            case 1:
                bytes[at] = static_cast<uint8_t>(number(256));
                break;
            case 2:  // a number at its edges
                interesting(bytes, at & ~size_t{3});
                break;
            case 3:
                bytes.erase(place(at), place(end));
                break;
            case 4: {
                const Bytes part(place(at), place(end));
                bytes.insert(place(number(bytes.size())), part.begin(), part.end());
                break;
            }
            case 5:
                bytes.resize(at);
                break;
            default:  // some other place's bytes
                for (size_t i = at; i < end; i++) bytes[i] = bytes[number(bytes.size())];
        }
    }

    void interesting(Bytes& bytes, size_t at) {
        static constexpr uint64_t values[] = {
            0,        1,          2,        7,          8,          11,      12,
            255,      4095,       4096,     4097,       65536,      0xfffff, 0x100000,
            0x100001, 0x7fffffff, 1U << 31, 0xffffffff, 1ULL << 56, ~0ULL};
        const uint64_t value = values[number(std::size(values))];
        const size_t width = number(2) ? 4 : 8;
        for (size_t i = 0; i < width && at + i < bytes.size(); i++)
            bytes[at + i] = static_cast<uint8_t>(value >> (8 * i));
    }

    std::mt19937 random_;
};

}  // namespace ghost::fuzz
