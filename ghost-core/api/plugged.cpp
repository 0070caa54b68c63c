// SPDX-License-Identifier: BSD-3-Clause
// The resource that a ghost is written to or read from, by what has been plugged.
#include <fmt/format.h>

#include "ghost-core/api/objects.hpp"
#include "ghost-core/resource/chain.hpp"
#include "ghost-core/resource/compress.hpp"
#include "ghost-core/resource/sign.hpp"

using namespace ghost::core;

namespace ghost::api {
namespace {

Error not_associated(const char* what) {
    return make_error(Code::invalid, "use ghost", {},
                      fmt::format("its resource is {}, but none is associated", what));
}

Result<Plugged> own(Result<std::unique_ptr<Resource>> made) {
    if (!made) return made.error();
    GHOST_TRY((*made)->init());
    Plugged out;
    out.owned = std::move(*made);
    out.resource = out.owned.get();
    return out;
}

// One that is ready, of its own or another's.
class Ready : public Resource {
  public:
    explicit Ready(Plugged plugged) : plugged_(std::move(plugged)) {}
    ResourceClass class_id() const override { return of().class_id(); }
    Status init() override { return {}; }
    Status write(const void* data, size_t size) override { return of().write(data, size); }
    Result<size_t> read(void* data, size_t size) override { return of().read(data, size); }
    const char* in_place(size_t size) override { return of().in_place(size); }
    Status finalize() override { return of().finalize(); }
    void interrupt() override { of().interrupt(); }

  private:
    Resource& of() const { return *plugged_.resource; }
    Plugged plugged_;
};

// What is written is signed, what is read is recognized if it is, as that of a specification.
Result<Plugged> with_signature(const ghost_object& g, Use use, Plugged plain) {
    if (use == Use::write && !g.signs) return plain;
    auto ready = std::make_unique<Ready>(std::move(plain));
    if (use == Use::write) return own(SignResource::writer(std::move(ready), g.signs));
    auto in = std::make_unique<PeekableResource>(std::move(ready));
    auto start = in->look(CompressResource::start_bytes);
    if (!start) return start.error();
    const bool is_signed =
        start->size() == CompressResource::start_bytes && SignResource::is_mine(start->data());
    if (is_signed)
        return own(std::unique_ptr<Resource>(SignResource::reader(std::move(in), g.signer)));
    if (g.signer) return make_error(Code::refused, "read ghost", {}, "it is not signed");
    return own(std::unique_ptr<Resource>(std::move(in)));
}

Result<Plugged> plain(ghost_object& g, Use use, Operation& operation, Parents parents) {
    auto classes = registry().reading(g.reads);
    if (g.signer) classes.expect_signer(*g.signer);
    if (!g.specification.empty())
        return own(use == Use::write           ? classes.make(g.specification, use)
                   : parents == Parents::found ? open_full(classes, g.specification)
                                               : classes.open(g.specification));
    switch (g.class_id) {
        case 0:
            return make_error(Code::invalid, "use ghost", {}, "no resource is plugged");
        case GHOST_MEMORY:
            if (g.buffer == nullptr) return not_associated("memory");
            if (use == Use::write) ghost_buffer_clear(g.buffer);
            return own(
                std::unique_ptr<Resource>(std::make_unique<MemoryResource>(g.buffer->buffer)));
        case GHOST_FILE: {
            if (g.file == nullptr) return not_associated("a file");
            GHOST_TRY(g.file->use(use, g.reads));
            Plugged out;
            out.resource = g.file->resource.get();
            return out;
        }
        case GHOST_NETWORK: {
            const auto& peer = g.network;
            if (peer.port == 0) return not_associated("the network");
            if (g.signs || g.signer)
                return make_error(Code::invalid, "use a key for the network", {},
                                  "what goes over it is sealed, not signed");
            if (use == Use::write && peer.node.empty()) return not_associated("a node");
            auto made = open_network(use == Use::write ? peer.node : "", peer.channel, peer.port,
                                     &operation);
            if (!made) return made.error();
            return own(std::unique_ptr<Resource>(std::move(*made)));
        }
        default:
            return own(classes.make(g.class_id, use, g.parameters));
    }
}

}  // namespace

// Over the network what comes must not be waited for here.
Result<Plugged> plugged(ghost_object& g, Use use, Operation& operation, Parents parents) {
    auto out = plain(g, use, operation, parents);
    const bool whole = use == Use::read && !g.specification.empty();
    if (!out || whole || (g.specification.empty() && g.class_id == GHOST_NETWORK)) return out;
    auto ready = with_signature(g, use, std::move(*out));
    if (!ready) unplug(g, use == Use::read);  // a file has been read from
    return ready;
}

void unplug(ghost_object& g, bool complete) {
    if (g.class_id != GHOST_FILE || !g.specification.empty() || g.file == nullptr) return;
    g.file->resource.reset();
    g.file->state = complete ? ghost_file::State::complete : ghost_file::State::idle;
}

}  // namespace ghost::api
