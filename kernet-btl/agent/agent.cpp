// SPDX-License-Identifier: BSD-3-Clause
#include "kernet-btl/agent/agent.hpp"

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <charconv>
#include <csignal>
#include <cstdlib>
#include <ctime>
#include <map>
#include <mutex>
#include <poll.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <system_error>
#include <thread>
#include <sys/resource.h>
#include <unistd.h>
#include <utility>

#include "base/clock.hpp"
#include "base/control_socket.hpp"
#include "base/exit_status.hpp"
#include "base/fault.hpp"
#include "base/fd.hpp"
#include "base/log.hpp"
#include "kernet-btl/agent/agent_ports.hpp"
#include "kernet-btl/agent/agent_state.hpp"
#include "kernet-btl/agent/messages.hpp"

namespace kernet {

using ghost::Code;
using ghost::ControlSocket;
using ghost::Fd;
using ghost::make_error;
using ghost::monotonic_us;
using ghost::Result;
using ghost::Status;
using ghost::fault::Point;
namespace log = ghost::log;
namespace schema = ghost::schema;

namespace {

constexpr int64_t ms = 1000;
// Long enough for every link to be up again.
constexpr int64_t recommit_delay_us = 20 * ms;
// A peer is asked for at most this often; the endpoint's own back-off is shorter.
constexpr int64_t locate_pause_us = 200 * ms;

int wake_signal() {
    return SIGRTMAX - 2;
}

sigset_t every_signal() {
    sigset_t set;
    sigfillset(&set);
    return set;
}

}  // namespace

// Everything but stop() and the members it names is touched by the agent's thread only.
class RankAgent::Impl {
  public:
    Impl(AgentPorts ports, AgentConfig config)
        : ports_(std::move(ports)),
          config_(std::move(config)),
          reader_(to_rank, fmt::format("rank {}: node agent", config_.rank)) {}

    Status launch();
    void stop();
    bool attached() const { return attached_; }

  private:
    static void forked();
    void run();
    [[nodiscard]] bool change(AgentState next);
    bool control_open() const { return control_.valid(); }

    void wait_and_serve();
    void recommit_if_due(bool now);
    int poll_timeout_ms() const;
    void try_connect();
    Status say_hello();
    RankHello hello() const;
    void read_control();
    void dispatch(const schema::Received& m);
    template <typename Message>
    void tell(const Message& message) {
        send(schema::encode(message));
    }
    void send(const std::string& text);
    void lose_control(const std::string& why);

    void on_welcome(const RankWelcome& welcome);
    void on_gate(uint64_t seq);
    void on_ungate(uint64_t seq);
    void on_close(uint64_t seq);
    void stop_is_off();
    void open_both_gates();
    void open_forgotten_gates();
    void ask_location(uint32_t peer);
    void ask_pending_locations();

    Result<std::optional<RankWelcome>> wait_to_be_woken();
    Result<RankWelcome> greet(int timeout_ms);
    void suspend_and_wake();
    Result<RankWelcome> reach_node_agent(int64_t deadline);
    void insist(const RankAttached& message, int64_t deadline);
    Result<RankWelcome> receive_welcome(int timeout_ms);
    Status wake_up(const RankWelcome& welcome, int64_t deadline);
    void give_up(const std::string& why);

    bool make_nudge();
    void drop_nudge();

    AgentPorts ports_;
    const AgentConfig config_;
    std::string life_ = config_.life;  // of the job, as the node agent has said last
    AgentState state_ = AgentState::starting;
    ControlSocket control_;
    schema::Reader reader_;
    uint64_t seq_ = 0;         // of the gate that is closed
    int64_t gated_until_ = 0;  // without a further order
    int64_t next_connect_us_ = 0;
    int64_t recommit_at_ = 0;            // 0: nothing to publish again
    bool complained_ = false;            // about the node agent; again only after it was there
    std::map<uint32_t, int64_t> asked_;  // peer -> when `locate` went out; 0: still to be sent

