// SPDX-License-Identifier: BSD-3-Clause
#include "pmix-plugin/protocol/parts.hpp"

#include <algorithm>

namespace ghost::plugin {

using schema::Field;
using schema::field;
using schema::Record;
using schema::record;

std::optional<Then> then_named(std::string_view name) {
    for (size_t i = 0; i < std::size(then_names); ++i)
        if (name == then_names[i]) return static_cast<Then>(i);
    return std::nullopt;
}

OutputPlace OutputPlace::of(std::string_view data) {
    const auto lines = static_cast<uint64_t>(std::ranges::count(data, '\n'));
    return {lines, data.size() - (data.rfind('\n') + 1)};
}

OutputPlace& OutputPlace::operator+=(const OutputPlace& more) {
    rest = more.lines > 0 ? more.rest : rest + more.rest;
    lines += more.lines;
    return *this;
}

std::set<uint32_t> sharers_of(uint32_t rank,
                              const std::function<std::vector<SharedPart>(uint32_t)>& parts) {
    std::set<uint32_t> out;
    std::vector<uint32_t> wanted{rank};
    while (!wanted.empty()) {
        const uint32_t one = wanted.back();
        wanted.pop_back();
        if (!out.insert(one).second) continue;
        for (const SharedPart& part : parts(one))
            wanted.insert(wanted.end(), part.ranks.begin(), part.ranks.end());
    }
    return out;
}

namespace {

constexpr const char* operation = "the operation";

constexpr Field control_fields[] = {
    field<&ControlOrder::act>("act", "what is to be done"),
    field<&ControlOrder::then>("then", "what follows a snapshot, empty: not given"),
    field<&ControlOrder::ranks>("ranks", "that are to move"),
    field<&ControlOrder::node>("node", "where they move, empty: anywhere else; or that is drained"),
    field<&ControlOrder::mode>("mode", "of moves, empty: not given"),
};
constexpr Field agent_fields[] = {
    field<&AgentThread::pid>("pid", "process of the rank's agent, as numbered in the rank"),
    field<&AgentThread::tid>("tid", "its thread: the one that is signalled"),
};

constexpr Field piece_fields[] = {
    field<&XorPiece::file>("file", "in the folder of snapshots; empty: zeros"),
    field<&XorPiece::offset>("offset", "in the file").in("bytes"),
    field<&XorPiece::bytes>("bytes", "how many").in("bytes"),
};
constexpr Field target_fields[] = {
    field<&XorTarget::attempt>("attempt", "seq of the operation"),
    field<&XorTarget::size>("size", "of the file").in("bytes"),
    field<&XorTarget::streams>("streams", "that come for it"),
    field<&XorTarget::offset>("offset", "where what is made of them begins").in("bytes"),
    field<&XorTarget::head>("head", "what is before that; of one stream only").or_default(),
};
constexpr Field stream_fields[] = {
    field<&XorStream::from>("from", "daemon that sends it"),
    field<&XorStream::to>("to", "daemon that gets it"),
    field<&XorStream::file>("file", "what it is for, in the folder of snapshots"),
    field<&XorStream::target>("target", "the same"),
    field<&XorStream::pieces>("pieces", "what is sent, in this order"),
};

constexpr Field progress_fields[] = {
    field<&TransferProgress::seq>("seq", operation),
    field<&TransferProgress::rank>("rank", "whose").or_default(),
    field<&TransferProgress::bytes>("bytes", "done").in("bytes"),
    field<&TransferProgress::total>("total", "of so many, 0 if unknown").in("bytes"),
};

constexpr Field failed_fields[] = {
    field<&Failed::seq>("seq", operation),
    field<&Failed::rank>("rank", "whose").or_default(),
    field<&Failed::stage>("stage", "what was being done"),
    field<&Failed::why>("why", "reason, for the user"),
};

constexpr Field prepare_fields[] = {
    field<&Prepare::seq>("seq", operation),
    field<&Prepare::epoch>("epoch", "of the placement that the rank gets"),
    field<&Prepare::rank>("rank", "whose"),
    field<&Prepare::from>("from", "daemon it comes from; not at a restart").or_default(),
    field<&Prepare::unit>("unit", "of ranks that move together: first one's operation")
        .or_default(),
    field<&Prepare::shared>("shared", "memory with others of the unit").or_default(),
    field<&Prepare::secret>("secret", "the job's, in hex: to a wrapper, for a move").or_default(),
    field<&Prepare::interfaces>("interfaces", "to the wrapper: it listens there; empty: at all")
        .or_default(),
    field<&Prepare::shown>("shown", "to the wrapper, in a recovery: output not to be shown again"),
};

constexpr Field output_place_fields[] = {
    field<&OutputPlace::lines>("lines", "whole ones"),
    field<&OutputPlace::rest>("rest", "of the line behind them").in("bytes"),
};
constexpr Field shown_output_fields[] = {
    field<&ShownOutput::rank>("rank", "whose"),
    field<&ShownOutput::known>("known", "else it was more"),
    field<&ShownOutput::output>("output", "of standard output"),
    field<&ShownOutput::error>("error", "of standard error"),
    field<&ShownOutput::anew>("anew", "counted from the snapshot on").or_default(),
};

constexpr Field ready_fields[] = {
    field<&Ready::seq>("seq", operation),
    field<&Ready::rank>("rank", "whose").or_default(),
    field<&Ready::host>("host", "where it listens; empty: the target's node").or_default(),
    field<&Ready::port>("port", "TCP port"),
    field<&Ready::token>("token", "what the source must show"),
};

constexpr Field connect_fields[] = {
    field<&Connect::seq>("seq", operation),
    field<&Connect::epoch>("epoch", "of the placement that the rank gets"),
    field<&Connect::rank>("rank", "whose"),
    field<&Connect::host>("host", "where the target listens"),
    field<&Connect::port>("port", "TCP port"),
    field<&Connect::token>("token", "what to show there"),
    field<&Connect::secret>("secret", "the job's, in hex: to a wrapper").or_default(),
    field<&Connect::live>("live", "the rank runs while its memory goes").or_default(),
    field<&Connect::live_from>("live_from", "with less memory, or where it cannot, by stop")
        .in("bytes"),
    field<&Connect::shared>("shared", "as the daemon sees it, for a user's wrapper").or_default(),
};

constexpr Field connected_fields[] = {
    field<&Connected::seq>("seq", operation),
    field<&Connected::rank>("rank", "whose").or_default(),
    field<&Connected::shared>("shared", "memory with other ranks").or_default(),
    field<&Connected::memory>("memory", "live: of the rank's own").in("bytes"),
    field<&Connected::not_live>("not_live", "why it goes by stop, asked to go live").or_default(),
};

constexpr Field converged_fields[] = {
    field<&Converged::seq>("seq", operation),
    field<&Converged::rank>("rank", "whose").or_default(),
};

constexpr Field exported_fields[] = {
    field<&Exported::seq>("seq", operation),
    field<&Exported::rank>("rank", "whose").or_default(),
    field<&Exported::bytes>("bytes", "skeleton and pages that were sent").in("bytes"),
    field<&Exported::rounds>("rounds", "times that memory was gone through"),
    field<&Exported::zero_bytes>("zero_bytes", "pages of zeros, not sent").in("bytes"),
    field<&Exported::frozen_us>("frozen_us", "the tree was frozen").in("µs").or_default(),
    field<&Exported::skeleton_us>("skeleton_us", "of that for the skeleton").in("µs").or_default(),
    field<&Exported::pages_us>("pages_us", "of that for the pages").in("µs").or_default(),
};

constexpr Field held_fields[] = {
    field<&Held::seq>("seq", operation),
    field<&Held::rank>("rank", "whose").or_default(),
    field<&Held::bytes>("bytes", "skeleton and pages that have come").in("bytes"),
    field<&Held::skeleton_us>("skeleton_us", "for the skeleton").in("µs").or_default(),
    field<&Held::pages_us>("pages_us", "for the pages").in("µs").or_default(),
    field<&Held::init>("init", "first process of the tree, if the node agent must know it"),
    field<&Held::agent>("agent", "the rank's agent, as its ghost says, in the same case"),
};

constexpr Field go_fields[] = {
    field<&Go::seq>("seq", operation),
    field<&Go::rank>("rank", "whose").or_default(),
    field<&Go::agent>("agent", "the thread to signal"),
};

constexpr Field abort_fields[] = {
    field<&Abort::seq>("seq", operation),
    field<&Abort::rank>("rank", "whose").or_default(),
};

constexpr Field seen_file_fields[] = {
    field<&SeenFile::path>("path", "absolute"),
    field<&SeenFile::size>("size", "when the rank was frozen").in("bytes"),
    field<&SeenFile::file>("file", "which one, of those that nodes have by this name").or_default(),
    field<&SeenFile::changed>("changed", "when it was last, by its own clock")
        .in("ns")
        .or_default(),
    field<&SeenFile::taken>("taken", "when the rank's wrapper looked").in("µs").or_default(),
    field<&SeenFile::hash>("hash", "of its contents, if the ghost has them").or_default(),
    field<&SeenFile::begin>("begin", "the same, if it has them not").or_default(),
    field<&SeenFile::modified>("modified", "when it was written last, if that tells more")
        .in("ns")
        .or_default(),
};

constexpr Field shared_fields[] = {
    field<&SharedPart::id>("id", "which one of its node's, when it was saved"),
    field<&SharedPart::ranks>("ranks", "that have it"),
    field<&SharedPart::bytes>("bytes", "to go along with a move").in("bytes").or_default(),
    field<&SharedPart::strangers>("strangers", "others have it too").or_default(),
};

constexpr Field written_fields[] = {
    field<&Written::seq>("seq", operation).or_default(),
    field<&Written::rank>("rank", "whose; between daemons").or_default(),
    field<&Written::node>("node", "where it ran; between daemons").or_default(),
    field<&Written::file>("file", "name in the snapshot's folder"),
    field<&Written::kind>("kind", "full or incremental").or_default(),
    field<&Written::parent>("parent", "first of `chain`, or empty").or_default(),
    field<&Written::chain>("chain",
                           "files it is based on, nearest first, in the folder of snapshots")
        .or_default(),
    field<&Written::digest>("digest", "the ghost's own"),
    field<&Written::bytes>("bytes", "of the file").in("bytes"),
    field<&Written::page_bytes>("page_bytes", "of memory in it").in("bytes"),
    field<&Written::zero_bytes>("zero_bytes", "pages of zeros").in("bytes").or_default(),
    field<&Written::memory>("memory", "of the rank").in("bytes"),
    field<&Written::pause_us>("pause_us", "its tree was frozen; between daemons")
        .in("µs")
        .or_default(),
    field<&Written::stdin_bytes>("stdin_bytes",
                                 "input since mpirun began that the rank has read or the ghost "
                                 "has; -1: not known")
        .in("bytes"),
    field<&Written::files>("files", "open for writing, as many as fit").or_default(),
    field<&Written::all_files>("all_files", "those are all").or_default(),
    field<&Written::signer>("signer", "public key that the ghost and `chain` are signed with")
        .or_default(),
};

}  // namespace

constinit const Record ControlOrder::table =
    record<ControlOrder>("control", "a request by PMIx_Job_control", control_fields);
constinit const Record AgentThread::table =
    record<AgentThread>("agent", "the thread a wrapper signals", agent_fields);
constinit const Record XorPiece::table = record<XorPiece>("piece", "of a file", piece_fields);
constinit const Record XorTarget::table =
    record<XorTarget>("target", "a file that is made of several streams", target_fields);
constinit const Record XorStream::table =
    record<XorStream>("stream", "one of those a file is made of", stream_fields);
constinit const Record TransferProgress::table = record<TransferProgress>(
    "progress", "a transfer goes on; restarts its limit of time", progress_fields);
constinit const Record Failed::table =
    record<Failed>("failed", "answers whatever cannot be done", failed_fields);
constinit const Record OutputPlace::table =
    record<OutputPlace>("place", "how far output goes", output_place_fields, schema::Form::array);
constinit const Record ShownOutput::table =
    record<ShownOutput>("shown", "what of a rank's output mpirun has shown", shown_output_fields);
constinit const Record Prepare::table = record<Prepare>(
    "prepare", "a rank is to come; `ready`, at a restart `checked`", prepare_fields);
constinit const Record Ready::table =
    record<Ready>("ready", "the restore wrapper listens for the ghost", ready_fields);
constinit const Record Connect::table =
    record<Connect>("connect", "to the source of a move; `connected`", connect_fields);
constinit const Record Connected::table =
    record<Connected>("connected", "the source has reached the target", connected_fields);
constinit const Record Converged::table = record<Converged>(
    "converged", "live: little is left for the last stop; `gate`, `export`", converged_fields);
constinit const Record Exported::table = record<Exported>(
    "exported", "the whole ghost is out; the tree is frozen until `resume` or `die`",
    exported_fields);
constinit const Record Held::table =
    record<Held>("held", "the whole tree is there and is frozen", held_fields);
constinit const Record Go::table =
    record<Go>("go", "the tree that is held runs, its agent is signalled", go_fields);
constinit const Record Abort::table = record<Abort>("abort", "the operation is off", abort_fields);
constinit const Record SeenFile::table =
    record<SeenFile>("file", "a regular file that was open for writing", seen_file_fields);
constinit const Record SharedPart::table =
    record<SharedPart>("shared", "memory that ranks of a node share", shared_fields);
constinit const Record Written::table =
    record<Written>("snap_written", "the ghost is whole and synced", written_fields);

}  // namespace ghost::plugin
