// SPDX-License-Identifier: BSD-3-Clause
// How often a suite does something: by default what fits into a check of every change, with
// GHOST_TEST_LONG=1 (make check-long) what only long runs find.
#pragma once

#include <cstdlib>

namespace ghost::test {

inline bool at_length() {
    const char* asked = std::getenv("GHOST_TEST_LONG");
    return asked != nullptr && std::atoi(asked) != 0;
}

// The number that variable `name` has, if it is set.
inline long long rounds(const char* name, long long usual, long long many) {
    const char* asked = std::getenv(name);
    return asked != nullptr ? std::atoll(asked) : at_length() ? many : usual;
}

}  // namespace ghost::test
