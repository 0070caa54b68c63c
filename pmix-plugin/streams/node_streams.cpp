// SPDX-License-Identifier: BSD-3-Clause
#include "pmix-plugin/streams/node_streams.hpp"

#include <fmt/format.h>
#include <utility>

#include "base/proc.hpp"
#include "base/state_machine.hpp"
#include "pmix-plugin/settings/job_settings.hpp"

namespace ghost::plugin {

namespace {

using S = StreamsState;
constexpr NodeId coordinator = 0;

struct Row {
    S state;
    const char* name;
    uint32_t next;
};
constexpr StateTable states(std::to_array<Row>({
    {S::closed, "closed", to({S::waiting, S::failed, S::stopped})},
    {S::waiting, "waiting", to({S::asking, S::told, S::failed, S::stopped})},
    {S::asking, "asking", to({S::told, S::failed, S::stopped})},
    {S::told, "told", to({S::managing, S::failed, S::stopped})},
    {S::managing, "managing", to({S::stopped})},
    {S::failed, "failed", to({S::stopped})},
    {S::stopped, "stopped", 0},
}));

// The PID name space of a process; "" if it is no more.
std::string pid_space(pid_t pid) {
    return link_of(fmt::format("/proc/{}/ns/pid", pid));
}

}  // namespace

// Shared with the adapter's handlers by weak pointer: those cannot be taken back.
class NodeStreams::Impl : public std::enable_shared_from_this<NodeStreams::Impl> {
  public:
    Impl(StreamsRuntime& adapter, NodeStreamsSettings settings)
        : adapter_(adapter), settings_(settings) {}

    void start();
    void listen_now();
    void stop();
    S state() const { return state_; }
    std::string why_tied(pid_t init) const;

  private:
    [[nodiscard]] bool change(S next);
    void fail(const std::string& why);
    void try_listen();
    void somebody_comes();
    void stop_watching();
    void message(NodeId from, const schema::Received& m);
    void open();
    void manage(const StreamsNodes& m);
    Status begin(const std::vector<StreamsNode>& nodes);
    std::string interfaces() const;
    void lost(NodeId node);