    static inline std::atomic<Impl*> of_this_process_{nullptr};
    std::thread thread_;
    std::atomic<bool> attached_{false};
    std::atomic<bool> stop_{false};  // set by stop()
    std::mutex nudge_mutex_;         // guards nudge_
    Fd nudge_;                       // wakes the thread's poll; absent while suspended
};

// --- thread ---------------------------------------------------------------------------------

// In a child of the rank, which is a process of its tree and has none of the threads that serve it.
// Async-signal-safe.
void RankAgent::Impl::forked() {
    Impl* agent = of_this_process_.exchange(nullptr);
    if (agent == nullptr) return;
    agent->ports_.pmix->forked();
    ghost::OwnedFds::close_all();
    new (&agent->thread_) std::thread;  // nobody is to wait for one that is not there
}

Status RankAgent::Impl::launch() {
    GHOST_TRY(ports_.pmix->supported());
    static const int registered = pthread_atfork(nullptr, nullptr, forked);
    if (registered != 0) return ghost::sys_error_of(registered, "look after children of the rank");
    if (!make_nudge()) return ghost::sys_error("create eventfd");
    ports_.data->on_unknown_location([this](uint32_t peer) { ask_location(peer); });
    // The thread inherits the mask: no signal of the application is ever delivered to it.
    sigset_t all = every_signal();
    sigset_t before;
    pthread_sigmask(SIG_SETMASK, &all, &before);
    Status started;
    try {
        thread_ = std::thread([this] { run(); });
        of_this_process_ = this;
    } catch (const std::system_error& e) {
        started = ghost::sys_error_of(e.code().value(), "start the rank agent's thread");
    }
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
    return started;
}

void RankAgent::Impl::stop() {
    if (!thread_.joinable()) return;
    of_this_process_ = nullptr;
    stop_ = true;
    {
        std::lock_guard lock(nudge_mutex_);
        if (nudge_.valid()) eventfd_write(nudge_.get(), 1);
    }
    thread_.join();
    ports_.data->on_unknown_location(nullptr);
}

bool RankAgent::Impl::make_nudge() {
    std::lock_guard lock(nudge_mutex_);
    nudge_.reset(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    return nudge_.valid();
}

void RankAgent::Impl::drop_nudge() {
    std::lock_guard lock(nudge_mutex_);
    nudge_.reset();
}

bool RankAgent::Impl::change(AgentState next) {
    return agent_states.change(state_, next, log::Level::debug,
                               [this] { return fmt::format("rank {}", config_.rank); });
}

// Ranks that spin on every core must not keep the agent waiting: while it works, a peer of theirs
// waits. It sleeps otherwise. Without the privilege it goes on as it is.
static void raise_priority() {
    constexpr int nice_of_the_agent = -10;
    (void)setpriority(PRIO_PROCESS, static_cast<id_t>(gettid()), nice_of_the_agent);
}

void RankAgent::Impl::run() {
    raise_priority();
    while (state_ != AgentState::finalizing) {
        if (state_ == AgentState::suspended) {
            suspend_and_wake();
            continue;
        }
        // A move that has begun is carried through first: half of it could not be left behind.
        bool idle = state_ == AgentState::starting || state_ == AgentState::attached;
        if (stop_ && idle) {
            recommit_if_due(true);
            if (control_open()) tell(RankBye{});
            control_.close();
            (void)change(AgentState::finalizing);
            continue;
        }
        if (!control_open() && monotonic_us() >= next_connect_us_) try_connect();
        wait_and_serve();
    }
}

int RankAgent::Impl::poll_timeout_ms() const {
    const auto until = [](int64_t when, int most) {
        return static_cast<int>(std::clamp<int64_t>((when - monotonic_us()) / ms + 1, 0, most));
    };
    if (state_ == AgentState::gated) return until(gated_until_, config_.gate_limit_ms);
    if (recommit_at_ != 0) return 1;
    if (control_open()) return -1;
    return until(next_connect_us_, config_.reconnect_pause_ms);
}

void RankAgent::Impl::wait_and_serve() {
    pollfd p[3] = {{control_.fd(), POLLIN, 0},
                   {ports_.data->service_fd(), POLLIN, 0},
                   {nudge_.get(), POLLIN, 0}};
    if (::poll(p, 3, poll_timeout_ms()) < 0) return;  // EINTR, by a tracer
    if (p[1].revents != 0) ports_.data->service();
    if (p[2].revents != 0) {
        eventfd_t count = 0;
        eventfd_read(nudge_.get(), &count);
    }
    if (p[0].revents != 0) read_control();
    open_forgotten_gates();
    ask_pending_locations();
    recommit_if_due(false);
}

// --- control connection ---------------------------------------------------------------------

RankHello RankAgent::Impl::hello() const {
    RankHello out;
    out.job = config_.job;
    out.rank = config_.rank;
    out.secret = config_.secret;
    out.life = life_;
    out.pid = getpid();
    out.tid = gettid();
    out.location = ports_.data->location();
    out.epoch = out.location.epoch;
    return out;
}

Status RankAgent::Impl::say_hello() {
    auto socket = ControlSocket::connect(config_.node_socket);
    GHOST_TRY(socket);
    GHOST_TRY(socket->send_text(schema::encode(hello())));
    control_ = std::move(*socket);
    return {};
}

void RankAgent::Impl::try_connect() {
    next_connect_us_ = monotonic_us() + config_.reconnect_pause_ms * ms;
    const Status sent = say_hello();
    if (sent) return;
    if (!complained_) {
        log::warning("rank {}: no node agent, cannot be moved: {}", config_.rank,
                     sent.error().message());
    }
    complained_ = true;
}

void RankAgent::Impl::send(const std::string& text) {
    if (!control_open()) return;
    if (Status sent = control_.send_text(text); !sent) {
        // The end of file is read next and handled there.
        log::info("rank {}: {}", config_.rank, sent.error().message());
    }
}

// The daemon died or ends. The data path needs none of it, so the rank goes on, as long as PMIx's
// own connection to the same daemon lets it.
void RankAgent::Impl::lose_control(const std::string& why) {
    control_.close();
    next_connect_us_ = monotonic_us() + config_.reconnect_pause_ms * ms;
    for (auto& [peer, when] : asked_) when = 0;
    log::info("rank {}: node agent lost: {}", config_.rank, why);
    if (state_ == AgentState::gated) open_both_gates();
    attached_ = false;
    (void)change(AgentState::starting);
}

void RankAgent::Impl::read_control() {
    while (control_open()) {
        auto message = control_.receive(0);
        if (message) {
            std::string answer;
            const auto read = reader_.read(message->text, answer);
            if (!answer.empty()) send(answer);
            if (read) dispatch(*read);
            continue;
        }
        if (message.error().code == Code::timeout) return;
        if (message.error().code == Code::corrupt) {
            log::warning("rank {}: {}", config_.rank, message.error().message());
            continue;
        }
        lose_control(message.error().message());
    }
}

void RankAgent::Impl::dispatch(const schema::Received& m) {
    switch (m.type<ToRank>()) {
        case ToRank::welcome:
            return on_welcome(m.as<RankWelcome>());
        case ToRank::gate:
            return on_gate(m.seq());
        case ToRank::ungate:
            return on_ungate(m.seq());
        case ToRank::close:
            return on_close(m.seq());
        case ToRank::location:
            asked_.erase(m.as<Location>().rank);
            return ports_.data->set_location(m.as<Location>());
        case ToRank::error:
            return log::warning("rank {}: node agent: {}", config_.rank,
                                m.as<schema::Complaint>().why);
        case ToRank::secret:
            return;  // nobody asks on this connection
    }
}

void RankAgent::Impl::on_welcome(const RankWelcome& welcome) {
    const bool expected = state_ == AgentState::starting || state_ == AgentState::attached;
    if (!expected || !change(AgentState::attached))
        return log::error("rank {}: a welcome while {}", config_.rank, agent_states.name(state_));
    attached_ = true;
    complained_ = false;
    for (const Location& peer : welcome.peers) ports_.data->set_location(peer);
    ask_pending_locations();
}

// --- gate, ungate ---------------------------------------------------------------------------

void RankAgent::Impl::stop_is_off() {
    ports_.data->open_gate();
    ports_.program->end_stop();
}

void RankAgent::Impl::open_both_gates() {
    if (Status done = ports_.pmix->ungate(); !done) {
        log::error("rank {}: {}", config_.rank, done.error().message());
    }
    stop_is_off();
    (void)change(AgentState::attached);
}

void RankAgent::Impl::open_forgotten_gates() {
    if (state_ != AgentState::gated || monotonic_us() < gated_until_) return;
    log::warning("rank {}: request {} has come to nothing, the rank goes on", config_.rank, seq_);
    open_both_gates();
}

void RankAgent::Impl::on_gate(uint64_t seq) {
    if (state_ == AgentState::gated) open_both_gates();  // the coordinator began anew
    if (state_ != AgentState::attached) {
        tell(GateAnswer{seq, -1, 0, true, std::nullopt});
        return;
    }
    if (Status fine = ghost::fault::pass(Point::agent_gates, [this] { control_.hang_up(); }); !fine)
        return tell(GateAnswer{seq, -1, 0, false, fine.error().message()});
    if (!ports_.program->begin_stop())
        return tell(GateAnswer{seq, 1, 0, true, "the program has asked not to be stopped now"});
    // Others may wait in PMIx for what this rank has to publish here, and could not be gated.
    recommit_if_due(true);
    ports_.data->close_gate();
    if (ports_.data->stays()) {
        stop_is_off();
        tell(GateAnswer{seq, 1, 0, true, "it is making memory that it shares with other ranks"});
        return;
    }
    auto tag = ports_.pmix->gate();
    if (!tag) {
        stop_is_off();
        bool busy = tag.error().code == Code::busy;
        tell(GateAnswer{seq, busy ? 1 : -1, 0, busy, tag.error().message()});
        return;
    }
    seq_ = seq;
    gated_until_ = monotonic_us() + config_.gate_limit_ms * ms;
    if (!change(AgentState::gated)) return open_both_gates();
    tell(GateAnswer{seq, 0, *tag, false, std::nullopt});
}

void RankAgent::Impl::on_ungate(uint64_t seq) {
    if (state_ == AgentState::gated) open_both_gates();
    tell(UngateAnswer{seq});
}

// --- locations ------------------------------------------------------------------------------

void RankAgent::Impl::ask_location(uint32_t peer) {
    int64_t now = monotonic_us();
    auto [entry, fresh] = asked_.try_emplace(peer, 0);
    if (!fresh && now - entry->second < locate_pause_us) return;
    entry->second = 0;
}

void RankAgent::Impl::ask_pending_locations() {
    if (state_ != AgentState::attached) return;
    for (auto& [peer, when] : asked_) {
        if (when != 0) continue;
        when = monotonic_us();
        tell(Locate{peer});
    }
}

// --- close, sleep, wake ---------------------------------------------------------------------

void RankAgent::Impl::on_close(uint64_t seq) {
    if (state_ != AgentState::gated || seq != seq_) {
        log::warning("rank {}: late close {} dropped", config_.rank, seq);
        return;
    }
    if (!change(AgentState::suspended)) return;
    (void)ghost::fault::pass(Point::agent_closes);
    ports_.program->before_stop();
    ports_.data->suspend_all();
    if (Status closed = ports_.pmix->close(); !closed) {
        // Both gates still hold; the node agent's limit ends this attempt.
        log::error("rank {}: {}", config_.rank, closed.error().message());
    }
    // A wake-up left over from an earlier attempt would wake us too soon: drop it while the node
    // agent still waits for us.
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, wake_signal());
    timespec none{};
    while (sigtimedwait(&set, nullptr, &none) > 0) continue;
    log::debug("rank {}: closing control socket, seq {}", config_.rank, seq);
    drop_nudge();
    control_.hang_up();  // last: this end of file means "ready"
}

// Counted in slices of running time, not by the clock: the process may have been frozen for long.
// Woken by the signal (no value), or by a node agent that does not know why this rank sleeps: the
// request that wanted it so is over. An error: nobody is left who could.
Result<std::optional<RankWelcome>> RankAgent::Impl::wait_to_be_woken() {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, wake_signal());
    timespec slice{config_.wait_slice_ms / 1000, (config_.wait_slice_ms % 1000) * 1000000L};
    int silent = 0;
    int gone = 0;
    for (;;) {
        if (sigtimedwait(&set, nullptr, &slice) == wake_signal())
            return std::optional<RankWelcome>();
        if (errno != EAGAIN) continue;  // EINTR: frozen and released
        if (++silent < config_.silent_slices) continue;
        silent = 0;
        // Only now, when no freeze is to be expected: asking costs a descriptor for a moment.
        auto welcome = greet(config_.wait_slice_ms);
        if (welcome) return std::optional(std::move(*welcome));
        control_.close();
        if (welcome.error().code == Code::refused || welcome.error().code == Code::timeout) {
            gone = 0;
        } else if (++gone >= config_.gone_looks) {
            return make_error(Code::peer_lost, "wait for the node agent: nobody woke this rank");
        }
    }
}

