// SPDX-License-Identifier: BSD-3-Clause
// The C API: kernet.h on streams/node.hpp. Errors become errno and a text (base/c_api.hpp).
#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <new>

#include "base/c_api.hpp"
#include "kernet-btl/include/kernet.h"
#include "kernet-btl/streams/node.hpp"

struct kernet_node {
    std::unique_ptr<kernet::Node> node;
};

namespace {

using ghost::Code;
using ghost::make_error;
using ghost::Result;
using ghost::Status;
using namespace ghost::c_api;  // NOLINT: what every function here is made of

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

// For a body that gives a number greater than or equal to 0: that number, or -1.
template <typename Body>
int number_of(Body&& body) {
    return guarded(-1, [&]() -> int {
        const Result<uint32_t> made = body();
        return made.ok() ? static_cast<int>(*made) : fail(made.error());
    });
}

Status put(Result<kernet::StreamId> made, kernet_stream* stream) {
    if (!made) return made.error();
    *stream = *made;
    return {};
}

Result<kernet::StreamClass> class_of(const char* name, enum kernet_type type, unsigned sockets,
                                     const char* filters) {
    if (type < KERNET_DIRECT || type > KERNET_LIFO || sockets > kernet::max_sockets)
        return make_error(Code::invalid, "describe streams", {}, "their type or number of sockets");
    return kernet::StreamClass{text(name), static_cast<kernet::StreamType>(type),
                               static_cast<uint16_t>(sockets), text(filters)};
}

Result<uint16_t> channel_of(unsigned channel) {
    if (channel > UINT16_MAX)
        return make_error(Code::invalid, "use channel", std::to_string(channel));
    return static_cast<uint16_t>(channel);
}

Status check_count(int count) {
    if (count >= 0) return {};
    return make_error(Code::invalid, "use parts of a message", std::to_string(count));
}

}  // namespace

const char* kernet_error(void) {
    return last_error();
}

kernet_node* kernet_open(const char* manager) {
    return guarded<kernet_node*>(nullptr, [&]() -> kernet_node* {
        kernet::NodeConfig config;
        config.manager = text(manager);
        auto made = kernet::Node::open(config);
        if (made) return new kernet_node{std::move(*made)};
        fail(made.error());
        return nullptr;
    });
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
    return number_of([&]() -> Result<uint32_t> {
        auto given = take(properties);
        if (!given) return given.error();
        auto made = class_of(given->name, given->type, given->sockets, given->filters);
        if (!made) return made.error();
        return node->node->add_class(*made);
    });
}

int kernet_create_of(kernet_node* node, int class_descriptor, kernet_stream* stream) {
    return status_of(
        [&] { return put(node->node->create(static_cast<uint32_t>(class_descriptor)), stream); });
}

int kernet_create(kernet_node* node, enum kernet_type type, unsigned sockets,
                  kernet_stream* stream) {
    return status_of([&]() -> Status {
        auto properties = class_of("", type, sockets, "");
        if (!properties) return properties.error();
        return put(node->node->create(*properties), stream);
    });
}

int kernet_destroy(kernet_node* node, kernet_stream stream) {
    return status_of([&] { return node->node->destroy(stream); });
}

int kernet_get_info(kernet_node* node, kernet_stream stream, struct kernet_info* info) {
    return status_of([&]() -> Status {
        auto entry = node->node->look(stream);
        if (!entry) return entry.error();
        if (entry->destroyed)
            return make_error(Code::not_found, "find the stream", {}, "it has been destroyed");
        kernet_info out{};
        out.type = static_cast<enum kernet_type>(entry->type);
        out.sockets = static_cast<unsigned>(entry->sockets.size());
        out.connected = static_cast<unsigned>(entry->connected());
        for (const auto& socket : entry->sockets)
            out.suspended += socket.state == kernet::SocketState::suspended;
        copy_text(out.class_name, entry->class_name);
        copy_text(out.filters, entry->filters);
        return give(out, info);
    });
}

int kernet_attach(kernet_node* node, kernet_stream stream, enum kernet_role role) {
    return number_of([&]() -> Result<uint32_t> {
        if (role < KERNET_READER || role > KERNET_BOTH)
            return make_error(Code::invalid, "attach in no role");
        return node->node->attach(stream, static_cast<uint8_t>(role));
    });
}