    StreamsRuntime& adapter_;
    NodeStreamsSettings settings_;
    S state_ = S::closed;
    ControlListener processes_;
    kernet::ChannelListening nodes_;
    std::vector<NodeId> ids_;  // of the managers, by their numbers
    std::optional<TimerId> retry_;
    std::optional<WatchId> watch_;
    ManagerThread manager_;
};

bool NodeStreams::Impl::change(S next) {
    return states.change(state_, next, log::Level::debug, [] { return "streams"; });
}

// Whoever waits in kernet_open() finds its connection closed.
void NodeStreams::Impl::fail(const std::string& why) {
    log::warning("this node has no stream manager: {}", why);
    stop_watching();
    processes_.close();
    nodes_ = {};
    (void)change(S::failed);
}

void NodeStreams::Impl::start() {
    std::weak_ptr<Impl> weak = weak_from_this();
    adapter_.on_message([weak](NodeId from, const schema::Received& m) {
        if (auto self = weak.lock(); self && self->state_ != S::stopped) self->message(from, m);
    });
    try_listen();
}

void NodeStreams::Impl::try_listen() {
    retry_.reset();
    listen_now();
    if (state_ != S::closed) return;
    retry_ = adapter_.after(settings_.listen_retry_us, [this] { try_listen(); });
}

void NodeStreams::Impl::listen_now() {
    if (state_ != S::closed || adapter_.rank_socket().empty()) return;
    auto listening = ControlListener::listen(stream_manager_address(adapter_.rank_socket()));
    // The daemon of the job's life before is still ending.
    if (!listening && listening.error().code == Code::busy) return;
    if (!listening) return fail(listening.error().message());
    processes_ = std::move(*listening);
    if (!change(S::waiting)) return;
    watch_ = adapter_.watch(processes_.fd(), [this] { somebody_comes(); });
}

void NodeStreams::Impl::stop_watching() {
    if (watch_) adapter_.unwatch(*watch_);
    watch_.reset();
}

// It waits in the listener's queue until there is a manager.
void NodeStreams::Impl::somebody_comes() {
    stop_watching();
    if (state_ == S::waiting && change(S::asking)) adapter_.tell(coordinator, StreamsWanted{});
}

void NodeStreams::Impl::stop() {
    if (state_ == S::stopped) return;
    if (retry_) adapter_.cancel(*retry_);
    stop_watching();
    manager_.stop();
    processes_.close();
    nodes_ = {};
    (void)change(S::stopped);
}

// --- the coordinator's words ---

void NodeStreams::Impl::message(NodeId from, const schema::Received& m) {
    if (from != coordinator) return;
    if (m.is<StreamsOpen>()) return open();
    if (m.is<StreamsNodes>()) return manage(m.as<StreamsNodes>());
    if (m.is<NodeLost>()) return lost(m.as<NodeLost>().node);
}

std::string NodeStreams::Impl::interfaces() const {
    return adapter_.parameter("btl_kernet_if_include").value_or("");
}

void NodeStreams::Impl::open() {
    listen_now();
    if (state_ == S::waiting || state_ == S::asking) {
        stop_watching();
        auto listening = kernet::listen_for_channel(interfaces());
        if (listening) {
            nodes_ = std::move(*listening);
            (void)change(S::told);
        } else {
            fail(listening.error().message());
        }
    }
    StreamsHere answer{nodes_.at, {}};
    if (state_ != S::told) answer.why = fmt::format("its streams are {}", states.name(state_));
    adapter_.tell(coordinator, answer);
}

void NodeStreams::Impl::manage(const StreamsNodes& m) {
    if (state_ != S::told && state_ != S::asking) return;
    if (!m.why.empty()) return fail(m.why);
    if (state_ == S::asking) return fail("the job's managers began without this node");
    if (const Status begun = begin(m.nodes); !begun) return fail(begun.error().message());
    (void)change(S::managing);
}

Status NodeStreams::Impl::begin(const std::vector<StreamsNode>& nodes) {
    kernet::ManagerConfig config;
    kernet::TcpChannelConfig net;
    config.self = -1;
    for (const StreamsNode& entry : nodes) {
        kernet::NodeAddress node{entry.name, {}, {}};
        if (entry.id == adapter_.self()) {
            config.self = static_cast<int>(ids_.size());
        } else {
            auto best = kernet::best_address(entry.name, entry.tcp, interfaces());
            if (!best) return best.error();
            node = std::move(*best);
        }
        ids_.push_back(entry.id);
        config.node_names.push_back(entry.name);
        net.nodes.push_back(std::move(node));
    }
    if (config.self < 0)
        return make_error(Code::not_found, "find this node among the job's managers");
    config.cluster = net.cluster = "job" + adapter_.job_name() + "/" + adapter_.life();
    config.secret_hex = net.secret_hex = adapter_.secret();
    config.if_include = interfaces();
    const std::string filters = adapter_.parameter("ghost_filters").value_or("none");
    if (filters != "none") config.filters = filters;
    net.self = config.self;
    return manager_.start(config, net, std::move(processes_), std::move(nodes_.fds));
}

void NodeStreams::Impl::lost(NodeId node) {
    for (size_t i = 0; i < ids_.size(); ++i)
        if (ids_[i] == node) manager_.expel(static_cast<int>(i));
}

// --- who has streams ---

std::string NodeStreams::Impl::why_tied(pid_t init) const {
    if (state_ != S::managing) return {};
    const std::string space = pid_space(init);
    for (pid_t process : manager_.processes()) {
        if (space.empty() || pid_space(process) != space) continue;
        return fmt::format(
            "process {} has a connection to the stream manager of its node (kernet_open), which "
            "cannot be carried along; it can move after kernet_close",
            process);
    }
    return {};
}

NodeStreams::NodeStreams(StreamsRuntime& adapter, NodeStreamsSettings settings)
    : impl_(std::make_shared<Impl>(adapter, settings)) {}
NodeStreams::~NodeStreams() {
    impl_->stop();
}
void NodeStreams::start() {
    impl_->start();
}
void NodeStreams::listen_now() {
    impl_->listen_now();
}
void NodeStreams::stop() {
    impl_->stop();
}
StreamsState NodeStreams::state() const {
    return impl_->state();
}
std::string NodeStreams::why_tied(pid_t init) const {
    return impl_->why_tied(init);
}

}  // namespace ghost::plugin
