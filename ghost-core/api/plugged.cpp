// SPDX-License-Identifier: BSD-3-Clause
// The resource that a ghost is written to or read from, by what has been plugged.
#include <fmt/format.h>

#include "ghost-core/api/objects.hpp"
#include "ghost-core/resource/chain.hpp"

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

}  // namespace

Result<Plugged> plugged(ghost_object& g, Use use, Operation& operation, Parents parents) {
    const auto classes = registry().reading(g.reads);
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

void unplug(ghost_object& g, bool complete) {
    if (g.class_id != GHOST_FILE || !g.specification.empty() || g.file == nullptr) return;
    g.file->resource.reset();
    g.file->state = complete ? ghost_file::State::complete : ghost_file::State::idle;
}

}  // namespace ghost::api
