#include "pmix-plugin/coordinator/coordinator.hpp"

#include <map>
#include <optional>
#include <unistd.h>

#include "base/log.hpp"
#include "pmix-plugin/coordinator/clients.hpp"
#include "pmix-plugin/coordinator/liveness.hpp"
#include "pmix-plugin/coordinator/mover.hpp"
#include "pmix-plugin/directory.hpp"
#include "pmix-plugin/message.hpp"

namespace ghost::plugin {
namespace {

constexpr int64_t gather_us = 1000;  // locations that come together go out together
constexpr size_t batch_bytes = 64 * 1024;

}  // namespace

// Shared with the adapter's handlers by weak pointer: those cannot be taken back.
class Coordinator::Impl : public std::enable_shared_from_this<Coordinator::Impl> {
  public:
    Impl(RuntimeAdapter& adapter, CoordinatorSettings settings)
        : adapter_(adapter),
          settings_(std::move(settings)),
          liveness_(
              adapter_, settings_, [this](NodeId node) { return mover_.hosts(node); },
              [this](NodeId node) { mover_.node_lost(node); }),
          mover_({adapter_, settings_, liveness_, directory_,
                  [this](const Json& location) { publish(location); }}),
          clients_(adapter_, mover_, [this] { return ps(); }) {}

    Status start();
    void stop();

  private:
    void message(NodeId from, const Json& m);
    bool node_lost(NodeId node);
    void publish(const Json& location);
    void send_locations();
    Json ps() const;

    RuntimeAdapter& adapter_;
    CoordinatorSettings settings_;
    Directory directory_;
    Liveness liveness_;
    Mover mover_;
    Clients clients_;
    std::map<RankId, Json> changed_;  // to be sent to every node
    uint64_t version_ = 0;            // of the directory: broadcasts so far
    std::optional<TimerId> gather_;
    bool running_ = false;
};

Status Coordinator::Impl::start() {
    if (running_) return {};
    running_ = true;
    std::weak_ptr<Impl> weak = weak_from_this();
    adapter_.on_message([weak](NodeId from, const Json& m) {
        if (auto self = weak.lock(); self && self->running_) self->message(from, m);
    });
    adapter_.on_node_lost([weak](NodeId node) {
        auto self = weak.lock();
        return self && self->running_ && self->node_lost(node);
    });
    liveness_.start();
    std::string path = settings_.socket;
    if (path.empty()) path = adapter_.session_dir() + "/ghost.sock";
    return clients_.listen(path);
}

void Coordinator::Impl::stop() {
    if (!running_) return;
    running_ = false;
    mover_.stop();
    clients_.stop();
    liveness_.stop();
    if (gather_) adapter_.cancel(*gather_);
    gather_.reset();
}

void Coordinator::Impl::message(NodeId from, const Json& m) {
    std::string type = text(m, "t");
    if (type == "pong") return liveness_.pong(from, m);
    if (type == "located") {
        liveness_.launched();
        if (const Json* location = field(m, "location")) publish(*location);
        return;
    }
    for (const char* known : {"ready", "connected", "gated", "busy", "exported", "held", "failed",
                              "progress", "switched", "done", "aborted"}) {
        if (type == known) return mover_.message(from, m);
    }
}

bool Coordinator::Impl::node_lost(NodeId node) {
    if (liveness_.is_given_up(node)) return true;
    bool tolerable = adapter_.job_running() && !mover_.hosts(node);
    if (tolerable) liveness_.give_up(node, false);
    mover_.node_lost(node);
    return tolerable;
}

void Coordinator::Impl::publish(const Json& location) {
    if (!directory_.take(location)) return;
    changed_[static_cast<RankId>(number(location, "rank"))] = location;
    if (gather_) return;
    gather_ = adapter_.after(gather_us, [this] {
        gather_.reset();
        send_locations();
    });
}

void Coordinator::Impl::send_locations() {
    Json entries = Json::array();
    size_t bytes = 0;
    auto send = [&] {
        if (entries.empty()) return;
        adapter_.broadcast(
            {{"t", "location"}, {"version", ++version_}, {"entries", std::move(entries)}});
        entries = Json::array();
        bytes = 0;
    };
    for (auto& [rank, location] : changed_) {
        bytes += location.dump(-1, ' ', false, Json::error_handler_t::replace).size();
        entries.push_back(std::move(location));
        if (bytes > batch_bytes) send();
    }
    changed_.clear();
    send();
}

Json Coordinator::Impl::ps() const {
    Json nodes = Json::array(), ranks = Json::array();
    std::map<NodeId, int> used;
    for (const RankInfo& info : adapter_.ranks()) {
        const Json* location = directory_.find(info.rank);
        used[info.node] += info.running;
        ranks.push_back({{"rank", info.rank},
                         {"node", liveness_.name_of(info.node)},
                         {"running", info.running},
                         {"epoch", location != nullptr ? number(*location, "epoch") : 0},
                         {"movable", info.running && location != nullptr}});
    }
    for (const NodeInfo& info : adapter_.nodes()) {
        nodes.push_back({{"id", info.id},
                         {"name", info.name},
                         {"alive", liveness_.alive(info.id)},
                         {"slots", adapter_.slots(info.id)},
                         {"used", used[info.id]}});
    }
    Json out = {
        {"job", adapter_.job_name()},   {"pid", ::getpid()}, {"running", adapter_.job_running()},
        {"epoch", mover_.epoch()},      {"nodes", nodes},    {"ranks", ranks},
        {"waiting", clients_.waiting()}};
    if (const Move* move = mover_.current()) {
        out["move"] = {{"rank", move->rank},
                       {"from", move->from_name},
                       {"to", move->to_name},
                       {"phase", name(move->state)},
                       {"bytes", move->bytes}};
    }
    return out;
}

Coordinator::Coordinator(RuntimeAdapter& adapter, CoordinatorSettings settings)
    : impl_(std::make_shared<Impl>(adapter, std::move(settings))) {}
Coordinator::~Coordinator() {
    impl_->stop();
}
Status Coordinator::start() {
    return impl_->start();
}
void Coordinator::stop() {
    impl_->stop();
}

}  // namespace ghost::plugin
