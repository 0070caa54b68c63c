// SPDX-License-Identifier: BSD-3-Clause
#include "pmix-plugin/settings/job_settings.hpp"

#include <algorithm>
#include <array>
#include <cstdlib>
#include <sodium/crypto_generichash.h>
#include <sstream>
#include <string_view>
#include <strings.h>
#include <unistd.h>

#include "base/encoding.hpp"
#include "config.h"

namespace ghost::plugin {
namespace {

std::vector<std::string> split(const std::string& text, char separator) {
    std::vector<std::string> parts;
    std::istringstream in(text);
    for (std::string part; std::getline(in, part, separator);)
        if (!part.empty()) parts.push_back(part);
    return parts;
}

bool contains(const std::vector<std::string>& list, const std::string& item) {
    return std::find(list.begin(), list.end(), item) != list.end();
}

// A component list of the MCA: "a,b" takes only these, "^a,b" all but these.
bool is_exclusion(const std::string& list) {
    return !list.empty() && list.front() == '^';
}

std::string complaint(const char* parameter, const std::string& value, const char* why) {
    return std::string(parameter) + "=" + value + ": " + why;
}

// One rule per parameter: what Ghost sets, and what it says to a user's value that does not fit.
struct Rule {
    const char* name;
    const char* value;
    const char* (*refusal)(const std::string& users);
};

const char* btl_refusal(const std::string& users) {
    if (is_exclusion(users)) return "the transports must be exactly self and kernet";
    const auto list = split(users, ',');
    if (!contains(list, "kernet")) return "only the kernet transport can follow a rank";
    for (const auto& item : list)
        if (item != "self" && item != "kernet")
            return "other transports than self and kernet keep connections that cannot move";
    return nullptr;
}

const char* pml_refusal(const std::string& users) {
    return users == "ob1" ? nullptr : "only pml ob1 uses the kernet transport";
}

bool takes(const std::string& users, const char* component) {
    const auto list = split(is_exclusion(users) ? users.substr(1) : users, ',');
    return contains(list, component) != is_exclusion(users);
}

const char* osc_refusal(const std::string& users) {
    return takes(users, "ucx") ? "one-sided component ucx keeps connections that cannot move"
                               : nullptr;
}

const char* osc_btls_refusal(const std::string& users) {
    return users == "kernet" ? nullptr : "only the kernet transport can follow a rank";
}

const char* coll_refusal(const std::string& users) {
    return takes(users, "sm") ? "collective component sm shares memory that cannot move" : nullptr;
}

const char* sharedfp_refusal(const std::string& users) {
    return takes(users, "sm") ? "component sm keeps a file's shared pointer in memory of one node"
                              : nullptr;
}

const char* shmem_refusal(const std::string& users) {
    return users == "mmap" ? nullptr : "shared memory other than mmap cannot move";
}

const char* gds_refusal(const std::string& users) {
    return users == "hash" ? nullptr : "PMIx's data store must be hash, others are shared memory";
}

const char* launch_threads_refusal(const std::string& users) {
    return users == "0" ? nullptr : "threads that start ranks can cut their PATH short";
}

constexpr Rule rules[] = {
    {"OMPI_MCA_btl", "self,kernet", btl_refusal},
    {"OMPI_MCA_pml", "ob1", pml_refusal},
    {"OMPI_MCA_coll", "^sm", coll_refusal},
    {"OMPI_MCA_sharedfp", "^sm", sharedfp_refusal},
    {"OMPI_MCA_shmem", "mmap", shmem_refusal},
    {"PMIX_MCA_gds", "hash", gds_refusal},
    // sm is MPI_Win_allocate_shared's alone, because rdma ranks above it.
    {"OMPI_MCA_osc", "rdma,sm,pt2pt", osc_refusal},
    {"OMPI_MCA_osc_rdma_btls", "kernet", osc_btls_refusal},
    // From 32 ranks of a node on ORTE has threads start them. Each looks for the fork agent with
    // opal_path_findv, which puts zeros into the very PATH it reads, while programs' environments
    // are copied from there; and the end of a program that ends at once can be lost.
    {"OMPI_MCA_odls_base_num_threads", "0", launch_threads_refusal},
};

// A file that only keeps components out ("^ucx") chooses none.
std::string taken_instead(const Rule& rule, const GetEnv& in_files) {
    const std::string name = rule.name + 9;
    const bool told = name == "pml" || name == "btl" || name == "osc";
    const auto chosen = told ? in_files(name) : std::nullopt;
    if (!chosen || chosen->empty() || is_exclusion(*chosen) || !rule.refusal(*chosen)) return {};
    return name + " " + *chosen + ": " + rule.value + " is taken instead";
}

// PMIx looks only into the folders of its parameter: ours goes in front of what is there.
void add_component_path(const GetEnv& get, const InstalledPaths& paths, JobSettings& decided) {
    if (paths.pmix_components.empty()) return;
    const std::string name = "PMIX_MCA_mca_base_component_path";
    const auto users = get(name);
    if (users && contains(split(*users, ':'), paths.pmix_components)) return;
    decided.settings.push_back(
        {name, paths.pmix_components + ":" + users.value_or(GHOST_PMIX_COMPONENT_DIR)});
}

void add_fork_agent(const GetEnv& get, const InstalledPaths& paths, JobSettings& decided) {
    const std::string name = "OMPI_MCA_orte_fork_agent";
    const auto users = get(name);
    if (users && *users != paths.wrapper) {
        decided.refusal = complaint(name.c_str() + 9, *users, "ranks need ghost-wrapper as parent");
        return;
    }
    if (!paths.wrapper.empty()) decided.settings.push_back({name, paths.wrapper});
}

bool readable(const std::string& path) {
    return access(path.c_str(), R_OK) == 0;
}

std::string folder_of(const std::string& path) {
    const auto slash = path.rfind('/');
    return slash == std::string::npos ? "." : path.substr(0, slash);
}

std::string canonical(const std::string& path) {
    char* real = realpath(path.c_str(), nullptr);
    std::string result = real ? real : path;
    free(real);
    return result;
}

std::string first_readable(const std::vector<std::string>& candidates) {
    for (const auto& path : candidates)
        if (!path.empty() && readable(path)) return canonical(path);
    return {};
}

std::string from_environment(const char* name) {
    const char* value = getenv(name);
    return value ? value : "";
}

}  // namespace

Result<bool> parse_yes(const std::string& text) {
    for (const char* yes : {"true", "yes", "on", "enabled", "t", "y"})
        if (strcasecmp(text.c_str(), yes) == 0) return true;
    for (const char* no : {"false", "no", "off", "disabled", "f", "n"})
        if (strcasecmp(text.c_str(), no) == 0) return false;
    char* end = nullptr;
    const long number = strtol(text.c_str(), &end, 10);
    if (text.empty() || *end != 0)
        return make_error(Code::invalid, "understand yes or no in", text);
    return number != 0;
}

bool is_yes(const std::string& text) {
    const auto value = parse_yes(text);
    return value.ok() && *value;
}

InstalledPaths find_paths(const std::string& component) {
    // An uninstalled tree has <build>/components/ompi/mca_schizo_ghost.so.
    const std::string here = folder_of(canonical(component));
    const std::string build = here + "/../..";
    InstalledPaths paths;
    paths.wrapper = first_readable({from_environment("GHOST_WRAPPER"),
                                    build + "/pmix-plugin/wrapper/ghost-wrapper",
                                    GHOST_LIBEXEC_DIR "/ghost-wrapper"});
    if (!paths.wrapper.empty())
        paths.launcher = first_readable({folder_of(paths.wrapper) + "/ghost-rsh"});
    // Beside this very component first: what is loaded together was built together.
    const std::string plugin =
        first_readable({here + "/../pmix/pmix_mca_pnet_ghost.so",
                        from_environment("GHOST_PMIX_COMPONENTS") + "/pmix_mca_pnet_ghost.so"});
    if (!plugin.empty()) paths.pmix_components = folder_of(plugin);
    paths.criu = first_readable({from_environment("GHOST_CRIU"), build + "/criu/sbin/criu"});
    if (paths.criu.empty()) paths.criu = GHOST_CRIU_PROGRAM;
    const std::string help =
        first_readable({here + "/help-ghost.txt", GHOST_DATA_DIR "/help-ghost.txt"});
    if (!help.empty()) paths.help = folder_of(help);
    return paths;
}

JobSettings decide(const GetEnv& get, const InstalledPaths& paths, const GetEnv& in_files) {
    JobSettings decided;
    for (const Rule& rule : rules) {
        const auto users = get(rule.name);
        if (!users) {
            decided.settings.push_back({rule.name, rule.value});
            if (std::string told = taken_instead(rule, in_files); !told.empty())
                decided.instead += (decided.instead.empty() ? "" : "\n  ") + told;
            continue;
        }
        const char* parameter = rule.name + 9;  // without OMPI_MCA_ or PMIX_MCA_
        if (const char* why = rule.refusal(*users); why && decided.refusal.empty())
            decided.refusal = complaint(parameter, *users, why);
    }
    add_component_path(get, paths, decided);
    if (decided.refusal.empty()) add_fork_agent(get, paths, decided);
    return decided;
}

std::string socket_names(const std::string& secret) {
    constexpr size_t bytes_each = 4;
    constexpr std::string_view purpose = "ghost: names of sockets";
    std::array<unsigned char, crypto_generichash_BYTES> hash{};
    crypto_generichash(hash.data(), hash.size(),
                       reinterpret_cast<const unsigned char*>(secret.data()), secret.size(),
                       reinterpret_cast<const unsigned char*>(purpose.data()), purpose.size());
    std::string out;
    for (size_t at = 0; at < hash.size(); at += bytes_each)
        out += (at == 0 ? "" : ":") +
               ghost::encode_hex({reinterpret_cast<char*>(hash.data()) + at, bytes_each});
    return out;
}

std::string node_socket(const std::string& job, uid_t user, const std::string& names) {
    return "@ghost/" + std::to_string(user) + "/" + job + "/" + names;
}

// The alternatives are the last part.
std::string stream_manager_address(const std::string& node_socket) {
    const auto slash = node_socket.rfind('/');
    return node_socket.substr(0, slash) + "/streams" + node_socket.substr(slash);
}

std::vector<std::pair<std::string, std::string>> rank_environment(unsigned job, unsigned rank,
                                                                  unsigned node,
                                                                  const std::string& node_name,
                                                                  const std::string& names) {
    const std::string name = std::to_string(job);
    return {{"GHOST_JOB", name},
            {"GHOST_RANK", std::to_string(rank)},
            {"GHOST_NODE_SOCKET", node_socket(name, geteuid(), names)},
            {"GHOST_NODE_ID", std::to_string(node)},
            {"GHOST_NODE_NAME", node_name},
            {"PMIX_MCA_gds", "hash"}};
}

std::vector<std::pair<std::string, std::string>> guest_environment(unsigned host, unsigned node,
                                                                   const std::string& node_name,
                                                                   const std::string& names) {
    const std::string job = std::to_string(host);
    return {{"GHOST_GUEST_OF", job},
            {"GHOST_HOST_SOCKET", node_socket(job, geteuid(), names)},
            {"GHOST_NODE_ID", std::to_string(node)},
            {"GHOST_NODE_NAME", node_name},
            {"PMIX_MCA_gds", "hash"}};
}

}  // namespace ghost::plugin
