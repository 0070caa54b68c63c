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
#include "base/schema.hpp"
#include "tools/lab/network.hpp"

namespace ghost::tools::lab {
namespace {

// state.json
struct LabFile {
    struct Node {
        int32_t index = 0;
        int32_t pid = 0;
        uint64_t start = 0;
        std::string rate;
        static const schema::Record table;
    };
    std::string boot;
    std::vector<std::string> shares;
    std::vector<Node> nodes;
    static const schema::Record table;
};

constexpr schema::Field node_fields[] = {
    schema::field<&LabFile::Node::index>("index", "its number").at_least(1).at_most(most_nodes),
    schema::field<&LabFile::Node::pid>("pid", "of its first process").at_least(0),
    schema::field<&LabFile::Node::start>("start", "of that process").in("clock ticks"),
    schema::field<&LabFile::Node::rate>("rate", "of its link"),
};
constexpr schema::Field lab_fields[] = {
    schema::field<&LabFile::boot>("boot", "of the machine"),
    schema::field<&LabFile::shares>("shares", "folders shown in nodes"),
    schema::field<&LabFile::nodes>("nodes", "all of them").items_at_most(most_nodes),
};

}  // namespace

constinit const schema::Record LabFile::Node::table =
    schema::record<LabFile::Node>("node", "of a lab", node_fields);
constinit const schema::Record LabFile::table =
    schema::record<LabFile>("lab", "what is written down of it", lab_fields);

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
    auto file = schema::decode<LabFile>(*text);
    if (!file) return make_error(Code::corrupt, "understand", path, file.error().message());
    LabState state{.name = name, .boot = file->boot, .nodes = {}, .shares = file->shares};
    // Start times of another boot name nobody.
    const bool same_boot = state.boot == boot_id();
    for (const LabFile::Node& node : file->nodes)
        state.nodes.push_back({.index = node.index,
                               .init = same_boot ? ProcessId{node.pid, node.start} : ProcessId(),
                               .rate = node.rate});
    return state;
}

Status save_state(const LabState& state) {
    LabFile file{.boot = state.boot, .shares = state.shares, .nodes = {}};
    for (const NodeState& node : state.nodes)
        file.nodes.push_back({node.index, node.init.pid, node.init.start, node.rate});
    return write_file(lab_folder(state.name) + "/state.json", schema::encode(file) + "\n", 0600);
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
