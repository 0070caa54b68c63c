// SPDX-License-Identifier: BSD-3-Clause
// Exports: a process is written while it is stopped, while it runs, or to a target that makes it
// meanwhile.
#include <filesystem>
#include <fmt/format.h>

#include "ghost-core/api/objects.hpp"
#include "ghost-core/supervisor/departure.hpp"

using namespace ghost::core;

namespace ghost::api {
namespace {

Then then_of(ghost_then then) {
    if (then == GHOST_THEN_STOP) return Then::stop;
    return then == GHOST_THEN_KILL ? Then::kill : Then::go_on;
}

ghost_statistics figures(const ExportStats& stats) {
    ghost_statistics out{};
    out.size = sizeof out;
    out.bytes = stats.page_bytes + stats.skeleton_bytes;
    out.page_bytes = stats.page_bytes;
    out.zero_bytes = stats.zero_bytes;
    out.skeleton_bytes = stats.skeleton_bytes;
    out.stopped_us = stats.frozen_us;
    out.total_us = stats.total_us;
    out.outcome = GHOST_OUTCOME_DONE;
    return out;
}

ghost_statistics figures(const LiveExport& sent) {
    const auto& stats = sent.stats;
    ghost_statistics out{};
    out.size = sizeof out;
    out.bytes = out.page_bytes = stats.bytes;
    out.stopped_us = stats.longest_stop();
    out.total_us = stats.total;
    out.rounds = static_cast<uint32_t>(stats.rounds);
    out.deferred_bytes = stats.deferred_bytes;
    switch (sent.outcome) {
        case LiveOutcome::stayed:
            out.outcome = GHOST_OUTCOME_STAYED;
            break;
        case LiveOutcome::exported:
        case LiveOutcome::moved:
            out.outcome = GHOST_OUTCOME_DONE;
            break;
        case LiveOutcome::stranded:
            out.outcome = GHOST_OUTCOME_STRANDED;
            break;
        case LiveOutcome::undecided:
            out.outcome = GHOST_OUTCOME_UNDECIDED;
            break;
    }
    return out;
}

// What can be said before anything is done.
Status check(const ghost_object& g) {
    if (g.parent != nullptr && g.mode != GHOST_MODE_CONCURRENT)
        return make_error(Code::invalid, "export process", {},
                          "only a concurrent export can be incremental");
    if (g.tracks && g.mode != GHOST_MODE_CONCURRENT)
        return make_error(Code::invalid, "export process", {},
                          "only a concurrent export tracks it");
    if (page_order(g.mode) && g.then != GHOST_THEN_KILL)
        return make_error(Code::invalid, "export process", {},
                          "live, lazy and hybrid are migrations, whose original is "
                          "to be killed (GHOST_THEN_KILL)");
    return {};
}

Status check_tree(const ghost_object& g, const PlainTree& tree) {
    if (g.mode == GHOST_MODE_STOP || tree.nested) return {};
    return make_error(Code::refused, "export process while it runs", std::to_string(tree.program),
                      "neither `ghost run` nor ghost_start_process() has started it");
}

// Where a child looks for its parent first; a hint.
std::string file_name(const ghost_object& g) {
    if (g.specification.empty() && g.file == nullptr) return {};
    const auto& path = g.specification.empty() ? g.file->path : g.specification;
    return std::filesystem::path(path.substr(path.rfind(':') + 1)).filename();
}

class Exporter {
  public:
    Exporter(ghost_object& g, Operation& operation) : g_(g), operation_(operation) {}

