// SPDX-License-Identifier: BSD-3-Clause
#include "tools/live_move.hpp"

#include "ghost-core/criu/nested.hpp"
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
    auto departure = Departure::begin(pid);
    if (!departure) return departure.error();
    auto plain = departure->request();
    if (!plain) return plain.error();
    GHOST_TRY(out.init());
    Interruptible link(out);
    ProgressLine line;
    core::LiveExportRequest request;
    request.root = plain->root;
    request.externals = plain->externals;
    request.metadata = plain->metadata;
    request.criu = plain->criu;
    request.order = order;
    request.progress = [&](uint64_t done, uint64_t total) { line.show("move", done, total); };
    request.commit = [&]() -> Status {
        if (interruption() != 0) return make_error(Code::refused, "move", {}, "it was interrupted");
        link.go_through();
        return {};
    };
    auto done = core::live_export(request, link);
    line.clear();
    if (done.outcome == core::LiveOutcome::stayed) return *done.error;
    return done;
}

Result<LiveReceived> receive_live(core::Resource& in) {
    GHOST_TRY(in.init());
    core::WorkFolder folder;
    GHOST_TRY(folder.make("plain"));
    LiveReceived out;
    int inner = 0;
    core::LiveImportRequest request;
    request.criu = criu_in(folder);
    GHOST_TRY(core::warm_up_once(request.criu));
    request.inherit = [&](const Json& metadata) -> Result<std::vector<core::InheritFd>> {
        const auto process = metadata.value("process", Json());
        if (!process.is_object())
            return make_error(Code::refused, "move here", {}, "this is no process outside of MPI");
        inner = process.value("inner", 0);
        auto stdio = StdioEnds::make(metadata);
        if (!stdio) return stdio.error();
        out.stdio = std::make_unique<StdioEnds>(std::move(*stdio));
        return out.stdio->heirs();
    };
    request.release = [&]() -> Status {
        out.stdio->start();
        return {};
    };
    auto got = core::live_import(request, in);
    if (!got) return got.error();
    out.tree.root = got->root;
    out.tree.program = core::program_of(got->root);
    out.tree.inner = inner;
    out.huge = got->huge;
    return out;
}

}  // namespace ghost::tools
