// SPDX-License-Identifier: BSD-3-Clause
// Snapshots and restarts in the simulated job: what the wrappers do, and the adapter's part.
#include <algorithm>
#include <filesystem>
#include <fmt/format.h>
#include <fstream>
#include <unistd.h>

#include "pmix-plugin/protocol/node_wrapper.hpp"
#include "pmix-plugin/snapshots/folder.hpp"
#include "pmix-plugin/runtime/sim/cluster.hpp"

namespace ghost::plugin::sim {
namespace {

constexpr NodeId nobody = 1000;  // events of the simulation itself
constexpr uint64_t ghost_bytes = 100;

}  // namespace

// --- the adapter ---

std::optional<std::string> Daemon::parameter(const std::string& name) const {
    if (name == "ghost_checkpoint_dir" && !c_.parameters.contains(name)) return c_.folder();
    if (name == "ghost_compress" && !c_.parameters.contains(name)) return "none";
    auto it = c_.parameters.find(name);
    if (it == c_.parameters.end()) return std::nullopt;
    return it->second;
}

size_t Daemon::guests() const {
    return c_.chance.guests;
}

JobDescription Daemon::describe_job() const {
    JobDescription out;
    const size_t saved = c_.chance.saved == 0 ? where_.size() : c_.chance.saved;
    out.runtime = {"simulated", "1", "1"};
    out.apps = {{{"./app"}, static_cast<uint32_t>(saved), "/"}};
    out.mpirun = {{"mpirun"}, "/", {}};
    for (const NodeInfo& n : this->nodes()) out.nodes.push_back({n.id, n.name, 4});
    for (auto [rank, node] : where_) {
        if (rank < saved) out.ranks.push_back({rank, 0, "0"});
    }
    return out;
}

// What it allows detach_from_server() allows too: the rank's gate is closed, nothing moves on.
PreMark Daemon::may_detach(RankId rank, uint32_t) {
    if (c_.percent(c_.chance.busy_percent)) return PreMark::busy;
    allowed_.insert(rank);
    return PreMark::ok;
}

Status Daemon::on_signal(int signum, std::function<void()> handler) {
    c_.signals_[signum] = std::move(handler);
    return {};
}

void Daemon::on_job_control(std::function<void(JobControl)> handler) {
    c_.job_control_ = std::move(handler);
}

void Daemon::end_job(int status, const std::string& why) {
    c_.end_status = status;
    c_.abort_why = why;
}

void Cluster::signal(int signum) {
    if (auto it = signals_.find(signum); it != signals_.end()) it->second();
}

void Cluster::job_control(ControlOrder order, std::vector<std::string>& answers) {
    job_control_(
        {std::move(order), [&answers](const std::string& why) { answers.push_back(why); }});
}

// --- wrappers in a snapshot ---

void Cluster::snap_end(const std::shared_ptr<Wrapper>& w, uint64_t seq) {
    if (torn.contains(seq)) violate(torn[seq]);
    if (!w->snap.incremental) w->chain.clear();
    const std::filesystem::path path = w->snap.path;
    const std::string folder = path.parent_path().filename();
    w->chain.insert(w->chain.begin(),
                    folder.substr(0, folder.find('.')) + "/" + path.filename().string());
    w->snap = {};
}

bool Cluster::snap_fails(const std::shared_ptr<Wrapper>& w, Stage stage) {
    if (chance.fail_stage != stage || !chance.fail_ranks.contains(w->rank)) return false;
    say(w, Failed{.seq = w->snap.seq, .stage = stage, .why = "no luck"});
    w->snap = {};
    return true;
}

void Cluster::snap_prepare(const std::shared_ptr<Wrapper>& w, const SnapPrepareRank& m) {
    if (w->snap.seq != 0) violate("a wrapper is asked for a snapshot during another one");
    expect_thread(m.agent);
    w->snap = {};
    w->snap.seq = m.seq;
    w->snap.then = m.then;
    w->snap.incremental = chance.incremental && m.incremental && !w->chain.empty();
    w->snap.sign = m.sign;
    w->snap.path = fmt::format("{}/{}", m.folder, m.file);
    if (!m.second.empty()) w->snap.second = fmt::format("{}/{}", m.second, m.file);
    later(nobody, [this, w, seq = w->snap.seq] { snap_look(w, seq, chance.looks); });
}

void Cluster::snap_look(const std::shared_ptr<Wrapper>& w, uint64_t seq, int left) {
    constexpr int64_t look_us = 5'000'000;
    at(now + (left > 0 ? look_us : 0), nobody, [this, w, seq, left] {
        if (!w->alive || !w->tree->alive || w->snap.seq != seq || w->snap.cancelled) return;
        say(w, TransferProgress{.seq = seq, .bytes = 10, .total = ghost_bytes});
        if (left > 0) return snap_look(w, seq, left - 1);
        if (snap_fails(w, Stage::prepare)) return;
        w->snap.ready = true;
        say(w, SnapReady{.seq = seq, .shared = shared_by(w->rank)});
    });
}

std::vector<SharedPart> Cluster::shared_by(RankId rank) const {
    if (!chance.sharers.contains(rank)) return {};
    return {{"memory", {chance.sharers.begin(), chance.sharers.end()}}};
}

void Cluster::snap_freeze(const std::shared_ptr<Wrapper>& w, const SnapFreeze& m) {
    const uint64_t seq = m.seq;
    // An adopting wrapper knows nothing of it.
    if (w->snap.seq != seq || !w->snap.ready) {
        violate("a wrapper that is not ready is to freeze");
        return say(w, Failed{.seq = seq, .stage = Stage::freeze, .why = "not ready"});
    }
    if (!w->tree->closed) violate("a rank is frozen that has not closed");
    if (raised(w->node) == 0) violate("a rank is frozen and its daemon's priority is not raised");
    for (auto& t : trees_) {
        // The cut: nobody takes anything from a link while the first of them is frozen.
        const bool open = t->runs() && !t->gated && !t->closed;
        const bool back = std::ranges::any_of(wrappers_, [&](auto& other) {
            return other->tree == t && other->snap.seq == seq && other->snap.captured;
        });
        // Of no matter if the snapshot is called off, which opens gates.
        const bool saved = chance.saved == 0 || t->rank < chance.saved;
        if (open && !back && saved)
            torn[seq] = fmt::format("rank {} takes data while others are frozen", t->rank);
    }
    w->snap.freezing = true;
    w->snap.unit = m.unit;
    if (!m.saves.empty()) shared_saved.insert(w->rank);
    later(nobody, [this, w, seq] {
        if (!w->alive || !w->tree->alive) return;
        const bool fails =
            chance.fail_stage == Stage::freeze && chance.fail_ranks.contains(w->rank);
        w->tree->stopped = true;
        if (w->snap.unit.empty() || w->snap.cancelled || fails) return snap_captured(w);
        ++w->snap.stills;
        say(w, Still{seq});
    });
}

// Once what is shared is read, then all go on.
void Cluster::share(const std::shared_ptr<Wrapper>& w) {
    if (!w->snap.freezing || w->snap.cancelled) return;
    if (++w->snap.stills > 2) return snap_captured(w);
    if (const auto rank = sharer_runs())
        violate(fmt::format("rank {} writes while what it shares is saved", *rank));
    say(w, Still{w->snap.seq});
}

// None of those who share memory with the rank stays behind.
void Cluster::expect_sharers_held(RankId rank) {
    if (!chance.sharers.contains(rank)) return;
    for (const RankId other : chance.sharers) {
        const bool there = std::ranges::any_of(
            wrappers_, [&](const auto& w) { return w->rank == other && w->restore && w->tree; });
        if (!there)
            violate(fmt::format("rank {} dies before rank {} is held elsewhere", rank, other));
    }
}

std::optional<RankId> Cluster::sharer_runs() const {
    for (const auto& t : trees_)
        if (t->runs() && chance.sharers.contains(t->rank)) return t->rank;
    return std::nullopt;
}

void Cluster::snap_captured(const std::shared_ptr<Wrapper>& w) {
    const uint64_t seq = w->snap.seq;
    const bool fails = chance.fail_stage == Stage::freeze && chance.fail_ranks.contains(w->rank);
    w->snap.freezing = false;
    w->snap.captured = true;
    if (w->snap.cancelled) {
        let_run(w);
        w->snap = {};
        return say(w, SnapCancelled{seq});
    }
    if (fails) {
        snap_fails(w, Stage::freeze);
        return let_run(w);
    }
    say(w, SnapCaptured{.seq = seq, .pause_us = 1000});
    w->snap.frozen = w->snap.then != Then::go_on;
    if (!w->snap.frozen) let_run(w);
}

void Cluster::snap_write(const std::shared_ptr<Wrapper>& w, uint64_t seq) {
    constexpr int64_t slice = 5'000'000;
    for (int64_t at_us = slice; at_us < chance.write_us; at_us += slice) {
        at(now + at_us, nobody, [this, w, seq, at_us] {
            if (!w->alive || w->snap.seq != seq) return;
            say(w, TransferProgress{.seq = seq, .bytes = static_cast<uint64_t>(at_us)});
        });
    }
    at(now + latency() + chance.write_us, nobody, [this, w, seq] {
        if (!w->alive || !w->tree->alive || w->snap.seq != seq || w->snap.cancelled) return;
        if (snap_fails(w, Stage::write)) return;
        bool good = true;
        for (const std::string& path : {w->snap.path, w->snap.second}) {
            if (path.empty()) continue;
            std::ofstream file(path);
            file << std::string(ghost_bytes, 'g');
            file.close();
            good = good && file.good();
        }
        if (!good) {
            const auto seq_was = w->snap.seq;
            w->snap = {};
            return say(
                w, Failed{.seq = seq_was, .stage = Stage::write, .why = "no space left on device"});
        }
        const auto slash = w->snap.path.rfind('/');
        Written written;
        written.seq = seq;
        written.file = w->snap.path.substr(slash + 1);
        written.kind = w->snap.incremental ? "incremental" : "full";
        if (w->snap.incremental) written.chain = w->chain;
        written.digest = fmt::format("{:032x}", w->rank);
        if (w->snap.sign) written.signer = fmt::format("{:064x}", w->rank);
        written.bytes = written.page_bytes = ghost_bytes;
        written.memory = 2 * ghost_bytes;
        written.stdin_bytes = 0;
        SeenFile& out = written.files.emplace_back();
        out.path = {"/out"};
        out.size = 10 + w->rank;
        say(w, written);
    });
}

void Cluster::snap_cancel(const std::shared_ptr<Wrapper>& w, uint64_t seq) {
    if (w->snap.freezing) {
        w->snap.cancelled = true;  // the freeze is finished first
        if (w->snap.stills > 0) snap_captured(w);
        return;
    }
    ::unlink(w->snap.path.c_str());
    if (!w->snap.second.empty()) ::unlink(w->snap.second.c_str());
    const bool frozen = w->snap.frozen;
    w->snap = {};
    w->snap.frozen = frozen;
    say(w, SnapCancelled{seq});
}

// The tree goes on and its agent is signalled.
void Cluster::let_run(const std::shared_ptr<Wrapper>& w) {
    if (!w->tree || !w->tree->alive) return;
    w->tree->stopped = false;
    w->snap.frozen = false;
    wake(w->tree);
}

// --- a restart ---

// Wrappers have it from the orders of a move that need it, and from nowhere else.
void Cluster::expect_secret(const schema::Received& order) {
    if ((order.is<Prepare>() && order.as<Prepare>().secret != job_secret) ||
        (order.is<Connect>() && order.as<Connect>().secret != job_secret))
        violate("a wrapper is not told the secret for a move");
}

void Cluster::boot_restart(const std::shared_ptr<Wrapper>& w) {
    w->tree->stopped = true;
    w->tree->life = "01d";  // when it was saved
    const WrapperHello m{.job = "4711",
                         .rank = w->rank,
                         .life = daemons_[w->node]->life_,
                         .pid = w->pid,
                         .mode = WrapperMode::restart,
                         .why = {}};
    (void)w->control.send_text(schema::encode(m)).ok();
}

void Cluster::restart_check(const std::shared_ptr<Wrapper>& w) {
    later(nobody, [this, w] {
        if (!w->alive || !w->tree->alive) return;
        if (chance.fail_stage == Stage::check && chance.fail_ranks.contains(w->rank))
            return say(w, Failed{.stage = Stage::check, .why = "no file"});
        w->snap.ready = true;
        say(w, Checked{.shared = shared_by(w->rank)});
    });
}

void Cluster::restart_import(const std::shared_ptr<Wrapper>& w) {
    if (w->told != shared_by(w->rank).size()) violate("a rank is to share, and not told what");
    later(nobody, [this, w] {
        if (!w->alive || !w->tree->alive) return;
        for (const auto& other : wrappers_)
            if (other->alive && !other->snap.ready)
                violate("files are cut back before all have looked");
        say(w, TransferProgress{.bytes = 10, .total = ghost_bytes});
        if (chance.fail_stage == Stage::importing && chance.fail_ranks.contains(w->rank)) {
            return say(w, Failed{.stage = Stage::importing, .why = "no luck"});
        }
        w->held = true;
        const Held held{
            .bytes = ghost_bytes, .init = w->tree->init, .agent = AgentThread{.pid = 2, .tid = 3}};
        say(w, held, true);
    });
}

}  // namespace ghost::plugin::sim
