// SPDX-License-Identifier: BSD-3-Clause
#include "tools/live_move.hpp"

#include "ghost-core/resource/stoppable.hpp"
#include "tools/paths.hpp"
#include "tools/plain_ghost.hpp"
#include "tools/terminal.hpp"

namespace ghost::tools {

std::optional<core::PageOrder> page_order_named(const std::string& mode) {
    if (mode == "live") return core::PageOrder::pre_copy;
    if (mode == "lazy") return core::PageOrder::post_copy;
    if (mode == "hybrid") return core::PageOrder::hybrid;
    return {};
}

Result<core::LiveExport> send_live(pid_t pid, core::Resource& out, core::PageOrder order) {
    auto departure = begin_departure(pid);
    if (!departure) return departure.error();
    auto plain = departure->request();
    if (!plain) return plain.error();
    GHOST_TRY(out.init());
    bool committed = false;  // it goes on whatever comes: half of what is done would be worse
    core::Stoppable link(out, [&] { return committed ? Status() : go_on_uninterrupted(); });
    ProgressLine line;
    auto request = core::live_request(*plain, order);
    request.progress = [&](uint64_t done, uint64_t total) { line.show("move", done, total); };
    request.commit = [&]() -> Status {
        if (interruption() != 0) return make_error(Code::refused, "move", {}, "it was interrupted");
        committed = true;
        return {};
    };
    auto done = core::live_export(request, link);
    line.clear();
    if (done.outcome == core::LiveOutcome::stayed) return *done.error;
    return done;
}

Result<core::LiveArrival> receive_live(core::Resource& in) {
    GHOST_TRY(in.init());
    core::LiveArrivalRequest request;
    request.criu = find_paths().criu;
    return core::receive_live(request, in);
}

}  // namespace ghost::tools
