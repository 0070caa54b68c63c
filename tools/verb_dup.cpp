// `ghost dup`: a clone of a process, on this or another node; with --then kill, its migration.
#include <fmt/format.h>
#include <sodium.h>

#include "base/clock.hpp"
#include "ghost-core/mechanism/preflight.hpp"
#include "ghost-core/resource/network.hpp"
#include "tools/clone_line.hpp"
#include "tools/plain_ghost.hpp"
#include "tools/terminal.hpp"
#include "tools/verb.hpp"

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
    std::array<unsigned char, 32> bytes{};
    randombytes_buf(bytes.data(), bytes.size());
    std::string out(2 * bytes.size() + 1, '\0');
    sodium_bin2hex(out.data(), out.size(), bytes.data(), bytes.size());
    out.pop_back();
    return out;
}

Result<Json> hear(CloneLine& line, const std::string& wanted, int timeout_ms) {
    auto word = line.receive(timeout_ms);
    if (!word) return word.error();
    const auto type = word->value("t", "");
    if (type == wanted) return word;
    if (type == "lacks") {
        std::string all;
        for (const auto& one : word->value("lines", Json::array()))
            all += (all.empty() ? "" : "; ") + one.get<std::string>();
        return make_error(Code::refused, "go there: the node lacks what the process needs", all);
    }
    return make_error(Code::refused, "go on at the other node", word->value("why", type));
}

// Nothing stands yet: all that the other node lacks is told now.
Result<std::unique_ptr<core::NetworkResource>> prepare(const core::PlainTree& tree, CloneLine& line,
                                                       bool clone) {
    auto needs = core::needs_of(tree.root);
    if (!needs) return needs.error();
    auto facts = core::facts_of(tree.root);
    if (!facts) return facts.error();
    const auto secret = random_secret();
    GHOST_TRY(
        line.send({{"secret", secret}, {"needs", *needs}, {"facts", *facts}, {"clone", clone}}));
    auto ready = hear(line, "ready", ready_ms);
    if (!ready) return ready.error();
    return core::NetworkResource::connect(ready->value("address", ""), ready->value("port", 0),
                                          ready->value("token", ""), secret);
}

// The tree stands complete at both ends. At no time two originals run, and never none can.
Result<Then> settle(CloneLine& line, Then then, Guard& guard, Made& made) {
    auto held = hear(line, "held", held_ms);
    if (!held) return held.error();
    made.import = held->value("import", Json::object());
    if (then == Then::go_on) return then;
    guard.dismiss();  // from here on only an answer tells who lives
    const bool asked = line.send({{"t", "go"}}).ok();
    auto running = asked ? hear(line, "running", running_ms) : held;
    if (!asked || !running) {
        made.unclear = true;
        return Then::stop;
    }
    made.pid = running->value("pid", 0);
    return then;
}

Result<Made> duplicate(const DupArgs& args, Then then, Mode mode) {
    auto tree = core::find_plain(args.pid);
    if (!tree) return tree.error();
    GHOST_TRY(check_exportable(*tree));
    if (!tree->nested)
        return make_error(Code::refused,
                          "clone a process that `ghost run` has not started: its number would be "
                          "taken;",
                          std::to_string(args.pid));
    auto line = CloneLine::start(args.to);
    if (!line) return line.error();
    Made made;
    auto out = prepare(*tree, *line, then == Then::go_on);
    if (!out) return out.error();
    auto exported = export_plain(args.pid, **out, then, mode,
                                 [&](const Exported&, Guard& guard) -> Result<Then> {
                                     return settle(*line, then, guard, made);
                                 });
    if (!exported) {
        // A connection that breaks has its cause at the other end.
        auto cause = hear(*line, "failed", cause_ms);
        if (cause) return make_error(Code::refused, cause->value("why", ""));
        return exported.error();
    }
    made.exported = *exported;
    if (then == Then::go_on) {
        GHOST_TRY(line->send({{"t", "go"}}));
        auto running = hear(*line, "running", running_ms);
        if (!running) return running.error();
        made.pid = running->value("pid", 0);
    }
    line->close();
    return made;
}

int run(const DupArgs& args, bool json) {
    auto then = then_named(args.then);
    if (!then) return report(then.error(), json);
    auto mode = mode_named(args.mode);
    if (!mode) return report(mode.error(), json);
    const int64_t begin = monotonic_us();
    auto made = duplicate(args, *then, *mode);
    if (!made) return report(made.error(), json);
    if (made->unclear)
        return report(
            make_error(Code::peer_lost,
                       fmt::format("tell whether process {} runs on {}: the answer is missing, and "
                                   "the original is kept standing. Look there; if it does not run, "
                                   "let the original go on by `kill -CONT` of its processes, pid",
                                   made->exported.tree.inner, args.to),
                       std::to_string(made->exported.tree.program)),
            json, exit_harmed);
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
    fmt::print("process {} -> {} process {}  {}  stood {}  total {}\n", made->exported.tree.program,
               args.to, made->pid, bytes_text(out["bytes"].get<uint64_t>()),
               time_text(made->exported.stats.frozen_us),
               time_text(out["total_us"].get<int64_t>()));
    return exit_done;
}

}  // namespace

void define_dup(CLI::App& app, int& exit_status) {
    auto args = std::make_shared<DupArgs>();
    app.add_option("pid", args->pid, "a process of the tree, or its `ghost run`")->required();
    app.add_option("--to", args->to, "the node, as ssh knows it; localhost: this one")->required();
    app.add_option("--then", args->then,
                   "what the original does: continue (a clone), stop, or kill (a migration)")
        ->check(CLI::IsMember({"continue", "stop", "kill"}));
    add_mode(app, args->mode);
    auto json = add_json(app);
    app.footer(
        "GHOST_CLONE reads 1 in the environment of a clone, 0 in the original. What led outside of "
        "the tree (terminal, pipes) is /dev/null in it. Exit status: 0 done; 1 refused or failed, "
        "the original runs on; 2 usage; 3 it is not known which of the two lives.");
    app.callback([=, &exit_status] { exit_status = in_worker([&] { return run(*args, *json); }); });
}

}  // namespace ghost::tools
