// SPDX-License-Identifier: BSD-3-Clause
// Start and end of the BTL: whether it is wanted, the endpoint, the peers.
#include "opal_config.h"
// proc.h does not declare itself C; what it includes does, and comes before.
#include "opal/class/opal_list.h"
#include "opal/dss/dss.h"
#include "opal/mca/hwloc/hwloc-internal.h"
extern "C" {
#include "opal/util/proc.h"
}

#include <algorithm>
#include <cstdlib>
#include <fmt/format.h>
#include <optional>
#include <sodium.h>
#include <unistd.h>
#include <utility>

#include "base/clock.hpp"
#include "base/json_text.hpp"
#include "base/log.hpp"
#include "kernet-btl/btl/connect.h"
#include "kernet-btl/btl/module.hpp"
#include "kernet-btl/btl/windows.h"
#include "opal/constants.h"
#include "opal/mca/btl/base/base.h"
#include "opal/mca/pmix/pmix.h"

namespace kernet::btl {

namespace {

constexpr int64_t drain_limit_us = 500'000;
// A host that moves is away for a moment.
constexpr int64_t farewell_limit_us = 5'000'000;
// The whole of a move, as long as the coordinator waits for each of its steps.
constexpr int64_t arrival_limit_us = 20'000'000;
constexpr useconds_t look_again_us = 1'000;

std::string text(const char* value) {
    return value ? value : "";
}

// Without ghost nobody hands out a secret: one that keeps jobs from mixing by accident.
std::string standalone_secret(const std::string& job) {
    uint8_t hash[32];
    char hex[65];
    const std::string seed = "kernet standalone " + job;
    if (sodium_init() < 0) return {};
    crypto_generichash(hash, sizeof hash, reinterpret_cast<const uint8_t*>(seed.data()),
                       seed.size(), nullptr, 0);
    return sodium_bin2hex(hex, sizeof hex, hash, sizeof hash);
}

std::string preferred_links() {
    if (kernet_btl_params.links && *kernet_btl_params.links) return kernet_btl_params.links;
    const char* links = std::getenv("GHOST_LINKS");
    return links && *links ? links : "auto";
}

// Ranks by which the streams of a family of jobs are known: those of the job the user started as
// they are, those of jobs that were spawned by ranks (MPI_Comm_spawn) behind them.
constexpr uint32_t ranks_in_spawned = 1U << 20;
// A job's number is its family's (one for each mpirun) and its own (orte/util/name_fns.h).
constexpr uint32_t own_bits = 16;

bool is_guest = false;  // set once, by init

bool same_family(const opal_process_name_t& a, const opal_process_name_t& b) {
    return a.jobid >> own_bits == b.jobid >> own_bits;
}

std::optional<uint32_t> stream_rank(const opal_process_name_t& name) {
    const uint32_t job = name.jobid & ((1U << own_bits) - 1);
    if (job == 1) return name.vpid;
    if (job == 0 || job > UINT32_MAX / ranks_in_spawned || name.vpid >= ranks_in_spawned) {
        return std::nullopt;
    }
    return (job - 1) * ranks_in_spawned + name.vpid;
}

// Between jobs: only within mpirun's family, all of whose processes know the same secret.
bool in_reach(const opal_process_name_t& own, const opal_process_name_t& other) {
    if (own.jobid == other.jobid) return true;
    return !kernet_btl_params.standalone && same_family(own, other) && stream_rank(other);
}

Result<EndpointConfig> endpoint_config(const std::optional<AgentConfig>& agent, bool threads) {
    const kernet_btl_params_t& params = kernet_btl_params;
    EndpointConfig config;
    if (agent) {
        config.job = agent->job;
        config.rank = agent->rank;
        config.secret_hex = agent->secret;
        config.life = agent->life;
        config.node = agent->node;
        config.node_name = agent->node_name;
        config.filters = agent->filters;
    } else {
        config.job = std::to_string(OPAL_PROC_MY_NAME.jobid);
        config.rank = OPAL_PROC_MY_NAME.vpid;
        config.secret_hex = standalone_secret(config.job);
        config.node_name = text(opal_process_info.nodename);
        config.filters = text(std::getenv("OMPI_MCA_ghost_filters"));
    }
    config.links = preferred_links();
    auto faults = FaultPlan::from_environment();
    if (!faults) return faults.error();
    config.faults = *faults;
    config.if_include = text(params.if_include);
    config.tcp_congestion = text(params.tcp_congestion);
    config.dead_after_us = std::max<int64_t>(params.dead_after, 1) * 1'000'000;
    config.use_shm = params.use_shm;
    config.use_tcp = params.use_tcp;
    config.ring_bytes = params.ring_bytes;
    config.ring_frames = params.ring_frames;
    config.ring_pieces = {params.piece_min, params.piece_max};
    config.threads = threads;
    return config;
}

int publish(const Location& location) {
    int rc;
    const std::string published = to_json(location).dump();
    OPAL_MODEX_SEND(rc, OPAL_PMIX_GLOBAL, &mca_btl_kernet_component.btl_version,
                    const_cast<char*>(published.data()), published.size());
    return rc;
}

// What the process has published: with its daemon, which it may be leaving just now.
Result<Location> published_location(const opal_proc_t* proc) {
    int rc;
    uint8_t* bytes = nullptr;
    size_t size = 0;
    OPAL_MODEX_RECV(rc, &mca_btl_kernet_component.btl_version, &proc->proc_name, &bytes, &size);
    if (rc != OPAL_SUCCESS) return ghost::make_error(ghost::Code::not_found, "find a peer");
    const auto json = ghost::parse_json({reinterpret_cast<const char*>(bytes), size});
    std::free(bytes);
    return location_from_json(json);
}

// The number of the process, and it is known where it is. One that has just come to its daemon has
// published nothing there yet, and libpmix does not wait for that (4.2, pmix_server_get()).
Result<uint32_t> find(const opal_proc_t* proc) {
    const int64_t deadline = ghost::monotonic_us() + arrival_limit_us;
    auto location = published_location(proc);
    while (!location && ghost::monotonic_us() < deadline) {
        ::usleep(look_again_us);
        location = published_location(proc);
    }
    if (!location) {
        return ghost::make_error(
            ghost::Code::not_found, "find a peer", {},
            fmt::format("it has published nothing for {} s", arrival_limit_us / 1'000'000));
    }
    module->endpoint().set_location(*location);
    return location->rank;
}

// What follows is Open MPI's error about processes that cannot reach each other.
void tell_of_strangers() {
    static bool told = false;
    if (std::exchange(told, true)) return;
    ghost::log::error(
        "btl kernet: with Ghost, ranks talk only with those of the same mpirun, and with what "
        "these "
        "have spawned: no connection to the ranks of another mpirun is made (MPI_Comm_connect, "
        "MPI_Comm_accept, MPI_Comm_join). Start both programs by one mpirun (\"mpirun -np 2 ./a : "
        "-np 2 ./b\"), or without --mca ghost 1");
}

// A rank that can move, or a guest, or nothing: a process of development.
Status find_out_who(std::optional<AgentConfig>& who) {
    auto known = AgentConfig::from_environment();
    if (!known && known.error().code == ghost::Code::not_found) {
        const auto rank = stream_rank(OPAL_PROC_MY_NAME);
        if (rank) known = AgentConfig::of_guest(*rank);
    }
    if (known) {
        GHOST_TRY(known->fetch_secret());
        who = *known;
        who->moved = [](const Location& location) { publish(location); };
        return {};
    }
    const bool may_be_none = kernet_btl_params.standalone;
    return may_be_none && known.error().code == ghost::Code::not_found ? Status() : known.error();
}

Status set_up(bool threads) {
    std::optional<AgentConfig> who;
    GHOST_TRY(find_out_who(who));
    const auto config = endpoint_config(who, threads);
    if (!config) return config.error();
    auto endpoint = Endpoint::create(*config);
    if (!endpoint) return endpoint.error();
    if (publish((*endpoint)->location()) != OPAL_SUCCESS) {
        return ghost::make_error(ghost::Code::io, "publish this rank's location");
    }
    auto made = std::make_unique<Module>(std::move(*endpoint));
    const bool movable = who && !who->node_socket.empty();
    is_guest = who && !movable;
    GHOST_TRY(made->start(movable ? &*who : nullptr));
    module = made.release();
    return {};
}

// When Open MPI adds its first processes it has loaded the components of windows; there are no
// windows yet.
void prepare_windows() {
    static bool prepared = false;
    if (std::exchange(prepared, true)) return;
    kernet_windows_shared_where_ranks_are();
    kernet_windows_with_updates();
    if (kernet_windows_without_sharing()) return;
    kernet_btl_module.btl_flags &= ~static_cast<uint32_t>(kernet_flags_of_windows);
}

}  // namespace

int add_procs(mca_btl_base_module_t*, size_t count, opal_proc_t** procs,
              mca_btl_base_endpoint_t** endpoints, opal_bitmap_t* reachable) {
    prepare_windows();
    const opal_proc_t* self = opal_proc_local_get();
    for (size_t i = 0; i < count; i++) {
        endpoints[i] = nullptr;
        if (!same_family(self->proc_name, procs[i]->proc_name)) tell_of_strangers();
        // Ranks of another mpirun are other BTLs' business; so is the rank itself.
        if (procs[i] == self || !in_reach(self->proc_name, procs[i]->proc_name)) continue;
        const bool of_job = procs[i]->proc_name.jobid == self->proc_name.jobid;
        Result<uint32_t> rank = procs[i]->proc_name.vpid;
        if (!of_job || !module->finds_ranks()) rank = find(procs[i]);
        if (!rank) {
            ghost::log::warning("btl kernet: rank {}: {}", procs[i]->proc_name.vpid,
                                rank.error().message());
            continue;
        }
        Socket& socket = module->path().attach(*rank);
        // The guest may have learnt where we were, and be the first to send: the one who knows
        // makes the link.
        if (!of_job) socket.connect();
        endpoints[i] = new mca_btl_base_endpoint_t{&socket};
        Gate::Holder inside(module->path().gate());
        module->know(endpoints[i]);
        opal_bitmap_set_bit(reachable, static_cast<int>(i));
    }
    return OPAL_SUCCESS;
}

int del_procs(mca_btl_base_module_t*, size_t count, opal_proc_t**,
              mca_btl_base_endpoint_t** endpoints) {
    for (size_t i = 0; i < count; i++) {
        if (module && endpoints[i]) {
            Gate::Holder inside(module->path().gate());
            module->forget(endpoints[i]);
        }
        delete endpoints[i];
    }
    return OPAL_SUCCESS;
}

// Hosts live on, and move: what one has not read when it is suspended is sent again when it is
// back, by a guest that is still there. And one that missed the farewell would look for it ever
// after.
void leave_hosts() {
    using Drained = DataPath::Drained;
    if (!module->path().drain(arrival_limit_us, Drained::acknowledged))
        ghost::log::warning(
            "btl kernet: what this process sent last has not been read for {} s: it is lost if its "
            "reader moves now",
            arrival_limit_us / 1'000'000);
    module->path().drain(farewell_limit_us, Drained::met);
}

int finalize(mca_btl_base_module_t*) {
    if (!module) return OPAL_SUCCESS;
    if (is_guest) leave_hosts();
    module->stop();
    module->path().drain(drain_limit_us);
    module->path().unattach_all();
    delete module;
    module = nullptr;
    return OPAL_SUCCESS;
}

}  // namespace kernet::btl