void RankAgent::Impl::suspend_and_wake() {
    auto woken = wait_to_be_woken();
    if (!woken) return give_up(woken.error().message());
    int64_t deadline = monotonic_us() + config_.connect_limit_ms * ms;
    if (!change(AgentState::waking)) return;
    if (Status fine = ghost::fault::pass(Point::agent_wakes); !fine)
        return give_up(fine.error().message());
    if (!make_nudge()) return give_up("no descriptor left");
    auto welcome = *woken ? Result<RankWelcome>(std::move(**woken)) : reach_node_agent(deadline);
    if (!welcome) return give_up(welcome.error().message());
    Status awake = wake_up(*welcome, deadline);
    insist(RankAttached{welcome->seq, awake ? 0 : -1, awake ? "" : awake.error().message(),
                        ports_.data->location()},
           deadline);
    if (!awake) return give_up(awake.error().message());
    ports_.program->after_stop(welcome->state == Arrival::restored);
    ports_.program->end_stop();
    if (!change(AgentState::attached)) return;
    recommit_at_ = monotonic_us() + recommit_delay_us;
}

// The connection may have broken meanwhile, and the node agent waits for this.
void RankAgent::Impl::insist(const RankAttached& message, int64_t deadline) {
    const std::string text = schema::encode(message);
    while (!control_open() || !control_.send_text(text))
        if (!reach_node_agent(deadline)) return;
}

