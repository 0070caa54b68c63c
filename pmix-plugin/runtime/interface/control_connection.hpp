// SPDX-License-Identifier: BSD-3-Clause
// A control connection on the runtime's loop: packets arrive as callbacks, sending never blocks.
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "base/control_socket.hpp"
#include "base/schema.hpp"
#include "pmix-plugin/runtime/interface/event_loop.hpp"

namespace ghost::plugin {

// Always held by shared_ptr (a callback may drop the owner's pointer). Loop thread only.
class ControlConnection : public std::enable_shared_from_this<ControlConnection> {
  public:
    using OnMessage = std::function<void(ControlMessage& message)>;
    using OnClosed = std::function<void()>;

    // Takes the connection over. on_closed is called once when the other end closes, breaks or
    // sends something that is no object; not after close().
    static std::shared_ptr<ControlConnection> open(EventLoop& loop, ControlSocket socket,
                                                   OnMessage on_message, OnClosed on_closed);
    ~ControlConnection() { close(); }

    // Replaces both callbacks (the connection now has another owner).
    void handle(OnMessage on_message, OnClosed on_closed);

    // Takes what has arrived, without waiting for the loop to say so; on_closed may come of it.
    void read_now() { readable(); }

    // Sends now, or as soon as the other end reads; order is kept. `fds` stay the caller's. An end
    // that does not read for thousands of packets is treated as lost.
    void send_text(std::string text, const std::vector<int>& fds = {});
    template <typename T>
    void tell(const T& message, const std::vector<int>& fds = {}) {
        send_text(schema::encode(message), fds);
    }
    void send(const Json& body, const std::vector<int>& fds = {}) {
        send_text(body.dump(-1, ' ', false, Json::error_handler_t::replace), fds);
    }
    // Both ends find that it has ended, this one not before it is back in its loop.
    void hang_up();
    // Tries to send what waits, then closes; no callback comes any more.
    void close();
    bool is_open() const { return socket_.valid(); }
    pid_t peer_pid() const { return socket_.peer_pid(); }

  private:
    struct Waiting {
        std::string text;
        std::vector<Fd> fds;
    };

    ControlConnection(EventLoop& loop, ControlSocket socket)
        : loop_(loop), socket_(std::move(socket)) {}
    void readable();
    void lost();
    bool writable() const;
    void flush();

    EventLoop& loop_;
    ControlSocket socket_;
    OnMessage on_message_;
    OnClosed on_closed_;
    WatchId watch_ = 0;
    std::deque<Waiting> waiting_;
    bool retrying_ = false;
    TimerId retry_ = 0;
};

// A listening control socket on the runtime's loop. Who comes is a stranger (base/doorway.hpp)
// until leave(). Loop thread only.
class ControlEntrance {
  public:
    using OnCame = std::function<void(uint64_t id, ControlSocket socket)>;
    using OnOut = std::function<void(uint64_t id)>;  // a stranger's time is over: to be closed

    explicit ControlEntrance(EventLoop& loop) : loop_(loop) {}
    ~ControlEntrance() { close(); }
    ControlEntrance(const ControlEntrance&) = delete;
    ControlEntrance& operator=(const ControlEntrance&) = delete;

    void open(ControlListener listener, OnCame on_came, OnOut on_out);
    // He has proved himself, or has gone.
    void leave(uint64_t id);
    void close();
    bool is_open() const { return listener_.valid(); }

  private:
    void let_in();
    void wait();
    void look();

    EventLoop& loop_;
    ControlListener listener_;
    OnCame on_came_;
    OnOut on_out_;
    std::optional<WatchId> watch_;
    std::optional<TimerId> timer_;
    uint64_t last_id_ = 0;
};

}  // namespace ghost::plugin
