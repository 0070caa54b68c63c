// SPDX-License-Identifier: BSD-3-Clause
// The inside of the node agent; private to node/. One class over several files by subject:
// node_agent.cpp (connections, who says what), quiesce.cpp (how a rank is quiesced and opened
// again), standstill.cpp (a rank that cannot act), source.cpp and target.cpp (the two ends of a
// move), snapshot.cpp and restart.cpp (the whole job's), sharing.cpp (ranks that share memory),
// wrappers.cpp (wrappers that die), locations.cpp (the replicated table).
#pragma once

#include <fmt/format.h>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <tuple>
#include <utility>

#include "base/fault.hpp"
#include "pmix-plugin/runtime/interface/background.hpp"
#include "pmix-plugin/runtime/interface/control_connection.hpp"
#include "pmix-plugin/runtime/interface/location_table.hpp"
#include "pmix-plugin/protocol/node_wrapper.hpp"
#include "pmix-plugin/node/copies.hpp"
#include "pmix-plugin/node/node_agent.hpp"
#include "pmix-plugin/node/snapshot_participant.hpp"
#include "pmix-plugin/node/rank_slot.hpp"

namespace ghost::plugin {

// Why it takes part in nothing any more.
inline std::string has_ended(RankId rank) {
    return fmt::format("rank {} has ended", rank);
}

// The process tree of a rank as the node agent touches it: is it alive, and kill it.

// Remembers the tree's first process by pidfd (no mistaken identity when pids are used again).
void take_tree(RankSlot& slot, pid_t init);
bool tree_alive(const RankSlot& slot, const TreeControl& control);
// SIGKILL to the first process ends the whole PID name space (pid_namespaces(7)).
void kill_tree(const RankSlot& slot, const TreeControl& control);

// Shared with the adapter's handlers by weak pointer: those cannot be taken back.
class NodeAgent::Impl : public std::enable_shared_from_this<NodeAgent::Impl>, private LocalRanks {
  public:
    Impl(NodeRuntime& adapter, NodeSettings settings)
        : adapter_(adapter),
          settings_(std::move(settings)),
          entrance_(adapter_),
          background_(adapter_, settings_.threads),
          copies_(adapter_, background_, settings_.wrapper),
          participant_(adapter_, adapter_, *this) {}

    Status start();
    Status listen_now();
    void stop();

  private:
    static constexpr NodeId coordinator = 0;
    static constexpr const char* in_pmix_call =
        "the rank is inside a PMIx call that cannot be interrupted";

    using ArrivalId = uint64_t;
    // Operations of a rank that this node has heard of.
    struct Seen {
        uint64_t newest = 0;   // orders of an older one are late
        uint64_t aborted = 0;  // its other orders may come after the abort
        uint64_t switched = 0;
    };
    // The snapshot under way, or the last one.
    struct Snapshot {
        uint64_t seq = 0;
        SnapPrepare order;
        bool folder_ready = false;  // its folder is there
        bool own_folder = false;    // on a disk of this node: to be renamed or removed here
        bool own_second = false;    // the same of the second folder
        RankId first_rank = 0;      // of this node, to speak for it
        std::string why;            // what is wrong with this node
    };

    // --- node_agent.cpp ---
    void try_listen();
    void came(ArrivalId id, ControlSocket socket);
    void drop_arrival(ArrivalId id);
    void hello(ArrivalId id, ControlMessage& m);
    std::string check_greeting(const Greeting& m) const;
    void tell_secret(ControlConnection& to, const kernet::AskSecret& m) const;
    void hello_rank(std::shared_ptr<ControlConnection> connection, const kernet::RankHello& m);
    void hello_wrapper(std::shared_ptr<ControlConnection> connection, const WrapperHello& hello,
                       std::vector<Fd>& fds);
    void take_spare(RankSlot& slot, int32_t init, std::vector<Fd>& fds);
    void order(NodeId from, const schema::Received& m);
    bool is_late(const schema::Received& m);
    void note_newest(RankId rank, uint64_t seq);
    void abort(const Abort& m);
    void leave(const AskLeave& m);
    void join(const NodeJoins& m);
    void wrapper_packet(RankId rank, const ControlConnection* from, schema::Reader& reader,
                        ControlMessage& m);
    void wrapper_message(RankSlot& slot, const schema::Received& m, std::vector<Fd>& fds);
    void answer(RankSlot& slot, const schema::Received& m);
    void rank_packet(RankId rank, const ControlConnection* from, schema::Reader& reader,
                     ControlMessage& m);
    void rank_message(RankSlot& slot, const schema::Received& m);
    RankSlot* find(RankId rank);
    RankSlot& slot(RankId rank);
    // False: there is no such way, which is a bug; whoever waits for this rank is told.
    template <typename State>
    bool change(RankSlot& slot, const auto& table, State& state, State next);
    bool change(RankSlot& slot, Quiesce next);
    bool change(RankSlot& slot, Transfer next);
    bool change(RankSlot& slot, SnapWork next);
    // Its hello may come before its wrapper's word.
    static bool wakes_early(const RankSlot& slot) {
        return slot.snap.participates && slot.quiesce == Quiesce::quiet;
    }
    template <typename T>
    void report(const T& message) {  // to the coordinator
        adapter_.tell(coordinator, message);
    }
    // What the rank's wrapper says, with whose it is.
    template <typename T>
    void pass_on(const RankSlot& slot, T message) {
        message.rank = slot.rank;
        report(message);
    }
    void fail(RankSlot& slot, Stage stage, const std::string& why);
    [[nodiscard]] bool passes(RankSlot& slot, fault::Point point, Stage stage,
                              const std::shared_ptr<ControlConnection>& with);
    void set_timer(RankSlot& slot, int64_t us, void (Impl::*step)(RankSlot&));
    void stop_timer(RankSlot& slot);
    void forget(RankId rank);
    void welcome(RankSlot& slot, kernet::Arrival state);
    const std::string& own_name() const;

