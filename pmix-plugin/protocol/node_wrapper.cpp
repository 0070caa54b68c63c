// SPDX-License-Identifier: BSD-3-Clause
#include "pmix-plugin/protocol/node_wrapper.hpp"

namespace ghost::plugin {

using schema::Field;
using schema::field;
using schema::message;
using schema::Record;
using schema::record;
using schema::Sequence;

namespace {

constexpr const char* operation = "the operation";

constexpr Field greeting_fields[] = {
    field<&Greeting::role>("role", "who speaks"),
    field<&Greeting::job>("job", "number of the job, in decimal"),
    field<&Greeting::rank>("rank", "whose"),
    field<&Greeting::secret>("secret", "the job's, in hex; of a rank").or_default(),
    field<&Greeting::life>("life", "of the job"),
};
constexpr Field hello_fields[] = {
    field<&WrapperHello::role>("role", "wrapper"),
    field<&WrapperHello::version>("version", "of what the two say to each other"),
    field<&WrapperHello::job>("job", "number of the job, in decimal"),
    field<&WrapperHello::rank>("rank", "whose"),
    field<&WrapperHello::life>("life", "of the job"),
    field<&WrapperHello::pid>("pid", "the wrapper's"),
    field<&WrapperHello::init>("init", "first process of the rank's tree; 0: there is none yet"),
    field<&WrapperHello::mode>("mode", "how the wrapper came to its rank"),
    field<&WrapperHello::why>("why", "mode `direct`: why there is no tree that could move")
        .or_default(),
};
constexpr Field exit_fields[] = {field<&Exit::status>("status", "wait status")};
constexpr Field stdin_fields[] = {
    field<&StdinTaken::bytes>("bytes", "taken since mpirun began").in("bytes")};
constexpr Field output_fields[] = {
    field<&OutputGiven::output>("output", "of standard output"),
    field<&OutputGiven::error>("error", "of standard error"),
};
constexpr Field sketched_fields[] = {field<&Sketched::seq>("seq", operation)};
constexpr Field gone_fields[] = {field<&Gone::seq>("seq", operation)};
constexpr Field checked_fields[] = {
    field<&Checked::seq>("seq", operation),
    field<&Checked::shared>("shared", "memory with other ranks").or_default(),
};
constexpr Field snap_ready_fields[] = {
    field<&SnapReady::seq>("seq", operation),
    field<&SnapReady::direct>("direct",
                              "no memory for a copy: the rank is frozen while it is written")
        .or_default(),
    field<&SnapReady::memory>("memory", "of the rank").in("bytes").or_default(),
    field<&SnapReady::kind>("kind", "full or incremental").or_default(),
    field<&SnapReady::shared>("shared", "memory with other ranks").or_default(),
};
constexpr Field still_fields[] = {field<&Still::seq>("seq", operation)};
constexpr Field snap_captured_fields[] = {
    field<&SnapCaptured::seq>("seq", operation),
    field<&SnapCaptured::pause_us>("pause_us", "the tree was frozen").in("µs"),
    field<&SnapCaptured::skeleton_us>("skeleton_us", "of that for the skeleton")
        .in("µs")
        .or_default(),
    field<&SnapCaptured::memory_us>("memory_us", "of that for memory").in("µs").or_default(),
    field<&SnapCaptured::last_bytes>("last_bytes", "copied while it was frozen")
        .in("bytes")
        .or_default(),
    field<&SnapCaptured::rounds>("rounds", "of copying before").or_default(),
};
constexpr Field snap_cancelled_fields[] = {field<&SnapCancelled::seq>("seq", operation)};

constexpr const char* unit_says = "the rank and all it shares memory with, or none";
constexpr const char* saves_says = "what of that its ghost is to have";
constexpr Field export_fields[] = {
    field<&Export::seq>("seq", operation),
    field<&Export::unit>("unit", unit_says).or_default(),
    field<&Export::saves>("saves", saves_says).or_default(),
};
constexpr Field cancel_fields[] = {field<&Cancel::seq>("seq", operation)};
constexpr Field wake_fields[] = {
    field<&Wake::seq>("seq", operation),
    field<&Wake::agent>("agent", "the thread to signal"),
};
constexpr Field resume_fields[] = {
    field<&Resume::seq>("seq", operation),
    field<&Resume::agent>("agent", "the thread to signal"),
};
constexpr Field die_fields[] = {field<&Die::seq>("seq", operation)};
constexpr Field child_status_fields[] = {field<&ChildStatus::status>("status", "wait status")};
constexpr Field adopt_fields[] = {
    field<&Adopt::rank>("rank", "whose"),
    field<&Adopt::init>("init", "first process of its tree"),
    field<&Adopt::stdin_bytes>("stdin_bytes", "input the dead wrapper had taken, -1: not known")
        .in("bytes")
        .or_default(),
};
constexpr Field import_fields[] = {
    field<&Import::seq>("seq", operation),
    field<&Import::shared>("shared", "which memory each descriptor beside it is for").or_default(),
    field<&Import::more>("more", "descriptors follow in another").or_default(),
};
constexpr Field snap_prepare_fields[] = {
    field<&SnapPrepareRank::seq>("seq", operation),
    field<&SnapPrepareRank::folder>("folder", "absolute and there, `NAME.LIFE.partial`"),
    field<&SnapPrepareRank::second>("second", "folder it is written to once more, or empty")
        .or_default(),
    field<&SnapPrepareRank::file>("file", "name in both"),
    field<&SnapPrepareRank::name>("name", "the snapshot's final one"),
    field<&SnapPrepareRank::agent>("agent", "the rank's agent"),
    field<&SnapPrepareRank::incremental>("incremental", "if it can be").or_default(),
    field<&SnapPrepareRank::compress>("compress", "none, lz4, zstd, zstd,level=N").or_default(),
    field<&SnapPrepareRank::rate>("rate", "to the disk, 0: no limit").in("bytes/s").or_default(),
    field<&SnapPrepareRank::carried>("carried", "largest file open for writing that is saved")
        .in("bytes")
        .or_default(),
    field<&SnapPrepareRank::then>("then", "what follows").or_default(),
    field<&SnapPrepareRank::memory>("memory", "the copy may take, 0: its part of what is there")
        .in("bytes")
        .or_default(),
    field<&SnapPrepareRank::sharers>("sharers", "ranks of the node that copy at the same time")
        .at_least(1)
        .or_default(),
    field<&SnapPrepareRank::shared>("shared", "as of `connect`").or_default(),
    field<&SnapPrepareRank::sign>("sign", "the ghost, with a key of the wrapper's own")
        .or_default(),
};
constexpr Field snap_freeze_fields[] = {
    field<&SnapFreeze::seq>("seq", operation),
    field<&SnapFreeze::agent>("agent", "the thread to signal"),
    field<&SnapFreeze::unit>("unit", unit_says).or_default(),
    field<&SnapFreeze::saves>("saves", saves_says).or_default(),
};
constexpr Field share_fields[] = {field<&Share::seq>("seq", operation)};
constexpr Field snap_write_fields[] = {field<&SnapWrite::seq>("seq", operation)};
constexpr Field snap_cancel_fields[] = {field<&SnapCancel::seq>("seq", operation)};
constexpr Field snap_end_fields[] = {
    field<&SnapEndRank::seq>("seq", operation),
    field<&SnapEndRank::keep>("keep", "track on for an incremental one").or_default(),
};

}  // namespace

constinit const Record Greeting::table =
    record<Greeting>("hello", "first message of whoever comes to a node agent", greeting_fields);
constinit const Record WrapperHello::table = record<WrapperHello>(
    "hello", "first message; with six descriptors where there is a tree", hello_fields);
constinit const Record Exit::table =
    record<Exit>("exit", "just before it ends as the rank did", exit_fields);
constinit const Record StdinTaken::table =
    record<StdinTaken>("stdin", "input has been taken", stdin_fields);
constinit const Record OutputGiven::table = record<OutputGiven>(
    "output", "at its end: what it has given to the runtime since it began", output_fields);
constinit const Record StdinClosed::table =
    record<StdinClosed>("stdin_closed", "the rank's input has ended: spare ends of it are closed");
constinit const Record Sketched::table = record<Sketched>(
    "sketched", "live: the skeleton is taken, the tree runs; `wake`", sketched_fields);
constinit const Record Gone::table =
    record<Gone>("gone", "answers `die`: the tree can do nothing any more", gone_fields);
constinit const Record Checked::table =
    record<Checked>("checked", "a restart: nothing speaks against the import", checked_fields);
constinit const Record SnapReady::table = record<SnapReady>(
    "snap_ready", "memory is copied, criu waits for `snap_freeze`", snap_ready_fields);
constinit const Record Still::table = record<Still>(
    "still", "the tree is frozen, or the memory it shares is saved; `share` follows", still_fields);
constinit const Record SnapCaptured::table = record<SnapCaptured>(
    "snap_captured", "the tree runs again, or is frozen with `then` = stop or kill",
    snap_captured_fields);
constinit const Record SnapCancelled::table = record<SnapCancelled>(
    "snap_cancelled", "the file is removed, tracking forgotten", snap_cancelled_fields);

constinit const Record Export::table =
    record<Export>("export", "after the rank's end-of-file; `exported`", export_fields);
constinit const Record Cancel::table = record<Cancel>(
    "cancel", "the move ended before `close`: the tree is not touched", cancel_fields);
constinit const Record Wake::table = record<Wake>(
    "wake", "live: the rank is signalled, its memory goes on being copied; `converged`",
    wake_fields);
constinit const Record Resume::table = record<Resume>(
    "resume", "the operation ended after `close`: every task runs, the rank is signalled",
    resume_fields);
constinit const Record Die::table =
    record<Die>("die", "after the switch: the source's tree is killed; `gone`", die_fields);
constinit const Record ChildStatus::table = record<ChildStatus>(
    "child_status", "adopting wrapper: how the tree ended; `exit`", child_status_fields);
constinit const Record Bye::table =
    record<Bye>("bye", "the wrapper ends: a source's output is read, or the rank is killed");
constinit const Record Adopt::table = record<Adopt>(
    "adopt", "first message to one started with --adopt, with three inner descriptors; `hello`",
    adopt_fields);
constinit const Record Import::table = record<Import>(
    "import",
    "a restart: files are put back, the ghost imported; `held`. A move: for when it comes",
    import_fields);
constinit const Record SnapPrepareRank::table = record<SnapPrepareRank>(
    "snap_prepare", "the rank runs; `progress`, then `snap_ready`", snap_prepare_fields);
constinit const Record SnapFreeze::table = record<SnapFreeze>(
    "snap_freeze", "after the rank's end-of-file; `snap_captured`", snap_freeze_fields);
constinit const Record Share::table = record<Share>(
    "share", "all who share memory have said `still`: it is saved, or they go on", share_fields);
constinit const Record SnapWrite::table = record<SnapWrite>(
    "snap_write", "others that were frozen run again; `progress`, then `snap_written`",
    snap_write_fields);
constinit const Record SnapCancel::table = record<SnapCancel>(
    "snap_cancel", "the snapshot is off; `snap_cancelled`, whatever the wrapper knows of it",
    snap_cancel_fields);
constinit const Record SnapEndRank::table =
    record<SnapEndRank>("snap_end", "the snapshot is complete", snap_end_fields);

namespace {

constexpr schema::Message from_wrapper_messages[] = {
    message<WrapperHello>(FromWrapper::hello),
    message<Exit>(FromWrapper::exit),
    message<StdinTaken>(FromWrapper::stdin_taken),
    message<StdinClosed>(FromWrapper::stdin_closed),
    message<OutputGiven>(FromWrapper::output),
    message<TransferProgress>(FromWrapper::progress, Sequence::answer),
    message<Failed>(FromWrapper::failed, Sequence::answer),
    message<Ready>(FromWrapper::ready, Sequence::answer),
    message<Connected>(FromWrapper::connected, Sequence::answer),
    message<Sketched>(FromWrapper::sketched, Sequence::answer),
    message<Converged>(FromWrapper::converged, Sequence::answer),
    message<Exported>(FromWrapper::exported, Sequence::answer),
    message<Gone>(FromWrapper::gone, Sequence::answer),
    message<Checked>(FromWrapper::checked, Sequence::answer),
    message<Held>(FromWrapper::held, Sequence::answer),
    message<SnapReady>(FromWrapper::snap_ready, Sequence::answer),
    message<SnapCaptured>(FromWrapper::snap_captured, Sequence::answer),
    message<Written>(FromWrapper::snap_written, Sequence::answer),
    message<SnapCancelled>(FromWrapper::snap_cancelled, Sequence::answer),
    message<Still>(FromWrapper::still, Sequence::answer),
};

constexpr schema::Message to_wrapper_messages[] = {
    message<Prepare>(ToWrapper::prepare, Sequence::order),
    message<Connect>(ToWrapper::connect, Sequence::order),
    message<Export>(ToWrapper::export_tree, Sequence::order),
    message<Cancel>(ToWrapper::cancel, Sequence::order),
    message<Wake>(ToWrapper::wake, Sequence::order),
    message<Resume>(ToWrapper::resume, Sequence::order),
    message<Go>(ToWrapper::go, Sequence::order),
    message<Die>(ToWrapper::die, Sequence::order),
    message<Abort>(ToWrapper::abort, Sequence::order),
    message<ChildStatus>(ToWrapper::child_status),
    message<Bye>(ToWrapper::bye),
    message<Adopt>(ToWrapper::adopt),
    message<Import>(ToWrapper::import, Sequence::order),
    message<SnapPrepareRank>(ToWrapper::snap_prepare, Sequence::order),
    message<SnapFreeze>(ToWrapper::snap_freeze, Sequence::order),
    message<SnapWrite>(ToWrapper::snap_write, Sequence::order),
    message<SnapCancel>(ToWrapper::snap_cancel, Sequence::order),
    message<SnapEndRank>(ToWrapper::snap_end, Sequence::order),
    message<Share>(ToWrapper::share, Sequence::order),
};

}  // namespace

constinit const schema::Family from_wrapper = schema::family("W to N", from_wrapper_messages);
constinit const schema::Family to_wrapper = schema::family("N to W", to_wrapper_messages);

}  // namespace ghost::plugin
