// SPDX-License-Identifier: BSD-3-Clause
#include "pmix-plugin/runtime/interface/control_connection.hpp"

#include <algorithm>
#include <fcntl.h>
#include <sys/socket.h>
#include <utility>

#include "base/await.hpp"
#include "base/log.hpp"

namespace ghost::plugin {
namespace {

constexpr size_t most_waiting = 4096;
constexpr int packets_a_turn =
    32;  // then other descriptors get theirs; watches are level triggered
constexpr int arrivals_a_turn = 32;
constexpr int64_t retry_us = 1000;

}  // namespace

std::shared_ptr<ControlConnection> ControlConnection::open(EventLoop& loop, ControlSocket socket,
                                                           OnMessage on_message,
                                                           OnClosed on_closed) {
    std::shared_ptr<ControlConnection> connection(new ControlConnection(loop, std::move(socket)));
    connection->on_message_ = std::move(on_message);
    connection->on_closed_ = std::move(on_closed);
    connection->watch_ =
        loop.watch(connection->socket_.fd(), [weak = connection->weak_from_this()] {
            if (auto self = weak.lock()) self->readable();
        });
    return connection;
}

void ControlConnection::handle(OnMessage on_message, OnClosed on_closed) {
    on_message_ = std::move(on_message);
    on_closed_ = std::move(on_closed);
}

void ControlConnection::readable() {
    auto keep = shared_from_this();
    for (int i = 0; i < packets_a_turn && is_open(); ++i) {
        auto message = socket_.receive(0);
        if (message.ok()) {
            // A copy: the callback may replace itself.
            if (auto handler = on_message_) handler(*message);
            continue;
        }
        if (message.error().code == Code::timeout) return;
        if (message.error().code == Code::corrupt) {
            log::warning("a control connection of process {} sent something unreadable: closed",
                         peer_pid());
            tell(schema::Complaint{"the packet is no object"});
        }
        lost();
    }
}

void ControlConnection::lost() {
    auto keep = shared_from_this();
    auto closed = std::move(on_closed_);
    close();
    if (closed) closed();
}

// With room in the buffer (unix(7): POLLOUT) sendmsg() of one packet does not block.
bool ControlConnection::writable() const {
    return await_writable(socket_.fd(), 0);
}

void ControlConnection::send_text(std::string text, const std::vector<int>& fds) {
    if (!is_open()) return;
    if (waiting_.empty() && writable()) {
        // A broken connection is seen by readable() too; that is where it is reported.
        if (auto sent = socket_.send_text(text, fds); !sent.ok()) {
            log::debug("control message lost: {}", sent.error().message());
        }
        return;
    }
    if (waiting_.size() >= most_waiting) {
        log::warning("process {} does not read its control connection: closed", peer_pid());
        hang_up();  // the caller may be using what on_closed() drops
        waiting_.clear();
        return;
    }
    Waiting w{std::move(text), {}};
    for (int fd : fds) w.fds.emplace_back(::fcntl(fd, F_DUPFD_CLOEXEC, 3));
    waiting_.push_back(std::move(w));
    flush();
}

void ControlConnection::hang_up() {
    if (is_open()) ::shutdown(socket_.fd(), SHUT_RDWR);
}

void ControlConnection::flush() {
    while (!waiting_.empty() && is_open() && writable()) {
        std::vector<int> raw;
        for (const Fd& fd : waiting_.front().fds) raw.push_back(fd.get());
        if (!socket_.send_text(waiting_.front().text, raw).ok()) waiting_.clear();
        if (!waiting_.empty()) waiting_.pop_front();
    }
    if (waiting_.empty() || retrying_ || !is_open()) return;
    retrying_ = true;
    retry_ = loop_.after(retry_us, [weak = weak_from_this()] {
        auto self = weak.lock();
        if (!self) return;
        self->retrying_ = false;
        self->flush();
    });
}

void ControlConnection::close() {
    if (!is_open()) return;
    while (!waiting_.empty() && writable()) {
        std::vector<int> raw;
        for (const Fd& fd : waiting_.front().fds) raw.push_back(fd.get());
        if (!socket_.send_text(waiting_.front().text, raw).ok()) break;
        waiting_.pop_front();
    }
    waiting_.clear();
    loop_.unwatch(watch_);
    if (retrying_) loop_.cancel(retry_);
    retrying_ = false;
    socket_.close();
}

void ControlEntrance::open(ControlListener listener, OnCame on_came, OnOut on_out) {
    listener_ = std::move(listener);
    on_came_ = std::move(on_came);
    on_out_ = std::move(on_out);
    wait();
}

void ControlEntrance::let_in() {
    for (int i = 0; i < arrivals_a_turn && is_open(); ++i) {
        auto socket = listener_.accept(loop_.now());
        if (!socket) break;
        const uint64_t id = ++last_id_;
        if (const auto out = listener_.door().enter(id, {}, loop_.now())) on_out_(*out);
        on_came_(id, std::move(*socket));
    }
    wait();
}

void ControlEntrance::leave(uint64_t id) {
    listener_.door().leave(id);
    wait();
}

// For the next one, unless nobody is let in, and for the time at which that or somebody's changes.
void ControlEntrance::wait() {
    if (timer_) loop_.cancel(*std::exchange(timer_, std::nullopt));
    const int64_t now = loop_.now();
    const bool watches = is_open() && listener_.door().is_open(now);
    if (!watches && watch_) loop_.unwatch(*std::exchange(watch_, std::nullopt));
    if (watches && !watch_) watch_ = loop_.watch(listener_.fd(), [this] { let_in(); });
    const int64_t wakes = is_open() ? listener_.door().wakes_at(now) : 0;
    if (wakes != 0) timer_ = loop_.after(std::max<int64_t>(wakes - now, 0), [this] { look(); });
}

void ControlEntrance::look() {
    timer_.reset();
    for (const uint64_t id : listener_.door().late(loop_.now())) {
        listener_.door().leave(id);
        on_out_(id);
    }
    wait();
}

void ControlEntrance::close() {
    if (!is_open()) return;  // the loop may be gone
    listener_.close();
    listener_.door().clear();
    wait();
}

}  // namespace ghost::plugin
