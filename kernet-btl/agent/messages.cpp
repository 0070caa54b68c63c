// SPDX-License-Identifier: BSD-3-Clause
#include "kernet-btl/agent/messages.hpp"

namespace kernet {

using ghost::schema::Sequence;

namespace {

using ghost::schema::field;
using ghost::schema::Field;
using ghost::schema::record;
using ghost::schema::Record;

constexpr const char* the_operation = "the operation";

constexpr Field ask_secret_fields[] = {
    field<&AskSecret::job>("job", "number of the job, in decimal")};
constexpr Field tell_secret_fields[] = {field<&TellSecret::secret>("secret", "the job's, in hex")};
constexpr Field rank_hello_fields[] = {
    field<&RankHello::role>("role", "rank"),
    field<&RankHello::version>("version", "of what the two say to each other"),
    field<&RankHello::job>("job", "number of the job, in decimal"),
    field<&RankHello::rank>("rank", "whose"),
    field<&RankHello::secret>("secret", "the job's, in hex"),
    field<&RankHello::life>("life", "of the job, as the rank knows it"),
    field<&RankHello::epoch>("epoch", "of the placement that the rank knows of"),
    field<&RankHello::pid>("pid", "the rank's process, as numbered in the rank"),
    field<&RankHello::tid>("tid", "the agent's thread, as numbered in the rank"),
    field<&RankHello::location>("location", "where it listens; after a move, nowhere yet"),
};
constexpr Field gate_answer_fields[] = {
    field<&GateAnswer::seq>("seq", the_operation),
    field<&GateAnswer::rc>("rc", "0: its gates are closed"),
    field<&GateAnswer::tag>("tag", "of the PMIx call it waits in, 0: none"),
    field<&GateAnswer::busy>("busy", "not now: try again"),
    field<&GateAnswer::why>("why", "reason, for the user"),
};
constexpr Field ungate_answer_fields[] = {field<&UngateAnswer::seq>("seq", the_operation)};
constexpr Field attached_fields[] = {
    field<&RankAttached::seq>("seq", the_operation),
    field<&RankAttached::rc>("rc", "0: done"),
    field<&RankAttached::error>("error", "reason, for the user").or_default(),
    field<&RankAttached::location>("location", "where it listens now"),
};
constexpr Field locate_fields[] = {field<&Locate::peer>("peer", "whose place is asked for")};

constexpr Field welcome_fields[] = {
    field<&RankWelcome::node>("node", "number of the daemon").at_least(-1),
    field<&RankWelcome::node_name>("node_name", "that node's name"),
    field<&RankWelcome::life>("life", "of the job: another one than the rank knew after a restart"),
    field<&RankWelcome::epoch>("epoch", "of the rank's placement"),
    field<&RankWelcome::state>("state", "how the rank came here"),
    field<&RankWelcome::seq>("seq", "the operation it comes from, 0: none"),
    field<&RankWelcome::uri>("uri", "PMIx server to attach to"),
    field<&RankWelcome::resend>("resend", "a fence that was interrupted is to be sent again"),
    field<&RankWelcome::peers>("peers", "those that are known, as many as fit"),
};
constexpr Field gate_fields[] = {field<&GateOrder::seq>("seq", the_operation)};
constexpr Field ungate_fields[] = {field<&UngateOrder::seq>("seq", the_operation)};
constexpr Field close_fields[] = {field<&CloseOrder::seq>("seq", the_operation)};

}  // namespace

constinit const Record AskSecret::table =
    record<AskSecret>("secret", "what is the job's? `secret`", ask_secret_fields);
constinit const Record TellSecret::table =
    record<TellSecret>("secret", "answers `secret`", tell_secret_fields);
constinit const Record RankHello::table =
    record<RankHello>("hello", "first message; `welcome`", rank_hello_fields);
constinit const Record GateAnswer::table =
    record<GateAnswer>("gated", "answers `gate`", gate_answer_fields);
constinit const Record UngateAnswer::table =
    record<UngateAnswer>("ungated", "answers `ungate`", ungate_answer_fields);
constinit const Record RankAttached::table =
    record<RankAttached>("attached", "links and PMIx are up again, or cannot be", attached_fields);
constinit const Record RankBye::table =
    record<RankBye>("bye", "MPI_Finalize: the rank cannot be moved any more");
constinit const Record Locate::table =
    record<Locate>("locate", "where is this rank? `location`, when it is known", locate_fields);

constinit const Record RankWelcome::table =
    record<RankWelcome>("welcome", "answers `hello`", welcome_fields);
constinit const Record GateOrder::table =
    record<GateOrder>("gate", "data and PMIx are to be held; `gated`", gate_fields);
constinit const Record UngateOrder::table =
    record<UngateOrder>("ungate", "both are to go on; `ungated`", ungate_fields);
constinit const Record CloseOrder::table =
    record<CloseOrder>("close", "everything is to be closed, this connection last", close_fields);

namespace {

using ghost::schema::message;

constexpr ghost::schema::Message from_rank_messages[] = {
    message<RankHello>(FromRank::hello),
    message<GateAnswer>(FromRank::gated, Sequence::answer),
    message<UngateAnswer>(FromRank::ungated, Sequence::answer),
    message<RankAttached>(FromRank::attached, Sequence::answer),
    message<RankBye>(FromRank::bye),
    message<Locate>(FromRank::locate),
    message<AskSecret>(FromRank::secret),
};
constexpr ghost::schema::Message to_rank_messages[] = {
    message<RankWelcome>(ToRank::welcome),
    message<GateOrder>(ToRank::gate, Sequence::order),
    message<UngateOrder>(ToRank::ungate, Sequence::order),
    message<CloseOrder>(ToRank::close, Sequence::order),
    message<Location>(ToRank::location),
    message<ghost::schema::Complaint>(ToRank::error),
    message<TellSecret>(ToRank::secret),
};

}  // namespace

constinit const ghost::schema::Family from_rank =
    ghost::schema::family("R to N", from_rank_messages);
constinit const ghost::schema::Family to_rank = ghost::schema::family("N to R", to_rank_messages);

}  // namespace kernet
