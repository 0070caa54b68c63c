// SPDX-License-Identifier: BSD-3-Clause
// Where a rank's output stands, and what of it is not to be shown twice.
//
// A rank that goes back to a snapshot writes again what it wrote since. mpirun knows how far each
// stream was shown (docs/PROTOCOL.md, "A recovery"); up to there the new wrapper throws it away.
// Places are lines and a rest, not bytes: a line with a time in it is another one the second time.
#pragma once

#include <cstddef>
#include <optional>
#include <string_view>

#include "pmix-plugin/protocol/parts.hpp"

namespace ghost::plugin {

// One stream. One thread.
class OutputMeter {
  public:
    // `place`: all that the rank has written so far; nothing: not known, and never will be.
    explicit OutputMeter(std::optional<OutputPlace> place = OutputPlace()) : place_(place) {}

    // What lies before this is not to be shown; nothing changes where the place is not known.
    void skip_to(const std::optional<OutputPlace>& shown);
    // Counts what the rank has written; says how many of the first bytes are not to be shown.
    size_t pass(std::string_view data);

    const std::optional<OutputPlace>& place() const { return place_; }
    const std::optional<OutputPlace>& skips_to() const { return skips_to_; }
    // What was to be shown, since this meter was made.
    const OutputPlace& given() const { return given_; }

  private:
    size_t to_skip(std::string_view data);

    std::optional<OutputPlace> place_;
    std::optional<OutputPlace> skips_to_;
    OutputPlace given_;
};

}  // namespace ghost::plugin
