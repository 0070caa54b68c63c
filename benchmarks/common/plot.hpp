// SPDX-License-Identifier: BSD-3-Clause
// Where results go: pictures, by gnuplot, and JSON files.
#pragma once

#include <string>
#include <vector>

#include "base/json.hpp"
#include "benchmarks/netpipe/netpipe.hpp"

namespace ghost::bench {

struct Drawn {
    std::string name;
    Curve curve;
    bool points;  // marks each size measured
};

struct Picture {
    std::string title;
    bool times;  // a second panel: the time for one way
    std::vector<Drawn> drawn;
};

// Throughput over message size, into a folder that is made; Code::io with gnuplot's output if it
// fails.
Status draw(const Picture& picture, const std::string& svg);

// Into a folder that is made.
Status write_json(const nlohmann::json& value, const std::string& path);

// A file of the build folder this program was built in.
std::string built(const std::string& path);

}  // namespace ghost::bench
