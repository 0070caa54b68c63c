// SPDX-License-Identifier: BSD-3-Clause
// A target of targets.hpp under libFuzzer: make fuzz (clang). FUZZ_TARGET is its name.
#include <cstdlib>
#include <cstring>
#include <string>

#include "tests/fuzz/targets.hpp"

extern "C" size_t LLVMFuzzerMutate(uint8_t* data, size_t size, size_t max_size);

namespace {

const ghost::fuzz::Target& target() {
    for (const auto& one : ghost::fuzz::targets())
        if (std::strcmp(one.name, FUZZ_TARGET) == 0) return one;
    std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    target().run(data, size);
    return 0;
}

// Half of what it makes gets right checksums, else nothing behind them would ever be reached.
extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t max_size,
                                          unsigned int seed) {
    size = LLVMFuzzerMutate(data, size, max_size);
    if (seed % 16 == 0) {
        const auto fresh = target().seed(seed / 16);
        size = std::min(max_size, fresh.size());
        std::memcpy(data, fresh.data(), size);
    }
    if (target().repair == nullptr || seed % 2 == 0) return size;
    ghost::fuzz::Bytes bytes(data, data + size);
    target().repair(bytes);
    std::memcpy(data, bytes.data(), bytes.size());
    return bytes.size();
}