int kernet_wait(kernet_node* node, int socket, int timeout) {
    return status_of(
        [&] { return node->node->wait(static_cast<uint32_t>(socket), microseconds(timeout)); });
}

int kernet_suspend(kernet_node* node, int socket, void** handle, size_t* size) {
    return status_of([&]() -> Status {
        auto made = node->node->suspend(static_cast<uint32_t>(socket));
        if (!made) return made.error();
        *handle = std::malloc(made->size());
        if (!*handle) throw std::bad_alloc();
        std::memcpy(*handle, made->data(), made->size());
        *size = made->size();
        return {};
    });
}

int kernet_wakeup(kernet_node* node, const void* handle, size_t size) {
    return number_of(
        [&] { return node->node->wakeup(std::string(static_cast<const char*>(handle), size)); });
}

void kernet_free(void* handle) {
    std::free(handle);
}

int kernet_unattach(kernet_node* node, int socket, int timeout) {
    return status_of(
        [&] { return node->node->unattach(static_cast<uint32_t>(socket), microseconds(timeout)); });
}

int kernet_send(kernet_node* node, int socket, const void* bytes, size_t size, int timeout) {
    const iovec part{const_cast<void*>(bytes), size};
    return kernet_sendv(node, socket, &part, 1, timeout);
}

int kernet_sendv(kernet_node* node, int socket, const struct iovec* parts, int count, int timeout) {
    return status_of([&]() -> Status {
        GHOST_TRY(check_count(count));
        return node->node->send(static_cast<uint32_t>(socket), parts, static_cast<size_t>(count),
                                microseconds(timeout));
    });
}

ssize_t kernet_recv(kernet_node* node, int socket, void* bytes, size_t size, int timeout) {
    const iovec part{bytes, size};
    return kernet_recvv(node, socket, &part, 1, timeout);
}

ssize_t kernet_recvv(kernet_node* node, int socket, const struct iovec* parts, int count,
                     int timeout) {
    return bytes_of([&]() -> Result<size_t> {
        GHOST_TRY(check_count(count));
        size_t got = 0;
        GHOST_TRY(node->node->receive(static_cast<uint32_t>(socket), parts,
                                      static_cast<size_t>(count), microseconds(timeout), got));
        return got;
    });
}

int kernet_set_mode(kernet_node* node, int socket, enum kernet_mode mode) {
    return status_of([&]() -> Status {
        if (mode != KERNET_MESSAGES && mode != KERNET_BYTES)
            return make_error(Code::invalid, "read a socket in no mode");
        return node->node->set_byte_mode(static_cast<uint32_t>(socket), mode == KERNET_BYTES);
    });
}

int kernet_poll(kernet_node* node, struct kernet_pollsocket* sockets, unsigned count, int timeout) {
    return guarded(-1, [&] {
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
    });
}

int kernet_channel_open(kernet_node* node, unsigned channel) {
    return status_of([&]() -> Status {
        auto number = channel_of(channel);
        if (!number) return number.error();
        return node->node->open_channel(*number);
    });
}

int kernet_channel_send(kernet_node* node, const char* to, unsigned channel, unsigned type,
                        const void* bytes, size_t size) {
    return status_of([&]() -> Status {
        auto number = channel_of(channel);
        if (!number) return number.error();
        if (type > UINT16_MAX)
            return make_error(Code::invalid, "send a message of type", std::to_string(type));
        return node->node->send_channel(text(to), *number, static_cast<uint16_t>(type),
                                        {static_cast<const char*>(bytes), size});
    });
}

ssize_t kernet_channel_recv(kernet_node* node, unsigned channel, unsigned* type, char* from,
                            size_t from_size, void* bytes, size_t size, int timeout) {
    return bytes_of([&]() -> Result<size_t> {
        auto number = channel_of(channel);
        if (!number) return number.error();
        auto got = node->node->receive_channel(*number, microseconds(timeout));
        if (!got) return got.error();
        if (type) *type = got->type;
        if (from && from_size > 0) {
            const size_t some = std::min(got->from.size(), from_size - 1);
            std::memcpy(from, got->from.data(), some);
            from[some] = '\0';
        }
        const size_t some = std::min(got->bytes.size(), size);
        if (some > 0) std::memcpy(bytes, got->bytes.data(), some);
        return got->bytes.size();
    });
}