    // --- quiesce.cpp ---
    void close_gate(RankSlot& slot);
    static std::string why_busy(const kernet::GateAnswer& m);
    void on_gated(RankSlot& slot, const kernet::GateAnswer& m);
    void open_gate(RankSlot& slot);
    void on_ungated(RankSlot& slot);
    void gate_open(RankSlot& slot);
    bool leave_server(RankSlot& slot);
    void rank_closed(RankId rank, const ControlConnection* which);
    void all_closed(RankSlot& slot);
    void resume(RankSlot& slot);
    void on_attached(RankSlot& slot, const kernet::RankAttached& m);
    void give_up_gates(RankSlot& slot);

    // --- standstill.cpp ---
    std::optional<Standstill> standstill(const RankSlot& slot) const;
    void pong(NodeId to, const Ping& m);
    // As long as a rank is in an operation.
    void look_at_ranks_later();
    void look_at_ranks();
    void look_at(RankSlot& slot);
    void stands_still(RankSlot& slot, const std::string& why);

    // --- source.cpp ---
    void connect(const Connect& m);
    void gate(const GateRank& m);
    std::string why_tied(const RankSlot& slot) const;
    void export_rank(RankSlot& slot);
    void copy_on(RankSlot& slot);
    void abort_source(RankSlot& slot);
    void back_home(RankSlot& slot);
    void source_answer(RankSlot& slot, const schema::Received& m);
    void leave(RankSlot& slot, const Switch& m);
    void die_expired(RankSlot& slot);
    void gone(RankSlot& slot);
    void drain(RankSlot& slot);

    // --- target.cpp ---
    void prepare(const Prepare& m);
    void restore_ended(RankId rank, uint64_t seq, int status);
    void abort_target(RankSlot& slot);
    void target_answer(RankSlot& slot, const schema::Received& m);
    void switch_rank(const Switch& m);
    void join(RankSlot& slot);
    void go(const Go& m);

    // --- snapshot.cpp ---
    void begin_step(ParticipantStep step, const schema::Received* order) override;
    LocalAnswer look(ParticipantStep step) override;
    void step_answered(ParticipantStep step) override;
    void progress(uint64_t& bytes, uint64_t& total) const override;
    void each_part(void (Impl::*step)(RankSlot&));
    bool answered(const RankSlot& slot, ParticipantStep step) const;
    void add_rows(ParticipantStep step, StepAnswer& answer);
    void snapshot_failed(RankSlot& slot, Stage stage, const std::string& why);
    void prepare_snapshot(const SnapPrepare& order);
    void settle_last(uint64_t complete);
    void join_snapshot(RankSlot& slot);
    void make_own_folder();
    void ask_to_prepare(RankSlot& slot);
    void shut(RankSlot& slot);
    void reopen(RankSlot& slot);
    void part_with_server(RankSlot& slot);
    void write(RankSlot& slot);
    void freeze(RankSlot& slot);
    void woken(RankSlot& slot);
    void take_early(RankSlot& slot);
    void keep_early(RankSlot& slot, std::shared_ptr<ControlConnection> connection,
                    const kernet::RankHello& m);
    void snapshot_answer(RankSlot& slot, const schema::Received& m);
    void on_failed(RankSlot& slot, const Failed& m);
    void on_captured(RankSlot& slot, const SnapCaptured& m);
    void on_written(RankSlot& slot, const Written& m);
    void end_snapshot(const SnapEnd& order);
    void bring_home(RankSlot& slot);
    void discard_own_folder();
    void take_copies(NodeId from, const CopyOffer& offer);
    void on_attached_again(RankSlot& slot, const kernet::Location& given, const std::string& wrong);

