// SPDX-License-Identifier: BSD-3-Clause
// mpirun: its standard input since the oldest snapshot that the job may go back to, so that a rank
// that goes back is given again what it was given since.
//
// A regular file is read again. What comes from elsewhere is written to a file without a name in
// the session's folder, from which what no snapshot needs is cut off. Input for all ranks is not
// kept.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "base/fd.hpp"
#include "pmix-plugin/runtime/orte41/facts.hpp"

namespace ghost::plugin::orte41 {

// Places are bytes since mpirun began. ORTE's main thread only; may not be moved once it keeps.
class KeptInput {
  public:
    explicit KeptInput(const StartOfInput& start) : start_(start) {}

    // Before ORTE reads any of it. `folder` is asked for when the first of it has come.
    void begin(std::function<std::string()> folder);
    // All from there on can be given again.
    bool has_since(uint64_t place) const;
    // How far it has been read.
    uint64_t place() const { return heard_; }
    // At most so many bytes from there on; fewer: there are no more, or they cannot be read.
    std::string read(uint64_t place, size_t most) const;
    // Nobody will ask for what is before.
    void forget_before(uint64_t place);

  private:
    bool is_file() const { return !start_.path.empty(); }
    void heard(std::string_view data);
    Status keep(std::string_view data);
    void cut(uint64_t place);

    StartOfInput start_;
    std::function<std::string()> folder_;
    Fd file_;
    uint64_t heard_ = 0;   // bytes
    uint64_t gone_ = 0;    // bytes at its beginning that are not kept
    bool failed_ = false;  // said
};

}  // namespace ghost::plugin::orte41
