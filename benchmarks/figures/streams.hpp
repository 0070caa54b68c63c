// SPDX-License-Identifier: BSD-3-Clause
// Streams between two programs on a virtual cluster, by benchmarks/kernet/kernet_speed.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "benchmarks/figures/wires.hpp"

namespace ghost::bench {

// A folder all nodes see, gone with the object.
class Folder {
  public:
    static Result<std::unique_ptr<Folder>> make();
    ~Folder();
    Folder(const Folder&) = delete;
    Folder& operator=(const Folder&) = delete;
    const std::string& path() const { return path_; }
    // A new folder in it.
    Result<std::string> sub();

  private:
    explicit Folder(std::string path) : path_(std::move(path)) {}
    std::string path_;
    int subs_ = 0;
};

// Messages of these sizes and the powers of two between them, bytes.
struct Sizes {
    int64_t lower = 1;
    int64_t upper = 0;
};

// Nodes gn1 and gn2 with a stream manager (kernetd) each, which end with the object. One thread.
class StreamNodes {
  public:
    static Result<StreamNodes> up(const Cluster& cluster, Folder& folder);

    // One ping-pong over all those sizes, from gn1 to gn1 or gn2; `turns` and `budget_ms` as
    // kernet_speed has them.
    Result<Curve> measure(Kind kind, const Wire& wire, Sizes sizes, int turns, int budget_ms);
    // Streams of these kinds from gn1 to gn2 at once, for so many seconds: Mbit/s of each.
    Result<std::vector<double>> together(const std::vector<Kind>& kinds, double seconds);

  private:
    StreamNodes(const Cluster& cluster, Folder& folder) : cluster_(cluster), folder_(folder) {}
    Result<Command> start(const char* role, Kind kind, const std::string& node,
                          const std::string& folder, const std::string& address,
                          const std::vector<std::string>& options = {}) const;

    const Cluster& cluster_;
    Folder& folder_;
    std::string address_;  // of gn2
    std::vector<Command> managers_;
};

}  // namespace ghost::bench
