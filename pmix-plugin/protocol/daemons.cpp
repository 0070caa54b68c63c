// SPDX-License-Identifier: BSD-3-Clause
#include "pmix-plugin/protocol/daemons.hpp"

#include <algorithm>
#include <fmt/format.h>

namespace ghost::plugin {

using schema::Field;
using schema::field;
using schema::message;
using schema::Record;
using schema::record;
using schema::Sequence;

namespace {

constexpr const char* operation = "the operation";
constexpr const char* attempt = "grows with each try of the step";
constexpr const char* folders = "snapshots that may be removed from it";

constexpr Field ping_fields[] = {
    field<&Ping::n>("n", "number of the ping"),
    field<&Ping::look>("look", "how its ranks stand is asked for, too").or_default(),
    field<&Ping::version>("version", "of what daemons say to each other"),
};
constexpr Field standing_fields[] = {
    field<&RankStanding::rank>("rank", "whose"),
    field<&RankStanding::state>("state", "for the user"),
};
constexpr Field pong_fields[] = {
    field<&Pong::n>("n", "that of the ping"),
    field<&Pong::looked>("looked", "as it was asked for").or_default(),
    field<&Pong::still>("still", "ranks here that cannot act").or_default(),
    field<&Pong::version>("version", "of what daemons say to each other"),
};
constexpr Field locations_fields[] = {
    field<&Locations::version>("version", "counts these messages"),
    field<&Locations::entries>("entries", "locations that are new"),
};
constexpr Field node_lost_fields[] = {field<&NodeLost::node>("node", "daemon")};
constexpr Field node_joins_fields[] = {
    field<&NodeJoins::seq>("seq", operation),
    field<&NodeJoins::node>("node", "its daemon"),
    field<&NodeJoins::place>("place", "in the runtime's list of nodes"),
    field<&NodeJoins::name>("name", "the node's"),
    field<&NodeJoins::slots>("slots", "ranks that it has room for"),
};
constexpr Field joined_fields[] = {
    field<&Joined::seq>("seq", operation),
    field<&Joined::why>("why", "it cannot be; absent: this daemon is ready"),
};
constexpr Field leave_fields[] = {field<&AskLeave::seq>("seq", operation)};
constexpr Field leaving_fields[] = {
    field<&Leaving::seq>("seq", operation),
    field<&Leaving::why>("why", "it stays; absent: it ends"),
};
constexpr Field gate_fields[] = {
    field<&GateRank::seq>("seq", operation),
    field<&GateRank::rank>("rank", "whose"),
};
constexpr Field switch_fields[] = {
    field<&Switch::seq>("seq", operation),
    field<&Switch::rank>("rank", "whose"),
    field<&Switch::from>("from", "daemon it leaves"),
    field<&Switch::to>("to", "daemon it goes to"),
    field<&Switch::epoch>("epoch", "of the placement it gets"),
};
constexpr Field located_fields[] = {field<&Located::location>("location", "where it listens")};
constexpr Field busy_fields[] = {
    field<&Busy::seq>("seq", operation),
    field<&Busy::rank>("rank", "whose"),
    field<&Busy::why>("why", "reason, for the user"),
};
constexpr Field gated_fields[] = {
    field<&RankGated::seq>("seq", operation),
    field<&RankGated::rank>("rank", "whose"),
    field<&RankGated::agent>("agent", "the thread the target's wrapper is to signal"),
};
constexpr Field running_fields[] = {
    field<&RankRunning::seq>("seq", operation),
    field<&RankRunning::rank>("rank", "whose"),
    field<&RankRunning::location>("location", "where it listens again"),
};
constexpr Field switched_fields[] = {
    field<&Switched::seq>("seq", operation),
    field<&Switched::rank>("rank", "whose"),
    field<&Switched::votes>("votes", "this daemon's, for the fences"),
};
constexpr Field done_fields[] = {
    field<&Done::seq>("seq", operation),
    field<&Done::rank>("rank", "whose"),
    field<&Done::location>("location", "where it listens now"),
    field<&Done::ended>("ended", "it has ended before it could attach").or_default(),
};
constexpr Field aborted_fields[] = {
    field<&Aborted::seq>("seq", operation),
    field<&Aborted::rank>("rank", "whose"),
    field<&Aborted::location>("location", "where it listens again, if it had closed"),
    field<&Aborted::ended>("ended", "the rank has ended meanwhile").or_default(),
    field<&Aborted::unreported>("unreported", "and the runtime has not been told").or_default(),
};
constexpr Field set_fields[] = {
    field<&DaemonSet::daemons>("daemons", "numbers below this"),
    field<&DaemonSet::without>("without", "but these"),
};
constexpr Field step_order_fields[] = {
    field<&StepOrder::seq>("seq", operation),
    field<&StepOrder::attempt>("try", attempt).or_default(),
    field<&StepOrder::tree>("tree", "daemons that answer").or_default(),
};
constexpr Field snap_prepare_fields[] = {
    field<&SnapPrepare::seq>("seq", operation),
    field<&SnapPrepare::attempt>("try", attempt),
    field<&SnapPrepare::tree>("tree", "daemons that answer"),
    field<&SnapPrepare::name>("name", "the snapshot's"),
    field<&SnapPrepare::folder>("folder", "of all snapshots, absolute"),
    field<&SnapPrepare::second>("second", "where it is written once more, or empty"),
    field<&SnapPrepare::incremental>("incremental", "if it can be"),
    field<&SnapPrepare::last>("last", "operation of the last complete one, 0: none"),
    field<&SnapPrepare::compress>("compress", "none, lz4, zstd, zstd,level=N"),
    field<&SnapPrepare::rate>("rate", "of a rank to the disk, 0: no limit").in("bytes/s"),
    field<&SnapPrepare::carried>("carried", "largest file open for writing that is saved")
        .in("bytes")
        .or_default(),
    field<&SnapPrepare::then>("then", "what follows"),
    field<&SnapPrepare::ranks>("ranks", "whose; none: every rank's").or_default(),
    field<&SnapPrepare::sign>("sign", "each ghost, with a key of its wrapper's").or_default(),
};
constexpr Field snap_end_fields[] = {
    field<&SnapEnd::seq>("seq", operation),
    field<&SnapEnd::remove>("remove", folders),
    field<&SnapEnd::remove_seconds>("remove_seconds", folders),
};
constexpr Field restart_prepare_fields[] = {
    field<&RestartPrepare::seq>("seq", "0, or that of the recovery"),
    field<&RestartPrepare::tree>("tree", "daemons that answer"),
    field<&RestartPrepare::epoch>("epoch", "higher than every one so far"),
};
constexpr Field trouble_fields[] = {
    field<&RankTrouble::rank>("rank", "whose; none: all of the node"),
    field<&RankTrouble::node>("node", "where").or_default(),
    field<&RankTrouble::stage>("stage", "what was being done"),
    field<&RankTrouble::why>("why", "reason, for the user"),
};
constexpr Field answer_fields[] = {
    field<&StepAnswer::ranks>("ranks", "that were asked, here and below"),
    field<&StepAnswer::busy_ranks>("busy_ranks", "that cannot now"),
    field<&StepAnswer::failed_ranks>("failed_ranks", "because of which it cannot be"),
    field<&StepAnswer::busy>("busy", "the first of them").items_at_most(StepAnswer::most_named),
    field<&StepAnswer::failed>("failed", "the first of them").items_at_most(StepAnswer::most_named),
    field<&StepAnswer::written>("written", "step `written`: a row for each rank"),
    field<&StepAnswer::locations>("locations", "of ranks that listen elsewhere than before"),
    field<&StepAnswer::own_folders>("own_folders", "daemons that keep it on a disk of their own"),
    field<&StepAnswer::own_seconds>("own_seconds", "the same in the second folder"),
    field<&StepAnswer::bytes>("bytes", "written").in("bytes"),
    field<&StepAnswer::pause_us>("pause_us", "the longest of a rank").in("µs"),
};
constexpr Field step_up_fields[] = {
    field<&StepUp::seq>("seq", operation),
    field<&StepUp::step>("step", "that is answered"),
    field<&StepUp::attempt>("try", "that of the order"),
    field<&StepUp::answer>("answer", "of this daemon and all below it"),
};
constexpr Field step_progress_fields[] = {
    field<&StepProgress::seq>("seq", operation),
    field<&StepProgress::bytes>("bytes", "done, here and below").in("bytes"),
    field<&StepProgress::total>("total", "of so many").in("bytes"),
};
constexpr Field rank_died_fields[] = {
    field<&RankDied::rank>("rank", "whose"),
    field<&RankDied::status>("status",
                             "128 and the signal's number, that of one that gave up, or 0"),
};
constexpr Field rank_ends_fields[] = {field<&RankEnds::rank>("rank", "whose")};
constexpr Field input_taken_fields[] = {
    field<&InputTaken::rank>("rank", "whose"),
    field<&InputTaken::bytes>("bytes", "of standard input, since mpirun began; -1: not known"),
};
constexpr Field recover_stop_fields[] = {
    field<&RecoverStop::seq>("seq", operation),
    field<&RecoverStop::tree>("tree", "over the daemons that are left"),
};
constexpr Field place_fields[] = {
    field<&RankPlace::rank>("rank", "whose"),
    field<&RankPlace::node>("node", "daemon it is to be at"),
};
constexpr Field recover_start_fields[] = {
    field<&RecoverStart::seq>("seq", operation),
    field<&RecoverStart::life>("life", "the job's from now on"),
    field<&RecoverStart::snapshot>("snapshot", "its folder"),
    field<&RecoverStart::places>("places", "every rank's"),
    field<&RecoverStart::input_of>("input_of", "whom mpirun gives standard input again"),
    field<&RecoverStart::input_ended>("input_ended", "mpirun has no more for the others")
        .or_default(),
    field<&RecoverStart::shown>("shown", "output that is not to be shown again").or_default(),
    field<&RecoverStart::anew>("anew", "the snapshot is from before this mpirun").or_default(),
};
constexpr Field ghost_copy_fields[] = {
    field<&GhostCopy::rank>("rank", "whose"),
    field<&GhostCopy::from>("from", "daemon that has it"),
    field<&GhostCopy::to>("to", "daemon that gets it"),
    field<&GhostCopy::files>("files", "it and those it is based on, in the folder of snapshots"),
};
constexpr Field make_copies_fields[] = {
    field<&MakeCopies::seq>("seq", "the operation"),
    field<&MakeCopies::folder>("folder", "of all snapshots, absolute"),
    field<&MakeCopies::name>("name", "the snapshot's"),
    field<&MakeCopies::rate>("rate", "of each daemon that sends, 0: no limit").in("bytes/s"),
    field<&MakeCopies::copies>("copies", "all that are to be made"),
    field<&MakeCopies::manifest>("manifest", "of the snapshot, for every node; empty: not now")
        .or_default(),
    field<&MakeCopies::streams>("streams", "the same, of parity and of what is made of it")
        .or_default(),
};
constexpr Field copies_made_fields[] = {
    field<&CopiesMade::seq>("seq", "the operation"),
    field<&CopiesMade::why>("why", "they are not: reason").or_default(),
};
constexpr Field copies_progress_fields[] = {
    field<&CopiesProgress::seq>("seq", "the operation"),
    field<&CopiesProgress::bytes>("bytes", "sent").in("bytes"),
    field<&CopiesProgress::total>("total", "to be sent").in("bytes"),
};
constexpr Field copy_offer_fields[] = {
    field<&CopyOffer::seq>("seq", "the operation"),
    field<&CopyOffer::folder>("folder", "of all snapshots, absolute"),
    field<&CopyOffer::name>("name", "the snapshot's"),
};
constexpr Field copy_taken_fields[] = {
    field<&CopyTaken::seq>("seq", "the operation"),
    field<&CopyTaken::host>("host", "where it listens"),
    field<&CopyTaken::port>("port", "TCP port"),
    field<&CopyTaken::token>("token", "what to show there"),
    field<&CopyTaken::why>("why", "they are not taken: reason").or_default(),
};
constexpr Field streams_here_fields[] = {
    field<&StreamsHere::tcp>("tcp", "where this node's manager listens"),
    field<&StreamsHere::why>("why", "it has none: reason").or_default(),
};
constexpr Field streams_node_fields[] = {
    field<&StreamsNode::id>("id", "daemon"),
    field<&StreamsNode::name>("name", "its node"),
    field<&StreamsNode::tcp>("tcp", "where its manager listens"),
};
constexpr Field streams_nodes_fields[] = {
    field<&StreamsNodes::nodes>("nodes", "managers, by their numbers"),
    field<&StreamsNodes::why>("why", "there are no streams: reason").or_default(),
};
constexpr Field job_control_fields[] = {
    field<&JobControlAsked::id>("id", "of the request"),
    field<&JobControlAsked::rank>("rank", "a rank of the job asks, and has its answer"),
    field<&JobControlAsked::order>("order", "what is asked for"),
};
constexpr Field job_control_done_fields[] = {
    field<&JobControlDone::id>("id", "of the request"),
    field<&JobControlDone::why>("why", "empty: it is done"),
};
constexpr Field process_fields[] = {
    field<&NamedProcess::job>("job", "PMIx's number of it"),
    field<&NamedProcess::rank>("rank", "in that job"),
};
constexpr Field late_call_fields[] = {
    field<&LateCall::expected>("expected", "or not any more"),
    field<&LateCall::processes>("processes", "participants of the call"),
};
constexpr Field lease_fields[] = {
    field<&LeasePort::port>("port", "where mpirun listens for keepers; 0: asked for, or nowhere"),
};
constexpr Field want_fields[] = {
    field<&RankInputWant::rank>("rank", "whose"),
    field<&RankInputWant::move>("move", "counts moves to this daemon"),
    field<&RankInputWant::at>("at", "pieces that it has"),
};
constexpr Field piece_fields[] = {
    field<&RankInputPiece::rank>("rank", "whose"),
    field<&RankInputPiece::move>("move", "that of the request"),
    field<&RankInputPiece::at>("at", "number of this piece"),
    field<&RankInputPiece::data>("data", "input the rank has not been given"),
    field<&RankInputPiece::end>("end", "the input ends with it"),
    field<&RankInputPiece::last>("last", "there is no other piece"),
};

}  // namespace

constinit const Record Ping::table = record<Ping>("ping", "`pong`", ping_fields);
constinit const Record RankStanding::table =
    record<RankStanding>("standing", "a rank that cannot act", standing_fields);
constinit const Record Pong::table = record<Pong>("pong", "this daemon lives", pong_fields);
constinit const Record Locations::table = record<Locations>(
    "location", "to all: where ranks listen, gathered over a millisecond", locations_fields);
constinit const Record NodeLost::table = record<NodeLost>(
    "node_lost", "to all: this daemon is no part of the job any more", node_lost_fields);
constinit const Record NodeJoins::table = record<NodeJoins>(
    "node_joins", "to all: this daemon is part of the job now; `joined`", node_joins_fields);
constinit const Record Joined::table =
    record<Joined>("joined", "this daemon knows of the node that joins", joined_fields);
constinit const Record AskLeave::table =
    record<AskLeave>("leave", "to the daemon of a drained node; `leaving`", leave_fields);
constinit const Record Leaving::table = record<Leaving>(
    "leaving", "from a daemon that ends now, or hosts something of the job", leaving_fields);
constinit const Record GateRank::table =
    record<GateRank>("gate", "to the source; `gated` or `busy`", gate_fields);
constinit const Record Switch::table =
    record<Switch>("switch", "to all: the rank is at its target; `switched`", switch_fields);
constinit const Record Located::table =
    record<Located>("located", "a rank has attached for the first time", located_fields);
constinit const Record Busy::table =
    record<Busy>("busy", "the rank cannot be stopped now; `gate` again", busy_fields);
constinit const Record RankGated::table = record<RankGated>(
    "gated", "the rank has closed everything, its tree is exported", gated_fields);
constinit const Record RankRunning::table = record<RankRunning>(
    "running", "live: its skeleton is out, the rank runs at the source", running_fields);
constinit const Record Switched::table =
    record<Switched>("switched", "this daemon's bookkeeping is right", switched_fields);
constinit const Record Done::table =
    record<Done>("done", "the rank has attached at its target", done_fields);
constinit const Record Aborted::table =
    record<Aborted>("aborted", "the rank is as it was before the move", aborted_fields);
constinit const Record DaemonSet::table =
    record<DaemonSet>("tree", "daemons 0 to daemons-1 without some", set_fields);
constinit const Record StepOrder::table =
    record<StepOrder>("step", "every local rank is to take a step", step_order_fields);
constinit const Record SnapPrepare::table =
    record<SnapPrepare>("snap_prepare", "to all; step `ready`", snap_prepare_fields);
constinit const Record SnapEnd::table =
    record<SnapEnd>("snap_end", "to all: the snapshot is complete", snap_end_fields);
constinit const Record RestartPrepare::table =
    record<RestartPrepare>("restart_prepare", "to all; step `checked`", restart_prepare_fields);
constinit const Record RankTrouble::table =
    record<RankTrouble>("trouble", "a rank, or a node, that cannot", trouble_fields);
constinit const Record StepAnswer::table =
    record<StepAnswer>("answer", "of a daemon and those below it", answer_fields);
constinit const Record StepUp::table = record<StepUp>(
    "snap_up", "to the parent in the tree, by its root to C: a step is answered", step_up_fields);
constinit const Record StepProgress::table = record<StepProgress>(
    "snap_progress", "the same way, twice a second at most: how far it is", step_progress_fields);
constinit const Record RankDied::table = record<RankDied>(
    "rank_died", "a rank was killed, or gave up; `recover_stop` or `rank_ends`", rank_died_fields);
constinit const Record RankEnds::table = record<RankEnds>(
    "rank_ends", "to its node: the runtime is told of that rank's end", rank_ends_fields);
constinit const Record InputTaken::table = record<InputTaken>(
    "input_taken", "with ghost_recover: a rank has been given more input", input_taken_fields);
constinit const Record RecoverStop::table =
    record<RecoverStop>("recover_stop", "to all: every rank is ended and forgotten; step `halted`",
                        recover_stop_fields);
constinit const Record RankPlace::table =
    record<RankPlace>("place", "where a rank is to be", place_fields, schema::Form::array);
constinit const Record RecoverStart::table = record<RecoverStart>(
    "recover_start", "to all: a wrapper is started for every rank; step `started`",
    recover_start_fields);
constinit const Record GhostCopy::table =
    record<GhostCopy>("copy", "of a rank's ghost", ghost_copy_fields);
constinit const Record MakeCopies::table = record<MakeCopies>(
    "make_copies", "to all: ghosts are sent to other nodes; `copies_made`", make_copies_fields);
constinit const Record CopiesMade::table = record<CopiesMade>(
    "copies_made", "all that this daemon was to send is there", copies_made_fields);
constinit const Record CopiesProgress::table = record<CopiesProgress>(
    "copies_progress", "twice a second at most: how far it is", copies_progress_fields);
constinit const Record CopyOffer::table = record<CopyOffer>(
    "copy_offer", "to another daemon: ghosts are to come; `copy_taken`", copy_offer_fields);
constinit const Record CopyTaken::table =
    record<CopyTaken>("copy_taken", "where they are taken", copy_taken_fields);
constinit const Record StreamsWanted::table =
    record<StreamsWanted>("streams_wanted", "the first process has come to this node's address");
constinit const Record StreamsOpen::table =
    record<StreamsOpen>("streams_open", "to all: listen for other managers; `streams_here`");
constinit const Record StreamsHere::table =
    record<StreamsHere>("streams_here", "where this node's manager listens", streams_here_fields);
constinit const Record StreamsNode::table =
    record<StreamsNode>("node", "a stream manager", streams_node_fields);
constinit const Record StreamsNodes::table =
    record<StreamsNodes>("streams_nodes", "to all: the managers of the job", streams_nodes_fields);
constinit const Record JobControlAsked::table = record<JobControlAsked>(
    "job_control", "something is asked for by PMIx; `job_control_done`", job_control_fields);
constinit const Record JobControlDone::table =
    record<JobControlDone>("job_control_done", "the request is answered", job_control_done_fields);
constinit const Record NamedProcess::table = record<NamedProcess>(
    "process", "a process as PMIx names it", process_fields, schema::Form::array);
constinit const Record LateCall::table = record<LateCall>(
    "late_call", "a rank that comes takes part in a collective that runs", late_call_fields);
constinit const Record LeasePort::table =
    record<LeasePort>("lease", "from a daemon without a keeper; `lease`", lease_fields);
constinit const Record RankInputWant::table = record<RankInputWant>(
    "rank_input_want", "target to source: input of a rank that has moved; `rank_input`",
    want_fields);
constinit const Record RankInputPiece::table =
    record<RankInputPiece>("rank_input", "a piece of it", piece_fields);

namespace {

using D = DaemonMessage;

constexpr schema::Message messages[] = {
    message<Ping>(D::ping),
    message<Locations>(D::location),
    message<NodeLost>(D::node_lost),
    message<NodeJoins>(D::node_joins, Sequence::order),
    message<AskLeave>(D::leave, Sequence::order),
    message<Prepare>(D::prepare, Sequence::order),
    message<Connect>(D::connect, Sequence::order),
    message<GateRank>(D::gate, Sequence::order),
    message<Switch>(D::switch_rank, Sequence::order),
    message<Go>(D::go, Sequence::order),
    message<Abort>(D::abort, "abort", "to both ends of a move: it is off; the source `aborted`"),
    message<SnapPrepare>(D::snap_prepare, Sequence::order),
    message<StepOrder>(D::snap_ping, "snap_ping", "to all; step `here`", Sequence::order),
    message<StepOrder>(D::snap_gate, "snap_gate", "to all; step `gated`", Sequence::order),
    message<StepOrder>(D::snap_ungate, "snap_ungate", "to all; step `ungated`", Sequence::order),
    message<StepOrder>(D::snap_close, "snap_close", "to all; steps `resumed`, `written`",
                       Sequence::order),
    message<SnapEnd>(D::snap_end, Sequence::order),
    message<StepOrder>(D::snap_abort, "snap_abort", "to all: ranks go on; step `aborted`",
                       Sequence::order),
    message<RestartPrepare>(D::restart_prepare, Sequence::order),
    message<StepOrder>(D::restart_import, "restart_import", "to all; step `held`", Sequence::order),
    message<StepOrder>(D::restart_go, "restart_go", "to all; step `restarted`", Sequence::order),
    message<RecoverStop>(D::recover_stop, Sequence::order),
    message<RecoverStart>(D::recover_start, Sequence::order),
    message<RankEnds>(D::rank_ends),
    message<MakeCopies>(D::make_copies, Sequence::order),
    message<StreamsOpen>(D::streams_open),
    message<StreamsNodes>(D::streams_nodes),
    message<JobControlDone>(D::job_control_done),
    message<Pong>(D::pong),
    message<Located>(D::located),
    message<Ready>(D::ready, Sequence::answer),
    message<Connected>(D::connected, Sequence::answer),
    message<Busy>(D::busy, Sequence::answer),
    message<RankGated>(D::gated, Sequence::answer),
    message<RankRunning>(D::running, Sequence::answer),
    message<Converged>(D::converged, Sequence::answer),
    message<Exported>(D::exported, Sequence::answer),
    message<Held>(D::held, Sequence::answer),
    message<TransferProgress>(D::progress, Sequence::answer),
    message<Failed>(D::failed, Sequence::answer),
    message<Switched>(D::switched, Sequence::answer),
    message<Done>(D::done, Sequence::answer),
    message<Aborted>(D::aborted, Sequence::answer),
    message<Leaving>(D::leaving, Sequence::answer),
    message<Joined>(D::joined, Sequence::answer),
    message<RankDied>(D::rank_died),
    message<InputTaken>(D::input_taken),
    message<CopiesMade>(D::copies_made, Sequence::answer),
    message<CopiesProgress>(D::copies_progress, Sequence::answer),
    message<StreamsWanted>(D::streams_wanted),
    message<StreamsHere>(D::streams_here),
    message<JobControlAsked>(D::job_control),
    message<LateCall>(D::late_call),
    message<LeasePort>(D::lease),
    message<StepUp>(D::snap_up, Sequence::answer),
    message<StepProgress>(D::snap_progress, Sequence::answer),
    message<CopyOffer>(D::copy_offer, Sequence::order),
    message<CopyTaken>(D::copy_taken, Sequence::answer),
    message<RankInputWant>(D::rank_input_want),
    message<RankInputPiece>(D::rank_input),
};

}  // namespace

constinit const schema::Family between_daemons = schema::family("daemon to daemon", messages);

// --- what is said up the tree ---

namespace {

template <typename T>
void take(std::vector<T>& to, std::vector<T>&& from, size_t most) {
    for (T& item : from) {
        if (to.size() >= most) return;
        to.push_back(std::move(item));
    }
}

}  // namespace

void StepAnswer::add_busy(uint32_t rank, const std::string& why) {
    ++busy_ranks;
    if (busy.size() < most_named) busy.push_back({rank, {}, {}, why});
}

void StepAnswer::add_failed(std::optional<uint32_t> rank, const std::string& node,
                            std::optional<Stage> stage, const std::string& why) {
    ++failed_ranks;
    if (failed.size() < most_named) failed.push_back({rank, node, stage, why});
}

void StepAnswer::merge(StepAnswer other) {
    ranks += other.ranks;
    busy_ranks += other.busy_ranks;
    failed_ranks += other.failed_ranks;
    own_folders += other.own_folders;
    own_seconds += other.own_seconds;
    bytes += other.bytes;
    pause_us = std::max(pause_us, other.pause_us);
    take(busy, std::move(other.busy), most_named);
    take(failed, std::move(other.failed), most_named);
    take(written, std::move(other.written), SIZE_MAX);
    take(locations, std::move(other.locations), SIZE_MAX);
}

std::string describe(const std::vector<RankTrouble>& list, uint64_t all) {
    std::string out;
    // Often all of them, and for the same reason.
    const auto still = std::ranges::find(list, Stage::standstill, &RankTrouble::stage);
    if (still != list.end())
        return all > 1 ? fmt::format("{}; and {} more", still->why, all - 1) : still->why;
    for (const RankTrouble& one : list) {
        out += out.empty() ? "" : "; ";
        if (one.rank) out += fmt::format("rank {}", *one.rank);
        if (!one.node.empty()) out += (one.rank ? " at " : "") + one.node;
        if (one.stage) out += fmt::format(": {}", name_of(*one.stage));
        out += ": " + one.why;
    }
    if (all > list.size()) out += fmt::format("; and {} more ranks", all - list.size());
    return out;
}

}  // namespace ghost::plugin
