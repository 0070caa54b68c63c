// SPDX-License-Identifier: BSD-3-Clause
// A job in one process: daemons, wrappers and ranks simulated on a virtual clock, the coordinator
// and the node agents real. Control sockets are real ones; nothing else leaves the process.
#pragma once

#include <array>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "kernet-btl/agent/messages.hpp"
#include "pmix-plugin/coordinator/coordinator.hpp"
#include "pmix-plugin/coordinator/operations/snapshot.hpp"
#include "pmix-plugin/node/node_agent.hpp"
#include "pmix-plugin/protocol/client_coordinator.hpp"
#include "pmix-plugin/protocol/node_wrapper.hpp"

namespace ghost::plugin::sim {

class Cluster;

inline const std::string job_life = "11fe";
inline const std::string job_secret = std::string(58, '0') + "5ec2e7";

// One copy of a rank: its process tree, and the rank agent inside it.
struct Tree {
    RankId rank = 0;
    NodeId node = 0;
    pid_t init = 0;
    bool alive = true;
    bool stopped = false;  // frozen, or held at the target
    bool attached = false;
    bool closed = false;  // the agent has closed everything and waits for the signal
    bool gated = false;   // takes nothing from a link: from its answer to `gate` until it attaches
    ControlSocket agent;
    uint64_t seq = 0;
    uint32_t epoch = 0;
    std::string life = job_life;  // that the rank knows of
    bool halted = false;          // by SIGSTOP, from outside
    std::vector<std::function<void()>> put_off;
    std::set<RankId> gone;  // ranks of which it was told that they have ended
    bool runs() const { return alive && !stopped && !halted; }
};

// What a wrapper does in a snapshot.
struct SnapWork {
    uint64_t seq = 0;
    std::string path;    // of its file
    std::string second;  // of the same once more; or empty
    Then then = Then::go_on;
    bool incremental = false;
    bool sign = false;
    bool ready = false, freezing = false, captured = false, frozen = false, cancelled = false;
    std::vector<uint32_t> unit;  // it shares memory with
    int stills = 0;              // said
};

struct Wrapper {
    RankId rank = 0;
    NodeId node = 0;
    pid_t pid = 0;
    bool alive = true;
    bool halted = false;  // by SIGSTOP
    std::vector<std::function<void()>> put_off;
    bool restore = false;
    bool held = false;           // its copy has not been let go
    uint64_t exports = 0;        // by which move
    bool live = false;           // that is
    bool sketched = false;       // the skeleton of such a one is out
    int sketches = 0;            // how often it had to be taken again
    std::optional<RankId> torn;  // a rank that ran when what it shares was taken: of one called off
    uint64_t linked = 0;         // by this move to the wrapper where its rank goes
    size_t told = 0;             // of so many files for shared memory
    bool registered = false;     // the daemon's bookkeeping has it as the rank's process
    std::shared_ptr<Tree> tree;
    ControlSocket control;
    std::function<void(int)> ended;
    std::vector<Fd> kept;  // inner ends
    int64_t said = 0;      // when its last message was sent: order is kept
    SnapWork snap;
    std::vector<std::string> chain;  // of its last ghost, nearest first
};

// What becomes of a daemon that is started while the job runs.
enum class Start { runs, fails, hangs, is_stock /* without Ghost */ };

// What may go wrong, asked at every step; the default is that nothing does.
struct Chance {
    int busy_percent = 0;
    int fence_percent = 0;
    // Ranks are in a call whose answer comes when the fences have gone on for a moment.
    bool waits_behind_fences = false;
    int64_t latency_us = 200;
    bool ends_at_once = false;  // a restored rank ends before its agent attaches
    size_t guests = 0;          // processes that ranks have spawned
    NodeId guests_at = 0;       // where
    std::set<RankId> sharers;   // ranks that share memory
    size_t saved = 0;           // a snapshot is of so many ranks, the first ones; 0: of all
    // A wrapper's answer to one of these is `failed`: prepare, freeze, write, import, export.
    std::optional<Stage> fail_stage;
    std::set<RankId> fail_ranks{0};
    std::optional<Stage> fail_live;            // the same of the skeleton of a live move
    std::optional<Stage> fail_at_target = {};  // and its target says this then, before it or after
    int sketches = 1;                          // that a live move takes
    uint64_t memory = 1 << 30;                 // of each rank
    int looks = 0;           // of 5 s each that a wrapper takes to prepare, without any bytes
    bool untracked = false;  // nobody can know what a rank writes
    int64_t write_us = 0;    // how long a ghost is written beside the latency
    Start start = Start::runs;
    int64_t start_us = 300'000;  // that takes
    bool incremental = false;    // wrappers can do it: the parent is the last complete snapshot
    // Timers come up to so early: libevent counts from when the loop woke, by a coarse clock.
    int64_t early_us = 0;
    // Those of so long come late by so much: a node that has no time.
    int64_t late_from_us = 10'000'000, late_us = 0;
};

class Daemon : public RuntimeAdapter {
  public:
    Daemon(Cluster& cluster, NodeId id) : c_(cluster), id_(id) {}