// What the rank has published must be told to its new server. It waits for an answer, for 40 ms now
// and then, and nothing of that may keep the peers waiting: links come first.
void RankAgent::Impl::recommit_if_due(bool now) {
    if (recommit_at_ == 0 || (!now && monotonic_us() < recommit_at_)) return;
    if (state_ != AgentState::attached) return;
    recommit_at_ = 0;
    if (config_.moved) config_.moved(ports_.data->location());
    if (Status done = ports_.pmix->recommit(); !done) {
        log::error("rank {}: {}", config_.rank, done.error().message());
    }
}

Result<RankWelcome> RankAgent::Impl::reach_node_agent(int64_t deadline) {
    for (;;) {
        const int left = static_cast<int>((deadline - monotonic_us()) / ms);
        auto welcome = greet(std::max(left, 1));
        // Whoever says something else may think better of it; what cannot be read stays so.
        if (welcome || welcome.error().code == Code::corrupt) return welcome;
        control_.close();
        ::poll(nullptr, 0, config_.connect_pause_ms);
        if (monotonic_us() >= deadline) return welcome;
    }
}

Result<RankWelcome> RankAgent::Impl::greet(int timeout_ms) {
    GHOST_TRY(say_hello());
    return receive_welcome(timeout_ms);
}

Result<RankWelcome> RankAgent::Impl::receive_welcome(int timeout_ms) {
    auto packet = control_.receive(timeout_ms);
    GHOST_TRY(packet);
    std::string answer;
    const auto message = reader_.read(packet->text, answer);
    if (!message) return make_error(Code::corrupt, "read welcome", {}, answer);
    if (message->is<RankWelcome>()) return message->as<RankWelcome>();
    return make_error(Code::refused, "be welcomed by the node agent", {}, packet->text);
}

