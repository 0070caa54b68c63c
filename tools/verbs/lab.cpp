// SPDX-License-Identifier: BSD-3-Clause
// `ghost lab`: the virtual cluster's verbs on the command line.
#include <fmt/format.h>
#include <memory>
#include <unistd.h>

#include "tools/lab/exec.hpp"
#include "tools/lab/lab.hpp"
#include "tools/lab/node.hpp"
#include "tools/verbs/verb.hpp"

namespace ghost::tools {
namespace {

struct LabArgs {
    std::string name;
    std::string node;
    std::string user;
    std::string rate;
    int nodes = 0;
    std::vector<std::string> shares;
    bool silently = false;
    int ready_fd = -1;
    int commit_fd = -1;
};

CommandLine add_action(CommandLine lab, const char* name, const char* help, LabArgs& args) {
    CommandLine app = lab.add_subcommand(name, help);
    app.add_option("--name", args.name,
                   "which lab (default: $GHOST_LAB, else the only one; for `up`: \"default\")");
    return app;
}

void add_node(CommandLine app, LabArgs& args) {
    app.add_option("node", args.node, "gn1, gn2, …").required();
}

int finish(const Status& status, bool json, const Json& result) {
    if (!status.ok()) return report(status.error(), json);
    if (json) print_json(result);
    return exit_done;
}

// Runs the action with the lab that is meant.
template <typename F>
int with_lab(const LabArgs& args, bool json, F&& action) {
    auto name = lab::choose_lab(args.name);
    if (!name.ok()) return report(name.error(), json);
    return action(*name);
}

int run_up(CommandLine app, const LabArgs& args, bool json) {
    lab::UpOptions options;
    const char* preset = std::getenv("GHOST_LAB");
    if (!args.name.empty()) {
        options.name = args.name;
    } else if (preset != nullptr && *preset != '\0') {
        options.name = preset;
    }
    if (app.is_given("-n")) options.nodes = args.nodes;
    if (app.is_given("--rate")) options.rate = args.rate;
    for (const std::string& share : args.shares) {
        options.shares.push_back(std::filesystem::absolute(share).lexically_normal().string());
    }
    auto state = lab::up(options);
    if (!state.ok()) return report(state.error(), json);
    if (json) {
        print_json(lab::status(state->name));
    } else {
        fmt::print("lab {}: {} nodes, gn1 to gn{}\n", state->name, state->nodes.size(),
                   state->nodes.size());
    }
    return exit_done;
}

int run_down(const LabArgs& args, bool json) {
    auto labs = lab::known_labs();
    if (args.name.empty() && std::getenv("GHOST_LAB") == nullptr && labs.empty()) {
        auto removed = lab::down("default");  // what the last lab added to the machine may be left
        return finish(removed.ok() ? Status() : Status(removed.error()), json,
                      {{"name", nullptr}, {"was_up", false}});
    }
    return with_lab(args, json, [&](const std::string& name) {
        auto removed = lab::down(name);
        if (!removed.ok()) return report(removed.error(), json);
        if (json) print_json({{"name", name}, {"was_up", *removed}});
        if (!json && !*removed) fmt::print("lab {} is not up\n", name);
        return exit_done;
    });
}

int run_exec(CommandLine app, const LabArgs& args) {
    std::vector<std::string> command = app.remaining();
    if (!command.empty() && command[0] == "--") command.erase(command.begin());
    if (command.empty())
        return report(make_error(Code::invalid, "run nothing", {}, "name a command after the node"),
                      false);
    return with_lab(args, false, [&](const std::string& name) {
        auto state = lab::load_state(name);
        if (!state.ok()) {
            return report(make_error(Code::not_found, "find a running lab named", name), false);
        }
        const lab::NodeState* node = state->find(args.node);
        if (node == nullptr) return report(lab::no_such_node(*state, args.node), false);
        Result<lab::LabUser> user = lab::LabUser{};
        if (!args.user.empty()) user = lab::prepare_user(*state, args.user);
        if (!user.ok()) return report(user.error(), false);
        auto ended =
            lab::exec_on_node(*state, *node, command, args.user.empty() ? nullptr : &*user);
        if (ended.ok()) return *ended;
        // A node that died under its command: 137, as if the command had got its SIGKILL.
        return report(ended.error(), false,
                      ended.error().code == Code::peer_lost ? 128 + 9 : exit_unharmed);
    });
}

void print_status(const Json& lab) {
    fmt::print("lab {}: {}\n", lab["name"].get<std::string>(), lab["state"].get<std::string>());
    for (const Json& node : lab["nodes"]) {
        fmt::print("  {:<6} {:<12} {:<5} link {:<7} rate {:<14} pid {}\n",
                   node["name"].get<std::string>(), node["address"].get<std::string>(),
                   node["state"].get<std::string>(), node["link"].get<std::string>(),
                   node["rate"].get<std::string>(), node["pid"].get<int>());
    }
}

// One lab if one is named, else all of them; always {"labs": […]}.
int run_status(const LabArgs& args, bool json) {
    std::vector<std::string> names = lab::known_labs();
    if (!args.name.empty() || std::getenv("GHOST_LAB") != nullptr) {
        auto name = lab::choose_lab(args.name);
        if (!name.ok()) return report(name.error(), json);
        bool known = std::find(names.begin(), names.end(), *name) != names.end();
        names.clear();
        if (known) names.push_back(*name);
    }
    Json labs = Json::array();
    bool whole = !names.empty();
    for (const std::string& name : names) {
        labs.push_back(lab::status(name));
        whole = whole && labs.back()["state"] == "up";
        if (!json) print_status(labs.back());
    }
    if (json) print_json({{"labs", labs}});
    if (!json && names.empty()) fmt::print("no lab is up\n");
    return whole ? exit_done : exit_unharmed;
}

void define_link_verbs(CommandLine app, int& exit_status, const std::shared_ptr<LabArgs>& args) {
    CommandLine cut = add_action(app, "cut", "cut a node off the network, silently", *args);
    add_node(cut, *args);
    auto cut_json = add_json(cut);
    cut.callback([=, &exit_status] {
        exit_status = with_lab(*args, *cut_json, [&](const std::string& name) {
            return finish(lab::cut(name, args->node), *cut_json,
                          {{"name", name}, {"node", args->node}, {"link", "cut"}});
        });
    });
    CommandLine heal = add_action(app, "heal", "connect a node again", *args);
    add_node(heal, *args);
    auto heal_json = add_json(heal);
    heal.callback([=, &exit_status] {
        exit_status = with_lab(*args, *heal_json, [&](const std::string& name) {
            return finish(lab::heal(name, args->node), *heal_json,
                          {{"name", name}, {"node", args->node}, {"link", "up"}});
        });
    });
    CommandLine shape = add_action(app, "shape", "limit the rate of a node's link", *args);
    add_node(shape, *args);
    shape.add_option("rate", args->rate, "fast-ethernet, gigabit, 10g, none, or like 250mbit")
        .required();
    auto shape_json = add_json(shape);
    shape.callback([=, &exit_status] {
        exit_status = with_lab(*args, *shape_json, [&](const std::string& name) {
            return finish(lab::shape(name, args->node, args->rate), *shape_json,
                          {{"name", name}, {"node", args->node}, {"rate", args->rate}});
        });
    });
}

void define_node_verbs(CommandLine app, int& exit_status, const std::shared_ptr<LabArgs>& args) {
    CommandLine exec = add_action(app, "exec", "run a command on a node", *args);
    exec.add_option("--user", args->user,
                    "an ordinary user of this machine to run it as, for whom ssh between the nodes "
                    "is ready, too (default: root)");
    add_node(exec, *args);
    exec.prefix_command();
    exec.footer("Everything after NODE is the command; its exit status is returned.");
    exec.callback([=, &exit_status] { exit_status = run_exec(exec, *args); });

    CommandLine kill = add_action(app, "kill", "kill a node with everything on it", *args);
    add_node(kill, *args);
    kill.add_flag("--silently", args->silently, "cut its link first, as if it had lost power");
    auto kill_json = add_json(kill);
    kill.callback([=, &exit_status] {
        exit_status = with_lab(*args, *kill_json, [&](const std::string& name) {
            return finish(lab::kill_node(name, args->node, args->silently), *kill_json,
                          {{"name", name}, {"node", args->node}, {"state", "dead"}});
        });
    });

    CommandLine node = app.add_subcommand("node", "");
    node.hide();  // started by `up` only
    node.add_option("lab", args->name).required();
    add_node(node, *args);
    node.add_option("ready", args->ready_fd).required();
    node.add_option("commit", args->commit_fd).required();
    node.callback([=, &exit_status] {
        exit_status = lab::node_main(args->name, args->node, args->ready_fd, args->commit_fd);
    });
}

}  // namespace

void define_lab(CommandLine app, int& exit_status) {
    auto args = std::make_shared<LabArgs>();
    app.require_subcommand();
    CommandLine up = add_action(app, "up", "start or repair the nodes gn1, gn2, …", *args);
    up.add_option("-n", args->nodes, "number of nodes (default 3)");
    up.add_option("--rate", args->rate,
                  "rate of every node's link: fast-ethernet, gigabit, 10g, none (default)");
    up.add_option(
        "--share", args->shares,
        "also make this folder visible in the nodes; needed below /tmp, /run, /dev/shm and "
        "/scratch only (the build tree is always visible)");
    auto up_json = add_json(up);
    up.callback([=, &exit_status] { exit_status = run_up(up, *args, *up_json); });

    CommandLine down = add_action(app, "down", "end the lab and remove everything of it", *args);
    auto down_json = add_json(down);
    down.callback([=, &exit_status] { exit_status = run_down(*args, *down_json); });

    CommandLine status = add_action(app, "status", "show which labs and nodes are up", *args);
    auto status_json = add_json(status);
    status.callback([=, &exit_status] { exit_status = run_status(*args, *status_json); });

    // A node sees other process ids and no namespace names: nothing could be done right there.
    app.before_action([] {
        if (!lab::on_a_node() || ::getpid() == 1) return exit_done;
        fmt::print(stderr,
                   "ghost: this is a node of a lab; run `ghost lab` on the machine itself\n");
        return exit_unharmed;
    });
    define_link_verbs(app, exit_status, args);
    define_node_verbs(app, exit_status, args);
}

}  // namespace ghost::tools
