// SPDX-License-Identifier: BSD-3-Clause
#include "tools/lab/lab.hpp"

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <filesystem>
#include <fmt/format.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.hpp"
#include "base/proc.hpp"
#include "tools/lab/network.hpp"
#include "tools/lab/node.hpp"
#include "tools/paths.hpp"

namespace ghost::tools::lab {
namespace {

constexpr int kill_limit_ms = 10'000;
constexpr int ready_limit_ms = 20'000;

// What the first lab has to add to the machine and the last one takes away again.
struct Addition {
    const char* path;
    const char* mark;  // in the root folder: it was us
};
constexpr Addition additions[] = {{"/scratch", ".made-scratch"}, {"/run/netns", ".made-netns"}};

// Called with the lab's folder locked, so that this lab is seen by remove_additions().
Status make_additions() {
    auto lock = lock_folder(root_folder());
    GHOST_TRY(lock);
    for (const Addition& addition : additions) {
        struct stat st {};
        if (::stat(addition.path, &st) == 0) continue;
        GHOST_TRY(write_file(root_folder() + "/" + addition.mark, "", 0600));
        if (::mkdir(addition.path, 0755) != 0 && errno != EEXIST) {
            return sys_error("create", addition.path);
        }
    }
    return {};
}

Status remove_additions() {
    auto lock = lock_folder(root_folder());
    GHOST_TRY(lock);
    if (!known_labs().empty()) return {};
    for (const Addition& addition : additions) {
        std::string mark = root_folder() + "/" + addition.mark;
        struct stat st {};
        if (::stat(mark.c_str(), &st) != 0) continue;
        std::error_code ec;
        // ip-netns(8) mounts its folder on itself; somebody else's names in it keep it.
        if (std::filesystem::is_empty(addition.path, ec)) {
            ::umount2(addition.path, MNT_DETACH);
            ::rmdir(addition.path);
        }
        ::unlink(mark.c_str());
    }
    if (::rmdir(root_folder().c_str()) == 0) {
        ::rmdir(std::filesystem::path(root_folder()).parent_path().c_str());
    }
    return {};
}

// Everything but the folder. `state` may be empty or wrong.
Status demolish(const std::string& name, const LabState& state) {
    for (const NodeState& node : state.nodes) {
        if (is_alive(node.init)) GHOST_TRY(kill_process(node.init, kill_limit_ms));
    }
    for (const std::string& node : namespaces_of(name)) {
        GHOST_TRY(remove_namespace(name, node));
    }
    return {};
}

Status remove_node(const std::string& lab, NodeState& node) {
    if (is_alive(node.init)) GHOST_TRY(kill_process(node.init, kill_limit_ms));
    node.init = {};
    return remove_namespace(lab, node.name());
}

bool is_healthy(const std::string& lab, const NodeState& node) {
    return is_alive(node.init) && is_inside(node.init.pid, lab, node.name()) &&
           link_state(lab, node) != Link::absent;
}

bool has_switch(const std::string& lab) {
    return run_checked({"ip", "-n", namespace_name(lab, "switch"), "link", "show", "br0"}).ok();
}

// What is written down, or what a new lab begins with.
LabState wanted_state(const UpOptions& options) {
    auto old = load_state(options.name);
    LabState state = old.ok() ? *old : LabState{};
    state.name = options.name;
    state.boot = boot_id();
    int count =
        options.nodes.value_or(state.nodes.empty() ? 3 : static_cast<int>(state.nodes.size()));
    std::string rate = options.rate.value_or(state.nodes.empty() ? "none" : state.nodes[0].rate);
    for (int i = static_cast<int>(state.nodes.size()) + 1; i <= count; ++i) {
        state.nodes.push_back({i, {}, rate});
    }
    Paths paths = find_paths();
    std::vector<std::string> shares = options.shares;
    shares.push_back(paths.installed ? paths.program_folder : paths.root);
    for (const std::string& share : shares) {
        auto& known = state.shares;
        if (std::find(known.begin(), known.end(), share) == known.end()) known.push_back(share);
    }
    return state;
}

Status start_nodes(LabState& state, const std::vector<NodeState*>& nodes) {
    std::vector<StartingNode> starting;
    for (NodeState* node : nodes) {
        GHOST_TRY(remove_node(state.name, *node));
        GHOST_TRY(make_link(state.name, *node));
        auto started = StartingNode::start(state, *node);
        GHOST_TRY(started);
        node->init = started->init();
        starting.push_back(std::move(*started));
    }
    // Written before they are committed: an `up` killed now leaves no process, one killed later
    // leaves none that is not written down.
    GHOST_TRY(save_state(state));
    for (StartingNode& node : starting) GHOST_TRY(node.wait_ready(ready_limit_ms));
    for (StartingNode& node : starting) GHOST_TRY(node.commit());
    return {};
}

Status remove_surplus(LabState& state, size_t count) {
    while (state.nodes.size() > count) {
        GHOST_TRY(remove_node(state.name, state.nodes.back()));
        state.nodes.pop_back();
    }
    return {};
}

Status bring_up(LabState& state, const UpOptions& options) {
    if (!has_switch(state.name)) {
        GHOST_TRY(demolish(state.name, state));
        GHOST_TRY(make_switch(state.name));
    }
    if (options.nodes) GHOST_TRY(remove_surplus(state, static_cast<size_t>(*options.nodes)));
    GHOST_TRY(save_state(state));
    GHOST_TRY(write_lab_files(state));
    std::vector<NodeState*> missing;
    for (NodeState& node : state.nodes) {
        bool healthy = is_healthy(state.name, node);
        bool reshape = options.rate && node.rate != *options.rate;
        if (options.rate) node.rate = *options.rate;
        if (!healthy) {
            missing.push_back(&node);
            continue;
        }
        if (link_state(state.name, node) == Link::cut) {
            GHOST_TRY(set_link(state.name, node, true));
        }
        if (reshape) GHOST_TRY(shape_link(state.name, node));
    }
    GHOST_TRY(start_nodes(state, missing));
    return save_state(state);
}

Status check_privilege() {
    if (::geteuid() == 0) return {};
    return make_error(Code::refused, "make namespaces and links", {},
                      "the virtual cluster needs root");
}

Status check_options(const UpOptions& options) {
    if (!is_valid_name(options.name)) {
        return make_error(Code::invalid,
                          "use as a lab's name (letters, digits and '-'):", options.name);
    }
    if (options.nodes && (*options.nodes < 1 || *options.nodes > most_nodes)) {
        return make_error(Code::invalid, fmt::format("make that many nodes (1 to {}):", most_nodes),
                          std::to_string(*options.nodes));
    }
    if (options.rate && !is_valid_rate(*options.rate)) {
        return make_error(Code::invalid, "use as a rate:", *options.rate);
    }
    for (const std::string& share : options.shares) {
        if (!std::filesystem::is_directory(share)) {
            return make_error(Code::invalid, "share the folder", share);
        }
    }
    return {};
}

// Locks the lab, loads it, finds the node, acts, saves.
template <typename F>
Status with_node(const std::string& lab, const std::string& name, F&& action) {
    GHOST_TRY(check_privilege());
    auto known = load_state(lab);
    if (!known.ok()) return make_error(Code::not_found, "find a running lab named", lab);
    auto lock = lock_folder(lab_folder(lab));
    GHOST_TRY(lock);
    auto state = load_state(lab);
    GHOST_TRY(state);
    NodeState* node = state->find(name);
    if (node == nullptr) return no_such_node(*state, name);
    GHOST_TRY(action(*node));
    return save_state(*state);
}

}  // namespace

Result<LabState> up(const UpOptions& options) {
    GHOST_TRY(check_options(options));
    GHOST_TRY(check_privilege());
    auto lock = lock_folder(lab_folder(options.name));
    GHOST_TRY(lock);
    GHOST_TRY(make_additions());
    LabState state = wanted_state(options);
    Status done = bring_up(state, options);
    if (!done.ok()) return done.error();
    return state;
}

Result<bool> down(const std::string& name) {
    GHOST_TRY(check_privilege());
    auto known = known_labs();
    bool found = std::find(known.begin(), known.end(), name) != known.end();
    if (found) {
        auto lock = lock_folder(lab_folder(name));
        GHOST_TRY(lock);
        auto state = load_state(name);
        GHOST_TRY(demolish(name, state.ok() ? *state : LabState{}));
        std::error_code ec;
        std::filesystem::remove_all(lab_folder(name), ec);
        if (ec) return sys_error_of(ec.value(), "remove", lab_folder(name));
    }
    struct stat st {};
    if (::stat(root_folder().c_str(), &st) == 0) GHOST_TRY(remove_additions());
    return found;
}

Status cut(const std::string& lab, const std::string& node) {
    return with_node(lab, node, [&](NodeState& n) { return set_link(lab, n, false); });
}

Status heal(const std::string& lab, const std::string& node) {
    return with_node(lab, node, [&](NodeState& n) { return set_link(lab, n, true); });
}

Status kill_node(const std::string& lab, const std::string& node, bool silently) {
    return with_node(lab, node, [&](NodeState& n) -> Status {
        if (silently) GHOST_TRY(set_link(lab, n, false));
        return kill_process(n.init, kill_limit_ms);
    });
}

Status shape(const std::string& lab, const std::string& node, const std::string& rate) {
    if (!is_valid_rate(rate)) return make_error(Code::invalid, "use as a rate:", rate);
    return with_node(lab, node, [&](NodeState& n) {
        n.rate = rate;
        return shape_link(lab, n);
    });
}

Json status(const std::string& lab) {
    auto state = load_state(lab);
    Json out{{"name", lab}, {"state", "degraded"}, {"nodes", Json::array()}};
    if (!state.ok()) return out;
    bool whole = !state->nodes.empty() && has_switch(lab);
    for (const NodeState& node : state->nodes) {
        bool alive = is_alive(node.init);
        Link link = link_state(lab, node);
        whole = whole && alive && link == Link::up;
        out["nodes"].push_back({{"name", node.name()},
                                {"address", node.address()},
                                {"state", alive ? "up" : "dead"},
                                {"link", link == Link::up    ? "up"
                                         : link == Link::cut ? "cut"
                                                             : "absent"},
                                {"rate", node.rate},
                                {"pid", node.init.pid}});
    }
    if (whole) out["state"] = "up";
    return out;
}

}  // namespace ghost::tools::lab
