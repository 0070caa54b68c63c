// SPDX-License-Identifier: BSD-3-Clause
#include "pmix-plugin/shells/schizo_bridge.h"

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <sys/random.h>
#include <unistd.h>

#include "base/encoding.hpp"
#include "base/own_file.hpp"
#include "base/paths.hpp"
#include "base/user_space.hpp"
#include "base/result.hpp"
#include "kernet-btl/filter/list.hpp"
#include "pmix-plugin/settings/job_secret.hpp"
#include "pmix-plugin/settings/job_settings.hpp"
#include "pmix-plugin/settings/parameters.hpp"
#include "pmix-plugin/settings/secret_exchange.hpp"
#include "pmix-plugin/snapshots/manifest.hpp"

namespace {

using namespace ghost::plugin;

// The component's own state: written by prepare(), before any launch thread exists.
struct State {
    bool prepared = false;
    bool active = false;
    InstalledPaths paths;
    std::string message;
    std::string instead;
    std::string secret;
    std::string life;      // "" before ghost_schizo_secret()
    std::string restart;   // folder of the snapshot the job is restarted from; empty: a new job
    bool filters = false;  // messages are to go through filters
    // What starts daemons and hands the secret on to them; "" if nothing does: they ask for it.
    std::string agent;
};

State& state() {
    static State the_state;
    return the_state;
}

bool wanted() {
    const char* on = getenv("OMPI_MCA_ghost");
    const char* off = getenv("OMPI_MCA_ghost_disabled");
    return on && is_yes(on) && !(off && is_yes(off));
}

// mpirun's environment does not reach its daemons, parameters do: where the log goes, and where
// faults are planted (base/fault.hpp), travel as such.
void share_variable(bool decides, const char* variable, const char* parameter) {
    const char* value = getenv(decides ? variable : parameter);
    if (value == nullptr) return;
    if (decides)
        setenv(parameter, value, 1);
    else
        setenv(variable, value, 0);
}

void share_variables(bool decides) {
    share_variable(decides, "GHOST_LOG", "OMPI_MCA_ghost_log");
    share_variable(decides, "GHOST_FAULTS", "OMPI_MCA_ghost_faults");
}

// Whether the job runs with Ghost is decided once, in mpirun; daemons hear of it as of any other
// parameter (which mpirun's own "--mca ghost 1" would otherwise win over).
void switch_off(State& s, std::string why) {
    s.message = std::move(why);
    setenv("OMPI_MCA_ghost_disabled", "1", 1);
}

template <size_t size>
std::string random_hex() {
    std::array<char, size> bytes{};
    size_t filled = 0;
    while (filled < bytes.size()) {
        const ssize_t n = getrandom(bytes.data() + filled, bytes.size() - filled, 0);
        if (n > 0) filled += static_cast<size_t>(n);
    }
    return ghost::encode_hex({bytes.data(), bytes.size()});
}

// A restarted job goes on under the secret its ranks know, as another life.
std::string take_restart(State& s, const char* folder) {
    s.restart = folder;
    if (auto can = ghost::can_enter_own_user_space(); !can.ok()) return can.error().message();
    if (auto own = ghost::open_own_folder(folder); !own.ok()) return own.error().message();
    char* real = realpath(folder, nullptr);
    if (real) s.restart = real;
    free(real);
    auto secret = read_secret(s.restart);
    if (!secret.ok()) return secret.error().message();
    if (const char* signer = getenv(restart_signer_variable)) {
        const auto key = ghost::PublicKey::from_hex(signer);
        if (!key.ok()) return key.error().message();
        const auto manifest = read_manifest(s.restart, *key);
        if (!manifest.ok()) return manifest.error().message();
        if (auto made = check_secret(*manifest, *secret); !made.ok()) return made.error().message();
    }
    s.secret = *secret;
    return {};
}

const char* filters_wanted() {
    const char* list = getenv(filters_variable);
    return list && *list && std::strcmp(list, "none") != 0 ? list : nullptr;
}

// Programs find the stream manager of their daemon whatever kernetd the user's own environment
// names: it would be known on mpirun's node only.
void set_stream_manager(unsigned job, const std::string& names, void* env, ghost_set_fn set) {
    const char* on = getenv(streams_variable);
    if (on && !is_yes(on)) return;
    const std::string agent = node_socket(std::to_string(job), geteuid(), names);
    set(env, stream_manager_variable, stream_manager_address(agent).c_str());
}

// Of what all ranks of a job have; "" if it is not there.
std::string shared_value(char* const* shared, const char* name) {
    const size_t length = std::strlen(name);
    for (char* const* entry = shared; entry && *entry; ++entry)
        if (std::strncmp(*entry, name, length) == 0 && (*entry)[length] == '=')
            return *entry + length + 1;
    return {};
}

// The batch system's own agent takes the place of the default one (plm rsh, 4.1).
bool batch_system_starts_daemons() {
    const char* grid_engine[] = {"SGE_ROOT", "ARC", "PE_HOSTFILE", "JOB_ID"};
    const bool grid =
        std::ranges::all_of(grid_engine, [](const char* name) { return getenv(name) != nullptr; });
    return grid || getenv("LOADL_STEP_ID") != nullptr;
}

constexpr const char* agent_variable = "OMPI_MCA_plm_rsh_agent";
// Its names of before: each wins over it.
constexpr const char* older_agent_variables[] = {"OMPI_MCA_orte_rsh_agent",
                                                 "OMPI_MCA_pls_rsh_agent"};

const char* older_agent() {
    for (const char* name : older_agent_variables)
        if (const char* value = getenv(name)) return value;
    return nullptr;
}

// From here on this process starts daemons by ghost-rsh.
void hand_secret_on(State& s, const char* users_agent) {
    const char* older = older_agent();
    const char* agent = older ? older : users_agent;
    if (s.paths.launcher.empty() || (!agent && batch_system_starts_daemons())) return;
    s.agent = launch_agent(s.paths.launcher, agent ? agent : "ssh : rsh");
    for (const char* name : older_agent_variables) unsetenv(name);
    setenv(agent_variable, s.agent.c_str(), 1);
}

// What mpirun's own command line says of it is put into the environment once more after that, and
// wins.
bool hands_on(const State& s) {
    const char* agent = getenv(agent_variable);
    return agent != nullptr && !s.agent.empty() && s.agent == agent && older_agent() == nullptr;
}

// What the launch agent has put there; none if another one has started this daemon.
ghost::Status take_handed_on(State& s) {
    const char* descriptor = getenv(secret_descriptor_variable);
    if (!descriptor) return {};
    constexpr int limit_ms = 30'000;
    const int fd = std::atoi(descriptor);
    auto job = receive_secret(fd, limit_ms);
    if (fd > 2) close(fd);
    unsetenv(secret_descriptor_variable);
    if (!job.ok()) return job.error();
    s.secret = job->secret;
    s.life = job->life;
    return {};
}

// What stands against running this job with Ghost; "" if nothing does.
std::string refusal(State& s, bool decides, const char* version, const JobSettings& decided) {
    if (std::strncmp(version, "4.1.", 4) != 0)
        return std::string("this is Open MPI ") + version + ", Ghost knows only 4.1";
    if (!decides) return {};
    const char* folder = getenv(restart_variable);
    std::string why = folder ? take_restart(s, folder) : std::string();
    if (why.empty() && s.filters) {
        auto list = kernet::filter::List::parse(filters_wanted());
        if (!list.ok()) why = list.error().message();
    }
    return why.empty() ? decided.refusal : why;
}

}  // namespace

