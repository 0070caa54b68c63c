// SPDX-License-Identifier: BSD-3-Clause
#include "pmix-plugin/node/node_agent.hpp"

#include <fmt/format.h>
#include <sodium/utils.h>

#include "base/log.hpp"
#include "pmix-plugin/node/impl.hpp"

namespace ghost::plugin {
namespace {

constexpr size_t spare_count = 6;

bool same_secret(const std::string& a, const std::string& b) {
    return !a.empty() && a.size() == b.size() && sodium_memcmp(a.data(), b.data(), a.size()) == 0;
}

// What is wrong with a hello; empty: nothing.
template <typename Hello>
std::string read_hello(const std::string& packet, const char* who, uint32_t spoken, Hello& out) {
    auto hello = schema::decode<Hello>(packet);
    if (!hello.ok()) return hello.error().message();
    out = std::move(*hello);
    if (out.version == spoken) return {};
    return fmt::format(
        "{} speaks version {} of the protocol, mpirun and orted {}: install the same version of "
        "Ghost on every node",
        who, out.version, spoken);
}

}  // namespace

// --- life ---

Status NodeAgent::Impl::start() {
    if (running_) return {};
    running_ = true;
    std::weak_ptr<Impl> weak = weak_from_this();
    adapter_.on_message([weak](NodeId from, const schema::Received& m) {
        if (auto self = weak.lock(); self && self->running_) self->order(from, m);
    });
    adapter_.on_wrapper_exit([weak](RankId rank, int status) {
        auto self = weak.lock();
        return self && self->running_ && self->wrapper_died(rank, status);
    });
    adapter_.on_rank_died([weak](RankId rank, int status) {
        auto self = weak.lock();
        return self && self->running_ && self->rank_died(rank, status);
    });
    try_listen();
    if (settings_.beat_us > 0) beat();
    return {};
}

void NodeAgent::Impl::try_listen() {
    listen_retry_.reset();
    if (auto status = listen_now(); !status.ok() && !std::exchange(warned_, true)) {
        log::warning("{}", status.error().message());
    }
    if (entrance_.is_open()) return;
    listen_retry_ = adapter_.after(settings_.listen_retry_us, [this] { try_listen(); });
}

Status NodeAgent::Impl::listen_now() {
    if (!running_ || entrance_.is_open() || adapter_.rank_socket().empty()) return {};
    auto listener = ControlListener::listen(adapter_.rank_socket());
    // The daemon of the job's life before is still ending: tried again, and wrappers wait for it.
    if (!listener && listener.error().code == Code::busy) return {};
    GHOST_TRY(listener);
    entrance_.open(
        std::move(*listener),
        [this](ArrivalId id, ControlSocket socket) { came(id, std::move(socket)); },
        [this](ArrivalId id) { drop_arrival(id); });
    return {};
}

void NodeAgent::Impl::stop() {
    if (!running_) return;
    running_ = false;
    if (listen_retry_) adapter_.cancel(*listen_retry_);
    for (auto* timer : {&look_timer_, &beat_timer_})
        if (*timer) adapter_.cancel(*std::exchange(*timer, std::nullopt));
    entrance_.close();
    participant_.stop();
    copies_.stop();
    background_.stop();
    while (!arrivals_.empty()) drop_arrival(arrivals_.begin()->first);
    for (auto& [rank, slot] : slots_) {
        stop_timer(slot);
        if (slot.wrapper) slot.wrapper->close();
        if (slot.agent) slot.agent->close();
        if (slot.snap.early) slot.snap.early->close();
        if (slot.is_urgent()) adapter_.raise_priority(false);
    }
    slots_.clear();
}

// --- connections ---

void NodeAgent::Impl::came(ArrivalId id, ControlSocket socket) {
    auto connection = ControlConnection::open(
        adapter_, std::move(socket), [this, id](ControlMessage& m) { hello(id, m); },
        [this, id] { drop_arrival(id); });
    arrivals_[id] = connection;
    connection->read_now();  // who spoke at once is done with at once
}

void NodeAgent::Impl::drop_arrival(ArrivalId id) {
    entrance_.leave(id);
    if (auto arrival = arrivals_.extract(id)) arrival.mapped()->close();
}

// Why who says so cannot be let in; empty: it can.
std::string NodeAgent::Impl::check_greeting(const Greeting& m) const {
    if (m.job != adapter_.job_name()) return "hello of another job";
    if (m.role == Role::rank && !same_secret(m.secret, adapter_.secret()))
        return "hello with a wrong secret";
    auto it = slots_.find(m.rank);
    const RankSlot none;
    const RankSlot& s = it == slots_.end() ? none : it->second;
    // A rank that was saved learns only now which life it is in.
    const bool saved = m.role == Role::rank && s.snap.restart && s.transfer == Transfer::going;
    if (m.life != adapter_.life() && !saved) return "hello of another life of the job";
    if (m.role == Role::wrapper && !s.at_rest()) return "the rank has a wrapper, and moves";
    const bool runs = s.quiesce == Quiesce::open && s.transfer <= Transfer::connected;
    const bool comes = s.quiesce == Quiesce::resuming || s.transfer == Transfer::going;
    const bool may_attach = runs || comes || wakes_early(s);
    if (m.role == Role::rank && !may_attach) return "the rank is not meant to run now";
    return {};
}

void NodeAgent::Impl::hello(ArrivalId id, ControlMessage& m) {
    auto it = arrivals_.find(id);
    if (it == arrivals_.end()) return;
    std::string complaint;
    schema::Reader reader(first_messages, fmt::format("process {}", it->second->peer_pid()));
    const auto first = reader.read(m.text, complaint);
    if (!first) {
        if (!complaint.empty()) it->second->send_text(std::move(complaint));
        return drop_arrival(id);
    }
    if (first->is<kernet::AskSecret>()) {
        if (adapter_.secret().empty())
            return drop_arrival(id);  // not known yet: who asks comes again
        return tell_secret(*it->second, first->as<kernet::AskSecret>());
    }
    const auto& greeting = first->as<Greeting>();
    const bool is_rank = greeting.role == Role::rank;
    std::string wrong = check_greeting(greeting);
    WrapperHello wrapper;
    kernet::RankHello rank;
    if (wrong.empty())
        wrong = is_rank ? read_hello(m.text, "the rank's KerNet", kernet::agent_protocol, rank)
                        : read_hello(m.text, "ghost-wrapper", wrapper_protocol, wrapper);
    if (!wrong.empty()) {
        refusals_.write(log::Level::warning, fmt::format("connection of process {} refused: {}",
                                                         it->second->peer_pid(), wrong));
        it->second->tell(schema::Complaint{wrong});
        return drop_arrival(id);
    }
    // The same connection, now with its own callbacks.
    auto connection = it->second;
    arrivals_.erase(it);
    entrance_.leave(id);
    if (is_rank) return hello_rank(std::move(connection), rank);
    hello_wrapper(std::move(connection), wrapper, m.fds);
}

// To a process of the user's, who may read the memory of any process here: ranks and their guests
// find it nowhere else.
void NodeAgent::Impl::tell_secret(ControlConnection& to, const kernet::AskSecret& m) const {
    if (m.job != adapter_.job_name())
        to.tell(schema::Complaint{"the secret of another job was asked for"});
    else
        to.tell(kernet::TellSecret{adapter_.secret()});
}

void NodeAgent::Impl::hello_rank(std::shared_ptr<ControlConnection> connection,
                                 const kernet::RankHello& m) {
    const RankId rank = m.rank;
    RankSlot& s = slot(rank);
    if (wakes_early(s)) return keep_early(s, std::move(connection), m);
    if (s.agent) s.agent->close();
    s.agent = std::move(connection);
    s.finalizing = false;
    s.thread = AgentThread{m.pid, m.tid};
    const ControlConnection* which = s.agent.get();
    auto reader = std::make_shared<schema::Reader>(kernet::from_rank, fmt::format("rank {}", rank));
    s.agent->handle(
        [this, rank, which, reader](ControlMessage& x) { rank_packet(rank, which, *reader, x); },
        [this, rank, which] { rank_closed(rank, which); });
    if (s.quiesce == Quiesce::resuming) return welcome(s, kernet::Arrival::resumed);
    if (s.transfer == Transfer::going) return welcome(s, kernet::Arrival::restored);
    if (const kernet::Location* known = locations_.find(rank); known != nullptr && s.epoch == 0) {
        s.epoch = static_cast<uint32_t>(known->epoch);
    }
    welcome(s, kernet::Arrival::started);
    if (m.location.attached) report(Located{settled_location(s, m.location)});
}

void NodeAgent::Impl::welcome(RankSlot& s, kernet::Arrival state) {
    kernet::RankWelcome m;
    m.node = static_cast<int32_t>(adapter_.self());
    m.node_name = own_name();
    m.life = adapter_.life();
    m.epoch = s.epoch;
    m.state = state;
    m.seq = state == kernet::Arrival::started ? 0 : s.seq;
    m.uri = adapter_.pmix_uri();
    m.resend = state == kernet::Arrival::restored;
    m.peers = known_peers(s);
    s.agent->tell(m);
}

const std::string& NodeAgent::Impl::own_name() const {
    if (!own_name_.empty()) return own_name_;
    for (const NodeInfo& node : adapter_.nodes()) {
        if (node.id == adapter_.self()) own_name_ = node.name;
    }
    return own_name_;
}

void NodeAgent::Impl::take_spare(RankSlot& s, int32_t init, std::vector<Fd>& fds) {
    take_tree(s, init);
    if (fds.size() == spare_count) s.spare = std::move(fds);
}

void NodeAgent::Impl::hello_wrapper(std::shared_ptr<ControlConnection> connection,
                                    const WrapperHello& hello, std::vector<Fd>& fds) {
    RankSlot& s = slot(hello.rank);
    listen_to_wrapper(s.rank, *connection);
    use_wrapper(s, std::move(connection));
    s.unmovable.clear();
    if (hello.mode == WrapperMode::restart) return hello_restart(s);
    if (hello.mode == WrapperMode::direct)
        s.unmovable = hello.why.empty() ? "no name space" : hello.why;
    take_spare(s, hello.init, fds);
}

// --- slots ---

RankSlot* NodeAgent::Impl::find(RankId rank) {
    auto it = slots_.find(rank);
    return it == slots_.end() ? nullptr : &it->second;
}

RankSlot& NodeAgent::Impl::slot(RankId rank) {
    RankSlot& s = slots_[rank];
    s.rank = rank;
    return s;
}

template <typename State>
bool NodeAgent::Impl::change(RankSlot& s, const auto& table, State& state, State next) {
    const bool before = s.is_urgent();
    const auto who = [&] { return fmt::format("rank {} (operation {})", s.rank, s.seq); };
    if (!table.change(state, next, log::Level::info, who)) {
        // A bug: the operation cannot go on here. Nothing has been done yet, or the limits of the
        // coordinator end it.
        const std::string why = "a fault of Ghost's own (see the log of this node)";
        if (s.snap.participates)
            snapshot_failed(s, Stage::state, why);
        else
            fail(s, Stage::state, why);
        return false;
    }
    if (s.is_urgent() != before) adapter_.raise_priority(!before);
    return true;
}

bool NodeAgent::Impl::change(RankSlot& s, Quiesce next) {
    return change(s, quiesce_states, s.quiesce, next);
}

bool NodeAgent::Impl::change(RankSlot& s, Transfer next) {
    stop_timer(s);
    return change(s, transfer_states, s.transfer, next);
}

bool NodeAgent::Impl::change(RankSlot& s, SnapWork next) {
    s.snap.bytes = s.snap.total = 0;
    return change(s, snap_works, s.snap.work, next);
}

void NodeAgent::Impl::set_timer(RankSlot& s, int64_t us, void (Impl::*step)(RankSlot&)) {
    stop_timer(s);
    s.timer = adapter_.after(us, [this, rank = s.rank, step] {
        RankSlot* slot = find(rank);
        if (slot == nullptr) return;
        slot->timer.reset();
        (this->*step)(*slot);
    });
}

void NodeAgent::Impl::stop_timer(RankSlot& s) {
    if (s.timer) adapter_.cancel(*s.timer);
    s.timer.reset();
}

void NodeAgent::Impl::forget(RankId rank) {
    RankSlot* s = find(rank);
    if (s == nullptr) return;
    stop_timer(*s);
    if (s->wrapper) s->wrapper->close();
    if (s->agent) s->agent->close();
    if (s->snap.early) s->snap.early->close();
    if (s->is_urgent()) adapter_.raise_priority(false);
    slots_.erase(rank);
}

// Tells the coordinator once that this move cannot go on here; what follows is its order.
void NodeAgent::Impl::fail(RankSlot& s, Stage stage, const std::string& why) {
    if (s.at_rest() || std::exchange(s.failure_told, true)) return;
    report(Failed{s.seq, s.rank, stage, why});
}

// False: it failed there, which has been told. `with`: whom the step works with.
bool NodeAgent::Impl::passes(RankSlot& s, fault::Point point, Stage stage,
                             const std::shared_ptr<ControlConnection>& with) {
    const Status fine = fault::pass(point, [&with] {
        if (with) with->hang_up();
    });
    if (fine) return true;
    if (!s.snap.participates) return fail(s, stage, fine.error().message()), false;
    snapshot_failed(s, stage, fine.error().message());
    return participant_.poke(), false;
}

// --- who says what ---

void NodeAgent::Impl::order(NodeId from, const schema::Received& m) {
    if (participant_.message(from, m)) return;
    if (is_late(m)) return log::info("late order {} of attempt {} dropped", m.name(), m.seq());
    switch (m.type<DaemonMessage>()) {
        case DaemonMessage::ping:
            return pong(from, m.as<Ping>());
        case DaemonMessage::location:
            return take_locations(m.as<Locations>());
        case DaemonMessage::leave:
            return leave(m.as<AskLeave>());
        case DaemonMessage::node_joins:
            return join(m.as<NodeJoins>());
        case DaemonMessage::make_copies:
            return copies_.make(m.as<MakeCopies>());
        case DaemonMessage::copy_offer:
            return take_copies(from, m.as<CopyOffer>());
        case DaemonMessage::copy_taken:
            return copies_.taken(from, m.as<CopyTaken>());
        case DaemonMessage::rank_ends:
            return adapter_.let_end(m.as<RankEnds>().rank);
        case DaemonMessage::prepare:
            return prepare(m.as<Prepare>());
        case DaemonMessage::connect:
            return connect(m.as<Connect>());
        case DaemonMessage::gate:
            return gate(m.as<GateRank>());
        case DaemonMessage::switch_rank:
            return switch_rank(m.as<Switch>());
        case DaemonMessage::go:
            return go(m.as<Go>());
        case DaemonMessage::abort:
            return abort(m.as<Abort>());
        default:
            return;  // for the coordinator, or the runtime's own
    }
}

void NodeAgent::Impl::leave(const AskLeave& m) {
    for (const RankInfo& info : adapter_.ranks()) {
        if (info.node != adapter_.self() || info.life == RankLife::ended) continue;
        return report(Leaving{m.seq, fmt::format("rank {} is there", info.rank)});
    }
    report(Leaving{m.seq, std::nullopt});
    adapter_.leave_job();
}

// The one that joins has been told of the job, and may not have read it yet.
void NodeAgent::Impl::join(const NodeJoins& m) {
    adapter_.learn_node({m.node, m.place, m.name, m.slots});
    if (entrance_.is_open() || m.node != adapter_.self())
        return report(Joined{m.seq, std::nullopt});
    adapter_.after(settings_.listen_retry_us, [weak = weak_from_this(), m] {
        if (auto self = weak.lock(); self && self->running_) self->join(m);
    });
}

namespace {

// Of an order that is about one rank.
std::optional<RankId> rank_of(const schema::Received& m) {
    switch (m.type<DaemonMessage>()) {
        case DaemonMessage::prepare:
            return m.as<Prepare>().rank;
        case DaemonMessage::connect:
            return m.as<Connect>().rank;
        case DaemonMessage::gate:
            return m.as<GateRank>().rank;
        case DaemonMessage::switch_rank:
            return m.as<Switch>().rank;
        case DaemonMessage::go:
            return m.as<Go>().rank;
        case DaemonMessage::abort:
            return m.as<Abort>().rank;
        default:
            return std::nullopt;
    }
}

}  // namespace

// Of an operation that is over, or of an older one of its rank than is known here; what is not late
// makes its operation known. Operations on a rank come one after the other, with growing numbers.
bool NodeAgent::Impl::is_late(const schema::Received& m) {
    const auto rank = rank_of(m);
    if (!rank) return false;
    const Seen& seen = seen_[*rank];
    if (m.seq() < seen.newest || m.seq() <= seen.aborted) return true;
    note_newest(*rank, m.seq());
    return false;
}

void NodeAgent::Impl::note_newest(RankId rank, uint64_t seq) {
    seen_[rank].newest = std::max(seen_[rank].newest, seq);
}

void NodeAgent::Impl::abort(const Abort& m) {
    seen_[m.rank].aborted = m.seq;
    RankSlot* s = find(m.rank);
    if (s != nullptr && s->seq == m.seq && is_target(s->transfer)) return abort_target(*s);
    if (s != nullptr && s->seq == m.seq && is_source(s->transfer)) return abort_source(*s);
    report(Aborted{m.seq, m.rank, {}, s == nullptr || is_gone(*s)});
}

void NodeAgent::Impl::wrapper_packet(RankId rank, const ControlConnection* from,
                                     schema::Reader& reader, ControlMessage& m) {
    RankSlot* s = find(rank);
    if (s == nullptr || s->wrapper.get() != from) return;
    std::string answer;
    const auto message = reader.read(m.text, answer);
    if (!answer.empty()) s->wrapper->send_text(std::move(answer));
    if (message) wrapper_message(*s, *message, m.fds);
}

void NodeAgent::Impl::wrapper_message(RankSlot& s, const schema::Received& m,
                                      std::vector<Fd>& fds) {
    switch (m.type<FromWrapper>()) {
        case FromWrapper::hello:
            return take_spare(s, m.as<WrapperHello>().init, fds);
        case FromWrapper::held:
            take_spare(s, m.as<Held>().init.value_or(0), fds);
            return answer(s, m);
        case FromWrapper::stdin_closed:
            return stdin_closed(s);
        case FromWrapper::stdin_taken:
            s.input_bytes = m.as<StdinTaken>().bytes;
            if (settings_.recovers) report(InputTaken{s.rank, s.input_bytes});
            return;
        case FromWrapper::output:
            return adapter_.output_given(s.rank, m.as<OutputGiven>());
        case FromWrapper::exit:
            return wrapper_exit_said(s, m.as<Exit>());
        default:
            return answer(s, m);
    }
}

// What a wrapper says of the operation its rank is in.
void NodeAgent::Impl::answer(RankSlot& s, const schema::Received& m) {
    const bool late = m.seq() != s.seq;
    if (!late && s.snap.restart) return restart_answer(s, m);
    if (!late && s.snap.participates) return snapshot_answer(s, m);
    if (late || s.transfer == Transfer::none)
        return log::debug("late {} of the wrapper of rank {}", m.name(), s.rank);
    if (is_target(s.transfer)) return target_answer(s, m);
    source_answer(s, m);
}

void NodeAgent::Impl::rank_packet(RankId rank, const ControlConnection* from,
                                  schema::Reader& reader, ControlMessage& m) {
    RankSlot* s = find(rank);
    if (s == nullptr || s->agent.get() != from) return;
    std::string answer;
    const auto message = reader.read(m.text, answer);
    if (!answer.empty()) s->agent->send_text(std::move(answer));
    if (message) rank_message(*s, *message);
}

void NodeAgent::Impl::rank_message(RankSlot& s, const schema::Received& m) {
    switch (m.type<kernet::FromRank>()) {
        case kernet::FromRank::hello:
            return log::warning("rank {} says hello twice", s.rank);
        case kernet::FromRank::gated:
            if (m.seq() == s.seq) on_gated(s, m.as<kernet::GateAnswer>());
            return;
        case kernet::FromRank::ungated:
            if (m.seq() == s.seq) on_ungated(s);
            return;
        case kernet::FromRank::attached:
            return on_attached(s, m.as<kernet::RankAttached>());
        case kernet::FromRank::bye:
            s.finalizing = true;
            return;
        case kernet::FromRank::locate:
            return locate(s, m.as<kernet::Locate>().peer);
        case kernet::FromRank::secret:
            return tell_secret(*s.agent, m.as<kernet::AskSecret>());
    }
}

NodeAgent::NodeAgent(NodeRuntime& adapter, NodeSettings settings)
    : impl_(std::make_shared<Impl>(adapter, std::move(settings))) {}
NodeAgent::~NodeAgent() {
    impl_->stop();
}
Status NodeAgent::start() {
    return impl_->start();
}
Status NodeAgent::listen_now() {
    return impl_->listen_now();
}
void NodeAgent::stop() {
    impl_->stop();
}

}  // namespace ghost::plugin
