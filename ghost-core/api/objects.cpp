// SPDX-License-Identifier: BSD-3-Clause
#include "ghost-core/api/objects.hpp"

#include <array>
#include <fmt/format.h>
#include <sodium.h>

#include "ghost-core/resource/file.hpp"
#include "ghost-core/resource/user_class.hpp"

using namespace ghost;
using namespace ghost::core;

namespace ghost::api {
namespace {

constexpr int wait_ms = 60000;

thread_local std::string last_error;

int errno_for(const Error& error) {
    if (error.sys != 0) return error.sys;
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
            return EOPNOTSUPP;
        case Code::timeout:
            return ETIMEDOUT;
        case Code::peer_lost:
            return EPIPE;
        case Code::corrupt:
            return EBADMSG;
        default:
            return EIO;
    }
}

}  // namespace

int fail(const Error& error) {
    last_error = error.message();
    errno = errno_for(error);
    return -1;
}

ResourceRegistry& registry() {
    static ResourceRegistry all;
    return all;
}

// Both ends know the channel alone: the token is made of it, and it is the secret.
Result<std::unique_ptr<NetworkResource>> open_network(const std::string& node,
                                                      const std::string& channel, int port) {
    if (channel.empty() || port <= 0 || port > 65535)
        return make_error(Code::invalid, "connect for a ghost: a channel and a port are needed");
    std::array<unsigned char, 32> hash{};
    std::array<char, 65> token{};
    crypto_generichash(hash.data(), hash.size(),
                       reinterpret_cast<const unsigned char*>(channel.data()), channel.size(),
                       reinterpret_cast<const unsigned char*>("ghost channel"), 13);
    sodium_bin2hex(token.data(), token.size(), hash.data(), hash.size());
    if (!node.empty()) return NetworkResource::connect(node, port, token.data(), channel);
    NetworkOptions options;
    options.port = port;
    options.token = token.data();
    auto listener = NetworkListener::listen(channel, options);
    if (!listener) return listener.error();
    return listener->accept(wait_ms);
}

}  // namespace ghost::api

using namespace ghost::api;

Status ghost_file::use(Use wanted) {
    const auto state_wanted = wanted == Use::read ? State::reading : State::writing;
    if (state == state_wanted) return {};
    if (state == State::writing)
        return make_error(Code::invalid, "read ghost file before it is closed", path);
    if (state == State::reading)
        return make_error(Code::invalid, "write ghost file that is being read", path);
    resource = std::make_unique<FileResource>(path, wanted);
    GHOST_TRY(resource->init());
    state = state_wanted;
    return {};
}

Status ghost_file::finish() {
    Status status;
    if (state == State::writing) status = resource->finalize();
    resource.reset();
    state = State::complete;
    return status;
}

const char* ghost_error(void) {
    return last_error.c_str();
}

ghost_buffer* ghost_buffer_create(size_t size) {
    return guarded(
        [&]() -> ghost_buffer* {
            auto out = std::make_unique<ghost_buffer>();
            if (auto touched = out->buffer->populate(size, 2); !touched.ok()) {
                fail(touched.error());
                return nullptr;
            }
            return out.release();
        },
        nullptr);
}

void ghost_buffer_free(ghost_buffer* b) {
    delete b;
}

ssize_t ghost_buffer_read(void* destination, ghost_buffer* b, size_t size) {
    auto got = b->reader.read(destination, size);
    return got.ok() ? static_cast<ssize_t>(*got) : fail(got.error());
}

int ghost_buffer_write(ghost_buffer* b, const void* source, size_t size) {
    return status_of([&] { return b->buffer->append(source, size); });
}

size_t ghost_buffer_size(const ghost_buffer* b) {
    return b->buffer->size();
}

void ghost_buffer_rewind(ghost_buffer* b) {
    b->reader.rewind();
}

void ghost_buffer_clear(ghost_buffer* b) {
    b->buffer->clear();
    b->reader.rewind();
}

ghost_file* ghost_file_open(const char* path) {
    return guarded(
        [&] {
            auto* out = new ghost_file;
            out->path = path;
            return out;
        },
        nullptr);
}

ssize_t ghost_file_read(ghost_file* f, void* destination, size_t size) {
    return guarded(
        [&]() -> ssize_t {
            if (auto ready = f->use(Use::read); !ready.ok()) return fail(ready.error());
            auto got = f->resource->read(destination, size);
            return got.ok() ? static_cast<ssize_t>(*got) : fail(got.error());
        },
        -1);
}

int ghost_file_write(ghost_file* f, const void* source, size_t size) {
    return status_of([&]() -> Status {
        GHOST_TRY(f->use(Use::write));
        return f->resource->write(source, size);
    });
}

int ghost_file_close(ghost_file* f) {
    const std::unique_ptr<ghost_file> owned(f);
    return status_of([&] { return f->finish(); });
}

ghost_node* ghost_node_open(const char* node, const char* channel, int port) {
    return guarded(
        [&]() -> ghost_node* {
            auto connection =
                open_network(node != nullptr ? node : "", channel != nullptr ? channel : "", port);
            if (!connection) {
                fail(connection.error());
                return nullptr;
            }
            return new ghost_node{std::move(*connection)};
        },
        nullptr);
}

void ghost_node_close(ghost_node* n) {
    delete n;
}

ssize_t ghost_network_read(ghost_node* n, void* destination, size_t size) {
    auto* at = static_cast<char*>(destination);
    size_t done = 0;
    while (done < size) {
        auto got = n->connection->read(at + done, size - done);
        if (!got) return fail(got.error());
        if (*got == 0) break;
        done += *got;
    }
    return static_cast<ssize_t>(done);
}

int ghost_network_write(ghost_node* n, const void* source, size_t size) {
    return status_of([&] { return n->connection->write(source, size); });
}

int ghost_register_class(const ghost_resource_class* table) {
    return status_of([&]() -> Status {
        auto kind = user_class(table, "the table given");
        if (!kind) return kind.error();
        auto added = registry().add(std::move(*kind));
        if (added.ok() || added.error().code != Code::refused) return added;
        auto error = added.error();
        error.sys = EEXIST;
        return error;
    });
}

int ghost_load_class(const char* shared_object) {
    return status_of([&]() -> Status {
        auto added = registry().load(shared_object);
        if (added.ok() || added.error().code != Code::refused) return added;
        auto error = added.error();
        error.sys = EEXIST;
        return error;
    });
}