    // --- restart.cpp ---
    void hello_restart(RankSlot& slot);
    void prepare_restart(const RestartPrepare& order);
    void check_slot(RankSlot& slot);
    void import_slot(RankSlot& slot);
    bool all_restart_slots() const;
    void restart_answer(RankSlot& slot, const schema::Received& m);
    void transfer_progressed(RankSlot& slot, const TransferProgress& m);
    void go_on(RankSlot& slot);
    bool restart_wrapper_died(RankSlot& slot, int status);

    // --- recovery.cpp ---
    bool rank_died(RankId rank, int status);
    void recover_stop(const RecoverStop& m);
    void recover_start(const RecoverStart& m);
    void hear_last_words(RankId rank, std::shared_ptr<ControlConnection> wrapper);
    void end_last_words();
    void beat();

    // --- sharing.cpp ---
    std::set<RankId> unit_of(const RankSlot& slot);
    std::string add_sharers(const RankSlot& slot, std::vector<uint32_t>& unit,
                            std::vector<std::string>& saves);
    void gate_answered(RankSlot& slot);
    void on_still(RankSlot& slot);
    std::string why_apart(const std::vector<SharedPart>& shared) const;
    std::vector<SharedPart> seen_memory(const RankSlot& slot) const;
    Status give_files(RankSlot& slot, uint64_t unit);
    std::string why_no_room(const std::vector<SharedPart>& shared) const;

    // --- wrappers.cpp ---
    void use_wrapper(RankSlot& slot, std::shared_ptr<ControlConnection> connection);
    void listen_to_wrapper(RankId rank, ControlConnection& connection);
    std::shared_ptr<ControlConnection> open_wrapper(RankId rank, ControlSocket socket);
    void wrapper_closed(RankId rank, const ControlConnection* which);
    void wrapper_exit_said(RankSlot& slot, const Exit& m);
    bool wrapper_died(RankId rank, int status);
    bool adopt(RankSlot& slot);
    void watch_orphan(RankSlot& slot);
    void stdin_closed(RankSlot& slot);
    bool is_gone(const RankSlot& slot) const;
    void tree_ended(RankSlot& slot, const std::string& why);
    void participant_ended(RankSlot& slot, const std::string& why);
    void participant_wrapper_died(RankSlot& slot, bool alive, const std::string& why);

    // --- locations.cpp ---
    kernet::Location settled_location(const RankSlot& slot, kernet::Location given) const;
    void take_locations(const Locations& m);
    void locate(RankSlot& slot, RankId peer);
    void report_ended(const RankSlot& slot, int status);
    void tell_location(RankSlot& slot, const kernet::Location& location);
    std::vector<kernet::Location> known_peers(RankSlot& slot);

    NodeRuntime& adapter_;
    NodeSettings settings_;
    LocationTable locations_;
    uint64_t version_ = 0;  // of the table of locations
    ControlEntrance entrance_;
    log::Seldom refusals_;  // of hellos
    std::optional<TimerId> listen_retry_;
    std::optional<TimerId> look_timer_;
    std::optional<TimerId> beat_timer_;
    // Connections that have not said hello yet.
    std::map<ArrivalId, std::shared_ptr<ControlConnection>> arrivals_;
    std::map<RankId, RankSlot> slots_;
    std::map<RankId, Seen> seen_;
    mutable std::string own_name_;
    Background background_;
    Copies copies_;
    SnapshotParticipant participant_;
    Snapshot snapshot_;
    uint32_t restart_epoch_ = 0;
    bool recovering_ = false;  // from `recover_stop` until the ranks are back
    // Wrappers of a recovery that have not said yet what they have given of their ranks' output.
    std::map<RankId, std::shared_ptr<ControlConnection>> last_words_;
    struct {
        ParticipantStep step = ParticipantStep::idle;  // that has been taken here
        Status done = {};
    } recovery_;
    std::map<RankId, ShownOutput> shown_;  // of it, as `recover_start` says
    bool counts_anew_ = false;             // the same
    // The slots' own: by unit, the lowest rank that shares it, and its id.
    std::map<std::tuple<uint64_t, RankId, std::string>, std::weak_ptr<const Fd>> shared_files_;
    bool running_ = false;
    bool warned_ = false;
};

}  // namespace ghost::plugin
