// SPDX-License-Identifier: BSD-3-Clause
// `ghost dup`: a clone of a process, on this or another node; with --then kill, its migration.
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <optional>
#include <sodium.h>

#include "base/clock.hpp"
#include "base/encoding.hpp"
#include "base/json_text.hpp"
#include "ghost-core/engine/lock_handover.hpp"
#include "ghost-core/engine/preflight.hpp"
#include "ghost-core/engine/tree_facts.hpp"
#include "ghost-core/resource/network.hpp"
#include "tools/clone_line.hpp"
#include "tools/live_move.hpp"
#include "tools/plain_ghost.hpp"
#include "tools/terminal.hpp"
#include "tools/verbs/verb.hpp"

namespace ghost::tools {
namespace {

constexpr int ready_ms = 30000, held_ms = 120000, running_ms = 10000, cause_ms = 3000;

struct DupArgs {
    pid_t pid = 0;
    std::string to, then = "continue", mode = "concurrent";
};

struct Made {
    Exported exported;
    Json import;
    pid_t pid = 0;         // over there
    bool unclear = false;  // whether it runs there
};

std::string random_secret() {
    std::string bytes(32, '\0');
    randombytes_buf(bytes.data(), bytes.size());
    return encode_hex(bytes);
}

Error refusal(const schema::Received& said) {
    if (said.is<CloneLacks>())
        return make_error(Code::refused, "go there", {},
                          fmt::format("the node lacks what the process needs: {}",
                                      fmt::join(said.as<CloneLacks>().lines, "; ")));
    return make_error(Code::refused, "go on at the other node", {},
                      said.is<CloneFailed>() ? said.as<CloneFailed>().why : said.name());
}

template <typename Wanted>
Result<Wanted> hear(CloneLine& line, int timeout_ms) {
    auto said = line.receive(timeout_ms);
    if (!said) return said.error();
    if (!said->is<Wanted>()) return refusal(*said);
    return said->as<Wanted>();
}

// Nothing is stopped yet: all that the other node lacks is told now, but for what the tree has for
// a moment only.
Result<std::unique_ptr<core::NetworkResource>> prepare(const core::PlainTree& tree, CloneLine& line,
                                                       bool clone, bool live, bool takes_locks) {
    const auto secret = random_secret();
    std::optional<Error> lacks;
    for (core::Looks looks(tree.root, core::Ghosts::move, takes_locks);;) {
        GHOST_TRY(looks.look());
        const auto& facts = looks.lasting();
        const CloneOrder order{secret, facts.needs, facts.host(), clone, live};
        if (auto sent = line.send(order); !sent.ok()) return lacks ? *lacks : sent.error();
        auto said = line.receive(ready_ms);
        if (!said) return lacks ? *lacks : said.error();
        if (said->is<CloneReady>()) {
            const auto& ready = said->as<CloneReady>();
            return core::NetworkResource::connect(ready.address, ready.port, ready.token, secret);
        }
        lacks = refusal(*said);
        if (!said->is<CloneLacks>() || !looks.may_look()) return *lacks;
    }
}

Result<CloneRunning> let_go(CloneLine& line) {
    GHOST_TRY(line.send(CloneGo{}));
    return hear<CloneRunning>(line, running_ms);
}

// The tree is stopped complete at both ends. At no time two originals run, and never none can.
Result<Then> settle(CloneLine& line, Then then, core::Guard& guard, Made& made) {
    auto held = hear<CloneHeld>(line, held_ms);
    if (!held) return held.error();
    made.import = parse_json(held->import.text);
    if (then == Then::go_on) return then;
    guard.stop();  // from here on only an answer tells who lives
    const auto running = let_go(line);
    if (!running) {
        made.unclear = true;
        return Then::stop;
    }
    made.pid = running->pid;
    return then;
}

Result<core::PlainTree> tree_to_clone(pid_t pid, bool takes_locks) {
    auto tree = reach_plain(pid);
    if (!tree) return tree.error();
    GHOST_TRY(core::check_exportable(*tree));
    if (!tree->nested)
        return make_error(Code::refused, "clone process", std::to_string(pid),
                          "`ghost run` has not started it, so its number would be taken");
    if (takes_locks) return tree;
    auto locks = core::exclusive_locks(tree->root, fmt::format("tree of {}", tree->program));
    if (!locks) return locks.error();
    if (!locks->empty()) return because(Code::refused, fmt::format("{}", fmt::join(*locks, "; ")));
    return tree;
}

// Before this process goes into the tree's user name space: ssh is the user's as he has it, whose
// files of others are not nobody's, and what it starts here makes one of its own.
Result<CloneLine> line_to(const DupArgs& args) {
    if (auto tree = core::find_plain(args.pid); !tree) return tree.error();
    return CloneLine::start(args.to);
}

Result<Made> duplicate(const DupArgs& args, Then then, Mode mode) {
    auto line = line_to(args);
    if (!line) return line.error();
    const bool takes_locks = then == Then::kill;
    auto tree = tree_to_clone(args.pid, takes_locks);
    if (!tree) return tree.error();
    Made made;
    auto out = prepare(*tree, *line, then == Then::go_on, false, takes_locks);
    if (!out) return out.error();
    auto exported = export_plain(args.pid, **out, then, mode,
                                 [&](const Exported&, core::Guard& guard) -> Result<Then> {
                                     return settle(*line, then, guard, made);
                                 });
    if (!exported) {
        // A connection that breaks has its cause at the other end.
        auto cause = hear<CloneFailed>(*line, cause_ms);
        if (cause) return because(Code::refused, cause->why);
        return exported.error();
    }
    made.exported = *exported;
    if (then == Then::go_on) {
        const auto running = let_go(*line);
        if (!running) return running.error();
        made.pid = running->pid;
    }
    line->close();
    return made;
}

// Both are stopped, or nobody knows: what to say, and exit status 3.
int report_unclear(const DupArgs& args, const core::PlainTree& tree, bool json) {
    return report(
        make_error(
            Code::peer_lost, fmt::format("tell whether process {} runs on {}", tree.inner, args.to),
            {},
            fmt::format("the answer is missing, and the original is kept stopped. Look there; "
                        "if it does not run, let the original go on by `kill -CONT` of its "
                        "processes, pid {}",
                        tree.program)),
        json, exit_harmed);
}

int report_stranded(const DupArgs& args, const core::PlainTree& tree, const std::string& why,
                    bool json) {
    return report(
        make_error(
            Code::peer_lost, "bring all pages to", args.to,
            fmt::format("{}; what ran there has been ended. The original is stopped, whole as "
                        "it was before; if it may do again what it has done there since, let "
                        "it go on by `kill -CONT` of its processes, pid {}",
                        why, tree.program)),
        json, exit_harmed);
}

// A migration while it runs.
int run_live(const DupArgs& args, core::PageOrder order, bool json) {
    if (args.then != "kill")
        return report(make_error(Code::invalid, "use --mode with --then", args.then), json,
                      exit_usage);
    const int64_t begin = monotonic_us();
    auto line = line_to(args);
    if (!line) return report(line.error(), json);
    auto tree = tree_to_clone(args.pid, false);
    if (!tree) return report(tree.error(), json);
    auto out = prepare(*tree, *line, false, true, false);
    if (!out) return report(out.error(), json);
    auto sent = send_live(args.pid, **out, order);
    if (!sent) {
        // A connection that breaks has its cause at the other end.
        auto cause = hear<CloneFailed>(*line, cause_ms);
        const bool ours = !cause || sent.error().code != Code::peer_lost;
        return report(ours ? sent.error() : make_error(Code::refused, "move", {}, cause->why),
                      json);
    }
    out->reset();
    auto running = hear<CloneRunning>(*line, running_ms);
    using core::LiveOutcome;
    // The other end says that nothing is left there: did anything run?
    const bool ended = !running && running.error().code == Code::refused;
    const bool may_have_run =
        sent->outcome == LiveOutcome::stranded || (ended && order != core::PageOrder::pre_copy);
    if (!running && may_have_run)
        return report_stranded(args, *tree, running.error().message(), json);
    if (ended) {
        if (auto runs = core::resume_tree(tree->root); !runs.ok())
            return report(runs.error(), json);
        return report(running.error(), json);
    }
    if (!running && sent->outcome == LiveOutcome::undecided)
        return report_unclear(args, *tree, json);
    core::end_plain(*tree);  // it runs there, whole
    line->close();
    const auto& stats = sent->stats;
    const pid_t pid = running ? running->pid : 0;
    if (json) {
        print_json({{"pid", tree->program},
                    {"node", args.to},
                    {"clone_pid", pid},
                    {"then", args.then},
                    {"mode", args.mode},
                    {"bytes", stats.bytes},
                    {"rounds", stats.rounds},
                    {"attempts", stats.attempts},
                    {"downtime_us", stats.longest_stop()},
                    {"skeleton_stop_us", stats.skeleton_stop},
                    {"last_stop_us", stats.stop},
                    {"deferred_bytes", stats.deferred_bytes},
                    {"faults", stats.faults},
                    {"longest_fault_us", stats.longest_fault},
                    {"total_us", monotonic_us() - begin}});
        return exit_done;
    }
    fmt::print("process {} -> {} process {}  {}  paused {} and {}  {} rounds  total {}\n",
               tree->program, args.to, pid, bytes_text(stats.bytes), time_text(stats.skeleton_stop),
               time_text(stats.stop), stats.rounds, time_text(monotonic_us() - begin));
    if (stats.deferred_bytes > 0)
        fmt::print("{} of it followed when it ran there: {} waits for a page, {} at most\n",
                   bytes_text(stats.deferred_bytes), stats.faults, time_text(stats.longest_fault));
    return exit_done;
}

int run_dup(const DupArgs& args, bool json) {
    if (const auto order = page_order_named(args.mode)) return run_live(args, *order, json);
    auto then = then_named(args.then);
    if (!then) return report(then.error(), json);
    auto mode = mode_named(args.mode);
    if (!mode) return report(mode.error(), json);
    const int64_t begin = monotonic_us();
    auto made = duplicate(args, *then, *mode);
    if (!made) return report(made.error(), json);
    if (made->unclear) return report_unclear(args, made->exported.tree, json);
    Json out = export_json(made->exported);
    out["node"] = args.to;
    out["clone_pid"] = made->pid;
    out["import"] = made->import;
    out["then"] = args.then;
    out["total_us"] = monotonic_us() - begin;
    if (json) {
        print_json(out);
        return exit_done;
    }
    fmt::print("process {} -> {} process {}  {}  paused {}  total {}\n",
               made->exported.tree.program, args.to, made->pid,
               bytes_text(out["bytes"].get<uint64_t>()), time_text(made->exported.stats.frozen_us),
               time_text(out["total_us"].get<int64_t>()));
    return exit_done;
}

}  // namespace

void define_dup(CommandLine app, int& exit_status) {
    auto args = std::make_shared<DupArgs>();
    app.add_option("pid", args->pid, "any process of the tree, or its `ghost run`").required();
    app.add_option("--to", args->to, "target node, named as for ssh; localhost is this node")
        .required();
    app.add_option(
           "--then", args->then,
           "what happens to the original: continue (a clone, the default), stop, or kill (a "
           "migration)")
        .one_of({"continue", "stop", "kill"});
    app.add_option(
           "--mode", args->mode,
           "clone: concurrent (the original is stopped for milliseconds, the default) or stop "
           "(until all is written). Migration (--then kill): stop; live (pre-copy: memory is "
           "copied while the process runs); lazy (post-copy: memory follows, and both nodes are "
           "needed until all of it has arrived); hybrid (live, and memory that changes too fast "
           "follows)")
        .one_of({"concurrent", "stop", "live", "lazy", "hybrid"});
    auto json = add_json(app);
    app.footer(
        "GHOST_CLONE is 1 in the environment of a clone and 0 in the original. Descriptors that "
        "led outside the tree (terminal, pipes) are /dev/null in the clone.\n"
        "Exit status: 0 done; 1 refused or failed, the original continues; 2 wrong usage; 3 it is "
        "unknown which of the two is alive.");
    app.callback(
        [=, &exit_status] { exit_status = in_worker([&] { return run_dup(*args, *json); }); });
}

}  // namespace ghost::tools
