// SPDX-License-Identifier: BSD-3-Clause
// The C API's ghosts: export and import of a process through the plugged resource.
#include "ghost-core/include/ghost.h"

#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <fmt/format.h>
#include <unistd.h>

#include "ghost-core/api/objects.hpp"
#include "ghost-core/engine/migration.hpp"
#include "ghost-core/engine/plain.hpp"
#include "ghost-core/engine/preflight.hpp"
#include "ghost-core/criu/nested.hpp"
#include "ghost-core/resource/chain.hpp"
#include "ghost-core/supervisor/work_folder.hpp"

using namespace ghost;
using namespace ghost::core;
using namespace ghost::api;

namespace {

CriuSettings criu_in(const WorkFolder& folder) {
    const char* program = std::getenv("GHOST_CRIU");
    CriuSettings out;
    out.program = program != nullptr ? program : GHOST_CRIU_PROGRAM;
    out.work_dir = folder.path();
    return out;
}

// The resource of one export or import, ready; an associated object stays its owner's.
struct Plugged {
    Resource* resource = nullptr;
    std::unique_ptr<Resource> owned;
};

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

Result<Plugged> plugged(ghost_object& g, Use use) {
    if (!g.specification.empty())
        return own(use == Use::read ? open_full(registry(), g.specification)
                                    : registry().make(g.specification, use));
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
            GHOST_TRY(g.file->use(use));
            Plugged out;
            out.resource = g.file->resource.get();
            return out;
        }
        case GHOST_NETWORK: {
            const auto& peer = g.network;
            if (peer.port == 0) return not_associated("the network");
            if (use == Use::write && peer.node.empty()) return not_associated("a node");
            auto made = open_network(use == Use::write ? peer.node : "", peer.channel, peer.port);
            if (!made) return made.error();
            return own(std::unique_ptr<Resource>(std::move(*made)));
        }
        default:
            return own(registry().make(g.class_id, use, g.parameters));
    }
}

Status deal_with_original(const PlainTree& tree, ghost_then then) {
    if (then == GHOST_THEN_CONTINUE) return resume_tree(tree.root);
    if (then == GHOST_THEN_STOP)
        calm_tree(tree.root);
    else
        end_plain(tree);
    return {};
}

// Another resource, until the export is cancelled.
class Cancellable final : public Resource {
  public:
    Cancellable(Resource& inner, const std::atomic<bool>& cancelled)
        : inner_(inner), cancelled_(cancelled) {}
    ResourceClass class_id() const override { return inner_.class_id(); }
    Status init() override { return inner_.init(); }
    Status write(const void* data, size_t size) override {
        GHOST_TRY(wanted());
        return inner_.write(data, size);
    }
    Status write_gather(iovec* pieces, size_t count) override {
        GHOST_TRY(wanted());
        return inner_.write_gather(pieces, count);
    }
    Result<size_t> read(void* data, size_t size) override { return inner_.read(data, size); }
    Status finalize() override {
        GHOST_TRY(wanted());
        return inner_.finalize();
    }
    void interrupt() override { inner_.interrupt(); }
    Result<char*> room(size_t size) override {
        GHOST_TRY(wanted());
        return inner_.room(size);
    }
    Space* space() override { return inner_.space(); }
    bool holds(const void* data) const override { return inner_.holds(data); }

  private:
    Status wanted() const {
        if (!cancelled_) return {};
        return sys_error_of(ECANCELED, "export process", "", Code::refused);
    }

    Resource& inner_;
    const std::atomic<bool>& cancelled_;
};

// The user's function may say no, and throw.
Progress progress_of(ghost_object& g) {
    if (g.progress == nullptr) return {};
    return [&g](uint64_t done, uint64_t total) {
        try {
            if (g.progress(g.progress_argument, done, total) != 0) g.cancelled = true;
        } catch (...) {
            g.cancelled = true;
        }
    };
}

