// SPDX-License-Identifier: BSD-3-Clause
#include "tools/clone_messages.hpp"

namespace ghost::tools {

using schema::field;
using schema::message;
using schema::record;
using schema::Record;

namespace {

constexpr schema::Field clone_order_fields[] = {
    field<&CloneOrder::secret>("secret", "that both show on the connection for the ghost"),
    field<&CloneOrder::needs>("needs", "of the process"),
    field<&CloneOrder::facts>("facts", "of the node it runs on (docs/IMAGE_FORMAT.md), as text"),
    field<&CloneOrder::clone>("clone", "the original goes on").or_default(),
    field<&CloneOrder::live>("live", "a live migration").or_default(),
};
constexpr schema::Field clone_lacks_fields[] = {
    field<&CloneLacks::lines>("lines", "what the node lacks, each a sentence"),
};
constexpr schema::Field clone_ready_fields[] = {
    field<&CloneReady::address>("address", "where it waits for the ghost"),
    field<&CloneReady::port>("port", "TCP port"),
    field<&CloneReady::token>("token", "what to show there"),
};
constexpr schema::Field clone_held_fields[] = {
    field<&CloneHeld::import>("import", "figures of the restore, as --json prints them"),
};
constexpr schema::Field clone_running_fields[] = {
    field<&CloneRunning::pid>("pid", "the process there"),
};
constexpr schema::Field clone_failed_fields[] = {
    field<&CloneFailed::why>("why", "reason, for the user"),
};

}  // namespace

constinit const Record CloneOrder::table = record<CloneOrder>(
    "order", "answered by `lacks`, until it is given up, or `ready`", clone_order_fields);
constinit const Record CloneGo::table = record<CloneGo>(
    "go", "after `held`: the tree there is the one, or one of two, that lives; `running`");
constinit const Record CloneLacks::table =
    record<CloneLacks>("lacks", "the process cannot go there", clone_lacks_fields);
constinit const Record CloneReady::table =
    record<CloneReady>("ready", "the ghost may come", clone_ready_fields);
constinit const Record CloneHeld::table =
    record<CloneHeld>("held", "the whole tree is there and is frozen", clone_held_fields);
constinit const Record CloneRunning::table = record<CloneRunning>(
    "running", "the tree runs there; after a live migration with all its pages",
    clone_running_fields);
constinit const Record CloneFailed::table =
    record<CloneFailed>("failed", "nothing is left there", clone_failed_fields);

namespace {

constexpr schema::Message to_receiver_messages[] = {
    message<CloneOrder>(ToReceiver::order),
    message<CloneGo>(ToReceiver::go),
};
constexpr schema::Message from_receiver_messages[] = {
    message<CloneLacks>(FromReceiver::lacks),   message<CloneReady>(FromReceiver::ready),
    message<CloneHeld>(FromReceiver::held),     message<CloneRunning>(FromReceiver::running),
    message<CloneFailed>(FromReceiver::failed),
};

}  // namespace

constinit const schema::Family to_receiver = schema::family("dup to receive", to_receiver_messages);
constinit const schema::Family from_receiver =
    schema::family("receive to dup", from_receiver_messages);

}  // namespace ghost::tools
