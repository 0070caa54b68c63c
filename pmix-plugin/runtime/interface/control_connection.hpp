// SPDX-License-Identifier: BSD-3-Clause
// A control connection on the runtime's loop: packets arrive as callbacks, sending never blocks.
#pragma once

#include <deque>
#include <functional>
#include <memory>
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

// Connections that are not let in: who knocks again and again must not fill the job's output. The
// first is told, the others only to who debugs. One thread.
class Strangers {
  public:
    void tell(const Error& why);

  private:
    bool told_ = false;
};

}  // namespace ghost::plugin
