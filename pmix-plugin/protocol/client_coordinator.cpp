// SPDX-License-Identifier: BSD-3-Clause
#include "pmix-plugin/protocol/client_coordinator.hpp"

namespace ghost::plugin {

using schema::Field;
using schema::field;
using schema::message;
using schema::Record;
using schema::record;

namespace {

constexpr Field migrate_fields[] = {
    field<&MigrateRequest::ranks>("ranks", "to move; with `all_from` none"),
    field<&MigrateRequest::to>("to",
                               "node, as in mpirun's host list; empty: the one with most room")
        .or_default(),
    field<&MigrateRequest::mode>("mode",
                                 "live, stop or auto; if left out, as the job's parameter says"),
    field<&MigrateRequest::with_sharers>("with_sharers", "whoever shares memory moves along"),
    field<&MigrateRequest::all_from>("all_from", "node, all of whose ranks are meant"),
};
constexpr Field drain_fields[] = {
    field<&DrainRequest::node>("node", "all of whose ranks leave, and then its daemon"),
    field<&DrainRequest::to>("to", "nodes to choose from; none: any other one").or_default(),
    field<&DrainRequest::mode>("mode", "as of `migrate`"),
};
constexpr Field grow_fields[] = {
    field<&GrowRequest::node>("node", "which is no part of the job"),
    field<&GrowRequest::slots>("slots", "ranks that it has room for").at_least(1).or_default(),
};
constexpr Field cancel_fields[] = {
    field<&CancelRequest::id>("id", "of a request, as in `ps`; all of them if absent"),
};
constexpr Field checkpoint_fields[] = {
    field<&CheckpointRequest::to>("to", "folder, `memory`, `both`; empty: as the job's parameters")
        .or_default(),
    field<&CheckpointRequest::then>("then", "what follows").or_default(),
    field<&CheckpointRequest::sign>("sign", "file with the key, absolute; empty: as the parameters")
        .or_default(),
};
constexpr Field result_fields[] = {
    field<&RequestResult::exit>("exit", "status that the command ends with")
        .at_least(0)
        .at_most(255),
    field<&RequestResult::result>(
        "result",
        "of `ps` an object, of `migrate` a row for each rank, of `checkpoint` a row, of `cancel` "
        "a row for each request")
        .or_default(),
    field<&RequestResult::error>("error", "reason, for the user"),
};
constexpr Field progress_fields[] = {
    field<&RequestProgress::rank>("rank", "which moves; not of a snapshot"),
    field<&RequestProgress::phase>("phase", "what is being done"),
    field<&RequestProgress::bytes>("bytes", "done").in("bytes"),
    field<&RequestProgress::total>("total", "of so many, 0 if unknown").in("bytes"),
};

}  // namespace

constinit const Record PsRequest::table =
    record<PsRequest>("ps", "how is the job? `result` at once");
constinit const Record MigrateRequest::table = record<MigrateRequest>(
    "migrate", "ranks are to move; `progress`, then `result`", migrate_fields);
constinit const Record CheckpointRequest::table = record<CheckpointRequest>(
    "checkpoint", "a snapshot is to be made; `progress`, then `result`", checkpoint_fields);
constinit const Record CancelRequest::table = record<CancelRequest>(
    "cancel", "what is under way or waits is to be undone; `result` when it is", cancel_fields);
constinit const Record DrainRequest::table =
    record<DrainRequest>("drain", "a node is to leave; `progress`, then `result`", drain_fields);
constinit const Record GrowRequest::table =
    record<GrowRequest>("grow", "a node is to join; `progress`, then `result`", grow_fields);
constinit const Record RequestResult::table =
    record<RequestResult>("result", "what became of a request", result_fields);
constinit const Record RequestProgress::table =
    record<RequestProgress>("progress", "how far a request is", progress_fields);

namespace {

constexpr schema::Message to_coordinator_messages[] = {
    message<PsRequest>(ToCoordinator::ps),
    message<MigrateRequest>(ToCoordinator::migrate),
    message<CheckpointRequest>(ToCoordinator::checkpoint),
    message<CancelRequest>(ToCoordinator::cancel),
    message<DrainRequest>(ToCoordinator::drain),
    message<GrowRequest>(ToCoordinator::grow),
};
constexpr schema::Message from_coordinator_messages[] = {
    message<RequestResult>(FromCoordinator::result),
    message<RequestProgress>(FromCoordinator::progress),
    message<schema::Complaint>(FromCoordinator::error),
};

}  // namespace

constinit const schema::Family to_coordinator = schema::family("T to C", to_coordinator_messages);
constinit const schema::Family from_coordinator =
    schema::family("C to T", from_coordinator_messages);

}  // namespace ghost::plugin
