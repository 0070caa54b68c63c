// SPDX-License-Identifier: BSD-3-Clause
// What is behind the C API's pointers.
#pragma once

#include <atomic>
#include <memory>
#include <string>

#include "base/c_api.hpp"
#include "ghost-core/include/ghost.h"
#include "ghost-core/memory/huge_pages.hpp"
#include "ghost-core/resource/memory.hpp"
#include "ghost-core/resource/network.hpp"
#include "ghost-core/resource/registry.hpp"

struct ghost_buffer {
    std::shared_ptr<ghost::core::MemoryBuffer> buffer =
        std::make_shared<ghost::core::MemoryBuffer>();
    ghost::core::MemoryResource reader{buffer};  // where the next read begins
};

struct ghost_file {
    enum class State { idle, reading, writing, complete };
    std::string path;
    State state = State::idle;
    std::unique_ptr<ghost::core::Resource> resource;

    // Ready for this direction; the same one each time.
    ghost::Status use(ghost::core::Use use);
    ghost::Status finish();  // complete, if it was written
};

struct ghost_connection {
    std::unique_ptr<ghost::core::NetworkResource> network;
};

struct ghost_object {
    uint32_t class_id = 0;  // 0: not said
    std::string parameters;
    std::string specification;  // instead of both
    ghost_buffer* buffer = nullptr;
    ghost_file* file = nullptr;
    struct {
        std::string node, channel;
        int port = 0;
    } network;
    ghost_then then = GHOST_THEN_CONTINUE;
    ghost_progress progress = nullptr;
    void* progress_argument = nullptr;
    std::atomic<bool> cancelled{false};  // the export under way, by anybody
    ghost_statistics statistics{};
    std::shared_ptr<ghost::core::HugePages> huge;  // of the process imported last
};

namespace ghost::api {

using namespace ghost::c_api;  // NOLINT: its functions are what every function here is made of

// The classes this process knows. Changed by ghost_register_class() and ghost_load_class(), which
// a program calls before it uses them from several threads.
core::ResourceRegistry& registry();

// A connection for `channel`: to the node, or from the one that comes.
Result<std::unique_ptr<core::NetworkResource>> open_network(const std::string& node,
                                                            const std::string& channel, int port);

}  // namespace ghost::api