void ghost_schizo_parameters(ghost_register_fn each) noexcept {
    for (const Parameter& parameter : parameters()) {
        const char* value = each(parameter.name, parameter.fallback, parameter.meaning);
        if (value && std::strcmp(value, parameter.fallback) != 0)
            setenv((std::string("OMPI_MCA_") + parameter.name).c_str(), value, 0);
    }
}

const char* ghost_schizo_prepare(int decides, const char* component, const char* version,
                                 ghost_file_fn in_files) noexcept {
    State& s = state();
    s.message.clear();
    if (s.prepared) return nullptr;
    s.prepared = true;
    s.paths = find_paths(component);
    s.filters = filters_wanted() != nullptr;
    if (!wanted()) {
        if (!decides) return nullptr;
        if (const char* folder = getenv(restart_variable)) s.restart = folder;
        if (s.restart.empty() && !s.filters) return nullptr;
        s.message = "Ghost is switched off (--mca ghost 1 switches it on)";
        return s.message.c_str();
    }
    const auto of_files = [in_files](const std::string& name) -> std::optional<std::string> {
        const char* value = in_files(name.c_str());
        return value ? std::optional<std::string>(value) : std::nullopt;
    };
    const JobSettings decided = decide(ghost::environment_variable, s.paths, of_files);
    if (std::string why = refusal(s, decides, version, decided); !why.empty()) {
        switch_off(s, std::move(why));
        return s.message.c_str();
    }
    if (decides) s.instead = decided.instead;
    share_variables(decides);
    for (const Setting& setting : decided.settings)
        setenv(setting.name.c_str(), setting.value.c_str(), 1);
    s.active = true;
    return nullptr;
}

