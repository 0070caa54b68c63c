// SPDX-License-Identifier: BSD-3-Clause
// Control sockets: Unix SOCK_SEQPACKET, one message (base/schema.hpp) a packet, descriptors beside
// it. Used between node agent, wrapper, rank agent and the `ghost` command (docs/PROTOCOL.md). Both
// ends check the other's user id by SO_PEERCRED (unix(7)); only the same user or root passes.
#pragma once

#include <optional>
#include <string>
#include <sys/types.h>
#include <vector>

#include "base/clock.hpp"
#include "base/doorway.hpp"
#include "base/fd.hpp"
#include "base/json.hpp"
#include "base/log.hpp"
#include "base/result.hpp"

namespace ghost {

using Json = nlohmann::json;

// The largest packet that is sent or accepted, bytes.
inline constexpr size_t control_packet_limit = 128 * 1024;
// The most descriptors beside one.
inline constexpr size_t most_control_descriptors = 16;

// One received packet: its text and the descriptors that came with it (owned).
struct ControlMessage {
    std::string text;
    std::vector<Fd> fds;
};

// One end of a connection. Owned and used by one thread.
class ControlSocket {
  public:
    ControlSocket() = default;
    explicit ControlSocket(Fd fd) : fd_(std::move(fd)) {}

    // Address is a path, or "@name" for the abstract name space (which is per network namespace,
    // that is per node). "@folder/a:b:c" are alternatives, the first of which that is this user's
    // is meant: who has seen the first of a job before cannot keep its next life from listening.
    // Fails with refused if the other end belongs to another user, with busy after two seconds in
    // which it takes no connection.
    static Result<ControlSocket> connect(const std::string& address);

    // Sends one packet; blocks while the socket's buffer is full. `fds` stay the caller's.
    Status send_text(const std::string& text, const std::vector<int>& fds = {}) const;
    // Waits for one packet, at most timeout_ms (-1: for ever, 0: not at all). No packet in time is
    // Code::timeout, the other end's close is Code::peer_lost, malformed JSON is Code::corrupt.
    Result<ControlMessage> receive(int timeout_ms) const;

    int fd() const { return fd_.get(); }
    bool valid() const { return fd_.valid(); }
    void close() { fd_.reset(); }
    // The other end hears of it whoever else has a copy of this one.
    void hang_up();
    // Process id of the other end when it connected, as seen here; 0 if unknown.
    pid_t peer_pid() const;

  private:
    Fd fd_;
};

// A listening control socket.
class ControlListener {
  public:
    ControlListener() = default;
    // A path is created with mode 0600 and must not exist; it is unlinked by close()/destructor.
    // Of alternatives the first is taken that no stranger has. busy: another process of this user
    // listens there.
    static Result<ControlListener> listen(const std::string& address);
    ControlListener(ControlListener&&) noexcept = default;
    ControlListener& operator=(ControlListener&&) noexcept;
    ~ControlListener() { close(); }

    // Takes the next connection of a process of this user or root; others are closed, which is
    // told seldom. Code::busy: none waits, or nobody is let in now.
    Result<ControlSocket> accept(int64_t now = monotonic_us());
    // Who has come is a stranger until he has sent what is understood. He is of this user, and may
    // have to wait for a processor: his place is kept for a second.
    Doorway& door() { return door_; }
    int fd() const { return fd_.get(); }
    bool valid() const { return fd_.valid(); }
    void close();

  private:
    Fd fd_;
    std::string path_;
    Doorway door_{{.most = 256, .greeting_us = 15'000'000, .mute_us = 1'000'000}};
    log::Seldom refusals_;
};

// A connected pair, for a child that inherits one end.
Result<std::pair<ControlSocket, ControlSocket>> control_pair();

}  // namespace ghost
