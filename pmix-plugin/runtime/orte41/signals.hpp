// SPDX-License-Identifier: BSD-3-Clause
// Signals of mpirun that mean something to Ghost, on ORTE's event base.
#pragma once

#include <functional>
#include <map>
#include <memory>

#include "base/result.hpp"

namespace ghost::plugin::orte41 {

// ORTE's main thread only; one in a process. ORTE forwards most signals mpirun gets to every rank
// (orte/mca/ess/base, 4.1.4); one that is taken is not forwarded any more, but for SIGCONT.
class Signals {
  public:
    Signals();
    ~Signals();
    Signals(const Signals&) = delete;
    Signals& operator=(const Signals&) = delete;

    // `handler` runs on the loop for each. refused: mpirun needs the signal itself, or nobody can
    // have it.
    Status take(int signum, std::function<void()> handler);

  private:
    struct Taken;
    std::map<int, std::unique_ptr<Taken>> taken_;
};

}  // namespace ghost::plugin::orte41
