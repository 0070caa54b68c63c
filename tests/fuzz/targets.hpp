// SPDX-License-Identifier: BSD-3-Clause
// What reads bytes of strangers, as functions of bytes: for libFuzzer (make fuzz) and for the short
// run of the unit suites.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace ghost::fuzz {

using Bytes = std::vector<uint8_t>;

struct Target {
    const char* name;
    // Runs it over the bytes. True: they were taken for whole and right.
    bool (*run)(const uint8_t* data, size_t size);
    // Something it takes, of the kind `variant` (any number).
    Bytes (*seed)(unsigned variant);
    // Makes checksums right again after a mutation, so that what lies behind them is reached; null
    // if there are none to make right.
    void (*repair)(Bytes& bytes);
    // Whether it notices every change that is not repaired.
    bool notices_all;
};

const std::vector<Target>& targets();

}  // namespace ghost::fuzz
