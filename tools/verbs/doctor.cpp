// SPDX-License-Identifier: BSD-3-Clause
// `ghost doctor`: what is missing on each node, and the command that repairs it.
#include <cstdlib>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <sstream>
#include <unistd.h>

#include "base/addresses.hpp"
#include "base/json_member.hpp"
#include "base/json_text.hpp"
#include "base/user_space.hpp"
#include "ghost-core/memory/userfault.hpp"
#include "tools/node_checks.hpp"
#include "tools/process.hpp"
#include "tools/verbs/verb.hpp"

namespace ghost::tools {
namespace {

// What can be done here as it is: whether ranks move and are saved, and by which --mode programs
// do.
Json works_now(bool jobs, bool programs, bool tracked) {
    Json modes = Json::array();
    if (programs) modes = {"stop", "concurrent"};
    if (programs && tracked) modes.push_back("live");
    if (programs && tracked && core::check_pages_may_follow()) {
        modes.push_back("lazy");
        modes.push_back("hybrid");
    }
    return {{"ranks", jobs}, {"programs", std::move(modes)}};
}

Json examine_here() {
    Paths paths = find_paths();
    // a user's wrapper does; what is missing then, the first check says
    const bool inside = enter_own_user_space().ok();
    Json out{{"node", host_name()}, {"user", ::geteuid()}, {"checks", Json::array()}};
    bool jobs = true, programs = true, tracked = true;
    for (const Check& check : node_checks()) {
        const bool tried = inside || check.what == For::jobs || out["checks"].empty();
        const Finding found = tried ? check.look(paths) : Finding{false, "not tried without that"};
        Json item{{"name", check.name},
                  {"needed", check.what != For::comfort},
                  {"ok", found.ok},
                  {"state", found.state}};
        if (!found.ok && tried) item["repair"] = found.repair.empty() ? check.repair : found.repair;
        if (!found.ok && check.what != For::comfort) jobs = false;
        if (!found.ok && check.what == For::all) programs = false;
        if (!found.ok && check.look == look_pagemap_scan) tracked = false;
        out["checks"].push_back(item);
    }
    out["ok"] = jobs;
    out["works"] = works_now(jobs, programs, tracked);
    return out;
}

// The way mpirun itself would reach the node, running the same file there.
Json examine_by_shell(const std::string& node) {
    const char* agent = std::getenv("OMPI_MCA_plm_rsh_agent");
    std::istringstream words(agent != nullptr ? agent : "ssh");
    std::vector<std::string> argv;
    for (std::string word; words >> word;) argv.push_back(word);
    argv.push_back(node);
    argv.push_back(shell_quote(find_paths().program_folder + "/ghost") + " doctor --json");
    auto end = run_program(argv);
    std::string text = end.ok() ? end->output : end.error().message();
    const Json answer = list_in(parse_json(text), "nodes");
    if (answer.size() == 1 && answer[0].is_object()) {
        Json out = answer[0];
        out["node"] = node;
        return out;
    }
    return {
        {"node", node},
        {"ok", false},
        {"checks",
         {{{"name", "remote shell"},
           {"needed", true},
           {"ok", false},
           {"state", text.substr(0, text.find('\n'))},
           {"repair", fmt::format("make `{} {} true` work without a password", argv[0], node)}}}}};
}

void print_works(const Json& works) {
    std::vector<std::string> modes;
    for (const Json& mode : list_in(works, "programs"))
        if (mode.is_string()) modes.push_back(mode);
    fmt::print("  works now: jobs, {}; {}\n",
               member(works, "ranks", false) ? "their moves and snapshots" : "but no rank moves",
               modes.empty()
                   ? "no program by `ghost run`"
                   : fmt::format("programs by `ghost run`, --mode {}", fmt::join(modes, ", ")));
}

void print_node(const Json& node) {
    fmt::print("{}: {}\n", member(node, "node", "?"),
               member(node, "ok", false) ? "ready" : "something is missing");
    for (const Json& check : list_in(node, "checks")) {
        bool ok = member(check, "ok", false);
        const char* mark = ok ? "ok" : member(check, "needed", true) ? "MISSING" : "optional";
        fmt::print("  {:<9} {:<27} {}\n", mark, member(check, "name", "?"),
                   member(check, "state", "?"));
        if (check.contains("repair"))
            fmt::print("            -> {}\n", member(check, "repair", "?"));
    }
    if (node.contains("works")) print_works(node["works"]);
}

int run_doctor(const std::vector<std::string>& names, bool json) {
    Json nodes = Json::array();
    if (names.empty()) nodes.push_back(examine_here());
    for (const std::string& name : names) nodes.push_back(examine_by_shell(name));
    bool ok = true;
    for (const Json& node : nodes) {
        ok = ok && member(node, "ok", false);
        if (!json) print_node(node);
    }
    if (json) print_json({{"ok", ok}, {"nodes", nodes}});
    return ok ? exit_done : exit_unharmed;
}

}  // namespace

void define_doctor(CommandLine app, int& exit_status) {
    auto nodes = std::make_shared<std::vector<std::string>>();
    app.add_option("--nodes", *nodes,
                   "nodes to look at over ssh, separated by commas (default: this node)")
        .delimiter(',');
    auto json = add_json(app);
    app.footer("Exit status: 0 nothing that is needed is missing; 1 something is; 2 wrong usage.");
    app.callback([=, &exit_status] { exit_status = run_doctor(*nodes, *json); });
}

}  // namespace ghost::tools