    Status run(pid_t process) {
        GHOST_TRY(check(g_));
        auto departure = Departure::begin(process, criu_program());
        if (!departure) return departure.error();
        GHOST_TRY(check_tree(g_, departure->tree));
        auto guard = departure->guard();
        if (!guard) return guard.error();
        auto request = departure->request();
        if (!request) return request.error();
        request_ = std::move(*request);
        request_.progress = operation_.progress();
        auto out = plugged(g_, Use::write, operation_);
        if (!out) return out.error();
        operation_.interrupted_by([&out] { out->resource->interrupt(); });
        auto status = check_importable_here(request_, *out->resource);
        if (status.ok()) status = write(departure->tree, *out->resource);
        operation_.interrupted_by({});
        unplug(g_, status.ok());
        return status;
    }

  private:
    Status write(const PlainTree& tree, Resource& out) {
        if (request_.progress) request_.progress(0, memory_of(request_));
        if (const auto order = page_order(g_.mode)) return live(*order, out);
        Stoppable until_cancelled(
            out, [this] { return operation_.go_on(); }, [this] { return operation_.commit(); });
        auto stats = g_.mode == GHOST_MODE_CONCURRENT ? concurrently(until_cancelled)
                                                      : export_tree(request_, until_cancelled);
        if (!stats) return stats.error();
        if (request_.progress) request_.progress(stats->page_bytes, stats->page_bytes);
        g_.statistics = figures(*stats);
        if (g_.mode == GHOST_MODE_CONCURRENT && g_.then == GHOST_THEN_CONTINUE) return {};
        return deal_with_original(tree, then_of(g_.then));
    }

    // The parent's tracking, or a new one. An export that fails ends it.
    Result<std::shared_ptr<Checkpointer>> tracking() {
        if (g_.parent == nullptr) return std::make_shared<Checkpointer>();
        auto out = std::move(g_.parent->tracking);
        g_.parent->tracking.reset();
        if (out && out->may_be_incremental(request_.root)) return out;
        return make_error(Code::refused, "export process", std::to_string(request_.root),
                          "the parent's export does not track it, or does no longer");
    }

    Result<ExportStats> concurrently(Resource& out) {
        if (!has_room(request_))
            return sys_error_of(ENOMEM, "copy the memory of process", std::to_string(request_.root),
                                Code::refused);
        auto checkpointer = tracking();
        if (!checkpointer) return checkpointer.error();
        auto wanted = checkpoint_request(request_);
        wanted.incremental = g_.parent != nullptr;
        wanted.keep_tracking = g_.tracks;
        wanted.leave_stopped = g_.then != GHOST_THEN_CONTINUE;
        wanted.name = file_name(g_);
        wanted.copying = [this](uint64_t) { return operation_.go_on().ok(); };
        auto made = (*checkpointer)->run(wanted, out);
        (*checkpointer)->wait_huge_pages();
        if (!made) return made.error();
        if (g_.tracks) g_.tracking = std::move(*checkpointer);
        return export_stats(*made);
    }

    Status live(PageOrder order, Resource& out) {
        if (out.class_id() != ResourceClass::network)
            return make_error(Code::invalid, "export process", {},
                              "live, lazy and hybrid need a network as resource");
        auto link = operation_.until_cancelled(out);
        auto request = live_request(request_, order);
        request.commit = [this] { return operation_.commit(); };
        const auto sent = live_export(request, link);
        g_.statistics = figures(sent);
        if (sent.outcome == LiveOutcome::moved) return {};
        const auto why = sent.error ? sent.error->message() : std::string("the target is gone");
        if (sent.outcome == LiveOutcome::stayed) return *sent.error;
        return make_error(Code::peer_lost, "tell whether the process runs at the target", {},
                          fmt::format("it stays stopped here ({})", why));
    }

    ghost_object& g_;
    Operation& operation_;
    ExportRequest request_;
};

}  // namespace

Status export_process(ghost_object& g, pid_t process) {
    g.tracking.reset();
    g.statistics = {};
    g.statistics.outcome = GHOST_OUTCOME_STAYED;
    Operation operation(g, "export process");
    auto status = Exporter(g, operation).run(process);
    return status.ok() ? status : operation.failed(status.error());
}

}  // namespace ghost::api
