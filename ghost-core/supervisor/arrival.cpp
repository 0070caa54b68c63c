// SPDX-License-Identifier: BSD-3-Clause
#include "ghost-core/supervisor/arrival.hpp"

#include "ghost-core/criu/nested.hpp"
#include "ghost-core/supervisor/work_folder.hpp"

namespace ghost::core {

Result<LiveArrival> receive_live(const LiveArrivalRequest& asked, Resource& in) {
    WorkFolder folder;
    GHOST_TRY(folder.make("plain"));
    // What criu makes does not outlive this process before it runs.
    auto guard = Guard::start({.duty = Guard::Duty::kill, .folder = folder.path()});
    if (!guard) return guard.error();
    LiveArrival out;
    LiveImportRequest request;
    request.criu = {asked.criu, folder.path()};
    request.progress = asked.progress;
    GHOST_TRY(warm_up_once(request.criu));
    request.inherit = [&](const GhostMetadata& known) -> Result<std::vector<InheritFd>> {
        if (!known.process)
            return make_error(Code::refused, "move here", {}, "this is no process outside of MPI");
        out.tree.inner = known.process->inner;
        auto stdio = StdioEnds::make(*known.process, asked.relays);
        if (!stdio) return stdio.error();
        out.stdio = std::make_unique<StdioEnds>(std::move(*stdio));
        return out.stdio->heirs();
    };
    request.release = [&]() -> Status {
        if (asked.release) GHOST_TRY(asked.release());
        guard->watch(0);
        out.stdio->start();
        return {};
    };
    request.tells_root = [&](pid_t root) { guard->watch(root); };
    auto got = live_import(request, in);
    if (!got) return got.error();
    out.import = std::move(*got);
    out.tree.root = out.import.root;
    out.tree.program = program_of(out.import.root);
    return out;
}

}  // namespace ghost::core
