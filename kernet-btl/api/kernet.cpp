// SPDX-License-Identifier: BSD-3-Clause
// The C API: kernet.h on kernet/node.hpp. Errors become errno and a text.
#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <new>

#include "kernet-btl/include/kernet.h"
#include "kernet-btl/streams/node.hpp"

struct kernet_node {
    std::unique_ptr<kernet::Node> node;
};

namespace {

using ghost::Code;
using ghost::Error;
using kernet::Status;

thread_local std::string last_error;

int errno_of(const Error& error) {
    switch (error.code) {
        case Code::invalid:
            return EINVAL;
        case Code::refused:
            return EPERM;
        case Code::busy:
            return EAGAIN;
        case Code::not_found:
            return ENOENT;
        case Code::unsupported:
            return ENOTSUP;
        case Code::io:
            return error.sys ? error.sys : EIO;
        case Code::timeout:
            return ETIMEDOUT;
        case Code::peer_lost:
            return EPIPE;
        case Code::corrupt:
            return EBADMSG;
        case Code::internal:
            return EPROTO;
    }
    return EPROTO;
}

int fail(const Error& error) {
    last_error = error.message();
    errno = errno_of(error);
    if (error.code == Code::peer_lost && error.tried.find("manager") != std::string::npos) {
        errno = ENOTCONN;
    }
    return -1;
}

int done(const Status& status) {
    return status ? 0 : fail(status.error());
}

int64_t microseconds(int timeout) {
    return timeout < 0 ? -1 : int64_t{timeout} * 1000;
}

std::string text(const char* text) {
    return text ? text : "";
}

template <size_t room>
void copy_text(char (&to)[room], const std::string& from) {
    const size_t size = std::min(from.size(), room - 1);
    std::memcpy(to, from.data(), size);
    to[size] = '\0';
}

}  // namespace

const char* kernet_error(void) {
    return last_error.c_str();
}

kernet_node* kernet_open(const char* manager) {
    kernet::NodeConfig config;
    config.manager = text(manager);
    auto made = kernet::Node::open(config);
    if (made) return new kernet_node{std::move(*made)};
    fail(made.error());
    return nullptr;
}

void kernet_close(kernet_node* node) {
    delete node;
}

const char* kernet_node_name(const kernet_node* node) {
    return node->node->name().c_str();
}

int kernet_fd(const kernet_node* node) {
    return node->node->fd();
}

int kernet_register_class(kernet_node* node, const struct kernet_class* properties) {
    if (properties->type < KERNET_DIRECT || properties->type > KERNET_LIFO ||
        properties->sockets > kernet::max_sockets) {
        return fail(ghost::make_error(Code::invalid, "register a stream class"));
    }
    return static_cast<int>(node->node->add_class(
        {text(properties->name), static_cast<kernet::StreamType>(properties->type),
         static_cast<uint16_t>(properties->sockets), text(properties->filters)}));
}

int kernet_create_of(kernet_node* node, int class_descriptor, kernet_stream* stream) {
    auto made = node->node->create(static_cast<uint32_t>(class_descriptor));
    if (!made) return fail(made.error());
    *stream = *made;
    return 0;
}

int kernet_create(kernet_node* node, enum kernet_type type, unsigned sockets,
                  kernet_stream* stream) {
    if (type < KERNET_DIRECT || type > KERNET_LIFO || sockets > kernet::max_sockets) {
        return fail(ghost::make_error(Code::invalid, "create a stream"));
    }
    auto made = node->node->create(kernet::StreamClass{"", static_cast<kernet::StreamType>(type),
                                                       static_cast<uint16_t>(sockets), ""});
    if (!made) return fail(made.error());
    *stream = *made;
    return 0;
}

int kernet_destroy(kernet_node* node, kernet_stream stream) {
    return done(node->node->destroy(stream));
}

int kernet_get_info(kernet_node* node, kernet_stream stream, struct kernet_info* info) {
    auto entry = node->node->look(stream);
    if (!entry) return fail(entry.error());
    if (entry->destroyed) {
        return fail(ghost::make_error(Code::not_found, "find: it has been destroyed: stream"));
    }
    *info = {};
    info->type = static_cast<enum kernet_type>(entry->type);
    info->sockets = static_cast<unsigned>(entry->sockets.size());
    info->connected = static_cast<unsigned>(entry->connected());
    for (const auto& socket : entry->sockets) {
        info->suspended += socket.state == kernet::SocketState::suspended;
    }
    copy_text(info->class_name, entry->class_name);
    copy_text(info->filters, entry->filters);
    return 0;
}

