// SPDX-License-Identifier: BSD-3-Clause
#include "base/schema_json.hpp"
#include "pmix-plugin/runtime/sim/cluster.hpp"

#include <algorithm>
#include <atomic>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <fcntl.h>
#include <filesystem>
#include <fmt/format.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.hpp"
#include "pmix-plugin/protocol/node_wrapper.hpp"

namespace ghost::plugin::sim {
namespace {

// Six descriptors as a wrapper's hello carries them.
std::vector<Fd> six_fds() {
    std::vector<Fd> out;
    for (int i = 0; i < 6; ++i) out.emplace_back(::open("/dev/null", O_RDWR | O_CLOEXEC));
    return out;
}

}  // namespace

// --- Daemon: the adapter ---

bool Daemon::job_running() const {
    return std::ranges::any_of(c_.ended, [](const auto& e) { return !e.second; });
}

std::vector<NodeInfo> Daemon::nodes() const {
    std::vector<NodeInfo> out;
    for (size_t i = 0; i < c_.daemons_.size(); ++i) {
        auto id = static_cast<NodeId>(i);
        if (!c_.outside.contains(id)) out.push_back({id, c_.names_[i], !c_.given_up.contains(id)});
    }
    return out;
}

std::vector<RankInfo> Daemon::ranks() const {
    std::vector<RankInfo> out;
    for (auto [rank, node] : where_) {
        const RankLife life = c_.starting.contains(rank) ? RankLife::starting : RankLife::running;
        out.push_back({rank, node, 0, c_.ended[rank] ? RankLife::ended : life});
    }
    return out;
}

std::optional<NodeId> Daemon::find_node(const std::string& name) const {
    std::optional<NodeId> found;
    for (const NodeInfo& n : nodes())
        if (n.name == name && (n.alive || !found)) found = n.id;
    return found;
}

int Daemon::slots(NodeId node) const {
    return c_.daemon_slots_[node];
}
std::string Daemon::session_dir() const {
    return c_.dir_;
}
std::string Daemon::secret() const {
    return c_.without_secret.contains(id_) ? std::string() : job_secret;
}
std::string Daemon::rank_socket() const {
    return fmt::format("@ghost-test/{}/{}", c_.name_, id_);
}

void Daemon::send(NodeId to, const std::string& packet) {
    if (c_.dead.contains(id_)) return;
    const Json message = Json::parse(packet);
    c_.sent.push_back(message);
    if (c_.lose && c_.lose(id_, to, message)) return;
    c_.inject(id_, to, message);
}

void Daemon::broadcast(const std::string& packet) {
    for (const NodeInfo& n : nodes()) {
        if (n.alive) send(n.id, packet);
    }
}

TimerId Daemon::after(int64_t us, std::function<void()> action) {
    const int64_t late = us >= c_.chance.late_from_us ? c_.chance.late_us : 0;
    return c_.at(c_.now + std::max<int64_t>(0, us - c_.early()) + late, id_, std::move(action));
}

void Daemon::cancel(TimerId timer) {
    auto it = c_.timer_time_.find(timer);
    if (it == c_.timer_time_.end()) return;
    c_.events_.erase({it->second, timer});
    c_.timer_time_.erase(it);
}

WatchId Daemon::watch(int fd, std::function<void()> readable) {
    WatchId id = ++c_.last_timer_;
    watches_[id] = {fd, std::move(readable)};
    return id;
}

bool Daemon::hold_fences() {
    if (c_.percent(c_.chance.fence_percent)) return false;
    ++c_.holds;
    if (++c_.held != 1) c_.violate("fences held twice");
    return true;
}

void Daemon::release_fences() {
    ++c_.releases;
    if (--c_.held != 0) c_.violate("fences released without being held");
}

void Daemon::raise_priority(bool on) {
    raised_ += on ? 1 : -1;
    if (raised_ < 0) c_.violate("a daemon whose priority was not raised is told to lower it");
}

void Daemon::settle_fences(int votes) {
    ++c_.settles;
    c_.votes = votes;
    for (const auto& other : c_.daemons_) {
        const bool counts = !c_.dead.contains(other->id_) && !c_.given_up.contains(other->id_) &&
                            !c_.cut_.contains(other->id_) && !c_.outside.contains(other->id_);
        if (counts && other->where_ != where_)
            c_.unsettled_ =
                fmt::format("fences are settled before daemon {} has switched", other->id_);
    }
    if (--c_.held != 0) c_.violate("fences settled without being held");
}

PreMark Daemon::detach_from_server(RankId rank, uint32_t) {
    const bool allowed = allowed_.erase(rank) > 0;
    if (!allowed && c_.percent(c_.chance.busy_percent)) return PreMark::busy;
    premarked_.insert(rank);
    return PreMark::ok;
}

void Daemon::reattach(RankId rank) {
    if (premarked_.erase(rank) == 0) c_.violate("reattach of a rank that was not premarked");
    c_.repeered.push_back(rank);
}

Result<RuntimeAdapter::Spawned> Daemon::spawn_restore(RankId rank,
                                                      const std::vector<std::string>& argv,
                                                      std::function<void(int)> ended) {
    if (std::ranges::find(argv, "--restore") == argv.end()) c_.violate("argv without --restore");
    auto pair = control_pair();
    GHOST_TRY(pair);
    auto w = std::make_shared<Wrapper>();
    w->rank = rank;
    w->node = id_;
    w->pid = ++c_.last_pid_;
    w->restore = true;
    w->control = std::move(pair->second);
    w->ended = std::move(ended);
    c_.wrappers_.push_back(w);
    c_.restores++;
    c_.say(w, WrapperHello{.job = "4711",
                           .rank = rank,
                           .life = life_,
                           .pid = w->pid,
                           .mode = WrapperMode::restore,
                           .why = {}});
    return Spawned{w->pid, std::move(pair->first)};
}

void Daemon::discard_restore(RankId rank) {
    for (auto& w : c_.wrappers_) {
        if (w->node != id_ || w->rank != rank || !w->restore || w->registered) continue;
        w->ended = nullptr;
        if (w->alive) c_.kill_wrapper(id_, rank);
    }
}

Result<int> Daemon::switch_rank(RankId rank, NodeId from, NodeId to) {
    if (where_[rank] != from) c_.violate(fmt::format("daemon {}: switch from elsewhere", id_));
    if (to >= c_.first_ && !learned_.contains(to))
        c_.violate(fmt::format("daemon {} does not know of node {}", id_, c_.names_[to]));
    where_[rank] = to;
    if (id_ == from) {
        premarked_.erase(rank);
        unread_[rank] = 3;
        for (auto& w : c_.wrappers_) {
            if (w->node == id_ && w->rank == rank) w->registered = false;
        }
    }
    if (id_ == to) {
        auto w = c_.wrapper_of(id_, rank);
        if (!w) return make_error(Code::not_found, "join rank");
        w->registered = true;
        w->ended = nullptr;
    }
    return 1;
}

bool Daemon::output_pending(RankId rank) const {
    return unread_[rank] > 0 && unread_[rank]-- > 0;
}
void Daemon::close_output(RankId rank) {
    if (c_.wrapper_of(id_, rank) && c_.wrapper_of(id_, rank)->registered) {
        c_.violate("output of a rank that lives here was closed");
    }
}

Result<RuntimeAdapter::Spawned> Daemon::adopt_wrapper(RankId rank,
                                                      const std::vector<std::string>& argv,
                                                      const std::vector<int>& stdio) {
    if (std::ranges::find(argv, "--adopt") == argv.end()) c_.violate("argv without --adopt");
    if (stdio.size() != 3) c_.violate("adopt without stdio");
    auto init = std::ranges::find(argv, "--init");
    auto pair = control_pair();
    GHOST_TRY(pair);
    auto w = std::make_shared<Wrapper>();
    w->rank = rank;
    w->node = id_;
    w->pid = ++c_.last_pid_;
    w->registered = true;
    w->control = std::move(pair->second);
    for (auto& t : c_.trees_) {
        if (init != argv.end() && std::to_string(t->init) == *(init + 1)) w->tree = t;
    }
    c_.wrappers_.push_back(w);
    c_.adopted.push_back(rank);
    return Spawned{w->pid, std::move(pair->first)};
}

void Daemon::give_up_node(NodeId node) {
    if (!c_.given_up.insert(node).second) c_.violate("given up twice");
}

void Daemon::dismiss_node(NodeId node, std::function<void()> gone) {
    if (!c_.given_up.insert(node).second) c_.violate("a daemon is dismissed that was given up");
    if (c_.dead.contains(node))
        c_.later(0, std::move(gone));
    else
        c_.leaves[node] = std::move(gone);
}

void Daemon::leave_job() {
    constexpr int64_t said_us = 200'000;
    c_.at(c_.now + said_us, Cluster::nobody, [this] {
        for (const auto& [rank, ended] : c_.ended)
            if (!ended && c_.node_of(rank) == id_) c_.violate("a daemon leaves its ranks");
        c_.kill_node(id_);
    });
}

void Daemon::abort_job(int, const std::string& why) {
    if (std::exchange(c_.job_aborted, true)) return;
    c_.abort_why = why;
}

// --- Cluster ---

Cluster::Cluster(uint64_t seed, int nodes, std::vector<NodeId> ranks, int slots,
                 CoordinatorSettings settings, std::map<std::string, std::string> parameters)
    : parameters(std::move(parameters)), random_(seed) {
    static std::atomic<int> count{0};
    name_ = fmt::format("{}.{}", ::getpid(), ++count);
    std::string pattern = "/dev/shm/ghost-sim-XXXXXX";
    dir_ = ::mkdtemp(pattern.data()) != nullptr ? pattern : "/nonexistent";
    settings.now = [this] { return now; };
    settings.threads = this->parameters.contains("sim_threads");
    settings.say = [this](const std::string& line) { said.push_back(line); };
    node_settings_.threads = settings.threads;
    node_settings_.recovers = this->parameters.contains("ghost_recover");
    node_settings_.tree.alive = [this](pid_t init) {
        return std::ranges::any_of(trees_, [&](auto& t) { return t->init == init && t->alive; });
    };
    node_settings_.tree.kill = [this](pid_t init) {
        for (auto& t : trees_) {
            if (t->init == init) drop_tree(*t);
        }
    };
    node_settings_.tree.halt = [this](pid_t init, pid_t) {
        const bool halted =
            std::ranges::any_of(trees_, [&](auto& t) { return t->init == init && t->halted; });
        return halted ? Halt{init, true} : Halt();
    };
    node_settings_.tree.halt_of_parent = [this](pid_t init) {
        for (auto& w : wrappers_)
            if (w->halted && w->tree && w->tree->init == init) return Halt{w->pid, true};
        return Halt();
    };
    for (int i = 0; i < nodes; ++i) add_daemon(fmt::format("gn{}", i), slots);
    first_ = size();
    for (size_t r = 0; r < ranks.size(); ++r) {
        ended[static_cast<RankId>(r)] = false;
        for (auto& d : daemons_) d->where_[static_cast<RankId>(r)] = ranks[r];
    }
    coordinator_ = std::make_unique<Coordinator>(*daemons_[0], settings);
    if (auto s = coordinator_->start(); !s.ok()) violate(s.error().message());
    for (auto& agent : agents_)
        if (auto s = agent->start(); !s.ok()) violate(s.error().message());
    for (size_t r = 0; r < ranks.size(); ++r)
        boot(static_cast<RankId>(r), ranks[r], this->parameters.contains("ghost_restart"));
    if (!this->parameters.contains("sim_early")) run(50'000);
}

Cluster::~Cluster() {
    coordinator_->stop();
    for (auto& a : agents_) a->stop();
    events_.clear();
    std::error_code ignored;
    std::filesystem::remove_all(dir_, ignored);
}

void Cluster::boot(RankId rank, NodeId node, bool from_ghost) {
    auto t = std::make_shared<Tree>();
    t->rank = rank;
    t->node = node;
    t->init = ++last_pid_;
    t->closed = true;
    trees_.push_back(t);
    auto w = std::make_shared<Wrapper>();
    w->rank = rank;
    w->node = node;
    w->pid = ++last_pid_;
    w->tree = t;
    w->registered = true;
    auto socket = ControlSocket::connect(daemons_[node]->rank_socket());
    if (!socket.ok()) return violate(socket.error().message());
    w->control = std::move(*socket);
    wrappers_.push_back(w);
    if (from_ghost) return boot_restart(w);
    say_hello(w, WrapperMode::run);
    wake(t);
}

TimerId Cluster::at(int64_t when, NodeId owner, std::function<void()> action) {
    TimerId id = ++last_timer_;
    events_[{when, id}] = {id, owner, std::move(action)};
    timer_time_[id] = when;
    return id;
}

void Cluster::later(NodeId owner, std::function<void()> action) {
    at(now + latency(), owner, std::move(action));
}

void Cluster::inject(NodeId from, NodeId to, const Json& m, const std::string& life) {
    int64_t& last = last_arrival_[{from, to}];
    last = std::max(last + 1, now + latency());
    // By text, as between machines: types may change on the way (signed to unsigned).
    at(last, nobody, [this, from, to, life, body = m.dump()] {
        if (dead.contains(to) || cut_.contains(to) || cut_.contains(from)) return;
        Json m = Json::parse(body);
        if (bend) bend(to, m);
        const std::string answer = daemons_[to]->inbox_.deliver(from, life, m.dump());
        if (!answer.empty()) daemons_[to]->send(from, answer);
    });
}

bool Cluster::run(int64_t us, const std::function<bool()>& until) {
    const int64_t end = now + us;
    for (;;) {
        while (pump()) check();
        if (until && until()) return true;
        if (events_.empty() || events_.begin()->first.first > end) break;
        auto node = events_.extract(events_.begin());
        now = std::max(now, node.key().first);
        timer_time_.erase(node.mapped().id);
        if (!dead.contains(node.mapped().owner)) node.mapped().action();
        check();
    }
    now = end;
    return !until;
}

bool Cluster::run_real(const std::function<bool()>& until) {
    for (int64_t end = monotonic_us() + 20'000'000; monotonic_us() < end;) {
        if (run(100, until)) return true;
        ::usleep(200);
    }
    return false;
}

bool Cluster::pump_watches() {
    std::vector<pollfd> fds;
    std::vector<std::pair<NodeId, WatchId>> whose;
    for (auto& d : daemons_) {
        if (dead.contains(d->id_)) continue;
        for (auto& [id, w] : d->watches_) {
            fds.push_back({w.first, POLLIN, 0});
            whose.emplace_back(d->id_, id);
        }
    }
    if (::poll(fds.data(), fds.size(), 0) <= 0) return false;
    for (size_t i = 0; i < fds.size(); ++i) {
        if (fds[i].revents == 0) continue;
        auto& watches = daemons_[whose[i].first]->watches_;
        auto it = watches.find(whose[i].second);
        if (it == watches.end() || it->second.first != fds[i].fd) continue;
        auto readable = it->second.second;
        readable();
    }
    return true;
}

std::optional<schema::Received> Cluster::hear(ControlSocket& socket, const schema::Family& family,
                                              std::vector<Fd>* fds) {
    auto packet = socket.receive(0);
    if (!packet.ok() && packet.error().code != Code::timeout) socket.close();
    if (!packet.ok()) return std::nullopt;
    std::string complaint;
    auto message = schema::Reader(family, "a simulated end").read(packet->text, complaint);
    if (!complaint.empty()) violate(complaint);
    if (fds != nullptr) *fds = std::move(packet->fds);
    return message;
}

bool Cluster::pump() {
    bool active = pump_watches();
    for (size_t i = 0; i < wrappers_.size(); ++i) {
        auto w = wrappers_[i];
        if (!w->alive || w->halted || !w->control.valid()) continue;
        std::vector<Fd> fds;
        auto m = hear(w->control, to_wrapper, &fds);
        active = active || m;
        if (m && (!lose_local || !lose_local(m->name()))) wrapper_message(w, *m, fds);
    }
    for (size_t i = 0; i < trees_.size(); ++i) {
        auto t = trees_[i];
        if (!t->runs() || !t->agent.valid()) continue;
        auto m = hear(t->agent, kernet::to_rank);
        active = active || m;
        if (m && (!lose_local || !lose_local(m->name()))) tree_message(t, *m);
    }
    for (Client& client : clients_) {
        if (client.gone()) continue;
        auto m = hear(client.socket_, from_coordinator);
        active = active || m;
        if (m) client_message(client, *m);
    }
    return active;
}

void Cluster::client_message(Client& client, const schema::Received& m) {
    switch (m.type<FromCoordinator>()) {
        case FromCoordinator::result:
            return client.results.push_back(schema::to_json(m.as<RequestResult>()));
        case FromCoordinator::error:
            return client.errors.push_back(m.as<schema::Complaint>().why);
        case FromCoordinator::progress:
            client.phases.push_back(m.as<RequestProgress>().phase);
            if (client.on_phase) client.on_phase(client.phases.back());
    }
}

Client& Cluster::client() {
    auto socket = ControlSocket::connect(dir_ + "/ghost.sock");
    if (!socket.ok()) {
        violate(socket.error().message());
        clients_.emplace_back(ControlSocket());
    } else {
        clients_.emplace_back(std::move(*socket));
    }
    return clients_.back();
}

Json Cluster::ps() {
    Client& c = client();
    (void)c.socket_.send_text(schema::encode(PsRequest{})).ok();
    run(1'000'000, [&] { return !c.results.empty(); });
    Json out = c.results.empty() ? Json::object() : c.results[0]["result"];
    c.vanish();
    return out;
}

// --- wrappers ---

void Cluster::say_text(const std::shared_ptr<Wrapper>& w, const char* type, std::string text,
                       bool with_fds) {
    w->said = std::max(w->said + 1, now + latency());
    act(w, w->said, [this, w, type, text = std::move(text), with_fds] {
        if (!w->alive || !w->control.valid()) return;
        if (lose_local && lose_local(type)) return;
        std::vector<int> raw;
        std::vector<Fd> fds;
        if (with_fds) fds = six_fds();
        for (Fd& fd : fds) raw.push_back(fd.get());
        (void)w->control.send_text(text, raw).ok();
    });
}

void Cluster::say_hello(const std::shared_ptr<Wrapper>& w, WrapperMode mode) {
    const WrapperHello m{.job = "4711",
                         .rank = w->rank,
                         .life = daemons_[w->node]->life_,
                         .pid = w->pid,
                         .init = w->tree->init,
                         .mode = mode,
                         .why = {}};
    std::vector<int> raw;
    auto fds = six_fds();
    for (Fd& fd : fds) raw.push_back(fd.get());
    if (!w->control.send_text(schema::encode(m), raw).ok()) return;
}

namespace {

ino_t inode_of(const Fd& file) {
    struct stat info {};
    return ::fstat(file.get(), &info) == 0 ? info.st_ino : 0;
}

}  // namespace

void Cluster::expect_thread(const std::optional<AgentThread>& agent) {
    if (!agent || agent->tid != 3) violate("the agent's thread is unknown");
}

void Cluster::wrapper_message(const std::shared_ptr<Wrapper>& w, const schema::Received& m,
                              const std::vector<Fd>& fds) {
    const uint64_t seq = m.seq();
    if (w->restore || m.is<Connect>()) expect_secret(m);
    switch (m.type<ToWrapper>()) {
        case ToWrapper::prepare:
            if (!w->restore) return restart_check(w);
            return say(w, Ready{.seq = seq, .host = {}, .port = 1, .token = "x"});
        case ToWrapper::import:
            for (const Fd& file : fds) shared_files.insert(inode_of(file));
            w->told += fds.size();
            if (m.as<Import>().shared.size() != fds.size()) violate("not a file for each memory");
            return w->restore || m.as<Import>().more ? void() : restart_import(w);
        case ToWrapper::connect:
            return connect(w, m.as<Connect>());
        case ToWrapper::export_tree:
            return export_tree(w, m.as<Export>());
        case ToWrapper::wake:
            return copy_on(w, m.as<Wake>());
        case ToWrapper::resume:
            expect_thread(m.as<Resume>().agent);
            w->exports = 0;
            // What it has found before is said before.
            return act(w, std::max(now, w->said), [this, w] { let_run(w); });
        case ToWrapper::go:
            expect_thread(m.as<Go>().agent);
            return go(w, seq);
        case ToWrapper::die:
            if (w->tree) drop_tree(*w->tree);
            expect_sharers_held(w->rank);
            if (w->torn) violate(fmt::format("rank {} wrote while it was saved", *w->torn));
            return say(w, Gone{seq});
        case ToWrapper::bye:
            w->alive = false;
            return w->control.close();
        case ToWrapper::adopt:
            if (fds.size() != 3) violate("adopt without the inner ends");
            if (!w->tree) return violate("adopt of an unknown tree");
            return say_hello(w, WrapperMode::adopt);
        case ToWrapper::snap_prepare:
            return snap_prepare(w, m.as<SnapPrepareRank>());
        case ToWrapper::snap_freeze:
            return snap_freeze(w, m.as<SnapFreeze>());
        case ToWrapper::share:
            return w->exports == seq ? exported(w, seq) : share(w);
        case ToWrapper::snap_write:
            return snap_write(w, seq);
        case ToWrapper::snap_cancel:
            return snap_cancel(w, seq);
        case ToWrapper::snap_end:
            return snap_end(w, seq);
        case ToWrapper::cancel:
            w->exports = 0;
            return;
        case ToWrapper::abort:
        case ToWrapper::child_status:
            return;
    }
}

void Cluster::go(const std::shared_ptr<Wrapper>& w, uint64_t seq) {
    if (!w->tree) return violate("go without a ghost");
    w->tree->stopped = w->held = false;
    if (seq != 0) say_hello(w, WrapperMode::restore);
    if (chance.ends_at_once) return end_rank(w->rank);
    wake(w->tree);
}

void Cluster::kill_wrapper(NodeId node, RankId rank) {
    auto w = wrapper_of(node, rank);
    if (!w) return;
    // A copy that is only held ends with its wrapper (PR_SET_PDEATHSIG).
    if (w->restore && w->tree && w->held) drop_tree(*w->tree);
    wrapper_gone(w, 9);
}

void Cluster::wrapper_gone(const std::shared_ptr<Wrapper>& w, int status) {
    w->alive = false;
    w->control.close();
    later(w->node, [this, w, status] {
        if (w->ended) return w->ended(status);
        if (!w->registered) return;
        w->registered = false;
        Daemon& d = *daemons_[w->node];
        if (d.exit_ && d.exit_(w->rank, status)) return;
        if (d.died_ && d.died_(w->rank, status == SIGKILL ? 128 + SIGKILL : 0)) return;
        ended[w->rank] = true;
        if (w->tree && w->tree->alive) violate("a rank was reported ended while its tree lives");
    });
}

void Cluster::stop_rank(RankId rank, bool with_wrapper) {
    for (auto& t : trees_) t->halted = t->halted || (t->rank == rank && t->runs());
    for (auto& w : wrappers_) w->halted = w->halted || (with_wrapper && w->rank == rank);
}

void Cluster::continue_rank(RankId rank) {
    const auto go_on = [&](auto& who) {
        if (who->rank != rank) return;
        who->halted = false;
        for (auto& action : std::exchange(who->put_off, {})) action();
    };
    std::ranges::for_each(trees_, go_on);
    std::ranges::for_each(wrappers_, go_on);
}

void Cluster::say_bye(RankId rank) {
    for (auto& t : trees_) {
        if (t->rank != rank || !t->runs()) continue;
        (void)t->agent.send_text(schema::encode(kernet::RankBye{})).ok();
        t->agent.close();
        t->attached = false;
    }
}

void Cluster::kill_tree(NodeId node, RankId rank) {
    auto w = wrapper_of(node, rank);
    if (!w || !w->tree) return;
    drop_tree(*w->tree);
    (void)w->control.send_text(schema::encode(Exit{9})).ok();
    wrapper_gone(w, 9);
}

void Cluster::drop_tree(Tree& t) {
    t.alive = false;
    t.attached = false;
    t.agent.close();
}

std::shared_ptr<Wrapper> Cluster::wrapper_of(NodeId node, RankId rank) const {
    for (auto& w : wrappers_) {
        if (w->alive && w->node == node && w->rank == rank) return w;
    }
    return nullptr;
}

// --- ranks ---

void Cluster::say_text(const std::shared_ptr<Tree>& t, const char* type, std::string text, bool) {
    act(t, now + latency(), [this, t, type, text = std::move(text)] {
        if (!t->runs() || !t->agent.valid()) return;
        if (lose_local && lose_local(type)) return;
        (void)t->agent.send_text(text).ok();
    });
}

void Cluster::wake(const std::shared_ptr<Tree>& t) {
    act(t, now + latency(), [this, t] { attach(t, 0); });
}

void Cluster::attach(const std::shared_ptr<Tree>& t, int tries) {
    if (!t->runs() || !t->closed || t->agent.valid() || tries > 100) return;
    auto socket = ControlSocket::connect(daemons_[t->node]->rank_socket());
    if (!socket.ok()) {
        at(now + 20'000, nobody, [this, t, tries] { attach(t, tries + 1); });
        return;
    }
    t->agent = std::move(*socket);
    kernet::RankHello m;
    m.job = "4711";
    m.rank = t->rank;
    m.secret = job_secret;
    m.life = t->life;
    m.epoch = t->epoch;
    m.pid = 2;
    m.tid = 3;
    (void)t->agent.send_text(schema::encode(m)).ok();
}

void Cluster::tree_message(const std::shared_ptr<Tree>& t, const schema::Received& m) {
    switch (m.type<kernet::ToRank>()) {
        case kernet::ToRank::welcome:
            return welcome(t, m.as<kernet::RankWelcome>());
        case kernet::ToRank::gate: {
            const bool behind = chance.waits_behind_fences && releases == 0;
            const bool busy = behind || percent(chance.busy_percent);
            t->gated = !busy;
            return say(t, kernet::GateAnswer{.seq = m.seq(), .busy = busy, .why = {}});
        }
        case kernet::ToRank::ungate:
            t->gated = false;
            return say(t, kernet::UngateAnswer{m.seq()});
        case kernet::ToRank::close:
            return act(t, now + latency(), [t] {
                if (!t->runs()) return;
                t->closed = true;
                t->attached = false;
                t->agent.close();
            });
        case kernet::ToRank::location:
            if (m.as<kernet::Location>().ended) t->gone.insert(m.as<kernet::Location>().rank);
            return;
        case kernet::ToRank::secret:
        case kernet::ToRank::error:
            return;
    }
}

void Cluster::welcome(const std::shared_ptr<Tree>& t, const kernet::RankWelcome& m) {
    if (in_init.contains(t->rank)) return act(t, now + 100'000, [this, t, m] { welcome(t, m); });
    t->closed = t->gated = false;
    t->attached = true;
    t->epoch = static_cast<uint32_t>(m.epoch);
    t->life = m.life;
    for (const kernet::Location& peer : m.peers)
        if (peer.ended) t->gone.insert(peer.rank);
    kernet::RankAttached attached{.seq = m.seq, .error = {}, .location = {}};
    attached.location.unix_name = fmt::format("r{}.{}", t->rank, t->epoch);
    say(t, attached);
}

// --- truth ---

int Cluster::running_copies(RankId rank) const {
    return static_cast<int>(
        std::ranges::count_if(trees_, [&](auto& t) { return t->rank == rank && t->runs(); }));
}

NodeId Cluster::node_of(RankId rank) const {
    for (auto& t : trees_) {
        if (t->rank == rank && t->runs()) return t->node;
    }
    return nobody;
}

bool Cluster::rank_attached(RankId rank) const {
    return std::ranges::any_of(
        trees_, [&](auto& t) { return t->rank == rank && t->runs() && t->attached; });
}

bool Cluster::end_known(RankId rank, bool by_all) const {
    const auto told = [&](auto& t) { return !t->runs() || t->gone.contains(rank); };
    const auto knows = [&](auto& t) { return t->gone.contains(rank); };
    return by_all ? std::ranges::all_of(trees_, told) : std::ranges::any_of(trees_, knows);
}

void Cluster::check() {
    // Of no matter if the job is ended because of that.
    if (const auto why = std::exchange(unsettled_, {}); !why.empty() && !job_aborted) violate(why);
    for (auto [rank, over] : ended) {
        if (running_copies(rank) > 1) violate(fmt::format("two copies of rank {} run", rank));
    }
}

void Cluster::kill_node(NodeId node) {
    dead.insert(node);
    end_ranks_of(node);
    agents_[node]->stop();
    later(nobody, [this, node] {
        if (dead.contains(0)) return;
        if (auto left = leaves.extract(node)) return left.mapped()();
        if (given_up.contains(node)) return;
        if (starts_.contains(node)) {
            chance.start = Start::fails;
            return daemon_starts(node);
        }
        bool tolerated = daemons_[0]->lost_ && daemons_[0]->lost_(node);
        if (tolerated) given_up.insert(node);
        if (!tolerated) job_broken = true;
    });
}

uint64_t seeds_of(uint64_t all) {
    const char* slower = std::getenv("GHOST_TEST_SLOWER");
    const uint64_t divisor = slower ? std::strtoull(slower, nullptr, 10) : 1;
    if (divisor < 2) return all;
    const uint64_t some = std::max<uint64_t>(2, all / divisor);
    std::printf("GHOST_TEST_SLOWER=%s: %lu of %lu seeds\n", slower, some, all);
    return some;
}

}  // namespace ghost::plugin::sim
