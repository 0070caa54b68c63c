// SPDX-License-Identifier: BSD-3-Clause
#include "tools/plain_ghost.hpp"

#include <csignal>
#include <fmt/format.h>
#include <optional>
#include <unistd.h>

#include "base/clock.hpp"
#include "base/user_space.hpp"
#include "ghost-core/engine/lock_handover.hpp"
#include "ghost-core/engine/preflight.hpp"
#include "ghost-core/criu/nested.hpp"
#include "ghost-core/resource/stoppable.hpp"
#include "tools/paths.hpp"
#include "tools/terminal.hpp"
#include "tools/verbs/verb.hpp"

namespace ghost::tools {
namespace {

constexpr int64_t end_limit_us = 5'000'000;
constexpr useconds_t look_us = 1000;

// Waits until no process has this number any more.
Status wait_gone(pid_t pid) {
    const int64_t limit = monotonic_us() + end_limit_us;
    while (::kill(pid, 0) == 0) {
        if (monotonic_us() > limit)
            return make_error(Code::timeout, "wait for the original's end", std::to_string(pid));
        ::usleep(look_us);
    }
    return {};
}

std::string running_text(const core::PlainTree& tree) {
    return fmt::format("{}\n", tree.program);
}

// In the node's own PID name space that is root's (clone3(2), set_tid).
bool may_choose_number() {
    return ::geteuid() == 0;
}

}  // namespace

Result<Mode> mode_named(const std::string& name) {
    if (name == "concurrent") return Mode::concurrent;
    if (name == "stop") return Mode::stop;
    return make_error(Code::invalid, "understand --mode", name);
}

Result<Then> then_named(const std::string& name) {
    if (name == "continue") return Then::go_on;
    if (name == "stop") return Then::stop;
    if (name == "kill") return Then::kill;
    return make_error(Code::invalid, "understand --then", name);
}

Result<core::PlainTree> reach_plain(pid_t pid) {
    auto tree = core::find_plain(pid);
    if (!tree) return tree.error();
    const Status inside = enter_user_space_of(tree->root);
    if (inside) return tree;
    if (inside.error().code != Code::unsupported) return inside.error();
    return make_error(Code::refused, "take the process out of its system", std::to_string(pid),
                      "`ghost run` has not started it, so that only root may");
}

namespace {

Result<core::ExportStats> take_concurrently(const core::ExportRequest& request,
                                            core::Resource& out) {
    core::Checkpointer checkpointer;
    auto made = checkpointer.run(core::checkpoint_request(request), out);
    if (!made) return made.error();
    checkpointer.wait_huge_pages();
    if (!made->not_deferred.empty())
        fmt::print(stderr, "ghost: the process writes fast and was stopped longer for it: {}\n",
                   made->not_deferred);
    return core::export_stats(*made);
}

}  // namespace

Result<core::Departure> begin_departure(pid_t pid) {
    hold_interruptions();
    auto tree = reach_plain(pid);
    if (!tree) return tree.error();
    return core::Departure::begin(pid, find_paths().criu);
}

Result<Exported> export_plain(pid_t pid, core::Resource& out, Then then, Mode mode,
                              const Settle& settle) {
    auto departure = begin_departure(pid);
    if (!departure) return departure.error();
    const auto& tree = departure->tree;
    auto guard = departure->guard();
    if (!guard) return guard.error();
    // One that moves takes its exclusive locks along.
    const bool moves = then == Then::kill && out.class_id() == core::ResourceClass::network;
    auto request = departure->request(moves ? core::Ghosts::move : core::Ghosts::are_kept);
    if (!request) return request.error();
    GHOST_TRY(core::check_importable_here(*request, out));
    GHOST_TRY(out.init());
    ProgressLine line;
    request->progress = [&](uint64_t done, uint64_t total) { line.show("export", done, total); };
    core::Stoppable resource(out, go_on_uninterrupted);
    const bool concurrent =
        mode == Mode::concurrent && then == Then::go_on && tree.nested && core::has_room(*request);
    auto stats =
        concurrent ? take_concurrently(*request, resource) : core::export_tree(*request, resource);
    line.clear();
    if (!stats) return stats.error();
    const Exported done{tree, *stats};
    auto decided = settle ? settle(done, *guard) : Result<Then>(then);
    auto error = decided ? std::optional<Error>() : decided.error();
    if (error && !stats->given.empty())
        if (auto back = core::take_back(tree.root, stats->given); !back.ok())
            error->why += "; " + back.error().message();
    if (!concurrent) GHOST_TRY(core::deal_with_original(tree, decided ? *decided : Then::go_on));
    if (error) return *error;
    return done;
}

void add_mode(CommandLine app, std::string& mode) {
    app.add_option("--mode", mode,
                   "how an original that continues is saved: concurrent (it is stopped for "
                   "milliseconds, the default) or stop (it is stopped until all is written, which "
                   "finishes sooner)")
        .one_of({"concurrent", "stop"});
}

Json export_json(const Exported& exported) {
    const auto& stats = exported.stats;
    Json out{{"pid", exported.tree.program},
             {"bytes", stats.page_bytes + stats.skeleton_bytes},
             {"page_bytes", stats.page_bytes},
             {"zero_bytes", stats.zero_bytes},
             {"skeleton_bytes", stats.skeleton_bytes},
             {"pause_us", stats.frozen_us},
             {"skeleton_us", stats.skeleton_us},
             {"pages_us", stats.pages_us},
             {"total_us", stats.total_us}};
    if (!stats.not_deferred.empty()) out["not_deferred"] = stats.not_deferred;
    return out;
}

// Everything that can be known before the tree is made, in one report.
Status Arrival::check(core::Importer& importer) {
    const auto& [process, needs] = importer.known();
    if (!process)
        return make_error(Code::refused, "import", {},
                          "this ghost is not of a process outside of MPI");
    auto lacking = core::check_target(needs, importer.host());
    if (in_->class_id() == core::ResourceClass::network) core::leave_named(importer, lacking);
    if (!lacking.empty())
        return make_error(Code::refused, "import here", {},
                          "this node lacks what the ghost needs: " + core::describe(lacking));
    if (options_.check_original) original_ = core::still_running(process->original);
    if (original_ != 0 && !options_.replace)
        return make_error(
            Code::refused, "restart", {},
            fmt::format("the original still runs, process {} (--replace ends it)", original_));
    process_ = *process;
    if (process_.nested) return {};
    tree_.nested = false;
    if (!may_choose_number())
        return make_error(Code::refused, "import", {},
                          "the process was not started by `ghost run`, so it needs its number "
                          "again, and only root may give it that");
    // It needs its number again, so the original has to go first.
    if (original_ != 0) GHOST_TRY(end_original());
    return check_number(process_.pid);
}

Status Arrival::check_number(pid_t wanted) const {
    if (::kill(wanted, 0) != 0 && errno == ESRCH) return {};
    return make_error(Code::refused, "import", {},
                      fmt::format("the process was not started by `ghost run`, so it needs its "
                                  "number again, and that is taken: {}",
                                  wanted));
}

Result<std::unique_ptr<Arrival>> Arrival::make(std::unique_ptr<core::Resource> in,
                                               const ImportOptions& options) {
    std::unique_ptr<Arrival> out(new Arrival(options));
    GHOST_TRY(out->folder_.make("plain"));
    // What criu makes does not outlive this process, unless it is let go detached.
    auto guard =
        core::Guard::start({.duty = core::Guard::Duty::kill, .folder = out->folder_.path()});
    if (!guard) return guard.error();
    out->guard_ = std::move(*guard);
    out->in_ = std::move(in);
    GHOST_TRY(out->in_->init());
    core::Stoppable resource(*out->in_, go_on_uninterrupted);
    auto importer = core::Importer::open(resource, false);
    if (!importer) return importer.error();
    GHOST_TRY(out->check(*importer));
    auto stdio = core::StdioEnds::make(out->process_);
    if (!stdio) return stdio.error();
    out->stdio_ = std::move(*stdio);
    const core::CriuSettings criu{find_paths().criu, out->folder_.path()};
    GHOST_TRY(core::warm_up_once(criu));
    if (!out->tree_.nested) importer->expect_plain(out->process_.pid);
    importer->tell_root([&out](pid_t root) { out->guard_.watch(root); });
    ProgressLine line;
    auto held = importer->hold(criu, out->stdio_.heirs(), [&](uint64_t done, uint64_t total) {
        line.show("import", done, total);
    });
    line.clear();
    if (!held) return held.error();
    out->held_ = *held;
    out->tree_.root = held->root;
    out->tree_.program = out->tree_.nested ? core::program_of(held->root) : held->root;
    out->tree_.inner = out->process_.inner;
    return out;
}

Arrival::~Arrival() {
    core::destroy_tree(held_);
}

Status Arrival::end_original() {
    auto tree = core::find_plain(original_);
    // it may have ended by itself meanwhile
    if (!tree) return tree.error().code == Code::not_found ? Status() : tree.error();
    core::end_plain(*tree);
    GHOST_TRY(wait_gone(tree->root));
    original_ = 0;
    return {};
}

Status Arrival::let_go() {
    if (options_.clone) core::mark_clone(held_.root);
    if (original_ != 0) GHOST_TRY(end_original());
    stdio_.start();
    GHOST_TRY(core::release_tree(held_));
    if (options_.detach) guard_.stop();
    folder_.remove();
    held_.root = 0;  // runs, nobody destroys it any more
    return {};
}

int Arrival::attend(const core::Signals& signals) {
    const int status = tools::attend(tree_, signals);
    guard_.stop();
    stdio_.drain();
    return status;
}

Json Arrival::json() const {
    return {{"pid", tree_.program},
            {"inner_pid", tree_.inner},
            {"bytes", held_.bytes + held_.skeleton_bytes},
            {"page_bytes", held_.bytes},
            {"skeleton_bytes", held_.skeleton_bytes},
            {"skeleton_us", held_.skeleton_us},
            {"pages_us", held_.pages_us},
            {"total_us", held_.total_us}};
}

int import_plain(const std::function<Result<std::unique_ptr<core::Resource>>()>& in,
                 const ImportOptions& options) {
    auto signals = core::Signals::block();
    if (!signals) return report(signals.error(), options.json);
    Detached background;
    if (options.detach) {
        auto made = Detached::start();
        if (!made) return report(made.error(), options.json);
        background = std::move(*made);
    }
    const auto failed = [&](const Error& error) {
        if (!options.detach) return report(error, options.json);
        const auto text = json_lines({{"error", error.message()}, {"exit", exit_unharmed}});
        background.report(exit_unharmed, options.json ? text : "",
                          fmt::format("ghost: {}\n", error.message()));
        return exit_unharmed;
    };
    if (auto space = enter_own_user_space(); !space) return failed(space.error());
    auto resource = in();
    if (!resource) return failed(resource.error());
    auto arrival = Arrival::make(std::move(*resource), options);
    if (!arrival) return failed(arrival.error());
    const auto json = (*arrival)->json();
    if (auto gone = (*arrival)->let_go(); !gone.ok()) return failed(gone.error());
    if (options.detach)
        background.report(exit_done,
                          options.json ? json_lines(json) : running_text((*arrival)->tree()));
    else if (options.json)
        print_json(json);
    std::fflush(nullptr);
    core::end_like((*arrival)->attend(*signals));
}

}  // namespace ghost::tools
