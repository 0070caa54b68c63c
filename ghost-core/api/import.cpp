// SPDX-License-Identifier: BSD-3-Clause
// Imports: a process is made of a ghost and its parents, or of what a migration brings.
#include <cerrno>
#include <csignal>
#include <deque>
#include <fmt/format.h>
#include <unistd.h>

#include "base/clock.hpp"
#include "ghost-core/api/objects.hpp"
#include "ghost-core/engine/preflight.hpp"
#include "ghost-core/supervisor/arrival.hpp"
#include "ghost-core/supervisor/work_folder.hpp"

using namespace ghost::core;

namespace ghost::api {
namespace {

// What of the ghost cannot live here, all at once; and the number it needs, if that is taken.
Status check_here(Importer& importer, const Resource& in) {
    const auto& [process, needs] = importer.known();
    if (!process)
        return make_error(Code::refused, "import process", {},
                          "this ghost is a rank's of an MPI job");
    auto lacking = check_target(needs, importer.host());
    if (in.class_id() == ResourceClass::network) leave_named(importer, lacking);
    if (!lacking.empty())
        return make_error(Code::refused, "import process here", {}, describe(lacking));
    const pid_t number = process->pid;
    if (!process->nested && (kill(number, 0) == 0 || errno != ESRCH))
        return make_error(
            Code::refused, "import process", {},
            "it needs its number again, and that is taken: " + std::to_string(number));
    return {};
}

ghost_statistics figures(uint64_t page_bytes, uint64_t skeleton_bytes, int64_t total_us) {
    ghost_statistics out{};
    out.size = sizeof out;
    out.bytes = page_bytes + skeleton_bytes;
    out.page_bytes = page_bytes;
    out.skeleton_bytes = skeleton_bytes;
    out.total_us = total_us;
    return out;
}

// The ghosts that the newest one is based on, as they were said to be.
class Ancestors {
  public:
    explicit Ancestors(Operation& operation) : operation_(operation) {}

    Status add_to(Importer& importer, ghost_object* parent) {
        for (; importer.parent(); parent = parent->parent) {
            if (parent == nullptr)
                return make_error(Code::refused, "import process", {},
                                  "the ghost is incremental, and its parent has not been set: " +
                                      importer.parent()->name);
            auto in = plugged(*parent, Use::read, operation_, Parents::given);
            if (!in) return in.error();
            plugged_.push_back(std::move(*in));
            used_.push_back(parent);
            GHOST_TRY(importer.add_parent(*plugged_.back().resource));
        }
        return {};
    }
    void unplug_all() {
        for (auto* one : used_) unplug(*one, true);
    }

  private:
    Operation& operation_;
    std::deque<Plugged> plugged_;
    std::vector<ghost_object*> used_;
};

Result<pid_t> import_ghost(ghost_object& g, Operation& operation, Resource& in) {
    WorkFolder folder;
    GHOST_TRY(folder.make("api"));
    const CriuSettings criu{criu_program(), folder.path()};
    GHOST_TRY(warm_up_once(criu));
    // What criu makes does not outlive this process before it runs.
    auto guard = Guard::start({.duty = Guard::Duty::kill, .folder = folder.path()});
    if (!guard) return guard.error();
    Ancestors ancestors(operation);
    auto importer = Importer::open(in, false);
    if (!importer) return importer.error();
    GHOST_TRY(check_here(*importer, in));
    GHOST_TRY(ancestors.add_to(*importer, g.parent));
    const auto& process = *importer->known().process;
    if (!process.nested) importer->expect_plain(process.pid);
    auto stdio = StdioEnds::make(process, StdioEnds::Relays::refused);
    if (!stdio) return stdio.error();
    importer->tell_root([&](pid_t root) { guard->watch(root); });
    auto held = importer->hold(criu, stdio->heirs(), operation.progress());
    ancestors.unplug_all();
    if (!held) return held.error();
    stdio->start();
    g.statistics = figures(held->bytes, held->skeleton_bytes, held->total_us);
    const pid_t root = held->root;
    auto released = operation.commit();
    if (released.ok()) released = release_tree(*held);
    if (!released.ok()) {
        destroy_tree(*held);
        return released.error();
    }
    g.huge = held->huge;
    return root;
}

Result<pid_t> import_live(ghost_object& g, Operation& operation, Resource& in) {
    const int64_t begin = monotonic_us();
    LiveArrivalRequest request;
    request.criu = criu_program();
    request.relays = StdioEnds::Relays::refused;
    request.release = [&operation] { return operation.commit(); };
    request.progress = operation.progress();
    auto moved = receive_live(request, in);
    if (!moved) return moved.error();
    g.statistics = figures(moved->import.bytes, 0, monotonic_us() - begin);
    g.huge = moved->import.huge;
    return moved->tree.root;
}

Result<pid_t> import_plugged(ghost_object& g, Operation& operation) {
    const bool live = page_order(g.mode).has_value();
    if (live && (!g.specification.empty() || g.class_id != GHOST_NETWORK))
        return make_error(Code::invalid, "import process", {},
                          "live, lazy and hybrid need a network as resource");
    auto plug =
        plugged(g, Use::read, operation, g.parent == nullptr ? Parents::found : Parents::given);
    if (!plug) return plug.error();
    operation.interrupted_by([&plug] { plug->resource->interrupt(); });
    auto in = operation.until_cancelled(*plug->resource);
    auto made = live ? import_live(g, operation, in) : import_ghost(g, operation, in);
    operation.interrupted_by({});
    unplug(g, true);
    return made;
}

}  // namespace

Result<pid_t> import_process(ghost_object& g) {
    g.statistics = {};
    Operation operation(g, "import process");
    auto made = import_plugged(g, operation);
    if (made) return made;
    return operation.failed(made.error());
}

}  // namespace ghost::api