// The links first: they need no PMIx, and the peers have been waiting.
Status RankAgent::Impl::wake_up(const RankWelcome& welcome, int64_t deadline) {
    log::info("rank {}: {} on {} with epoch {}", config_.rank,
              arrival_names[static_cast<size_t>(welcome.state)], welcome.node_name, welcome.epoch);
    DataPort& data = *ports_.data;
    if (welcome.life != life_) GHOST_TRY(data.begin_life(welcome.life));
    life_ = welcome.life;
    for (;;) {
        Status up = data.wakeup_all(welcome.node, welcome.node_name, welcome.epoch, welcome.peers);
        if (up) break;
        if (monotonic_us() >= deadline) return up;
        ::poll(nullptr, 0, config_.connect_pause_ms);
    }
    data.open_gate();
    data.service();
    asked_.clear();
    GHOST_TRY(ghost::fault::pass(Point::agent_attaches, [this] { control_.hang_up(); }));
    for (bool first = true;; first = false) {
        Status attached =
            ports_.pmix->attach(welcome.uri, welcome.resend, [&data] { data.service(); });
        if (attached || monotonic_us() >= deadline) return attached;
        if (first) log::warning("rank {}: {}", config_.rank, attached.error().message());
        ::poll(nullptr, 0, config_.connect_pause_ms);
        data.service();
    }
}

