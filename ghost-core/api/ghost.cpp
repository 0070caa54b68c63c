// SPDX-License-Identifier: BSD-3-Clause
// The C API's ghosts and processes.
#include "ghost-core/include/ghost.h"

#include <cstdlib>

#include "ghost-core/api/objects.hpp"
#include "ghost-core/engine/migration.hpp"
#include "ghost-core/engine/plain.hpp"

using namespace ghost;
using namespace ghost::core;
using namespace ghost::api;

ghost_object* ghost_create(void) {
    return guarded<ghost_object*>(nullptr, [] { return new ghost_object; });
}

void ghost_free(ghost_object* g) {
    delete g;
}

int ghost_plug(ghost_object* g, uint32_t class_id) {
    return status_of([&]() -> Status {
        if (!registry().kinds().count(class_id))
            return make_error(Code::invalid, "plug resource", {},
                              "no class has the id " + std::to_string(class_id));
        g->class_id = class_id;
        g->specification.clear();
        return {};
    });
}

int ghost_set_parameters(ghost_object* g, const char* parameters) {
    return status_of([&]() -> Status {
        g->parameters = parameters;
        return {};
    });
}

int ghost_plug_specification(ghost_object* g, const char* specification) {
    return status_of([&]() -> Status {
        // one to be read is made without doing anything yet; the network is only to be written
        const bool network = std::string_view(specification).starts_with("network,");
        auto tried = registry().make(specification, Use::read);
        if (!network && !tried && tried.error().code == Code::invalid) return tried.error();
        g->specification = specification;
        return {};
    });
}

int ghost_set_then(ghost_object* g, ghost_then then) {
    return status_of([&]() -> Status {
        if (then < GHOST_THEN_CONTINUE || then > GHOST_THEN_KILL)
            return make_error(Code::invalid, "say what becomes of the original");
        g->then = then;
        return {};
    });
}

int ghost_set_mode(ghost_object* g, ghost_mode mode) {
    return status_of([&]() -> Status {
        if (mode < GHOST_MODE_STOP || mode > GHOST_MODE_HYBRID)
            return make_error(Code::invalid, "say how a process is taken");
        g->mode = mode;
        return {};
    });
}

int ghost_set_tracking(ghost_object* g, int tracking) {
    g->tracks = tracking != 0;
    return 0;
}

int ghost_set_trust_owner(ghost_object* g, int trust) {
    g->reads = trust != 0 ? Whose::anybodys : Whose::trusted;
    return 0;
}

int ghost_make_keys(const char* path) {
    return status_of([&]() -> Status {
        auto made = ghost::make_keys(path);
        return made ? Status() : made.error();
    });
}

int ghost_set_sign_key(ghost_object* g, const char* file) {
    return status_of([&]() -> Status {
        if (file == nullptr) return g->signs = nullptr, Status();
        auto key = ghost::SigningKey::load(file);
        if (!key) return key.error();
        g->signs = std::move(*key);
        return {};
    });
}

int ghost_set_verify_key(ghost_object* g, const char* file) {
    return status_of([&]() -> Status {
        if (file == nullptr) return g->signer.reset(), Status();
        auto key = ghost::PublicKey::load(file);
        if (!key) return key.error();
        g->signer = *key;
        return {};
    });
}

int ghost_set_parent(ghost_object* g, ghost_object* parent) {
    return status_of([&]() -> Status {
        for (const auto* at = parent; at != nullptr; at = at->parent)
            if (at == g) return make_error(Code::invalid, "make a ghost its own parent");
        g->parent = parent;
        return {};
    });
}

int ghost_set_progress(ghost_object* g, ghost_progress progress, void* argument) {
    g->progress = progress;
    g->progress_argument = argument;
    return 0;
}

void ghost_cancel(ghost_object* g) {
    g->cancellation.cancel();
}

int ghost_export_process(ghost_object* g, pid_t process) {
    return status_of([&] { return export_process(*g, process); });
}

pid_t ghost_import_process(ghost_object* g) {
    return guarded<pid_t>(-1, [&]() -> pid_t {
        auto made = import_process(*g);
        return made.ok() ? *made : fail(made.error());
    });
}

pid_t ghost_start_process(char* const* argv) {
    return guarded<pid_t>(-1, [&]() -> pid_t {
        auto started = start_process(argv);
        return started.ok() ? *started : fail(started.error());
    });
}

int ghost_wait_process(pid_t process, int* status) {
    return status_of([&]() -> Status {
        auto ended = wait_process(process);
        if (!ended) return ended.error();
        if (status != nullptr) *status = *ended;
        return {};
    });
}

int ghost_is_clone(void) {
    const char* told = getenv(clone_variable);
    if (told != nullptr) return *told == '1' ? 1 : 0;
    return status_of(
        [] { return make_error(Code::not_found, "read the variable", clone_variable); });
}

int ghost_resume_process(pid_t process) {
    return status_of([&]() -> Status {
        auto tree = find_plain(process);
        if (!tree) return tree.error();
        return resume_tree(tree->root);
    });
}

int ghost_destroy_process(pid_t process) {
    return status_of([&]() -> Status {
        auto tree = find_plain(process);
        if (!tree) return tree.error();
        end_plain(*tree);
        return {};
    });
}

int ghost_get_statistics(const ghost_object* g, ghost_statistics* statistics) {
    return status_of([&] { return give(g->statistics, statistics); });
}

int ghost_associate_buffer(ghost_object* g, ghost_buffer* b) {
    g->buffer = b;
    if (g->class_id == 0) g->class_id = GHOST_MEMORY;
    return 0;
}

int ghost_associate_file(ghost_object* g, ghost_file* f) {
    g->file = f;
    if (g->class_id == 0) g->class_id = GHOST_FILE;
    return 0;
}

int ghost_associate_network(ghost_object* g, const char* node, const char* channel, int port) {
    return status_of([&]() -> Status {
        if (channel == nullptr || *channel == '\0' || port <= 0 || port > 65535)
            return make_error(Code::invalid, "associate network", {},
                              "a channel and a port are needed");
        g->network = {node != nullptr ? node : "", channel, port};
        if (g->class_id == 0) g->class_id = GHOST_NETWORK;
        return {};
    });
}
