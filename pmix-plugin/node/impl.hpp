// The inside of the node agent; private to node/. One class over several files by subject:
// node_agent.cpp (connections, who says what), source.cpp and target.cpp (the two ends of a move),
// snapshot.cpp and restart.cpp (the whole job's), wrappers.cpp (wrappers that die), locations.cpp
// (the replicated directory).
#pragma once

#include <map>
#include <memory>
#include <string>

#include "pmix-plugin/runtime/interface/background.hpp"
#include "pmix-plugin/runtime/interface/channel.hpp"
#include "pmix-plugin/runtime/interface/directory.hpp"
#include "pmix-plugin/protocol/message.hpp"
#include "pmix-plugin/node/node_agent.hpp"
#include "pmix-plugin/node/part.hpp"
#include "pmix-plugin/node/seat.hpp"
#include "pmix-plugin/node/tree.hpp"

namespace ghost::plugin {

// Shared with the adapter's handlers by weak pointer: those cannot be taken back.
class NodeAgent::Impl : public std::enable_shared_from_this<NodeAgent::Impl>, private LocalRanks {
  public:
    Impl(RuntimeAdapter& adapter, NodeSettings settings)
        : adapter_(adapter),
          settings_(std::move(settings)),
          background_(adapter_, settings_.threads),
          part_(adapter_, *this) {}

    Status start();
    Status listen_now();
    void stop();

  private:
    // A connection that has not said hello yet.
    struct Guest {
        std::shared_ptr<Channel> channel;
        TimerId limit = 0;
    };
    using GuestId = uint64_t;
    // The snapshot under way, or the last one.
    struct Snapshot {
        uint64_t seq = 0;
        Json order;                 // `snap_prepare`
        bool folder_ready = false;  // its folder is there
        bool own_folder = false;    // on a disk of this node: to be renamed or removed here
        bool own_second = false;    // the same of the second folder
        RankId first_rank = 0;      // of this node, to speak for it
        std::string why;            // what is wrong with this node
    };

    // --- node_agent.cpp ---
    void try_listen();
    void accept();
    void drop_guest(GuestId id);
    void hello(GuestId id, ControlMessage& m);
    std::string check_hello(const Json& m) const;
    void hello_rank(std::shared_ptr<Channel> channel, const Json& m);
    void hello_wrapper(std::shared_ptr<Channel> channel, ControlMessage& m);
    void take_spare(Seat& seat, ControlMessage& m);
    void order(NodeId from, const Json& m);
    void wrapper_message(RankId rank, const Channel* from, ControlMessage& m);
    void rank_message(RankId rank, const Channel* from, ControlMessage& m);
    void rank_closed(RankId rank, const Channel* which);
    Seat* find(RankId rank);
    Seat& seat(RankId rank);
    void change(Seat& seat, SeatState next);
    void report(Json m);  // to the coordinator
    void report(const Seat& seat, const char* type);
    void fail(Seat& seat, const std::string& stage, const std::string& why);
    void set_timer(Seat& seat, int64_t us, void (Impl::*step)(Seat&));
    void stop_timer(Seat& seat);
    void forget(RankId rank);
    void welcome(Seat& seat, const char* state);
    const std::string& own_name() const;

    // --- source.cpp ---
    void connect(const Json& m);
    void gate(const Json& m);
    static std::string why_busy(const Json& gated);
    std::string why_tied(const Seat& seat) const;
    void on_gated(Seat& seat, const Json& m);
    void busy(Seat& seat, const std::string& why);
    void all_closed(Seat& seat);
    void abort_source(Seat& seat);
    void resume(Seat& seat);
    void back_home(Seat& seat);
    void source_answer(Seat& seat, const std::string& type, const Json& m);
    void leave(Seat& seat, const Json& m);
    void die_expired(Seat& seat);
    void gone(Seat& seat);
    void drain(Seat& seat);

