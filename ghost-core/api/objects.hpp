// SPDX-License-Identifier: BSD-3-Clause
// What is behind the C API's pointers.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "base/c_api.hpp"
#include "ghost-core/api/operation.hpp"
#include "ghost-core/engine/checkpoint.hpp"
#include "ghost-core/engine/live.hpp"
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

    // Ready for this direction; the same one each time. What is read is such a file.
    ghost::Status use(ghost::core::Use use, ghost::core::Whose whose = ghost::core::Whose::trusted);
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
    ghost::api::Cancellation cancellation;
    ghost_mode mode = GHOST_MODE_STOP;
    bool tracks = false;
    ghost::core::Whose reads = ghost::core::Whose::trusted;
    std::shared_ptr<const ghost::SigningKey> signs;  // none: exports do not
    std::optional<ghost::PublicKey> signer;          // of what is imported; none: it need not
    ghost_object* parent = nullptr;
    std::shared_ptr<ghost::core::Checkpointer> tracking;  // since its export; none: it is over
    ghost_statistics statistics{};
    std::shared_ptr<ghost::core::HugePages> huge;  // of the process imported last
};

namespace ghost::api {

using namespace ghost::c_api;  // NOLINT: its functions are what every function here is made of

// The classes this process knows. Changed by ghost_register_class() and ghost_load_class(), which
// a program calls before it uses them from several threads.
core::ResourceRegistry& registry();

// A connection for `channel`: to the node, or from the one that comes; a wait for that can be
// interrupted.
Result<std::unique_ptr<core::NetworkResource>> open_network(const std::string& node,
                                                            const std::string& channel, int port,
                                                            Operation* operation = nullptr);

// The resource of one export or import, ready; an associated object stays its owner's.
struct Plugged {
    core::Resource* resource = nullptr;
    std::unique_ptr<core::Resource> owned;
};
// `parents`: whether those of a ghost that is read are found by its specification.
enum class Parents { found, given };
Result<Plugged> plugged(ghost_object& g, core::Use use, Operation& operation,
                        Parents parents = Parents::found);
// It has been written or read to its end, or (false) given up.
void unplug(ghost_object& g, bool complete);

// What criu there is, and what ghost_mode means to the engine; nothing: no migration.
std::string criu_program();
std::optional<core::PageOrder> page_order(ghost_mode mode);

Status export_process(ghost_object& g, pid_t process);
Result<pid_t> import_process(ghost_object& g);
Result<pid_t> start_process(char* const* argv);
Result<int> wait_process(pid_t process);

}  // namespace ghost::api
