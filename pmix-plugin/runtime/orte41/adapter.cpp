// SPDX-License-Identifier: BSD-3-Clause
#include "pmix-plugin/runtime/orte41/adapter.hpp"

#include <algorithm>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <filesystem>
#include <fmt/format.h>
#include <unistd.h>

#include "base/child.hpp"
#include "base/exit_status.hpp"
#include "base/log.hpp"
#include "base/paths.hpp"
#include "pmix-plugin/runtime/orte41/job.hpp"
#include "pmix-plugin/runtime/orte41/output.h"
#include "pmix-plugin/runtime/pmix/pmix_server.h"
#include "pmix-plugin/runtime/orte41/rehome.hpp"
#include "pmix-plugin/runtime/orte41/spares.hpp"
#include "pmix-plugin/runtime/orte41/state_hooks.hpp"
#include "pmix-plugin/settings/job_settings.hpp"
#include "pmix-plugin/settings/parameters.hpp"

namespace ghost::plugin::orte41 {

namespace {

// For callbacks of ORTE that carry no pointer of ours; there is one adapter in a process.
Orte4Adapter*& present() {
    static Orte4Adapter* the_adapter = nullptr;
    return the_adapter;
}

std::function<void()>& launch_handler() {
    static std::function<void()> the_handler;
    return the_handler;
}

constexpr int64_t quit_us = 5'000'000;

// So long mpirun's node may be silent to a daemon: its ranks end before mpirun gives it up.
int64_t lease_us(int64_t dead_after_us) {
    return dead_after_us / 10 * 8;
}

// "": not known where it is.
std::string path_beside(const std::string& file, const char* name) {
    return file.empty() ? "" : std::filesystem::path(file).replace_filename(name).string();
}

orte_schizo_base_module_setup_fork_fn_t stock_setup_fork = nullptr;

// orte_odls_base_default_launch_local() calls this with the job's data there and before its forks.
int setup_fork(orte_job_t* job, orte_app_context_t* app) noexcept {
    if (job->jobid == app_jobid() && launch_handler()) launch_handler()();
    return stock_setup_fork(job, app);
}

// ORTE counts a signal's number from 128 on (orte/mca/odls/base, wait_local_proc). 0: there was
// none.
int signal_of(int exit_code) {
    return exit_code == lost_server_status ? 0 : exit_code - 128;
}

std::string describe_rank(RankId rank) {
    return fmt::format("rank {}", rank);
}

void log_server(const char* when) {
    if (!log::enabled(log::Level::debug)) return;
    char text[800];
    ghost_pmix_describe(app_name().c_str(), text, sizeof text);
    log::debug("PMIx server {}: {}", when, text);
}

}  // namespace

bool runs_here() {
    return orte_event_base && (ORTE_PROC_IS_HNP || ORTE_PROC_IS_DAEMON);
}

const char* version() {
    return orte_version_string;
}

void show_message(const char* topic, const char* a, const char* b, const char* c) {
    opal_show_help("help-ghost.txt", topic, true, a, b, c);
}

void complete_own_name() {
    if (ORTE_PROC_IS_HNP) *ORTE_PROC_MY_HNP = *ORTE_PROC_MY_NAME;
}

namespace {

void hear_of_late_call(const schema::Received& m) {
    if (!m.is<LateCall>() || !ORTE_PROC_IS_HNP || m.as<LateCall>().processes.empty()) return;
    NamedCall call;
    for (const NamedProcess& one : m.as<LateCall>().processes) call.emplace_back(one.job, one.rank);
    expect_late_call(call, m.as<LateCall>().expected);
}

}  // namespace

Orte4Adapter::Orte4Adapter() {
    present() = this;
    install_hooks();
    fetch_secret();
    ghost_pmix_ask_for_processes([](uint32_t jobid, uint32_t rank) noexcept {
        return is_known_process(jobid, rank) ? 1 : 0;
    });
    messenger_.add_handler([this](NodeId from, const schema::Received& m) {
        hear_of_late_call(m);
        if (m.is<LeasePort>()) hear_of_lease(from, m.as<LeasePort>().port);
    });
    if (orte_schizo.setup_fork != setup_fork) {
        stock_setup_fork = orte_schizo.setup_fork;
        orte_schizo.setup_fork = setup_fork;
    }
}

Orte4Adapter::~Orte4Adapter() {
    growth_.stop();
    messenger_.stop();
    loop_.clear();
    remove_state_hooks();
    launch_handler() = nullptr;
    present() = nullptr;
}

// mpirun's own ranks need no report.
void Orte4Adapter::rank_ended(RankId rank, const std::function<void()>& stock) {
    const orte_proc_t* ended = rank_object(rank);
    if (!ended) return stock();
    if (ORTE_PROC_IS_HNP) {
        if (present() && present()->rank_end_) present()->rank_end_(rank, ended->exit_code);
        return stock();
    }
    const bool known = ORTE_FLAG_TEST(ended, ORTE_PROC_FLAG_RECORDED);
    keep_job();
    stock();
    if (!known) report_ended(*ended);
}

// Of the first one only: the others end because the job does.
void Orte4Adapter::rank_lost(RankId rank) {
    const orte_proc_t* lost = rank_object(rank);
    if (!lost || !ORTE_PROC_IS_HNP || !rank_loss_) return;
    std::exchange(rank_loss_, nullptr)(rank, signal_of(lost->exit_code));
}

void Orte4Adapter::install_hooks() {
    constexpr int64_t retry_us = 10'000;
    const bool done = install_state_hooks(
        {[this](NodeId node) { return daemon_failed(node); },
         [this](RankId rank) { rank_forked(rank); }, rank_ended,
         [this](RankId rank, int state) { return recovery_.swallow(rank, state); },
         [this](RankId rank) { rank_lost(rank); }, [this] { growth_.routes_planned(); },
         [this](uint32_t jobid) { return growth_.daemons_ready(jobid); },
         [this](const std::function<void()>& stock) { map_beside_spares(spares(), stock); },
         [this] { return ORTE_PROC_IS_HNP || recovers(); }});
    if (!done) return (void)loop_.after(retry_us, [this] { install_hooks(); });
    if (!ORTE_PROC_IS_HNP && !recovers()) return;
    if (recovers() && ORTE_PROC_IS_HNP) {
        shown_.begin();
        kept_input_.begin([this] { return session_dir(); });
    }
    if (const int64_t limit_us = dead_after_us(*this); limit_us == 0)
        return;
    else if (ORTE_PROC_IS_HNP)
        look_at_daemons(limit_us);
    else
        look_at_mpirun(lease_us(limit_us));
}

// A daemon that hears of another one's end would end, too (orte/mca/errmgr/default_orted); that of
// mpirun is its own.
bool Orte4Adapter::daemon_failed(NodeId node) {
    if (!ORTE_PROC_IS_HNP) return node != 0 && recovers();
    return growth_.failed(node) || daemons_.failed(node);
}

bool Orte4Adapter::recovers() const {
    return plugin::recovers(*this);
}

void Orte4Adapter::output_given(RankId rank, const std::optional<OutputGiven>& what) {
    if (ORTE_PROC_IS_HNP) shown_.given(rank, what);
}

void Orte4Adapter::rank_forked(RankId rank) {
    watch_launched(rank);
    const orte_proc_t* child = rank_object(rank);
    if (recovers() && child && ORTE_FLAG_TEST(child, ORTE_PROC_FLAG_LOCAL)) recovery_.born(rank);
}

// The ranks of a restarted job have their places.
size_t Orte4Adapter::spares() const {
    constexpr const char* name = "ghost_spares";
    if (parameter("ghost_restart")) return 0;
    const auto count = parse_count(parameter(name).value_or(default_of(name)));
    return count ? static_cast<size_t>(*count) : 0;  // (the coordinator says what is wrong with it)
}

void Orte4Adapter::look_at_daemons(int64_t dead_after_us) {
    daemons_.end_cut_connections(dead_after_us);
    leases_.look();
    const int64_t next_us =
        std::clamp(dead_after_us / 10, Daemons::lease_look_us, Daemons::look_us);
    loop_.after(next_us, [=, this] { look_at_daemons(dead_after_us); });
}

// The processes of the ranks end with this one (wrapper/supervisor.hpp).
void Orte4Adapter::look_at_mpirun(int64_t dead_after_us) {
    if (daemons_.lease_is_over(dead_after_us)) {
        log::error(
            "mpirun's node has answered nothing for {:.1f} s: this node's ranks end, for "
            "the job goes on without it",
            static_cast<double>(dead_after_us) / 1e6);
        ::_exit(1);
    }
    if (keeper_.is_missing() && messenger_.has_secret()) messenger_.tell(0, LeasePort{});
    loop_.after(Daemons::lease_look_us, [=, this] { look_at_mpirun(dead_after_us); });
}

void Orte4Adapter::hear_of_lease(NodeId from, uint16_t port) {
    if (ORTE_PROC_IS_HNP) return messenger_.tell(from, LeasePort{leases_.port()});
    const auto mpirun = Daemons::mpirun_address();
    const std::string program = path_beside(wrapper(), "ghost-keeper");
    if (port == 0 || !mpirun || !keeper_.is_missing() || program.empty()) return;
    keeper_.start(program, *mpirun, port, lease_us(dead_after_us(*this)));
}

// Until the launch message says of whom to ask it, and the answer is here.
void Orte4Adapter::fetch_secret() {
    constexpr int64_t retry_us = 10'000;
    if (!messenger_.has_secret()) loop_.after(retry_us, [this] { fetch_secret(); });
}

void Orte4Adapter::secret_is_doubtful(const std::string& why) {
    abort_job(1, fmt::format("mpirun: {}: another process may have it, so the job ends", why));
}

void Orte4Adapter::on_launch(std::function<void()> handler) {
    launch_handler() = [this, handler = std::move(handler)] {
        messenger_.has_secret();  // asks for it now
        handler();
    };
}

std::string Orte4Adapter::wrapper() const {
    return orte_fork_agent && orte_fork_agent[0] ? orte_fork_agent[0] : "";
}

// --- who and where ---

NodeId Orte4Adapter::self() const {
    return ORTE_PROC_MY_NAME->vpid;
}
bool Orte4Adapter::is_coordinator() const {
    return ORTE_PROC_IS_HNP;
}
std::string Orte4Adapter::job_name() const {
    return app_name();
}
bool Orte4Adapter::job_running() const {
    return app_running();
}
std::vector<NodeInfo> Orte4Adapter::nodes() const {
    auto nodes = list_nodes();
    std::erase_if(nodes, [this](const NodeInfo& node) { return growth_.is_outside(node.id); });
    return nodes;
}
std::vector<RankInfo> Orte4Adapter::ranks() const {
    auto ranks = list_ranks();
    for (RankInfo& rank : ranks)
        if (recovery_.is_kept_quiet(rank.rank)) rank.life = RankLife::running;
    return ranks;
}
int Orte4Adapter::slots(NodeId node) const {
    return slots_of(node);
}
int Orte4Adapter::cores(NodeId node) const {
    return cores_of(node);
}
std::string Orte4Adapter::secret() const {
    return messenger_.secret();
}
std::string Orte4Adapter::life() const {
    return app_variable("GHOST_LIFE");
}

bool Orte4Adapter::relayed() const {
    const auto daemons = nodes();
    return std::any_of(daemons.begin(), daemons.end(), [](const NodeInfo& node) {
        return node.alive && way_to(node.id) != node.id;
    });
}

std::optional<NodeId> Orte4Adapter::find_node(const std::string& name) const {
    return find_node_named(nodes(), name);
}

std::string Orte4Adapter::session_dir() const {
    const char* folder = orte_process_info.jobfam_session_dir;
    if (!folder) return {};
    std::error_code ignored;
    std::filesystem::create_directories(folder, ignored);
    return folder;
}

std::string Orte4Adapter::rank_socket() const {
    const std::string job = app_name();
    return job.empty() ? job : node_socket(job, geteuid(), app_variable(names_variable));
}

std::string Orte4Adapter::pmix_uri() const {
    char uri[512];
    return ghost_pmix_uri(uri, sizeof uri) == 0 ? uri : "";
}

std::optional<std::string> Orte4Adapter::parameter(const std::string& name) const {
    return environment_variable("OMPI_MCA_" + name);
}

std::optional<int> Orte4Adapter::exit_status() const {
    return orte_exit_status;
}

size_t Orte4Adapter::guests() const {
    return count_guests();
}
size_t Orte4Adapter::guests_at(NodeId node) const {
    return guests_on(node);
}

JobDescription Orte4Adapter::describe_job() const {
    return description_of_job(input_);
}

// --- messages and loop ---

void Orte4Adapter::send(NodeId to, const std::string& packet) {
    messenger_.send(to, packet);
}
void Orte4Adapter::broadcast(const std::string& packet) {
    messenger_.broadcast(packet);
}

void Orte4Adapter::on_message(DaemonInbox::Handler handler) {
    messenger_.add_handler(std::move(handler));
}

TimerId Orte4Adapter::after(int64_t us, std::function<void()> action) {
    return loop_.after(us, std::move(action));
}
void Orte4Adapter::cancel(TimerId timer) {
    loop_.cancel(timer);
}
WatchId Orte4Adapter::watch(int fd, std::function<void()> readable) {
    return loop_.watch(fd, std::move(readable));
}
void Orte4Adapter::unwatch(WatchId watch) {
    loop_.unwatch(watch);
}

void Orte4Adapter::raise_priority(bool on) {
    on ? priority_.begin() : priority_.end();
}

// --- fences ---

bool Orte4Adapter::hold_fences() {
    if (!fence_hold_.hold()) return false;
    ghost_output_read_own_input(0);
    return true;
}
void Orte4Adapter::release_fences() {
    fence_hold_.release();
    ghost_output_read_own_input(1);
}
void Orte4Adapter::settle_fences(int votes) {
    fence_hold_.settle(votes);
    ghost_output_read_own_input(1);
}

// --- the rank's server ---

PreMark Orte4Adapter::may_detach(RankId rank, uint32_t fence_tag) {
    const bool may =
        !rank_input_.waits(rank) && ghost_pmix_may_detach(app_name().c_str(), rank, fence_tag) == 0;
    return may ? PreMark::ok : PreMark::busy;
}

PreMark Orte4Adapter::detach_from_server(RankId rank, uint32_t fence_tag) {
    if (rank_input_.waits(rank)) return PreMark::busy;  // it came a moment ago
    const int rc = ghost_pmix_detach(app_name().c_str(), rank, fence_tag);
    if (rc < 0) log::warning("the PMIx server does not know rank {}", rank);
    if (rc == 0) rank_input_.hold(rank);
    return rc == 0 ? PreMark::ok : PreMark::busy;
}

void Orte4Adapter::reattach(RankId rank) {
    rank_input_.resume(rank);
    const int calls = ghost_pmix_reattach(app_name().c_str(), rank);
    if (calls > 0) log::debug("{} open calls of rank {} belong to its new connection", calls, rank);
}

// --- the target's wrapper ---

std::vector<std::pair<std::string, std::string>> Orte4Adapter::environment_of(RankId rank) const {
    auto variables = rank_environment(app_jobid(), rank, self(), orte_process_info.nodename,
                                      app_variable(names_variable));
    for (const char* name : {"GHOST_LIFE", "GHOST_CRIU", "GHOST_LOG", "GHOST_FAULTS"})
        if (const std::string value = app_variable(name); !value.empty())
            variables.emplace_back(name, value);
    return variables;
}

Result<RuntimeAdapter::Spawned> Orte4Adapter::spawn_restore(RankId rank,
                                                            const std::vector<std::string>& argv,
                                                            std::function<void(int)> ended) {
    if (restores_.contains(rank))
        return make_error(Code::busy, "start a second restore of", describe_rank(rank));
    int ends[3][2];  // stdin, stdout, stderr; read end first
    Fd owned[3][2];
    for (int i = 0; i < 3; ++i) {
        if (pipe2(ends[i], O_CLOEXEC) != 0) return sys_error("make pipes for", describe_rank(rank));
        owned[i][0].reset(ends[i][0]);
        owned[i][1].reset(ends[i][1]);
    }
    Children::Start start;
    start.argv = argv;
    start.environment = environment_of(rank);
    start.stdio[0] = ends[0][0];
    start.stdio[1] = ends[1][1];
    start.stdio[2] = ends[2][1];
    auto spawned = children_.start(start, [this, rank, ended](int status) {
        restores_.erase(rank);
        late_callers_.expect_no_more(rank);
        ended(status);
    });
    if (!spawned) return spawned.error();
    Restore restore;
    restore.pid = spawned->pid;
    restore.in = std::move(owned[0][1]);
    restore.out = std::move(owned[1][0]);
    restore.err = std::move(owned[2][0]);
    restores_.emplace(rank, std::move(restore));
    return spawned;
}

void Orte4Adapter::expect_client(RankId rank) {
    late_callers_.expect(rank);
}

// Before mpirun hears that the rank is held, in the same order.
void Orte4Adapter::tell_of_late_call(const NamedCall& call, bool expected) {
    if (ORTE_PROC_IS_HNP) return expect_late_call(call, expected);
    LateCall late{expected, {}};
    for (const auto& [job, rank] : call) late.processes.push_back({job, rank});
    messenger_.tell(0, late);
}

void Orte4Adapter::discard_restore(RankId rank) {
    late_callers_.expect_no_more(rank);
    const auto found = restores_.find(rank);
    if (found == restores_.end()) return;
    children_.forget(found->second.pid);
    kill(-found->second.pid, SIGKILL);
    restores_.erase(found);
}

// --- the switch ---

Result<int> Orte4Adapter::switch_rank(RankId rank, NodeId from, NodeId to) {
    const std::string job = app_name();
    orte_proc_t* moved = rank_object(rank);
    orte_proc_t* target = daemon_object(to);
    if (!moved || !app_job()->map)
        return make_error(Code::not_found, "switch", describe_rank(rank));
    if (!target || !target->node || !moved->node)
        return make_error(Code::not_found, "switch to", fmt::format("daemon {}", to));
    if (self() == to && !restores_.contains(rank))
        return make_error(Code::refused, "switch here without a restored", describe_rank(rank));
    if (self() == from || self() == to) log_server("before the switch");
    if (self() == from) remove_local_child(*moved);
    move_mapping(*moved, *target);
    recount_calls_of(rank);
    ghost_output_redirect_input(app_jobid(), rank, to);
    if (self() == from) leave(rank);
    if (self() == to) GHOST_TRY(join(rank, from));
    if (self() == from || self() == to) log_server("after the switch");
    return ghost_pmix_votes(job.c_str());
}

void Orte4Adapter::leave(RankId rank) {
    rank_input_.leave(rank);
    children_.forget(rank_object(rank)->pid);
    const bool late = late_callers_.remove(rank);
    ghost_pmix_leave(app_name().c_str(), rank, late);
}

Status Orte4Adapter::join(RankId rank, NodeId from) {
    const auto found = restores_.find(rank);
    Restore restore = std::move(found->second);
    restores_.erase(found);
    orte_proc_t* child = rank_object(rank);
    add_local_child(*child, restore.pid);
    const int joined = ghost_pmix_join(app_name().c_str(), rank, child);
    if (joined < 0)
        return make_error(Code::internal, "register with the PMIx server", describe_rank(rank));
    late_callers_.add(rank, joined == 1);
    children_.watch(restore.pid, [this, rank, pid = restore.pid](int status) {
        wrapper_ended(rank, pid, status);
    });
    const int rc = ghost_output_open(app_jobid(), rank, restore.in.release(), restore.out.release(),
                                     restore.err.release());
    rank_input_.expect(rank, from);
    if (rc == ORTE_SUCCESS) return {};
    return make_error(Code::internal, "forward the streams of", describe_rank(rank));
}

bool Orte4Adapter::output_pending(RankId rank) const {
    return ghost_output_pending(app_jobid(), rank);
}
void Orte4Adapter::close_output(RankId rank) {
    ghost_output_close(app_jobid(), rank);
}

// --- wrappers that die ---

void Orte4Adapter::on_wrapper_exit(std::function<bool(RankId, int)> handler) {
    wrapper_exit_ = std::move(handler);
}

// A rank that ORTE itself forked: our callback takes the place of ORTE's.
void Orte4Adapter::watch_launched(RankId rank) {
    orte_proc_t* child = rank_object(rank);
    if (!child || !ORTE_FLAG_TEST(child, ORTE_PROC_FLAG_LOCAL) ||
        !ORTE_FLAG_TEST(child, ORTE_PROC_FLAG_ALIVE))
        return;
    orte_wait_cb(child, launched_ended, orte_event_base, nullptr);
}

// May be called on one of ORTE's launch threads, whose event base the first registration named.
void Orte4Adapter::launched_ended(int fd, short flags, void* data) noexcept {
    auto* tracker = static_cast<orte_wait_tracker_t*>(data);
    if (tracker->evb != orte_event_base) {
        tracker->evb = orte_event_base;
        opal_event_set(orte_event_base, &tracker->ev, -1, OPAL_EV_WRITE, launched_ended, tracker);
        opal_event_active(&tracker->ev, OPAL_EV_WRITE, 1);
        return;
    }
    const orte_proc_t& child = *tracker->child;
    Orte4Adapter* adapter = present();
    if (adapter && adapter->wrapper_exit_ && ORTE_FLAG_TEST(&child, ORTE_PROC_FLAG_LOCAL) &&
        adapter->wrapper_exit_(child.name.vpid, child.exit_code)) {
        OBJ_RELEASE(tracker);
        return;
    }
    orte_odls_base_default_wait_local_proc(fd, flags, tracker);
}

void Orte4Adapter::wrapper_ended(RankId rank, pid_t pid, int status) {
    orte_proc_t* child = rank_object(rank);
    // Not ours any more, or ORTE has killed it and counts it as ended already.
    if (!child || child->pid != pid || !ORTE_FLAG_TEST(child, ORTE_PROC_FLAG_LOCAL)) return;
    if (wrapper_exit_ && wrapper_exit_(rank, status)) return;
    late_callers_.remove(rank);  // it will not call any more
    child->exit_code = status;
    orte_wait_tracker_t* tracker = OBJ_NEW(orte_wait_tracker_t);
    OBJ_RETAIN(child);
    tracker->child = child;
    tracker->evb = orte_event_base;
    orte_odls_base_default_wait_local_proc(-1, 0, tracker);
}

Result<RuntimeAdapter::Spawned> Orte4Adapter::adopt_wrapper(RankId rank,
                                                            const std::vector<std::string>& argv,
                                                            const std::vector<int>& stdio) {
    orte_proc_t* child = rank_object(rank);
    if (!child || !ORTE_FLAG_TEST(child, ORTE_PROC_FLAG_LOCAL) || stdio.size() < 3)
        return make_error(Code::not_found, "adopt", describe_rank(rank));
    Children::Start start;
    start.argv = argv;
    start.environment = environment_of(rank);
    for (size_t i = 0; i < 3; ++i) start.stdio[i] = stdio[i];
    auto spawned = children_.start(start, {});
    if (!spawned) return spawned.error();
    child->pid = spawned->pid;
    children_.watch(spawned->pid, [this, rank, pid = spawned->pid](int status) {
        wrapper_ended(rank, pid, status);
    });
    return spawned;
}

Result<RuntimeAdapter::Spawned> Orte4Adapter::spawn_helper(const std::vector<std::string>& argv,
                                                           std::function<void(int)> ended) {
    Children::Start start;
    start.argv = argv;
    start.stdio[0] = start.stdio[1] = null_device;
    start.stdio[2] = STDERR_FILENO;
    return children_.start(start, std::move(ended));
}

void Orte4Adapter::on_orphan_exit(pid_t pid, std::function<void(int)> ended) {
    children_.watch(pid, std::move(ended));
}

// --- a recovery ---

void Orte4Adapter::on_rank_died(std::function<bool(RankId, int)> handler) {
    recovery_.on_died(std::move(handler));
}

void Orte4Adapter::let_end(RankId rank) {
    recovery_.let_end(rank);
}

void Orte4Adapter::stop_ranks(const std::vector<NodeId>& lost,
                              std::function<void(const Status&)> stopped) {
    while (!restores_.empty()) discard_restore(restores_.begin()->first);
    late_callers_.forget();
    rank_input_.forget();
    fence_hold_ = {};
    recovery_.stop(lost, std::move(stopped));
}

Status Orte4Adapter::start_ranks(const Births& births) {
    return recovery_.start(births);
}

void Orte4Adapter::input_goes_on() {
    ghost_output_read_own_input(1);
}

bool Orte4Adapter::input_ended() const {
    return ghost_output_input_ended() != 0;
}

bool Orte4Adapter::has_input_since(RankId rank, uint64_t bytes) const {
    const orte_job_t* job = app_job();
    return job && job->stdin_target == rank && kept_input_.has_since(bytes);
}

void Orte4Adapter::give_input_again(RankId rank, uint64_t bytes) {
    rank_input_.give_again(rank, bytes);
}

void Orte4Adapter::forget_input_before(uint64_t bytes) {
    kept_input_.forget_before(bytes);
}

// --- daemons that die ---

void Orte4Adapter::on_rank_ended(std::function<void(RankId, int)> handler) {
    rank_end_ = std::move(handler);
}

void Orte4Adapter::on_rank_lost(std::function<void(RankId, int)> handler) {
    rank_loss_ = std::move(handler);
}

void Orte4Adapter::on_node_lost(std::function<bool(NodeId)> handler) {
    daemons_.on_lost(std::move(handler));
}

// Without a route nothing goes there: what it was told last is on its way when ORTE's own events,
// which come first, have been handled. No later, for whoever broadcasts next would wait for it.
void Orte4Adapter::give_up_node(NodeId node) {
    constexpr int64_t sent_us = 1000;
    after(sent_us, [this, node] { daemons_.give_up(node); });
}

void Orte4Adapter::give_up_start(NodeId node) {
    growth_.give_up(node);
    daemons_.give_up(node);
}

Result<NewNode> Orte4Adapter::start_daemon(const std::string& host, int slots,
                                           std::function<void(const Status&)> runs) {
    return growth_.start(host, slots, std::move(runs));
}

void Orte4Adapter::learn_node(const NewNode& node) {
    learn_daemon(node);
}

void Orte4Adapter::dismiss_node(NodeId node, std::function<void()> gone) {
    daemons_.dismiss(node, std::move(gone));
}

// As orted itself goes when mpirun tells it to (orte/orted/orted_comm.c, ORTE_DAEMON_EXIT_CMD).
void Orte4Adapter::leave_job() {
    constexpr int64_t said_us = 200'000;  // until mpirun has heard it
    after(said_us, [] {
        orte_orteds_term_ordered = true;
        ORTE_ACTIVATE_JOB_STATE(nullptr, ORTE_JOB_STATE_DAEMONS_TERMINATED);
    });
}

// As errmgr's own abort() goes (orte/mca/errmgr/default_hnp), which says of whatever it is told
// that it is an internal error of ORTE's.
void Orte4Adapter::abort_job(int status, const std::string& why) {
    if (orte_abnormal_term_ordered) return;
    daemons_.keep_exit_status();  // not that of a lost daemon's launcher
    orte_abnormal_term_ordered = true;
    fmt::print(stderr, "{}\n", why);
    ORTE_UPDATE_EXIT_STATUS(status);
    const auto quit = [] { orte_quit(0, 0, nullptr); };
    if (orte_never_launched || orte_plm.terminate_orteds() != ORTE_SUCCESS) return quit();
    after(quit_us, quit);  // not every daemon may be there to answer
}

// The way mpirun itself goes after Ctrl-C (orte/mca/ess/hnp, clean_abort()), with another status.
void Orte4Adapter::end_job(int status, const std::string& why) {
    log::info("ending the job with status {}: {}", status, why);
    if (!why.empty()) fmt::print(stderr, "{}\n", why);
    ORTE_UPDATE_EXIT_STATUS(status);
    orte_job_term_ordered = true;
    orte_execute_quiet = true;
    orte_plm.terminate_orteds();
}

// --- requests ---

Status Orte4Adapter::on_signal(int signum, std::function<void()> handler) {
    return signals_.take(signum, std::move(handler));
}

void Orte4Adapter::on_job_control(std::function<void(JobControl)> handler) {
    control_requests_.on_request(std::move(handler));
}

}  // namespace ghost::plugin::orte41
