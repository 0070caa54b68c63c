// SPDX-License-Identifier: BSD-3-Clause
#include "kernet-btl/transport/endpoint.hpp"

#include <mutex>

#include "base/log.hpp"
#include "kernet-btl/transport/connector.hpp"
#include "kernet-btl/transport/datapath.hpp"
#include "kernet-btl/link/table.hpp"

namespace kernet {

struct Endpoint::Impl {
    Impl(const EndpointConfig& config, const wire::HandshakeKey& key, uint64_t filters)
        : data(registry, config.threads), connector(config, registry, key, filters) {}

    Registry registry;
    DataPath data;
    mutable std::mutex mutex;  // guards the connector
    Connector connector;
};

namespace {

// Null without filters.
Result<std::unique_ptr<Filters>> make_filters(const EndpointConfig& config, uint64_t& digest) {
    auto list = filter::List::parse(config.filters);
    if (!list) return list.error();
    if (list->empty()) return std::unique_ptr<Filters>();
    GHOST_TRY(list->prepare());
    digest = list->digest();
    filter::SocketId own{config.job, config.life, {}, config.rank, config.rank};
    GHOST_TRY(wire::read_secret(config.secret_hex, own.secret));
    auto filters = std::make_unique<Filters>(std::move(*list), own);
    GHOST_TRY(filters->check());
    return filters;
}

}  // namespace

Endpoint::Endpoint(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Endpoint::~Endpoint() = default;

Result<std::unique_ptr<Endpoint>> Endpoint::create(const EndpointConfig& config) {
    const RingGeometry geometry{config.ring_frames, static_cast<uint32_t>(config.ring_bytes)};
    if (config.use_shm && !geometry.valid()) {
        return ghost::make_error(ghost::Code::invalid, "size the rings of link shm");
    }
    if (auto links = parse_links(config.links); !links) return links.error();
    auto key = wire::HandshakeKey::make(config.secret_hex, config.job, config.life);
    if (!key) return key.error();
    uint64_t digest = 0;
    auto filters = make_filters(config, digest);
    if (!filters) return filters.error();
    std::unique_ptr<Endpoint> endpoint(new Endpoint(std::make_unique<Impl>(config, *key, digest)));
    endpoint->impl_->data.set_filters(std::move(*filters));
    GHOST_TRY(endpoint->impl_->connector.open(config.node, config.node_name, config.epoch));
    return endpoint;
}

Location Endpoint::location() const {
    std::lock_guard lock(impl_->mutex);
    return impl_->connector.location();
}

int Endpoint::service_fd() const {
    std::lock_guard lock(impl_->mutex);
    return impl_->connector.fd();
}

void Endpoint::service() {
    std::vector<uint32_t> unknown;
    bool push = false, look = false;
    {
        std::lock_guard lock(impl_->mutex);
        impl_->connector.service(unknown);
        push = impl_->connector.push_due();
        look = impl_->connector.look_due();
    }
    if (look) {
        if (!gate_closed()) {
            close_gate();
            impl_->data.leave_dead();
            open_gate();
        }
        std::lock_guard lock(impl_->mutex);
        impl_->connector.looked();
    }
    // With the gate closed by a move there is nobody to send for.
    if (push) {
        DataPath::Pushed pushed{true, false};
        if (!gate_closed() && !impl_->data.looked_after()) {
            close_gate();
            pushed = impl_->data.push();
            open_gate();
        }
        std::lock_guard lock(impl_->mutex);
        impl_->connector.pushed(pushed.waits, pushed.moved);
    }
    if (!on_unknown_location) return;
    for (uint32_t rank : unknown) on_unknown_location(rank);
}

void Endpoint::close_gate() {
    impl_->data.gate().close();
}
void Endpoint::open_gate() {
    impl_->data.gate().open();
}
bool Endpoint::gate_closed() const {
    return impl_->data.gate().closed();
}

void Endpoint::suspend_all() {
    std::lock_guard lock(impl_->mutex);
    if (!impl_->connector.is_open()) return;
    impl_->data.suspend_all();
    impl_->connector.close(false);
}

Status Endpoint::begin_life(const std::string& life) {
    std::lock_guard lock(impl_->mutex);
    if (impl_->connector.is_open())
        return ghost::make_error(ghost::Code::invalid, "begin another life among links");
    GHOST_TRY(impl_->connector.begin_life(life));
    impl_->data.begin_life(life);
    return {};
}

Status Endpoint::wakeup_all(int node, const std::string& node_name, uint64_t epoch,
                            const std::vector<Location>& peers) {
    std::lock_guard lock(impl_->mutex);
    if (impl_->connector.is_open()) return {};
    GHOST_TRY(impl_->connector.open(node, node_name, epoch));
    for (const Location& peer : peers) impl_->connector.set_location(peer);
    impl_->data.wakeup_all();
    impl_->connector.reconnect_all();
    return {};
}

void Endpoint::set_location(const Location& location) {
    std::lock_guard lock(impl_->mutex);
    impl_->connector.set_location(location);
}

DataPath& Endpoint::data() {
    return impl_->data;
}

}  // namespace kernet
