// SPDX-License-Identifier: BSD-3-Clause
// The filters of a job as the user lists them: "crypto,compress=zstd,backup=/folder,so:/path.so".
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "kernet-btl/filter/chain.hpp"

namespace kernet::filter {

class List {
  public:
    // Understands a list; "", "none": no filters. Looks at nothing but the text. Code::invalid
    // names the filter that is wrong.
    static Result<List> parse(const std::string& text);

    bool empty() const { return recipes_.empty(); }
    // Everything this process needs for them. The error names the filter.
    Status prepare();
    // What both ends of a stream must have in common, in the order of sending; "none" without.
    std::string name() const;
    // The same as a number for the handshake; 0 without filters.
    uint64_t digest() const;
    // The filters of one socket. The list must outlive them.
    Chain chain(const SocketId& socket) const;

  private:
    std::vector<std::unique_ptr<Recipe>> recipes_;
};

}  // namespace kernet::filter
