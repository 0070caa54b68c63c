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

}  // namespace

ResourceRegistry& registry() {
    static ResourceRegistry all;
    return all;
}

// Both ends know the channel alone: the token is made of it, and it is the secret.
Result<std::unique_ptr<NetworkResource>> open_network(const std::string& node,
                                                      const std::string& channel, int port,
                                                      Operation* operation) {
    if (channel.empty() || port <= 0 || port > 65535)
        return make_error(Code::invalid, "connect for a ghost", {},
                          "a channel and a port are needed");
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
    if (operation == nullptr) return listener->accept(wait_ms);
    operation->interrupted_by([&listener] { listener->interrupt(); });
    auto came = listener->accept(wait_ms);
    operation->interrupted_by({});
    return came;
}

}  // namespace ghost::api

using namespace ghost::api;

Status ghost_file::use(Use wanted, Whose whose) {
    const auto state_wanted = wanted == Use::read ? State::reading : State::writing;
    if (state == state_wanted) return {};
    if (state == State::writing)
        return make_error(Code::invalid, "read ghost file before it is closed", path);
    if (state == State::reading)
        return make_error(Code::invalid, "write ghost file that is being read", path);
    resource = std::make_unique<FileResource>(path, wanted, whose);
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
    return last_error();
}

ghost_buffer* ghost_buffer_create(size_t size) {
    return guarded<ghost_buffer*>(nullptr, [&]() -> ghost_buffer* {
        auto out = std::make_unique<ghost_buffer>();
        if (auto touched = out->buffer->populate(size, 2); !touched.ok()) {
            fail(touched.error());
            return nullptr;
        }
        return out.release();
    });
}

void ghost_buffer_free(ghost_buffer* b) {
    delete b;
}

ssize_t ghost_buffer_read(ghost_buffer* b, void* destination, size_t size) {
    return bytes_of([&] { return b->reader.read(destination, size); });
}

int ghost_buffer_write(ghost_buffer* b, const void* source, size_t size) {
    return status_of([&] { return b->buffer->append(source, size); });
}

size_t ghost_buffer_size(const ghost_buffer* b) {
    return guarded<size_t>(0, [&] { return b->buffer->size(); });
}

void ghost_buffer_rewind(ghost_buffer* b) {
    guarded(0, [&] { return b->reader.rewind(), 0; });
}

void ghost_buffer_clear(ghost_buffer* b) {
    guarded(0, [&] { return b->buffer->clear(), b->reader.rewind(), 0; });
}

ghost_file* ghost_file_open(const char* path) {
    return guarded<ghost_file*>(nullptr, [&] {
        auto out = std::make_unique<ghost_file>();
        out->path = path;
        return out.release();
    });
}

ssize_t ghost_file_read(ghost_file* f, void* destination, size_t size) {
    return bytes_of([&]() -> Result<size_t> {
        GHOST_TRY(f->use(Use::read));
        return f->resource->read(destination, size);
    });
}

int ghost_file_write(ghost_file* f, const void* source, size_t size) {
    return status_of([&]() -> Status {
        GHOST_TRY(f->use(Use::write));
        return f->resource->write(source, size);
    });
}

int ghost_file_close(ghost_file* f) {
    const std::unique_ptr<ghost_file> owned(f);
    return status_of([&] { return f != nullptr ? f->finish() : Status(); });
}

ghost_connection* ghost_connection_open(const char* node, const char* channel, int port) {
    return guarded<ghost_connection*>(nullptr, [&]() -> ghost_connection* {
        auto network =
            open_network(node != nullptr ? node : "", channel != nullptr ? channel : "", port);
        if (network) return new ghost_connection{std::move(*network)};
        fail(network.error());
        return nullptr;
    });
}

// The other end is told that nothing more comes: it takes a connection that merely ends for broken.
void ghost_connection_close(ghost_connection* c) {
    const std::unique_ptr<ghost_connection> owned(c);
    if (c != nullptr) guarded(0, [&] { return c->network->finalize().ok() ? 0 : 1; });
}

ssize_t ghost_connection_read(ghost_connection* c, void* destination, size_t size) {
    return bytes_of([&]() -> Result<size_t> {
        auto* at = static_cast<char*>(destination);
        size_t done = 0;
        while (done < size) {
            auto got = c->network->read(at + done, size - done);
            if (!got) return got.error();
            if (*got == 0) break;
            done += *got;
        }
        return done;
    });
}

int ghost_connection_write(ghost_connection* c, const void* source, size_t size) {
    return status_of([&] { return c->network->write(source, size); });
}

int ghost_register_class(const ghost_resource_class* table) {
    return status_of([&]() -> Status {
        auto kind = user_class(table, "the table given");
        if (!kind) return kind.error();
        return registry().add(std::move(*kind));
    });
}

int ghost_load_class(const char* shared_object) {
    return status_of([&] { return registry().load(shared_object); });
}
