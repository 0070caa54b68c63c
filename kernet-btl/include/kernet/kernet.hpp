// SPDX-License-Identifier: BSD-3-Clause
// KerNet from C++: kernet.h with owners. Header only; see docs/KERNET.md.
#pragma once

#include <cerrno>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "../kernet.h"

namespace kernet::v1 {

// A socket of a stream. Gives itself back, without waiting, when destroyed. The node must outlive
// it.
class Socket {
  public:
    Socket() = default;
    Socket(kernet_node* node, int number) : node_(node), number_(number) {}
    Socket(Socket&& other) noexcept
        : node_(other.node_), number_(std::exchange(other.number_, -1)) {}
    Socket& operator=(Socket&& other) noexcept {
        if (this == &other) return *this;
        if (number_ > 0) kernet_unattach(node_, number_, 0);
        node_ = other.node_;
        number_ = std::exchange(other.number_, -1);
        return *this;
    }
    ~Socket() {
        if (number_ > 0) kernet_unattach(node_, number_, 0);
    }

    // False: kernet_error() says why there is no socket.
    explicit operator bool() const { return number_ > 0; }
    int number() const { return number_; }

    bool wait(int timeout = -1) { return kernet_wait(node_, number_, timeout) == 0; }
    bool send(std::string_view bytes, int timeout = -1) {
        return kernet_send(node_, number_, bytes.data(), bytes.size(), timeout) == 0;
    }
    // A message of any size; nothing on an error (errno).
    std::optional<std::string> recv(int timeout = -1) {
        std::string bytes(64 * 1024, '\0');
        ssize_t got = kernet_recv(node_, number_, bytes.data(), bytes.size(), timeout);
        while (got < 0 && errno == EMSGSIZE && bytes.size() < (size_t{1} << 30)) {
            bytes.resize(bytes.size() * 4);
            got = kernet_recv(node_, number_, bytes.data(), bytes.size(), 0);
        }
        if (got < 0) return std::nullopt;
        bytes.resize(static_cast<size_t>(got));
        return bytes;
    }
    // The handle; the socket is no longer one.
    std::optional<std::string> suspend() {
        void* bytes = nullptr;
        size_t size = 0;
        if (kernet_suspend(node_, number_, &bytes, &size) != 0) return std::nullopt;
        number_ = -1;
        std::string handle(static_cast<const char*>(bytes), size);
        kernet_free(bytes);
        return handle;
    }
    bool unattach(int timeout = -1) {
        if (kernet_unattach(node_, number_, timeout) != 0) return false;
        number_ = -1;
        return true;
    }

  private:
    kernet_node* node_ = nullptr;
    int number_ = -1;
};

// A process's part in streams.
class Node {
  public:
    explicit Node(const char* manager = nullptr) : node_(kernet_open(manager)) {}
    Node(Node&& other) noexcept : node_(std::exchange(other.node_, nullptr)) {}
    Node& operator=(Node&&) = delete;
    ~Node() { kernet_close(node_); }

    // False: kernet_error() says why there is no connection.
    explicit operator bool() const { return node_ != nullptr; }
    kernet_node* get() const { return node_; }

    // 0 on an error.
    kernet_stream create(kernet_type type, unsigned sockets) {
        kernet_stream stream = 0;
        return kernet_create(node_, type, sockets, &stream) == 0 ? stream : 0;
    }
    bool destroy(kernet_stream stream) { return kernet_destroy(node_, stream) == 0; }
    Socket attach(kernet_stream stream, kernet_role role = KERNET_BOTH) {
        return {node_, kernet_attach(node_, stream, role)};
    }
    Socket wakeup(std::string_view handle) {
        return {node_, kernet_wakeup(node_, handle.data(), handle.size())};
    }

  private:
    kernet_node* node_;
};

}  // namespace kernet::v1
