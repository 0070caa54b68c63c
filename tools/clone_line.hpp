// SPDX-License-Identifier: BSD-3-Clause
// The conversation of `ghost dup` with the `ghost receive` it starts on the other node, one JSON
// object a line, over ssh's (or a child's) standard input and output:
//   dup → receive  {secret, needs, facts, clone, live}
//   receive → dup  {t: lacks, lines} and the end; or {t: ready, address, port, token}
//   … the ghost, over the connection dup makes there (ghost-core/resource/network.hpp) …
//   receive → dup  {t: held, import: {…}}: the tree is there and is frozen; or {t: failed, why}
//   dup → receive  {t: go}: from here on the tree there is the one (or one of two) that lives
//   receive → dup  {t: running, pid}
// With `live` (a move, ghost-core/engine/live.hpp) the connection itself tells of all that; what
// follows here is {t: running, pid} once the tree has all its pages there, or {t: failed, why}.
// The end of input before `go` means that the tree is not wanted any more.
#pragma once

#include <string>
#include <sys/types.h>
#include <vector>

#include "base/control_socket.hpp"
#include "base/fd.hpp"
#include "base/result.hpp"

namespace ghost::tools {

// One end. One thread.
class CloneLine {
  public:
    CloneLine() = default;
    CloneLine(Fd in, Fd out) : in_(std::move(in)), out_(std::move(out)) {}

    // Starts `ghost receive` on the node, by the rsh agent mpirun would use (GHOST_RSH,
    // OMPI_MCA_plm_rsh_agent, else ssh); "localhost" and this node's own name: as a child. What it
    // says on standard error is passed through.
    static Result<CloneLine> start(const std::string& node);
    CloneLine(CloneLine&&) = default;
    CloneLine& operator=(CloneLine&&) = default;

    Status send(const Json& object) const;
    // peer_lost: the other end is gone; timeout.
    Result<Json> receive(int timeout_ms);
    // Closes the line and waits for the end of what start() has started.
    void close();

  private:
    Fd in_, out_;
    pid_t child_ = 0;
    std::string rest_;
};

}  // namespace ghost::tools