    // --- target.cpp ---
    void prepare(const Json& m);
    void restore_ended(RankId rank, uint64_t seq, int status);
    void abort_target(Seat& seat);
    void target_answer(Seat& seat, const std::string& type, const Json& m);
    void switch_rank(const Json& m);
    void join(Seat& seat);
    void go(const Json& m);
    void on_attached(Seat& seat, const Json& m);

    // --- snapshot.cpp ---
    void begin_step(PartStep step, const Json& order) override;
    LocalAnswer look(PartStep step) override;
    void step_answered(PartStep step) override;
    void progress(uint64_t& bytes, uint64_t& total) const override;
    void each_part(void (Impl::*step)(Seat&));
    bool answered(const Seat& seat, PartStep step) const;
    void add_rows(PartStep step, StepAnswer& answer);
    void change(Seat& seat, SnapWork next);
    void snapshot_failed(Seat& seat, const std::string& stage, const std::string& why);
    void prepare_snapshot(const Json& order);
    void settle_last(uint64_t complete);
    void join_snapshot(Seat& seat);
    void make_own_folder();
    void ask_to_prepare(Seat& seat);
    void shut(Seat& seat);
    void on_shut(Seat& seat, const Json& m);
    void reopen(Seat& seat);
    void part(Seat& seat);
    void write(Seat& seat);
    void parted(Seat& seat);
    void woken(Seat& seat);
    void take_early(Seat& seat);
    void keep_early(Seat& seat, std::shared_ptr<Channel> channel, const Json& m);
    void resume_snapshot(Seat& seat);
    void snapshot_answer(Seat& seat, const std::string& type, const Json& m);
    void on_stood(Seat& seat, const Json& m);
    void end_snapshot(const Json& order);
    void bring_home(Seat& seat);
    void discard_own_folder();
    void on_attached_again(Seat& seat, const Json& m);
    void continue_all();

    // --- restart.cpp ---
    void hello_restart(Seat& seat);
    void prepare_restart(const Json& order);
    void check_seat(Seat& seat);
    void import_seat(Seat& seat);
    bool all_restart_seats() const;
    void restart_answer(Seat& seat, const std::string& type, const Json& m);
    void go_on(Seat& seat);
    bool restart_wrapper_died(Seat& seat, int status);

    // --- wrappers.cpp ---
    void use_wrapper(Seat& seat, std::shared_ptr<Channel> channel);
    std::shared_ptr<Channel> open_wrapper(RankId rank, ControlSocket socket);
    void wrapper_closed(RankId rank, const Channel* which);
    void wrapper_exit_said(Seat& seat);
    bool wrapper_died(RankId rank, int status);
    bool adopt(Seat& seat);
    void watch_orphan(Seat& seat);
    void stdin_closed(Seat& seat);
    void tree_ended(Seat& seat, const std::string& why);
    void part_ended(Seat& seat, const std::string& why);
    void part_wrapper_died(Seat& seat, bool alive, const std::string& why);

    // --- locations.cpp ---
    Json settled_location(const Seat& seat, const Json& m) const;
    void take_locations(const Json& m);
    void locate(Seat& seat, const Json& m);
    void tell_location(Seat& seat, const Json& location);
    Json known_peers(Seat& seat);

    RuntimeAdapter& adapter_;
    NodeSettings settings_;
    Directory directory_;
    uint64_t version_ = 0;  // of the directory
    ControlListener listener_;
    WatchId watch_ = 0;
    std::optional<TimerId> listen_retry_;
    std::map<GuestId, Guest> guests_;
    GuestId last_guest_ = 0;
    std::map<RankId, Seat> seats_;
    uint64_t newest_seq_ = 0;   // orders of an older attempt are late
    uint64_t aborted_seq_ = 0;  // its other orders may come after the abort
    uint64_t switched_seq_ = 0;
    mutable std::string own_name_;
    Background background_;
    Part part_;
    Snapshot snapshot_;
    uint32_t restart_epoch_ = 0;
    bool running_ = false;
    bool warned_ = false;
};

}  // namespace ghost::plugin
