// SPDX-License-Identifier: BSD-3-Clause
// A short run of a program's fuzz targets, with mutations of good inputs whose checksums are made
// right again half of the time. Under the sanitizers of ./check this is where it matters; `make
// fuzz` is the long run. GHOST_FUZZ_SECONDS (for each target) and GHOST_FUZZ_SEED change it.
#include <gtest/gtest.h>

#include <cstdio>
#include <cstring>
#include <memory>

#include "base/clock.hpp"
#include "tests/fuzz/mutator.hpp"

namespace ghost::fuzz {
namespace {

double seconds() {
    const char* text = std::getenv("GHOST_FUZZ_SECONDS");
    return text != nullptr ? std::strtod(text, nullptr) : 1.5;
}

class Fuzz : public ::testing::TestWithParam<Target> {};

TEST_P(Fuzz, HostileInputIsRefused) {
    const auto& target = GetParam();
    for (unsigned variant = 0; variant < 12; variant++) {
        const auto seed = target.seed(variant);
        if (target.notices_all) {
            EXPECT_TRUE(target.run(seed.data(), seed.size())) << variant;
        }
    }
    const int64_t limit = monotonic_us() + static_cast<int64_t>(seconds() * 1e6);
    unsigned runs = 0, taken = 0;
    for (unsigned number = first_seed(); monotonic_us() < limit; number++, runs++) {
        Mutator mutator(number);
        const auto good = target.seed(mutator.number(12));
        Bytes bytes = good;
        mutator.mutate(bytes);
        const bool repaired = target.repair != nullptr && mutator.number(2) == 1;
        if (repaired) target.repair(bytes);
        // a copy of its own size, so that a read beyond its end is noticed
        const auto exact = std::make_unique<uint8_t[]>(bytes.size());
        std::memcpy(exact.get(), bytes.data(), bytes.size());
        const bool whole = target.run(exact.get(), bytes.size());
        taken += whole;
        if (target.notices_all && !repaired) {
            ASSERT_FALSE(whole && bytes != good) << "GHOST_FUZZ_SEED=" << number;
        }
    }
    std::printf("%u inputs, %u taken\n", runs, taken);
    EXPECT_GT(runs, 0U);
}

INSTANTIATE_TEST_SUITE_P(All, Fuzz, ::testing::ValuesIn(targets()),
                         [](const auto& info) { return std::string(info.param.name); });

}  // namespace
}  // namespace ghost::fuzz
