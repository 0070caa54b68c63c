// SPDX-License-Identifier: BSD-3-Clause
// Ghosts kept in a node's memory, surviving the processes they were made of: a small resident
// process holds them, one memfd each, and lends them to who restarts them.
//
// It listens on a Unix socket of its user (base/control_socket.hpp: mode 0600, peers' user ids are
// checked) and answers each request by one message (holder_messages.hpp).
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/control_socket.hpp"
#include "base/fd.hpp"
#include "base/result.hpp"
#include "ghost-core/engine/holder_messages.hpp"
#include "ghost-core/resource/buffer.hpp"

namespace ghost::core {

// Where this user's holder listens on this node.
Result<std::string> holder_address();

// Serves until it is told to stop. busy: there is one already. One thread. (libholder)
Status serve_holder();

// A conversation with the holder; one thread.
class HolderClient {
  public:
    struct Kept {
        std::string name;
        uint64_t bytes = 0;
        Json about;
    };

    // `start`: argv of a program that calls serve_holder(), run in the background if there is no
    // holder yet; empty: not_found instead.
    static Result<HolderClient> connect(const std::vector<std::string>& start);

    // Memory for a ghost of about so many bytes, touched already: a spare of the holder's, or new.
    // The time for this is before a freeze.
    Result<std::shared_ptr<MemoryBuffer>> room(uint64_t bytes);
    // Hands the ghost in `buffer` (from room()) over. Only then it is kept.
    Status keep(const std::string& name, MemoryBuffer& buffer, const Json& about);
    // A ghost's memory, as long as the buffer lives even if it is dropped meanwhile. not_found.
    Result<std::shared_ptr<MemoryBuffer>> get(const std::string& name, Kept* what = nullptr);
    Result<std::vector<Kept>> list();
    Status drop(const std::string& name);
    Status stop();

  private:
    explicit HolderClient(ControlSocket socket) : socket_(std::move(socket)) {}
    struct Reply {
        schema::Received message;
        std::vector<Fd> fds;
    };
    // not_found: the holder says why; corrupt: it is none of the answers that are possible.
    Result<Reply> ask(const std::string& request, std::initializer_list<FromHolder> answers,
                      const std::vector<int>& fds = {});
    ControlSocket socket_;
};

}  // namespace ghost::core
