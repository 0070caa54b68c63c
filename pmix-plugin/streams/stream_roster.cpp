// SPDX-License-Identifier: BSD-3-Clause
#include "pmix-plugin/streams/stream_roster.hpp"

#include <algorithm>
#include <fmt/format.h>

#include "base/state_machine.hpp"
#include "kernet-btl/streams/manager.hpp"

namespace ghost::plugin {

namespace {

using S = StreamRosterState;
constexpr size_t most_nodes = (size_t{1} << (32 - kernet::process_bits)) - 1;

struct Row {
    S state;
    const char* name;
    uint32_t next;
};
constexpr StateTable states(std::to_array<Row>({
    {S::idle, "idle", to({S::calling, S::stopped})},
    {S::calling, "calling", to({S::called, S::stopped})},
    {S::called, "called", to({S::stopped})},
    {S::stopped, "stopped", 0},
}));

}  // namespace

// Shared with the adapter's handlers by weak pointer: those cannot be taken back.
class StreamRoster::Impl : public std::enable_shared_from_this<StreamRoster::Impl> {
  public:
    Impl(StreamsRuntime& adapter, StreamRosterSettings settings)
        : adapter_(adapter), settings_(settings) {}

    void start();
    void stop();
    S state() const { return state_; }

  private:
    [[nodiscard]] bool change(S next);
    void message(NodeId from, const schema::Received& m);
    void wanted(NodeId from);
    void here(NodeId from, const StreamsHere& m);
    void lost(NodeId node);
    void tell_if_whole();
    void tell();
    void stop_timer();

    StreamsRuntime& adapter_;
    StreamRosterSettings settings_;
    S state_ = S::idle;
    std::map<NodeId, std::string> missing_;  // with their names
    std::map<NodeId, StreamsNode> nodes_;
    StreamsNodes list_;  // what all were told
    std::optional<TimerId> limit_;
};

bool StreamRoster::Impl::change(S next) {
    return states.change(state_, next, log::Level::debug, [] { return "roster of streams"; });
}

void StreamRoster::Impl::start() {
    std::weak_ptr<Impl> weak = weak_from_this();
    adapter_.on_message([weak](NodeId from, const schema::Received& m) {
        if (auto self = weak.lock(); self && self->state_ != S::stopped) self->message(from, m);
    });
}

void StreamRoster::Impl::stop() {
    if (state_ == S::stopped) return;
    stop_timer();
    (void)change(S::stopped);
}

void StreamRoster::Impl::stop_timer() {
    if (limit_) adapter_.cancel(*limit_);
    limit_.reset();
}

void StreamRoster::Impl::message(NodeId from, const schema::Received& m) {
    if (m.is<StreamsWanted>()) return wanted(from);
    if (m.is<StreamsHere>()) return here(from, m.as<StreamsHere>());
    if (m.is<NodeLost>()) return lost(m.as<NodeLost>().node);
}

void StreamRoster::Impl::wanted(NodeId from) {
    if (state_ == S::called) return adapter_.tell(from, list_);  // too late for that node
    if (state_ != S::idle || !change(S::calling)) return;
    for (const NodeInfo& node : adapter_.nodes())
        if (node.alive) missing_[node.id] = node.name;
    limit_ = adapter_.after(settings_.answer_us, [this] {
        limit_.reset();
        tell();
    });
    adapter_.tell_all(StreamsOpen{});
}

void StreamRoster::Impl::here(NodeId from, const StreamsHere& m) {
    const auto asked = missing_.find(from);
    if (state_ != S::calling || asked == missing_.end()) return;
    if (!m.why.empty()) {
        log::warning("streams go on without node {}: {}", asked->second, m.why);
    } else {
        nodes_[from] = {from, asked->second, m.tcp};
    }
    missing_.erase(asked);
    tell_if_whole();
}

void StreamRoster::Impl::lost(NodeId node) {
    if (state_ != S::calling) return;
    missing_.erase(node);
    nodes_.erase(node);
    tell_if_whole();
}

void StreamRoster::Impl::tell_if_whole() {
    if (missing_.empty()) tell();
}

// In the order of the daemons' numbers: of a job torn into two halves, mpirun's goes on.
void StreamRoster::Impl::tell() {
    stop_timer();
    for (const auto& [id, node] : missing_)
        log::warning("streams go on without node {}: it did not answer", node);
    list_ = {};
    for (auto& [id, node] : nodes_) list_.nodes.push_back(std::move(node));
    if (nodes_.size() > most_nodes)
        list_ = {{}, fmt::format("streams reach {} nodes at most", most_nodes)};
    missing_.clear();
    nodes_.clear();
    if (change(S::called)) adapter_.tell_all(list_);
}

StreamRoster::StreamRoster(StreamsRuntime& adapter, StreamRosterSettings settings)
    : impl_(std::make_shared<Impl>(adapter, settings)) {}
StreamRoster::~StreamRoster() {
    impl_->stop();
}
void StreamRoster::start() {
    impl_->start();
}
void StreamRoster::stop() {
    impl_->stop();
}
StreamRosterState StreamRoster::state() const {
    return impl_->state();
}

}  // namespace ghost::plugin