    NodeId self() const override { return id_; }
    bool is_coordinator() const override { return id_ == 0; }
    std::string job_name() const override { return "4711"; }
    bool job_running() const override;
    std::vector<NodeInfo> nodes() const override;
    std::vector<RankInfo> ranks() const override;
    std::optional<NodeId> find_node(const std::string& name) const override;
    int slots(NodeId node) const override;
    int cores(NodeId node) const override;
    std::string session_dir() const override;
    std::string secret() const override;
    std::string life() const override { return life_; }
    std::string rank_socket() const override;
    std::string pmix_uri() const override { return "uri" + std::to_string(id_); }
    void send(NodeId to, const std::string& packet) override;
    void broadcast(const std::string& packet) override;
    void on_message(DaemonInbox::Handler h) override { inbox_.add(std::move(h)); }
    int64_t now() const override;
    TimerId after(int64_t us, std::function<void()> action) override;
    void cancel(TimerId timer) override;
    WatchId watch(int fd, std::function<void()> readable) override;
    void unwatch(WatchId watch) override { watches_.erase(watch); }
    bool hold_fences() override;
    void release_fences() override;
    void settle_fences(int votes) override;
    void raise_priority(bool on) override;
    std::optional<std::string> parameter(const std::string& name) const override;
    size_t guests() const override;
    size_t guests_at(NodeId node) const override;
    JobDescription describe_job() const override;
    PreMark may_detach(RankId rank, uint32_t tag) override;
    Status on_signal(int signum, std::function<void()> handler) override;
    void on_job_control(std::function<void(JobControl)> handler) override;
    void end_job(int status, const std::string& why) override;
    PreMark detach_from_server(RankId rank, uint32_t tag) override;
    void reattach(RankId rank) override;
    Result<Spawned> spawn_restore(RankId rank, const std::vector<std::string>& argv,
                                  std::function<void(int)> ended) override;
    void discard_restore(RankId rank) override;
    Result<int> switch_rank(RankId rank, NodeId from, NodeId to) override;
    bool output_pending(RankId rank) const override;
    void close_output(RankId rank) override;
    void on_wrapper_exit(std::function<bool(RankId, int)> h) override { exit_ = std::move(h); }
    Result<Spawned> adopt_wrapper(RankId rank, const std::vector<std::string>& argv,
                                  const std::vector<int>& stdio) override;
    void on_node_lost(std::function<bool(NodeId)> h) override { lost_ = std::move(h); }
    void on_rank_lost(std::function<void(RankId, int)> h) override { killed_ = std::move(h); }
    void on_rank_died(std::function<bool(RankId, int)> h) override { died_ = std::move(h); }
    void let_end(RankId rank) override;
    void stop_ranks(const std::vector<NodeId>& lost,
                    std::function<void(const Status&)> stopped) override;
    Status start_ranks(const Births& births) override;
    void give_up_node(NodeId node) override;
    void dismiss_node(NodeId node, std::function<void()> gone) override;
    void leave_job() override;
    Result<NewNode> start_daemon(const std::string& host, int slots,
                                 std::function<void(const Status&)> runs) override;
    void give_up_start(NodeId node) override;
    void learn_node(const NewNode& node) override;
    void abort_job(int status, const std::string& why) override;

