// SPDX-License-Identifier: BSD-3-Clause
// Ghost inside Open MPI 4.1: mpirun (the coordinator's place) and its daemons.
//
// Puts runtime_adapter.hpp into terms of ORTE and of the PMIx 4.2 server each daemon runs. Owned by
// the plugin; used on ORTE's main thread only, from the moment its event base runs (RML is up then)
// until the PMIx server is finalized.
#pragma once

#include <map>
#include <memory>

#include "pmix-plugin/runtime/orte41/children.hpp"
#include "pmix-plugin/runtime/orte41/control_requests.hpp"
#include "pmix-plugin/runtime/orte41/daemons.hpp"
#include "pmix-plugin/runtime/orte41/facts.hpp"
#include "pmix-plugin/runtime/orte41/fences.hpp"
#include "pmix-plugin/runtime/orte41/growth.hpp"
#include "pmix-plugin/runtime/orte41/leases.hpp"
#include "pmix-plugin/runtime/orte41/loop.hpp"
#include "pmix-plugin/runtime/orte41/messenger.hpp"
#include "pmix-plugin/runtime/orte41/rank_input.hpp"
#include "pmix-plugin/runtime/orte41/recovery.hpp"
#include "pmix-plugin/runtime/orte41/shown_output.hpp"
#include "pmix-plugin/runtime/orte41/signals.hpp"
#include "pmix-plugin/runtime/interface/runtime_adapter.hpp"

namespace ghost::plugin::orte41 {

// Is this process mpirun or a daemon, of Open MPI 4.1?
bool runs_here();
const char* version();
// Shows a topic of help-ghost.txt with up to three texts.
void show_message(const char* topic, const char* a, const char* b, const char* c);

// mpirun, before anything of it speaks: a job that is restarted keeps its number, which ORTE takes
// over for mpirun's own name but not for the name of the head process (orte/mca/ess/hnp, 4.1.4).
void complete_own_name();

class Orte4Adapter final : public RuntimeAdapter {
  public:
    Orte4Adapter();
    ~Orte4Adapter() override;

    // Called on the loop when the launch message is here and before the first rank is forked.
    void on_launch(std::function<void()> handler);
    // The program ranks are started under; "" if there is none.
    std::string wrapper() const;

    NodeId self() const override;
    bool is_coordinator() const override;
    std::string job_name() const override;
    bool job_running() const override;
    std::vector<NodeInfo> nodes() const override;
    std::vector<RankInfo> ranks() const override;
    bool relayed() const override;
    std::optional<NodeId> find_node(const std::string& name) const override;
    int slots(NodeId node) const override;
    int cores(NodeId node) const override;
    std::string session_dir() const override;
    std::string secret() const override;
    std::string life() const override;
    std::string rank_socket() const override;
    std::string pmix_uri() const override;
    std::optional<std::string> parameter(const std::string& name) const override;
    size_t guests() const override;
    size_t guests_at(NodeId node) const override;
    std::optional<int> exit_status() const override;
    JobDescription describe_job() const override;

    void send(NodeId to, const std::string& packet) override;
    void broadcast(const std::string& packet) override;
    void on_message(DaemonInbox::Handler handler) override;

    TimerId after(int64_t us, std::function<void()> action) override;
    void cancel(TimerId timer) override;
    WatchId watch(int fd, std::function<void()> readable) override;
    void unwatch(WatchId watch) override;
    void raise_priority(bool on) override;

    bool hold_fences() override;
    void release_fences() override;
    void settle_fences(int votes) override;

    PreMark may_detach(RankId rank, uint32_t fence_tag) override;
    PreMark detach_from_server(RankId rank, uint32_t fence_tag) override;
    void reattach(RankId rank) override;

    Result<Spawned> spawn_restore(RankId rank, const std::vector<std::string>& argv,
                                  std::function<void(int status)> ended) override;
    void expect_client(RankId rank) override;
    void discard_restore(RankId rank) override;

    Result<int> switch_rank(RankId rank, NodeId from, NodeId to) override;
    bool output_pending(RankId rank) const override;
    void close_output(RankId rank) override;

