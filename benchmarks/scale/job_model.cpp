// SPDX-License-Identifier: BSD-3-Clause
#include "benchmarks/scale/job_model.hpp"

#include <algorithm>
#include <chrono>
#include <deque>
#include <filesystem>
#include <fmt/format.h>
#include <optional>

#include "pmix-plugin/snapshots/folder.hpp"

namespace ghost::plugin::scale {
namespace {

class Model;

// What a simulated daemon does not need of the runtime.
class Daemon : public CoordinatorRuntime, public LocalRanks {
  public:
    Daemon(Model& model, NodeId id, uint32_t ranks)
        : m_(model), id_(id), ranks_(ranks), participant_(*this, *this, *this) {}

    SnapshotParticipant& participant() { return participant_; }

    NodeId self() const override { return id_; }
    std::string job_name() const override { return "1"; }
    bool job_running() const override { return true; }
    std::vector<NodeInfo> nodes() const override;
    std::vector<RankInfo> ranks() const override;
    std::optional<NodeId> find_node(const std::string&) const override { return {}; }
    int slots(NodeId) const override { return 0; }
    std::string session_dir() const override;
    std::string secret() const override { return std::string(64, '0'); }
    std::string life() const override { return "11fe"; }
    std::string rank_socket() const override { return {}; }
    std::optional<std::string> parameter(const std::string& name) const override;
    JobDescription describe_job() const override;
    void send(NodeId to, const std::string& packet) override;
    void broadcast(const std::string& packet) override;
    void on_message(DaemonInbox::Handler handler) override;
    TimerId after(int64_t us, std::function<void()> action) override;
    void cancel(TimerId timer) override;
    WatchId watch(int, std::function<void()>) override { return 0; }
    void unwatch(WatchId) override {}
    bool hold_fences() override { return true; }
    void release_fences() override {}
    void settle_fences(int) override {}
    void on_node_lost(std::function<bool(NodeId)> handler) override;
    void give_up_node(NodeId) override {}
    void dismiss_node(NodeId, std::function<void()>) override {}
    void abort_job(int, const std::string&) override {}
    void on_job_control(std::function<void(JobControl)> handler) override;

    void begin_step(ParticipantStep, const schema::Received*) override {}
    LocalAnswer look(ParticipantStep step) override;
    void step_answered(ParticipantStep) override {}
    void progress(uint64_t&, uint64_t&) const override {}

  private:
    friend class Model;
    Model& m_;
    NodeId id_;
    uint32_t ranks_;
    SnapshotParticipant participant_;
};

// Messages take one round each; when none is on its way the clock goes on to the next timer.
class Model {
  public:
    Model(uint64_t ranks, uint32_t per_node);
    ~Model();
    Report save();
    Report lose_a_node();  // after that

  private:
    friend class Daemon;
    struct Message {
        NodeId from;
        NodeId to;
        std::shared_ptr<const schema::Received> body;
    };
    struct Counts {
        uint64_t received = 0, sent = 0;
    };

    NodeId last() const { return static_cast<NodeId>(daemons_.size() - 1); }
    void sum_up();
    void place(const std::vector<RankPlace>& places);
    bool round();
    void deliver(const Message& message);
    void count(NodeId from, NodeId to, const schema::Received& m);
    StepCost& cost(const std::string& step);
    NodeId node_of(uint64_t rank) const {
        const auto moved = moved_.find(rank);
        return moved != moved_.end() ? moved->second : static_cast<NodeId>(rank / per_node_);
    }