  private:
    friend class Cluster;
    Cluster& c_;
    NodeId id_;
    DaemonInbox inbox_{[] { return job_life; }};
    std::function<bool(RankId, int)> exit_;
    std::function<bool(NodeId)> lost_;
    std::function<void(RankId, int)> killed_;
    std::function<bool(RankId, int)> died_;
    std::string life_ = job_life;  // of its ranks
    std::map<WatchId, std::pair<int, std::function<void()>>> watches_;
    std::map<RankId, NodeId> where_;  // this daemon's bookkeeping
    mutable std::map<RankId, int> unread_;
    std::set<RankId> premarked_, allowed_;
    std::set<NodeId> learned_;  // that have joined
    int raised_ = 0;
};

class Client {
  public:
    explicit Client(ControlSocket socket) : socket_(std::move(socket)) {}
    void ask(const Json& m) { (void)socket_.send_text(m.dump()).ok(); }
    void vanish() { socket_.close(); }
    bool gone() const { return !socket_.valid(); }

    std::vector<std::string> phases;
    std::vector<Json> results;
    std::vector<std::string> errors;  // why, of each `error`
    std::function<void(const std::string& phase)> on_phase;

  private:
    friend class Cluster;
    ControlSocket socket_;
};

class Cluster {
  public:
    // ranks: the node of each rank, by rank. slots 0: unknown.
    Cluster(uint64_t seed, int nodes, std::vector<NodeId> ranks, int slots = 0,
            CoordinatorSettings settings = {},
            // Of mpirun; "sim_early" leaves the start of the job to the caller's run().
            std::map<std::string, std::string> parameters = {});
    ~Cluster();

    Client& client();
    // mpirun ends: the job is nobody's any more.
    void end_mpirun() { coordinator_->stop(); }
    // Whether every rank that runs has been told that this one has ended; or any.
    bool end_known(RankId rank, bool by_all) const;
    // The next message from or to a wrapper or a rank is lost, unless it is a location.
    void lose_one_local() {
        lose_local = [left = 1](const std::string& type) mutable {
            return type != kernet::Location::table.name && left-- > 0;
        };
    }
    // Runs the virtual clock; stops early when `until` holds.
    bool run(int64_t us, const std::function<bool()>& until = nullptr);
    Json ps();
    // As a scheduler inside mpirun would.
    void snapshot(const SnapshotOrder& order, std::function<void(const SnapshotRun&)> finished) {
        coordinator_->snapshot(order, std::move(finished));
    }
    // With "sim_threads" what blocks runs on real threads: waits for them in real time too.
    bool run_real(const std::function<bool()>& until);

    // --- faults ---
    void kill_wrapper(NodeId node, RankId rank);
    void kill_tree(NodeId node, RankId rank);
    // SIGSTOP to the copy that runs, and SIGCONT; with its wrapper, as mpirun does it at SIGTSTP.
    void stop_rank(RankId rank, bool with_wrapper = false);
    void continue_rank(RankId rank);
    // Everything was stopped for so long: timers are late.
    void stand(int64_t us) { now += us; }
    void say_bye(RankId rank);   // it is in MPI_Finalize
    void end_rank(RankId rank);  // it exits by itself
    // The same; its wrapper breaks off what it does, and says so when it has sent all output.
    void end_rank_slowly(RankId rank);
    void kill_node(NodeId node);
    void cut(NodeId node) { cut_.insert(node); }
    void heal(NodeId node) { cut_.erase(node); }
    // Called for every message between daemons: true loses it.
    std::function<bool(NodeId from, NodeId to, const Json&)> lose;
    // Changes a message on its way (a node-local folder: another path at another node).
    std::function<void(NodeId to, Json&)> bend;
    // For every message from or to a wrapper or a rank.
    std::function<bool(const std::string& type)> lose_local;
    void signal(int signum);  // to mpirun
    // The runtime ends the job for it.
    void killed_by(int signum, RankId rank) { daemons_[0]->killed_(rank, signum); }
    // A PMIx_Job_control request; the answers are added to `answers`.
    void job_control(ControlOrder order, std::vector<std::string>& answers);