// Nobody but MPI's callers is on the data side: Open MPI's own threads, which it announces in every
// program (progress threads), never call a BTL. So there is a lock under MPI_THREAD_MULTIPLE only:
// it was 15 % of the samples of a profile of 900 bytes in turns within a node.
mca_btl_base_module_t** kernet_btl_init(int* count, bool /*progress_threads*/, bool mpi_threads) {
    *count = 0;
    ghost::log::setup(fmt::format("rank {}", OPAL_PROC_MY_NAME.vpid),
                      ghost::log::level_from_environment());
    if (auto ready = kernet::btl::set_up(mpi_threads); !ready) {
        if (ready.error().code != ghost::Code::not_found) {
            ghost::log::error("btl kernet: {}", ready.error().message());
        }
        return nullptr;
    }
    auto** modules = static_cast<mca_btl_base_module_t**>(std::calloc(1, sizeof(void*)));
    if (!modules) return nullptr;
    modules[0] = &kernet_btl_module;
    *count = 1;
    kernet_connect_with_progress();
    return modules;
}

int kernet_btl_stay(void) {
    using kernet::btl::module;
    kernet::Gate::Holder inside(module->path().gate());
    module->endpoint().stay();
    return module->endpoint().location().node;
}

void kernet_btl_may_leave(void) {
    kernet::btl::module->endpoint().may_leave();
}