int kernet_attach(kernet_node* node, kernet_stream stream, enum kernet_role role) {
    if (role < KERNET_READER || role > KERNET_BOTH) {
        return fail(ghost::make_error(Code::invalid, "attach in no role"));
    }
    auto socket = node->node->attach(stream, static_cast<uint8_t>(role));
    return socket ? static_cast<int>(*socket) : fail(socket.error());
}

int kernet_wait(kernet_node* node, int socket, int timeout) {
    return done(node->node->wait(static_cast<uint32_t>(socket), microseconds(timeout)));
}

int kernet_suspend(kernet_node* node, int socket, void** handle, size_t* size) {
    auto made = node->node->suspend(static_cast<uint32_t>(socket));
    if (!made) return fail(made.error());
    *handle = std::malloc(made->size());
    if (!*handle) throw std::bad_alloc();
    std::memcpy(*handle, made->data(), made->size());
    *size = made->size();
    return 0;
}

int kernet_wakeup(kernet_node* node, const void* handle, size_t size) {
    auto socket = node->node->wakeup(std::string(static_cast<const char*>(handle), size));
    return socket ? static_cast<int>(*socket) : fail(socket.error());
}

void kernet_free(void* handle) {
    std::free(handle);
}

int kernet_unattach(kernet_node* node, int socket, int timeout) {
    return done(node->node->unattach(static_cast<uint32_t>(socket), microseconds(timeout)));
}

int kernet_send(kernet_node* node, int socket, const void* bytes, size_t size, int timeout) {
    const iovec part{const_cast<void*>(bytes), size};
    return kernet_sendv(node, socket, &part, 1, timeout);
}

int kernet_sendv(kernet_node* node, int socket, const struct iovec* parts, int count, int timeout) {
    return done(node->node->send(static_cast<uint32_t>(socket), parts, static_cast<size_t>(count),
                                 microseconds(timeout)));
}

ssize_t kernet_recv(kernet_node* node, int socket, void* bytes, size_t size, int timeout) {
    const iovec part{bytes, size};
    return kernet_recvv(node, socket, &part, 1, timeout);
}

ssize_t kernet_recvv(kernet_node* node, int socket, const struct iovec* parts, int count,
                     int timeout) {
    size_t got = 0;
    const Status status =
        node->node->receive(static_cast<uint32_t>(socket), parts, static_cast<size_t>(count),
                            microseconds(timeout), got);
    if (status) return static_cast<ssize_t>(got);
    fail(status.error());
    if (status.error().code == Code::invalid && got > 0) errno = EMSGSIZE;
    return -1;
}

int kernet_set_mode(kernet_node* node, int socket, enum kernet_mode mode) {
    return done(node->node->set_byte_mode(static_cast<uint32_t>(socket), mode == KERNET_BYTES));
}

int kernet_poll(kernet_node* node, struct kernet_pollsocket* sockets, unsigned count, int timeout) {
    std::vector<kernet::Node::Polled> polled(count);
    for (unsigned i = 0; i < count; i++) {
        polled[i].socket = static_cast<uint32_t>(sockets[i].socket);
        polled[i].wanted = static_cast<unsigned>(sockets[i].events);
    }
    const size_t ready = node->node->poll(polled.data(), count, microseconds(timeout));
    for (unsigned i = 0; i < count; i++) {
        const unsigned mask = polled[i].wanted | KERNET_ENDED;
        sockets[i].revents = static_cast<short>(polled[i].ready & mask);
    }
    return static_cast<int>(ready);
}

int kernet_channel_open(kernet_node* node, unsigned channel) {
    if (channel > UINT16_MAX) return fail(ghost::make_error(Code::invalid, "open a channel"));
    return done(node->node->open_channel(static_cast<uint16_t>(channel)));
}

int kernet_channel_send(kernet_node* node, const char* to, unsigned channel, unsigned type,
                        const void* bytes, size_t size) {
    if (channel > UINT16_MAX || type > UINT16_MAX) {
        return fail(ghost::make_error(Code::invalid, "send by a channel"));
    }
    return done(node->node->send_channel(text(to), static_cast<uint16_t>(channel),
                                         static_cast<uint16_t>(type),
                                         {static_cast<const char*>(bytes), size}));
}

ssize_t kernet_channel_recv(kernet_node* node, unsigned channel, unsigned* type, char* from,
                            size_t from_size, void* bytes, size_t size, int timeout) {
    auto got = node->node->receive_channel(static_cast<uint16_t>(channel), microseconds(timeout));
    if (!got) return fail(got.error());
    if (type) *type = got->type;
    if (from && from_size > 0) {
        const size_t some = std::min(got->from.size(), from_size - 1);
        std::memcpy(from, got->from.data(), some);
        from[some] = '\0';
    }
    const size_t some = std::min(got->bytes.size(), size);
    if (some > 0) std::memcpy(bytes, got->bytes.data(), some);
    return static_cast<ssize_t>(got->bytes.size());
}