Status export_to(ghost_object& g, pid_t process) {
    g.cancelled = false;
    auto tree = find_plain(process);
    if (!tree) return tree.error();
    auto reasons = why_not_exportable(*tree);
    if (!reasons) return reasons.error();
    if (!reasons->empty()) return make_error(Code::refused, "export process", {}, reasons->front());
    WorkFolder folder;
    GHOST_TRY(folder.make("api"));
    const CriuSettings criu = criu_in(folder);
    GHOST_TRY(warm_up(criu));
    auto request = plain_export(*tree, criu);
    if (!request) return request.error();
    auto out = plugged(g, Use::write);
    if (!out) return out.error();
    request->progress = progress_of(g);
    const auto needs = request->metadata.value("needs", Json::object());
    if (request->progress) request->progress(0, needs.value("memory", uint64_t{0}));
    Cancellable resource(*out->resource, g.cancelled);
    auto stats = export_tree(*request, resource);
    if (!stats) return stats.error();
    if (request->progress) request->progress(stats->page_bytes, stats->page_bytes);
    // export_tree() has finalized it
    if (g.class_id == GHOST_FILE && g.specification.empty()) {
        g.file->resource.reset();
        g.file->state = ghost_file::State::complete;
    }
    g.statistics = {sizeof g.statistics,   stats->page_bytes + stats->skeleton_bytes,
                    stats->page_bytes,     stats->zero_bytes,
                    stats->skeleton_bytes, stats->frozen_us,
                    stats->total_us};
    return deal_with_original(*tree, g.then);
}

// What of the ghost cannot live here, all at once; and the number it needs, if that is taken.
Status check_here(const Importer& importer) {
    const auto process = importer.metadata().value("process", Json());
    if (!process.is_object())
        return make_error(Code::refused, "import process", {},
                          "this ghost is a rank's of an MPI job");
    const auto lacking = check_target(importer.metadata().value("needs", Json()), importer.host());
    if (!lacking.empty())
        return make_error(Code::refused, "import process here", {}, describe(lacking));
    const pid_t number = process.value("pid", 0);
    if (!process.value("nested", true) && (kill(number, 0) == 0 || errno != ESRCH))
        return make_error(
            Code::refused, "import process", {},
            "it needs its number again, and that is taken: " + std::to_string(number));
    return {};
}

Result<pid_t> import_from(ghost_object& g) {
    WorkFolder folder;
    GHOST_TRY(folder.make("api"));
    const CriuSettings criu = criu_in(folder);
    GHOST_TRY(warm_up(criu));
    auto in = plugged(g, Use::read);
    if (!in) return in.error();
    auto importer = Importer::open(*in->resource, false);
    if (!importer) return importer.error();
    GHOST_TRY(check_here(*importer));
    const auto process = importer->metadata()["process"];
    if (!process.value("nested", true)) importer->expect_plain(process.value("pid", 0));
    std::vector<InheritFd> heirs;
    for (const auto& [number, end] : outside_stdio(importer->metadata()))
        heirs.push_back({number, end.key});
    auto held = importer->hold(criu, heirs);
    if (!held) return held.error();
    g.statistics = {sizeof g.statistics,  held->bytes + held->skeleton_bytes,
                    held->bytes,          0,
                    held->skeleton_bytes, 0,
                    held->total_us};
    GHOST_TRY(release_tree(*held));
    g.huge = held->huge;
    if (g.class_id == GHOST_FILE && g.specification.empty()) GHOST_TRY(g.file->finish());
    return held->root;
}

}  // namespace

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

int ghost_set_progress(ghost_object* g, ghost_progress progress, void* argument) {
    g->progress = progress;
    g->progress_argument = argument;
    return 0;
}

void ghost_cancel(ghost_object* g) {
    g->cancelled = true;
}

int ghost_export_process(ghost_object* g, pid_t process) {
    return status_of([&] { return export_to(*g, process); });
}

pid_t ghost_import_process(ghost_object* g) {
    return guarded<pid_t>(-1, [&]() -> pid_t {
        auto made = import_from(*g);
        return made.ok() ? *made : fail(made.error());
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