    // --- truth ---
    int running_copies(RankId rank) const;
    NodeId node_of(RankId rank) const;  // of the copy that runs
    bool rank_attached(RankId rank) const;
    NodeId size() const { return static_cast<NodeId>(daemons_.size()); }
    int raised(NodeId node) const { return daemons_[node]->raised_; }
    void inject(NodeId from, NodeId to, const Json& m, const std::string& life = job_life);
    Daemon& daemon(NodeId node) { return *daemons_[node]; }
    std::string folder() const { return dir_ + "/snapshots"; }
    std::string socket_of(NodeId node) const { return daemons_[node]->rank_socket(); }

    Chance chance;
    int64_t now = 0;
    int holds = 0, releases = 0, settles = 0;
    int held = 0;
    int restores = 0;  // restore wrappers that moves have started
    int cores = 0;     // of each node
    int votes = 0;
    bool job_aborted = false;
    bool job_broken = false;  // mpirun's own end: a daemon with ranks was lost
    std::string abort_why;
    int end_status = 0;                    // of end_job()
    std::vector<std::string> said;         // to the user
    std::map<uint64_t, std::string> torn;  // snapshots whose cut is none, by seq
    std::map<std::string, std::string> parameters;
    std::set<NodeId> given_up;
    std::set<NodeId> outside;                        // daemons that start, or have failed to
    std::set<NodeId> without_secret;                 // whose daemon has not been told it yet
    std::map<NodeId, std::function<void()>> leaves;  // dismissed, and not ended
    std::set<NodeId> dead;
    std::vector<std::string> violations;
    std::map<RankId, bool> ended;
    std::set<RankId> starting;  // before MPI_Init
    std::set<RankId> in_init;   // that are in it: with "sim_early"
    std::vector<RankId> adopted, repeered;
    std::set<RankId> shared_saved;  // whose ghosts have what is shared
    std::set<ino_t> shared_files;   // that took its place
    std::vector<Json> sent;         // between daemons

  private:
    friend class Daemon;
    struct Event {
        TimerId id;
        NodeId owner;
        std::function<void()> action;
    };

