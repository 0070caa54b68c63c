// SPDX-License-Identifier: BSD-3-Clause
// The conversation of `ghost dup` with the `ghost receive` it starts on the other node, one
// message (clone_messages.hpp) a line, over ssh's (or a child's) standard input and output:
//   dup → receive  order
//   receive → dup  lacks, after which dup may say what is needed by now, or ready
//   … the ghost, over the connection dup makes there (ghost-core/resource/network.hpp) …
//   receive → dup  held, or failed
//   dup → receive  go
//   receive → dup  running
// With `live` (a move, ghost-core/engine/live.hpp) the connection itself tells of all that; what
// follows here is `running` or `failed`.
// The end of input before `go` means that the tree is not wanted any more.
#pragma once

#include <string>
#include <sys/types.h>
#include <vector>

#include "base/fd.hpp"
#include "base/result.hpp"
#include "tools/clone_messages.hpp"

namespace ghost::tools {

// One end. One thread.
class CloneLine {
  public:
    // `heard`: what the other end says.
    CloneLine(Fd in, Fd out, const schema::Family& heard)
        : in_(std::move(in)), out_(std::move(out)), reader_(heard, "the other node") {}

    // Starts `ghost receive` on the node, by the rsh agent mpirun would use (GHOST_RSH,
    // OMPI_MCA_plm_rsh_agent, else ssh); "localhost" and this node's own name: as a child. What it
    // says on standard error is passed through.
    static Result<CloneLine> start(const std::string& node);
    CloneLine(CloneLine&&) = default;
    CloneLine& operator=(CloneLine&&) = default;

    template <typename T>
    Status send(const T& message) const {
        return send_text(schema::encode(message) + "\n");
    }
    // peer_lost: the other end is gone; corrupt: it says what is not known here; timeout.
    Result<schema::Received> receive(int timeout_ms);
    // Closes the line and waits for the end of what start() has started.
    void close();

  private:
    Status send_text(const std::string& text) const;

    Fd in_, out_;
    pid_t child_ = 0;
    std::string rest_;
    schema::Reader reader_;
};

}  // namespace ghost::tools
