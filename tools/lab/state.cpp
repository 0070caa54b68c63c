// SPDX-License-Identifier: BSD-3-Clause
#include "tools/lab/state.hpp"

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <fcntl.h>
#include <filesystem>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <set>
#include <sys/file.h>
#include <sys/stat.h>

#include "base/file.hpp"
#include "base/proc.hpp"
#include "tools/lab/network.hpp"

namespace ghost::tools::lab {

NodeState* LabState::find(const std::string& node) {
    auto it = std::find_if(nodes.begin(), nodes.end(),
                           [&](const NodeState& n) { return n.name() == node; });
    return it == nodes.end() ? nullptr : &*it;
}

const NodeState* LabState::find(const std::string& node) const {
    return const_cast<LabState*>(this)->find(node);
}

std::string root_folder() {
    return "/var/lib/ghost/lab";
}

std::string lab_folder(const std::string& name) {
    return root_folder() + "/" + name;
}

bool is_valid_name(const std::string& name) {
    return !name.empty() && name.size() <= 24 && name[0] != '-' &&
           std::all_of(name.begin(), name.end(),
                       [](unsigned char c) { return std::isalnum(c) || c == '-'; });
}

Result<Fd> lock_folder(const std::string& path) {
    for (int attempt = 0; attempt < 1000; ++attempt) {
        std::error_code ec;
        std::filesystem::create_directories(std::filesystem::path(path).parent_path(), ec);
        if (::mkdir(path.c_str(), 0700) != 0 && errno != EEXIST && errno != ENOENT) {
            return sys_error("create the lab's folder", path);
        }
        // The programs run meanwhile (ip, tc) inherit the lock: one whose `up` was killed ends what
        // it is at before anybody else has the lab. Nodes close everything.
        Fd fd(::open(path.c_str(), O_RDONLY | O_DIRECTORY));
        if (!fd.valid() && errno == ENOENT) continue;  // removed in between
        if (!fd.valid()) return sys_error("open the lab's folder", path);
        while (::flock(fd.get(), LOCK_EX) != 0) {
            if (errno != EINTR) return sys_error("lock the lab's folder", path);
        }
        struct stat held {
        }, now{};
        if (::fstat(fd.get(), &held) == 0 && ::stat(path.c_str(), &now) == 0 &&
            held.st_ino == now.st_ino && held.st_dev == now.st_dev) {
            return fd;
        }
    }
    return make_error(Code::busy, "lock the lab's folder", path);
}

Result<LabState> load_state(const std::string& name) {
    std::string path = lab_folder(name) + "/state.json";
    auto text = read_file(path);
    GHOST_TRY(text);
    Json json = Json::parse(*text, nullptr, false);
    if (!json.is_object()) return make_error(Code::corrupt, "understand", path);
    try {
        LabState state;
        state.name = name;
        state.boot = json.at("boot");
        state.shares = json.at("shares");
        for (const Json& item : json.at("nodes")) {
            NodeState node;
            node.index = item.at("index");
            node.init = {item.at("pid"), item.at("start")};
            node.rate = item.at("rate");
            // Start times of another boot name nobody.
            if (state.boot != boot_id()) node.init = {};
            state.nodes.push_back(node);
        }
        return state;
    } catch (const Json::exception&) {
        return make_error(Code::corrupt, "understand", path);
    }
}

Status save_state(const LabState& state) {
    Json nodes = Json::array();
    for (const NodeState& node : state.nodes) {
        nodes.push_back({{"index", node.index},
                         {"pid", node.init.pid},
                         {"start", node.init.start},
                         {"rate", node.rate}});
    }
    Json json{{"boot", state.boot}, {"shares", state.shares}, {"nodes", nodes}};
    return write_file(lab_folder(state.name) + "/state.json", json.dump(2) + "\n", 0600);
}

std::vector<std::string> known_labs() {
    std::set<std::string> names = labs_with_namespaces();
    std::error_code ec;
    for (const auto& entry : std::filesystem::directory_iterator(root_folder(), ec)) {
        std::string name = entry.path().filename();
        if (entry.is_directory(ec) && is_valid_name(name)) names.insert(name);
    }
    return {names.begin(), names.end()};
}

Result<std::string> choose_lab(const std::string& given) {
    std::string name = given;
    const char* preset = std::getenv("GHOST_LAB");
    if (name.empty() && preset != nullptr) name = preset;
    if (!name.empty()) {
        if (is_valid_name(name)) return name;
        return make_error(Code::invalid, "use as a lab's name (letters, digits and '-'):", name);
    }
    auto labs = known_labs();
    if (labs.size() == 1) return labs[0];
    if (labs.empty()) {
        return make_error(Code::not_found, "find a lab", {},
                          "none is up; `ghost lab up` starts one");
    }
    return make_error(
        Code::invalid, "choose a lab", {},
        fmt::format("several are up, say which by --name: {}", fmt::join(labs, ", ")));
}

Error no_such_node(const LabState& state, const std::string& node) {
    std::vector<std::string> names;
    for (const NodeState& n : state.nodes) names.push_back(n.name());
    return make_error(Code::invalid, "find node", node,
                      fmt::format("lab {} has {}", state.name, fmt::join(names, ", ")));
}

}  // namespace ghost::tools::lab