    void add_daemon(const std::string& name, int slots);
    void daemon_starts(NodeId id);
    void boot(RankId rank, NodeId node, bool from_ghost);
    void end_ranks_of(NodeId node);
    TimerId at(int64_t when, NodeId owner, std::function<void()> action);
    void later(NodeId owner, std::function<void()> action);
    // By a wrapper or a rank: when it goes on, if it is halted then.
    template <typename Who>
    void act(const std::shared_ptr<Who>& who, int64_t when, std::function<void()> action) {
        at(when, nobody, [who, action = std::move(action)] {
            who->halted ? who->put_off.push_back(action) : action();
        });
    }
    static constexpr NodeId nobody = 1000;  // events of the simulation itself
    int64_t latency() { return 1 + static_cast<int64_t>(random_() % uint64_t(chance.latency_us)); }
    int64_t early() {
        return chance.early_us == 0 ? 0
                                    : static_cast<int64_t>(random_() % uint64_t(chance.early_us));
    }
    bool percent(int n) { return n > 0 && static_cast<int>(random_() % 100) < n; }
    bool pump();
    bool pump_watches();
    std::optional<schema::Received> hear(ControlSocket& socket, const schema::Family& family,
                                         std::vector<Fd>* fds = nullptr);
    void expect_secret(const schema::Received& order);
    void wrapper_message(const std::shared_ptr<Wrapper>& w, const schema::Received& m,
                         const std::vector<Fd>& fds);
    void tree_message(const std::shared_ptr<Tree>& t, const schema::Received& m);
    void client_message(Client& client, const schema::Received& m);
    template <typename Sayer, typename T>  // a wrapper or a rank
    void say(const std::shared_ptr<Sayer>& who, const T& m, bool with_fds = false) {
        say_text(who, T::table.name, schema::encode(m), with_fds);
    }
    void say_text(const std::shared_ptr<Wrapper>& w, const char* type, std::string text,
                  bool with_fds);
    void say_text(const std::shared_ptr<Tree>& t, const char* type, std::string text, bool);
    void say_hello(const std::shared_ptr<Wrapper>& w, WrapperMode mode);
    void connect(const std::shared_ptr<Wrapper>& w, const Connect& m);
    void sketch(const std::shared_ptr<Wrapper>& w, uint64_t seq);
    void copy_on(const std::shared_ptr<Wrapper>& w, const Wake& m);
    void export_tree(const std::shared_ptr<Wrapper>& w, const Export& m);
    void exported(const std::shared_ptr<Wrapper>& w, uint64_t seq);
    std::optional<RankId> sharer_runs() const;
    void expect_sharers_held(RankId rank);
    void hang_up(const std::shared_ptr<Wrapper>& w, Stage stage, const char* why);
    void ghost_arrives(RankId rank, uint32_t epoch, uint64_t seq);
    void go(const std::shared_ptr<Wrapper>& w, uint64_t seq);
    void welcome(const std::shared_ptr<Tree>& t, const kernet::RankWelcome& m);
    void expect_thread(const std::optional<AgentThread>& agent);
    void wake(const std::shared_ptr<Tree>& t);
    void attach(const std::shared_ptr<Tree>& t, int tries);
    void snap_prepare(const std::shared_ptr<Wrapper>& w, const SnapPrepareRank& m);
    void snap_look(const std::shared_ptr<Wrapper>& w, uint64_t seq, int left);
    std::vector<SharedPart> shared_by(RankId rank) const;
    void snap_freeze(const std::shared_ptr<Wrapper>& w, const SnapFreeze& m);
    void share(const std::shared_ptr<Wrapper>& w);
    void snap_captured(const std::shared_ptr<Wrapper>& w);
    void snap_write(const std::shared_ptr<Wrapper>& w, uint64_t seq);
    void snap_cancel(const std::shared_ptr<Wrapper>& w, uint64_t seq);
    void snap_end(const std::shared_ptr<Wrapper>& w, uint64_t seq);
    bool snap_fails(const std::shared_ptr<Wrapper>& w, Stage stage);
    void let_run(const std::shared_ptr<Wrapper>& w);
    void restart_check(const std::shared_ptr<Wrapper>& w);
    void restart_import(const std::shared_ptr<Wrapper>& w);
    void boot_restart(const std::shared_ptr<Wrapper>& w);
    void wrapper_gone(const std::shared_ptr<Wrapper>& w, int status);
    void drop_tree(Tree& t);
    void check();
    void violate(std::string what) { violations.push_back(std::move(what)); }
    std::shared_ptr<Wrapper> wrapper_of(NodeId node, RankId rank) const;

    std::mt19937_64 random_;
    std::string unsettled_;  // what is wrong with how fences were settled
    std::string name_;
    std::string dir_;
    TimerId last_timer_ = 0;
    std::map<std::pair<int64_t, TimerId>, Event> events_;
    std::map<TimerId, int64_t> timer_time_;
    std::map<std::pair<NodeId, NodeId>, int64_t> last_arrival_;
    std::set<NodeId> cut_;
    std::vector<std::unique_ptr<Daemon>> daemons_;
    std::vector<std::unique_ptr<NodeAgent>> agents_;
    NodeSettings node_settings_;
    std::vector<std::string> names_;  // of nodes, by daemon
    std::vector<int> daemon_slots_;
    NodeId first_ = 0;  // so many daemons were there from the start
    std::map<NodeId, std::function<void(const Status&)>> starts_;
    std::unique_ptr<Coordinator> coordinator_;
    std::vector<std::shared_ptr<Tree>> trees_;
    std::vector<std::shared_ptr<Wrapper>> wrappers_;
    std::deque<Client> clients_;
    std::map<int, std::function<void()>> signals_;
    std::function<void(RuntimeAdapter::JobControl)> job_control_;
    pid_t last_pid_ = 100;
};

// So many seeds; fewer under a sanitizer, whose builds set GHOST_TEST_SLOWER (docs/TESTING.md), and
// then said.
uint64_t seeds_of(uint64_t all);

inline size_t Daemon::guests_at(NodeId node) const {
    return node == c_.chance.guests_at ? guests() : 0;
}

inline int Daemon::cores(NodeId) const {
    return c_.cores;
}

inline int64_t Daemon::now() const {
    return c_.now;
}

}  // namespace ghost::plugin::sim