void RankAgent::Impl::give_up(const std::string& why) {
    log::error("rank {}: {}; ending with status {}", config_.rank, why, ghost::lost_server_status);
    ports_.give_up(ghost::lost_server_status);
    (void)change(AgentState::finalizing);  // only a test's give_up comes back
}

// --- public ---------------------------------------------------------------------------------

RankAgent::RankAgent(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
RankAgent::~RankAgent() {
    stop();
}

bool RankAgent::attached() const {
    return impl_->attached();
}

void RankAgent::stop() {
    impl_->stop();
}

Result<std::unique_ptr<RankAgent>> RankAgent::start(AgentPorts ports, const AgentConfig& config) {
    auto impl = std::make_unique<Impl>(std::move(ports), config);
    GHOST_TRY(impl->launch());
    return std::unique_ptr<RankAgent>(new RankAgent(std::move(impl)));
}

namespace {

std::string variable(const char* name) {
    const char* value = std::getenv(name);
    return value != nullptr ? value : "";
}

template <typename Number>
bool read_number(const std::string& text, Number* out) {
    auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), *out);
    return error == std::errc() && end == text.data() + text.size();
}

// What ranks and guests have in common.
Status read_place(AgentConfig& config) {
    config.life = variable("GHOST_LIFE");
    config.node_name = variable("GHOST_NODE_NAME");
    config.filters = variable("GHOST_FILTERS");
    std::string node = variable("GHOST_NODE_ID");
    if (!node.empty() && !read_number(node, &config.node)) {
        return make_error(Code::invalid, "read GHOST_NODE_ID", node);
    }
    return {};
}

}  // namespace

Result<AgentConfig> AgentConfig::from_environment() {
    AgentConfig config;
    config.job = variable("GHOST_JOB");
    config.node_socket = variable("GHOST_NODE_SOCKET");
    if (config.job.empty() && config.node_socket.empty()) {
        return make_error(Code::not_found, "find the ghost job of this process");
    }
    GHOST_TRY(read_place(config));
    if (config.job.empty() || config.node_socket.empty()) {
        return make_error(Code::invalid, "read GHOST_JOB and GHOST_NODE_SOCKET");
    }
    if (!read_number(variable("GHOST_RANK"), &config.rank)) {
        return make_error(Code::invalid, "read GHOST_RANK", variable("GHOST_RANK"));
    }
    return config;
}

Result<AgentConfig> AgentConfig::of_guest(uint32_t rank) {
    AgentConfig config;
    config.job = variable("GHOST_GUEST_OF");
    config.rank = rank;
    if (config.job.empty()) {
        return make_error(Code::not_found, "find the ghost job that spawned this process");
    }
    config.host_socket = variable("GHOST_HOST_SOCKET");
    GHOST_TRY(read_place(config));
    if (config.host_socket.empty()) {
        return make_error(Code::invalid, "read GHOST_GUEST_OF and GHOST_HOST_SOCKET");
    }
    return config;
}

namespace {

// One question; timeout and peer_lost may become an answer later.
Result<std::string> ask_secret(const std::string& address, const std::string& job, int limit_ms) {
    auto socket = ControlSocket::connect(address);
    GHOST_TRY(socket);
    GHOST_TRY(socket->send_text(schema::encode(AskSecret{job})));
    auto answer = socket->receive(limit_ms);
    GHOST_TRY(answer);
    if (auto told = schema::decode<TellSecret>(answer->text); told && told->secret.size() == 64)
        return told->secret;
    const auto complaint = schema::decode<schema::Complaint>(answer->text);
    return make_error(Code::invalid, "ask for the job's secret at", address,
                      complaint ? complaint->why : "the answer cannot be understood");
}

}  // namespace

Status AgentConfig::fetch_secret(int limit_ms) {
    const std::string& address = node_socket.empty() ? host_socket : node_socket;
    const int64_t deadline = monotonic_us() + limit_ms * ms;
    for (;;) {
        const int left = static_cast<int>(std::max<int64_t>((deadline - monotonic_us()) / ms, 1));
        auto told = ask_secret(address, job, left);
        if (told) {
            secret = std::move(*told);
            return {};
        }
        if (told.error().code == Code::invalid || monotonic_us() >= deadline) return told.error();
        std::this_thread::sleep_for(std::chrono::milliseconds(connect_pause_ms));
    }
}

}  // namespace kernet