    void on_wrapper_exit(std::function<bool(RankId rank, int status)> handler) override;
    Result<Spawned> adopt_wrapper(RankId rank, const std::vector<std::string>& argv,
                                  const std::vector<int>& stdio) override;
    Result<Spawned> spawn_helper(const std::vector<std::string>& argv,
                                 std::function<void(int)> ended) override;
    void on_orphan_exit(pid_t pid, std::function<void(int status)> ended) override;

    void on_rank_died(std::function<bool(RankId rank, int status)> handler) override;
    void let_end(RankId rank) override;
    void stop_ranks(const std::vector<NodeId>& lost,
                    std::function<void(const Status&)> stopped) override;
    Status start_ranks(const Births& births) override;
    bool input_ended() const override;
    bool has_input_since(RankId rank, uint64_t bytes) const override;
    void give_input_again(RankId rank, uint64_t bytes) override;
    void forget_input_before(uint64_t bytes) override;
    std::vector<ShownOutput> shown_output() const override { return shown_.all(); }
    void output_given(RankId rank, const std::optional<OutputGiven>& what) override;
    void input_goes_on() override;

    void on_node_lost(std::function<bool(NodeId node)> handler) override;
    void give_up_node(NodeId node) override;
    void dismiss_node(NodeId node, std::function<void()> gone) override;
    void leave_job() override;
    Result<NewNode> start_daemon(const std::string& host, int slots,
                                 std::function<void(const Status&)> runs) override;
    void give_up_start(NodeId node) override;
    void learn_node(const NewNode& node) override;
    void on_rank_ended(std::function<void(RankId rank, int status)> handler) override;
    void on_rank_lost(std::function<void(RankId rank, int signal)> handler) override;
    void abort_job(int status, const std::string& why) override;
    void end_job(int status, const std::string& why) override;
    Status on_signal(int signum, std::function<void()> handler) override;
    void on_job_control(std::function<void(JobControl request)> handler) override;

  private:
    struct Restore {
        pid_t pid = 0;
        Fd in, out, err;  // this daemon's ends of the rank's pipes
    };

    size_t spares() const;
    bool recovers() const;
    bool daemon_failed(NodeId node);
    void look_at_daemons(int64_t dead_after_us);
    void look_at_mpirun(int64_t dead_after_us);
    void hear_of_lease(NodeId from, uint16_t port);
    void install_hooks();
    void fetch_secret();
    void secret_is_doubtful(const std::string& why);
    void rank_forked(RankId rank);
    static void rank_ended(RankId rank, const std::function<void()>& stock);
    void rank_lost(RankId rank);
    void leave(RankId rank);
    void tell_of_late_call(const NamedCall& call, bool expected);
    Status join(RankId rank, NodeId from);
    std::vector<std::pair<std::string, std::string>> environment_of(RankId rank) const;
    // The process that stands for a local rank has ended and been reaped.
    void wrapper_ended(RankId rank, pid_t pid, int status);
    void watch_launched(RankId rank);
    static void launched_ended(int fd, short flags, void* tracker) noexcept;

    Loop loop_;
    DaemonPriority priority_;
    RmlMessenger messenger_{[this](const std::string& why) { secret_is_doubtful(why); }};
    Children children_;
    LeaseListener leases_;
    OwnKeeper keeper_{children_};
    FenceHold fence_hold_;
    LateCallers late_callers_{
        loop_, [this](const NamedCall& call, bool expected) { tell_of_late_call(call, expected); }};
    StartOfInput input_ = start_of_input();
    KeptInput kept_input_{input_};
    RankInput rank_input_{loop_, messenger_, kept_input_};
    Recovery recovery_{loop_, rank_input_};
    ShownOutputs shown_;
    Daemons daemons_;
    Growth growth_{daemons_};
    Signals signals_;
    ControlRequests control_requests_{messenger_};
    std::map<RankId, Restore> restores_;
    std::function<bool(RankId, int)> wrapper_exit_;
    std::function<void(RankId, int)> rank_end_;
    std::function<void(RankId, int)> rank_loss_;
};

}  // namespace ghost::plugin::orte41
