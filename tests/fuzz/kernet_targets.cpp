// SPDX-License-Identifier: BSD-3-Clause
#include "tests/fuzz/kernet_targets.hpp"

#include "base/log.hpp"

namespace ghost::fuzz {

const std::vector<Target>& targets() {
    static const std::vector<Target> all = [] {
        // What is refused is logged, thousands of times a second.
        if (std::getenv("GHOST_LOG") == nullptr) setenv("GHOST_LOG", "/dev/null", 1);
        log::setup("fuzz", log::Level::error);
        std::vector<Target> list = kernet_link_targets();
        for (const Target& target : kernet_stream_targets()) list.push_back(target);
        return list;
    }();
    return all;
}

}  // namespace ghost::fuzz
