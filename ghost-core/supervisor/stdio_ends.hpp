// SPDX-License-Identifier: BSD-3-Clause
// Standard input and output of an imported tree. A descriptor of the same kind is given to it as it
// is; between different kinds (a terminal was, a file is) a relay moves the bytes.
#pragma once

#include <memory>
#include <vector>

#include "base/fd.hpp"
#include "base/result.hpp"
#include "ghost-core/engine/plain.hpp"

namespace ghost::core {

// What a ghost's standard descriptors outside of its tree become here: ours, if they are of the
// same kind, else new ends that relays connect with ours. Must stay where it is from start() on.
class StdioEnds {
  public:
    enum class Relays { allowed, refused };
    // refused: a relay would be needed, but none may be.
    static Result<StdioEnds> make(const PlainProcess& process, Relays relays = Relays::allowed);
    const std::vector<InheritFd>& heirs() const { return heirs_; }
    // Gives the tree's ends up and moves bytes in threads of its own; call after the import.
    void start();
    // Output that is still in the relays has been written.
    void drain();

  private:
    struct Relay;
    Status add(const StdioEnd& end, const std::vector<int>& numbers, Relays relays);
    Status add_relay(const StdioEnd& end, const std::vector<int>& numbers);
    void relay(int from, int to);
    std::vector<Fd> given_;  // the tree's ends, until it has them
    std::vector<Fd> kept_;   // the relays' ends
    std::vector<InheritFd> heirs_;
    std::vector<std::shared_ptr<Relay>> relays_;
};

}  // namespace ghost::core