const char* ghost_schizo_instead(void) noexcept {
    return state().instead.empty() ? nullptr : state().instead.c_str();
}

const char* ghost_schizo_secret(int decides, ghost_get_fn users_agent) noexcept {
    State& s = state();
    if (!s.active || !s.life.empty()) return nullptr;
    ghost::Status done;
    if (decides) {
        if (s.secret.empty()) s.secret = random_hex<32>();
        s.life = random_hex<8>();
    } else {
        done = take_handed_on(s);
    }
    if (done.ok() && s.secret.empty()) return nullptr;  // it asks mpirun
    if (done.ok()) done = keep_secret({s.secret, s.life});
    if (done.ok()) {
        hand_secret_on(s, users_agent());
        return nullptr;
    }
    s.message = done.error().message();
    return s.message.c_str();
}

const char* ghost_schizo_topic(void) noexcept {
    if (!state().restart.empty()) return "cannot restart";
    return state().filters ? "cannot filter" : "cannot migrate";
}

int ghost_schizo_ends(void) noexcept {
    return !state().restart.empty() || state().filters;
}

const char* ghost_schizo_lacks_privilege(void) noexcept {
    State& s = state();
    if (!s.active) return nullptr;
    const auto can = ghost::can_enter_own_user_space();
    if (can.ok()) return nullptr;
    s.message = can.error().message();
    return s.message.c_str();
}

const char* ghost_schizo_help_dir(void) noexcept {
    return state().paths.help.c_str();
}

void ghost_schizo_app_env(int by_launch_agent, void* env, ghost_set_fn set) noexcept {
    State& s = state();
    if (!s.active) return;
    // This process's own environment is being read by the runtime: it must not change here.
    if (!by_launch_agent || !hands_on(s))
        set(env, launched_key_variable, SecretGiver({s.secret, s.life}).key().c_str());
    set(env, "GHOST_LIFE", s.life.c_str());
    set(env, names_variable, socket_names(s.secret).c_str());
    set(env, "GHOST_CRIU", s.paths.criu.c_str());
    for (const char* name : {"GHOST_LOG", "GHOST_FAULTS", "GHOST_LINKS", "GHOST_LINK_FAULTS"}) {
        if (const char* value = getenv(name)) set(env, name, value);
    }
    if (const char* filters = filters_wanted()) set(env, "GHOST_FILTERS", filters);
    if (const char* own = getenv(own_ipc_variable); own != nullptr && is_yes(own))
        set(env, "GHOST_OWN_IPC", "1");
    if (s.restart.empty()) return;
    set(env, "GHOST_RESTART", s.restart.c_str());
    if (const char* suffix = getenv(restart_keep_variable)) set(env, "GHOST_RESTART_KEEP", suffix);
    if (const char* signer = getenv(restart_signer_variable))
        set(env, "GHOST_RESTART_SIGNER", signer);
}

void ghost_schizo_guest_env(unsigned host, char* const* shared, unsigned node,
                            const char* node_name, void* env, ghost_set_fn set) noexcept {
    if (!state().active) return;
    const std::string names = shared_value(shared, names_variable);
    for (const auto& [name, value] : guest_environment(host, node, node_name, names))
        set(env, name.c_str(), value.c_str());
    set_stream_manager(host, names, env, set);
    constexpr const char* needed[] = {"GHOST_LIFE", "GHOST_LOG", "GHOST_LINKS", "GHOST_LINK_FAULTS",
                                      "GHOST_FILTERS"};
    for (const char* name : needed)
        if (const std::string value = shared_value(shared, name); !value.empty())
            set(env, name, value.c_str());
}

void ghost_schizo_child_env(unsigned job, unsigned rank, char* const* shared, unsigned node,
                            const char* node_name, void* env, ghost_set_fn set) noexcept {
    if (!state().active) return;
    const std::string names = shared_value(shared, names_variable);
    for (const auto& [name, value] : rank_environment(job, rank, node, node_name, names))
        set(env, name.c_str(), value.c_str());
    set_stream_manager(job, names, env, set);
}
