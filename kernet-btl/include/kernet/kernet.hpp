// SPDX-License-Identifier: BSD-3-Clause
// KerNet from C++17: kernet.h with owners. Header only; link with libkernet (pkg-config kernet).
//
//   auto node = kernet::Node::open();
//   auto stream = node->create(KERNET_DIRECT, 2);
//   auto socket = node->attach(*stream);
//   if (auto sent = socket->send("hello"); !sent) …sent.failure().text…
//
// kernet.h says of each function who owns what, how it fails, and what threads, fork(2) and signal
// handlers may do. An object that was moved from may only be destroyed or assigned to.
#pragma once

#include <cerrno>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include <ghost/result.hpp>

#include "../kernet.h"

namespace kernet {
inline namespace v2 {

// Why a call failed: errno, and kernet_error() at that time.
using Failure = ghost::FailureOf<kernet_error>;
// A value, or why there is none.
template <typename T>
using Result = ghost::ResultOf<T, Failure>;
using Done = Result<std::monostate>;

namespace detail {
inline Done done(int result) {
    if (result < 0) return Failure::of_call();
    return std::monostate();
}
inline Result<size_t> size(ssize_t got) {
    if (got < 0) return Failure::of_call();
    return static_cast<size_t>(got);
}
}  // namespace detail

// A socket of a stream. Leaves the stream, without waiting, when destroyed. The node must outlive
// it.
class Socket {
  public:
    Socket(Socket&& other) noexcept
        : node_(other.node_), number_(std::exchange(other.number_, -1)) {}
    Socket& operator=(Socket&& other) noexcept {
        if (this == &other) return *this;
        drop();
        node_ = other.node_;
        number_ = std::exchange(other.number_, -1);
        return *this;
    }
    ~Socket() { drop(); }

    int number() const { return number_; }

    // Until all sockets of the stream are attached.
    Done wait(int timeout = -1) { return detail::done(kernet_wait(node_, number_, timeout)); }
    Done send(std::string_view bytes, int timeout = -1) {
        return detail::done(kernet_send(node_, number_, bytes.data(), bytes.size(), timeout));
    }
    // One message, gathered from parts.
    Done send(const std::vector<iovec>& parts, int timeout = -1) {
        return detail::done(
            kernet_sendv(node_, number_, parts.data(), static_cast<int>(parts.size()), timeout));
    }
    // EMSGSIZE: the message is larger than the buffer and stays queued.
    Result<size_t> recv(void* bytes, size_t size, int timeout = -1) {
        return detail::size(kernet_recv(node_, number_, bytes, size, timeout));
    }
    // One message, scattered over parts.
    Result<size_t> recv(const std::vector<iovec>& parts, int timeout = -1) {
        return detail::size(
            kernet_recvv(node_, number_, parts.data(), static_cast<int>(parts.size()), timeout));
    }
    // A message of any size.
    Result<std::string> recv(int timeout = -1) {
        char first[first_size];
        ssize_t got = kernet_recv(node_, number_, first, sizeof first, timeout);
        if (got >= 0) return std::string(first, static_cast<size_t>(got));
        std::string bytes;
        for (size_t room = 16 * first_size; got < 0 && errno == EMSGSIZE && room <= longest;
             room *= 4) {
            bytes.resize(room);
            got = kernet_recv(node_, number_, bytes.data(), room, 0);
        }
        if (got < 0) return Failure::of_call();
        bytes.resize(static_cast<size_t>(got));
        return bytes;
    }
    Done set_mode(kernet_mode mode) { return detail::done(kernet_set_mode(node_, number_, mode)); }
    // The handle; this object has no socket any more.
    Result<std::string> suspend() {
        void* bytes = nullptr;
        size_t size = 0;
        if (kernet_suspend(node_, number_, &bytes, &size) != 0) return Failure::of_call();
        number_ = -1;
        const std::unique_ptr<void, void (*)(void*)> owned(bytes, kernet_free);
        return std::string(static_cast<const char*>(bytes), size);
    }
    Done unattach(int timeout = -1) {
        auto left = detail::done(kernet_unattach(node_, number_, timeout));
        if (left) number_ = -1;
        return left;
    }

  private:
    friend class Node;
    static constexpr size_t first_size = 4096, longest = size_t{1} << 30;
    Socket(kernet_node* node, int number) : node_(node), number_(number) {}
    void drop() {
        if (number_ > 0) kernet_unattach(node_, number_, 0);
    }

    kernet_node* node_;
    int number_;
};

// A message of a channel.
struct ChannelMessage {
    std::string from;  // the sender's node
    unsigned type = 0;
    std::string bytes;
};

// A process's part in streams.
class Node {
  public:
    // nullptr: $KERNET_MANAGER, else kernetd's own default.
    static Result<Node> open(const char* manager = nullptr) {
        Node out(kernet_open(manager));
        if (!out.node_) return Failure::of_call();
        return out;
    }

    kernet_node* get() const { return node_.get(); }
    std::string name() const { return kernet_node_name(get()); }
    // Readable when something has changed since the last poll(); the node's.
    int fd() const { return kernet_fd(get()); }

    // Streams. The class's descriptor.
    Result<int> register_class(const std::string& name, kernet_type type, unsigned sockets,
                               const std::string& filters = {}) {
        const kernet_class properties{sizeof(kernet_class), name.c_str(), type, sockets,
                                      filters.c_str()};
        const int made = kernet_register_class(get(), &properties);
        if (made < 0) return Failure::of_call();
        return made;
    }
    Result<kernet_stream> create(int class_descriptor) {
        kernet_stream stream = 0;
        if (kernet_create_of(get(), class_descriptor, &stream) != 0) return Failure::of_call();
        return stream;
    }
    Result<kernet_stream> create(kernet_type type, unsigned sockets) {
        kernet_stream stream = 0;
        if (kernet_create(get(), type, sockets, &stream) != 0) return Failure::of_call();
        return stream;
    }
    Done destroy(kernet_stream stream) { return detail::done(kernet_destroy(get(), stream)); }
    Result<kernet_info> info(kernet_stream stream) {
        kernet_info out{};
        out.size = sizeof out;
        if (kernet_get_info(get(), stream, &out) != 0) return Failure::of_call();
        return out;
    }

    // Sockets.
    Result<Socket> attach(kernet_stream stream, kernet_role role = KERNET_BOTH) {
        return socket(kernet_attach(get(), stream, role));
    }
    Result<Socket> wakeup(std::string_view handle) {
        return socket(kernet_wakeup(get(), handle.data(), handle.size()));
    }
    // How many are ready: each one's `revents`.
    Result<size_t> poll(std::vector<kernet_pollsocket>& sockets, int timeout = -1) {
        return detail::size(
            kernet_poll(get(), sockets.data(), static_cast<unsigned>(sockets.size()), timeout));
    }

    // Channels between nodes.
    Done open_channel(unsigned channel) {
        return detail::done(kernet_channel_open(get(), channel));
    }
    Done send(const std::string& to, unsigned channel, unsigned type, std::string_view bytes) {
        return detail::done(
            kernet_channel_send(get(), to.c_str(), channel, type, bytes.data(), bytes.size()));
    }
    Result<ChannelMessage> recv(unsigned channel, int timeout = -1) {
        ChannelMessage out;
        char from[longest_name] = {};
        out.bytes.resize(longest_message);
        const ssize_t got = kernet_channel_recv(get(), channel, &out.type, from, sizeof from,
                                                out.bytes.data(), out.bytes.size(), timeout);
        if (got < 0) return Failure::of_call();
        out.bytes.resize(static_cast<size_t>(got));
        out.from = from;
        return out;
    }

  private:
    static constexpr size_t longest_name = 256, longest_message = 48 * 1024;
    struct Close {
        void operator()(kernet_node* node) const { kernet_close(node); }
    };
    explicit Node(kernet_node* node) : node_(node) {}
    Result<Socket> socket(int number) {
        if (number < 0) return Failure::of_call();
        return Socket(get(), number);
    }

    std::unique_ptr<kernet_node, Close> node_;
};

}  // namespace v2
}  // namespace kernet