    uint64_t ranks_;
    uint32_t per_node_;
    std::string folder_;
    int64_t now_ = 0;
    int rounds_ = 0;
    int order_round_ = 0;  // when the last order went out
    TimerId last_timer_ = 0;
    std::map<std::pair<int64_t, TimerId>, std::function<void()>> timers_;
    std::map<TimerId, int64_t> timer_time_;
    std::vector<Message> next_;
    std::deque<Daemon> daemons_;
    std::map<uint64_t, NodeId> moved_;  // ranks
    std::optional<NodeId> lost_;
    std::function<bool(NodeId)> node_lost_;
    DaemonInbox::Handler coordinator_handler_;
    schema::Reader reader_{between_daemons, "the model"};
    std::function<void(RuntimeAdapter::JobControl)> job_control_;
    std::map<std::string, std::map<NodeId, Counts>> counts_;
    Report report_;
    std::unique_ptr<Coordinator> coordinator_;
};

// --- Daemon ---

std::vector<NodeInfo> Daemon::nodes() const {
    std::vector<NodeInfo> out;
    out.reserve(m_.daemons_.size());
    for (const Daemon& d : m_.daemons_)
        out.push_back({d.id_, fmt::format("n{}", d.id_), d.id_ != m_.lost_});
    return out;
}

std::vector<RankInfo> Daemon::ranks() const {
    std::vector<RankInfo> out;
    out.reserve(m_.ranks_);
    for (uint64_t r = 0; r < m_.ranks_; ++r) {
        out.push_back({static_cast<RankId>(r), m_.node_of(r), 0, RankLife::running});
    }
    return out;
}

std::string Daemon::session_dir() const {
    return m_.folder_;
}

std::optional<std::string> Daemon::parameter(const std::string& name) const {
    if (name == "ghost_checkpoint_dir") return m_.folder_ + "/snapshots";
    if (name == "ghost_recover") return "all";
    return std::nullopt;
}

JobDescription Daemon::describe_job() const {
    JobDescription out;
    out.runtime = {"model", "1", "1"};
    out.apps = {{{"./app"}, static_cast<uint32_t>(m_.ranks_), "/"}};
    return out;
}

void Daemon::send(NodeId to, const std::string& packet) {
    std::string answer;
    auto body = m_.reader_.read(packet, answer);
    if (!body) return;
    m_.count(id_, to, *body);
    m_.next_.push_back({id_, to, std::make_shared<const schema::Received>(std::move(*body))});
}

void Daemon::broadcast(const std::string& packet) {
    std::string answer;
    auto read = m_.reader_.read(packet, answer);
    if (!read) return;
    const auto body = std::make_shared<const schema::Received>(std::move(*read));
    for (const Daemon& d : m_.daemons_)
        if (d.id_ != m_.lost_) m_.next_.push_back({id_, d.id_, body});
    ++m_.report_.orders;
    m_.order_round_ = m_.rounds_;
    if (body->is<RecoverStart>()) m_.place(body->as<RecoverStart>().places);
}

void Daemon::on_message(DaemonInbox::Handler handler) {
    m_.coordinator_handler_ = std::move(handler);
}

void Daemon::on_job_control(std::function<void(JobControl)> handler) {
    m_.job_control_ = std::move(handler);
}

void Daemon::on_node_lost(std::function<bool(NodeId)> handler) {
    m_.node_lost_ = std::move(handler);
}

TimerId Daemon::after(int64_t us, std::function<void()> action) {
    TimerId id = ++m_.last_timer_;
    m_.timers_[{m_.now_ + us, id}] = std::move(action);
    m_.timer_time_[id] = m_.now_ + us;
    return id;
}

void Daemon::cancel(TimerId timer) {
    auto it = m_.timer_time_.find(timer);
    if (it == m_.timer_time_.end()) return;
    m_.timers_.erase({it->second, timer});
    m_.timer_time_.erase(it);
}

LocalAnswer Daemon::look(ParticipantStep step) {
    LocalAnswer local;
    local.complete = true;
    local.answer.ranks = ranks_;
    if (step != ParticipantStep::written) return local;
    for (uint32_t i = 0; i < ranks_; ++i) {
        const uint64_t rank = uint64_t{id_} * m_.per_node_ + i;
        local.answer.bytes += 1000;
        Written& row = local.answer.written.emplace_back();
        row.rank = static_cast<uint32_t>(rank);
        row.node = fmt::format("n{}", id_);
        row.file = fmt::format("rank-{}.ghost", rank);
        row.digest = fmt::format("{:032x}", rank);
        row.bytes = row.page_bytes = 1000;
        row.memory = 2000;
        row.stdin_bytes = 0;
    }
    return local;
}

// --- Model ---

Model::Model(uint64_t ranks, uint32_t per_node) : ranks_(ranks), per_node_(per_node) {
    std::string pattern = (std::filesystem::temp_directory_path() / "ghost-scale-XXXXXX").string();
    folder_ = ::mkdtemp(pattern.data()) != nullptr ? pattern : "/nonexistent";
    const auto nodes = static_cast<NodeId>((ranks + per_node - 1) / per_node);
    for (NodeId id = 0; id < nodes; ++id) {
        const uint64_t first = uint64_t{id} * per_node;
        const auto here = static_cast<uint32_t>(std::min<uint64_t>(per_node, ranks - first));
        daemons_.emplace_back(*this, id, here);
    }
    report_.ranks = ranks;
    report_.nodes = nodes;
    report_.most_local = local_messages * std::min<uint64_t>(per_node, ranks);
    CoordinatorSettings settings;
    settings.threads = false;
    settings.now = [this] { return now_; };
    settings.ping_us = int64_t{1} << 50;  // liveness is another subject
    settings.say = [this](const std::string& line) { report_.error = line; };
    coordinator_ = std::make_unique<Coordinator>(daemons_[0], settings);
    if (auto s = coordinator_->start(); !s.ok()) report_.error = s.error().message();
}

Model::~Model() {
    coordinator_->stop();
    std::error_code ignored;
    std::filesystem::remove_all(folder_, ignored);
}

StepCost& Model::cost(const std::string& step) {
    for (StepCost& c : report_.steps) {
        if (c.step == step) return c;
    }
    report_.steps.push_back({});
    report_.steps.back().step = step;
    return report_.steps.back();
}

void Model::count(NodeId from, NodeId to, const schema::Received& m) {
    if (!m.is<StepUp>()) return;
    const std::string step = name(m.as<StepUp>().step);
    auto& nodes = counts_[step];
    ++nodes[from].sent;
    if (from != to) {
        ++nodes[to].received;
        ++cost(step).all;
        return;
    }
    // Without the order itself and the root's word to its own mpirun.
    cost(step).depth = rounds_ - order_round_ - 1;
    ++report_.to_coordinator;
}

void Model::place(const std::vector<RankPlace>& places) {
    for (const RankPlace& one : places) {
        if (node_of(one.rank) == one.node) continue;
        moved_[one.rank] = one.node;
        ++daemons_[one.node].ranks_;
    }
}

void Model::deliver(const Message& message) {
    if (message.to == 0 && coordinator_handler_) coordinator_handler_(message.from, *message.body);
    daemons_[message.to].participant().message(message.from, *message.body);
}

bool Model::round() {
    if (!next_.empty()) {
        std::vector<Message> now;
        now.swap(next_);
        ++rounds_;
        for (const Message& message : now) deliver(message);
        return true;
    }
    if (timers_.empty() || timers_.begin()->first.first > int64_t{1} << 40) return false;
    auto timer = timers_.extract(timers_.begin());
    now_ = std::max(now_, timer.key().first);
    timer_time_.erase(timer.key().second);
    timer.mapped()();
    return true;
}

Report Model::save() {
    const auto begin = std::chrono::steady_clock::now();
    // The first rank has attached.
    daemons_[last()].tell(0, Located{});
    while (round()) continue;
    report_.orders = 0;
    // A request as PMIx tools make it.
    bool answered = false;
    job_control_({{.then = "continue"}, [&](const std::string& why) {
                      answered = true;
                      report_.error = why;
                  }});
    while (!answered && round()) continue;
    while (round()) continue;
    report_.complete = answered && report_.error.empty();
    sum_up();
    report_.seconds =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    return report_;
}

void Model::sum_up() {
    for (auto& [step, nodes] : counts_) {
        StepCost& c = cost(step);
        for (const auto& [node, counts] : nodes) {
            c.most_received = std::max(c.most_received, counts.received);
            c.most_sent = std::max(c.most_sent, counts.sent);
        }
    }
}

Report Model::lose_a_node() {
    const auto begin = std::chrono::steady_clock::now();
    report_.steps.clear();
    counts_.clear();
    report_.orders = 0;
    report_.to_coordinator = 0;
    lost_ = last();
    --report_.nodes;
    (void)node_lost_(*lost_);
    while (round()) continue;
    report_.complete = report_.error.find("the job goes on from snapshot") != std::string::npos;
    sum_up();
    report_.seconds =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    return report_;
}

}  // namespace

Reports measure(uint64_t ranks, uint32_t per_node) {
    Model model(ranks, per_node);
    Reports out{model.save(), {}};
    if (out.snapshot.complete) out.recovery = model.lose_a_node();
    return out;
}

int tree_depth(uint32_t nodes) {
    int depth = 0;
    for (uint64_t below = 0, level = 1; below + level < nodes; ++depth) {
        below += level;
        level *= DaemonTree::width;
    }
    return depth;
}

}  // namespace ghost::plugin::scale
