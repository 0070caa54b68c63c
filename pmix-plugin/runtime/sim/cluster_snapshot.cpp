// SPDX-License-Identifier: BSD-3-Clause
// Snapshots and restarts in the simulated job: what the wrappers do, and the adapter's part.
#include <algorithm>
#include <filesystem>
#include <fmt/format.h>
#include <fstream>
#include <unistd.h>

#include "pmix-plugin/protocol/message.hpp"
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

Json Daemon::job_facts() const {
    Json nodes = Json::array(), ranks = Json::array();
    for (const NodeInfo& n : this->nodes()) {
        nodes.push_back({{"id", n.id}, {"name", n.name}, {"slots", 4}});
    }
    const size_t saved = c_.chance.saved == 0 ? where_.size() : c_.chance.saved;
    for (auto [rank, node] : where_) {
        if (rank < saved) ranks.push_back({{"rank", rank}, {"app", 0}, {"binding", "0"}});
    }
    return {{"runtime", {{"name", "simulated"}, {"version", "1"}, {"pmix", "1"}}},
            {"apps", {{{"argv", {"./app"}}, {"np", saved}, {"cwd", "/"}}}},
            {"mpirun", {{"argv", {"mpirun"}}, {"cwd", "/"}, {"parameters", Json::object()}}},
            {"stdin", {{"rank", 0}, {"path", ""}, {"offset", 0}}},
            {"nodes", nodes},
            {"ranks", ranks}};
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

void Cluster::job_control(const std::string& then, std::vector<std::string>& answers) {
    job_control_({then, [&answers](const std::string& why) { answers.push_back(why); }});
}

// --- wrappers in a snapshot ---

bool Cluster::snapshot_message(const std::shared_ptr<Wrapper>& w, const Json& m) {
    const std::string type = text(m, "t");
    const uint64_t seq = number(m, "seq");
    if (type == "snap_prepare") {
        snap_prepare(w, m);
    } else if (type == "snap_freeze") {
        snap_freeze(w, seq);
    } else if (type == "snap_write") {
        if (!w->snap.captured || w->snap.seq != seq)
            violate("a wrapper is to write that has not captured");
        snap_write(w, seq);
    } else if (type == "snap_cancel") {
        snap_cancel(w, seq);
    } else if (type == "snap_end") {
        if (torn.contains(seq)) violate(torn[seq]);
        if (w->snap.then == "stop") halted.insert(w->rank);
        if (!w->snap.incremental) w->chain.clear();
        const std::filesystem::path path = w->snap.path;
        const std::string folder = path.parent_path().filename();
        w->chain.insert(w->chain.begin(),
                        folder.substr(0, folder.find('.')) + "/" + path.filename().string());
        w->snap = {};
    } else if (type == "continue") {
        halted.erase(w->rank);
    } else {
        return false;
    }
    return true;
}

bool Cluster::snap_fails(const std::shared_ptr<Wrapper>& w, const char* stage) {
    if (chance.fail_stage != stage || chance.fail_rank != w->rank) return false;
    say(w, {{"t", "failed"}, {"seq", w->snap.seq}, {"stage", stage}, {"why", "no luck"}});
    w->snap = {};
    return true;
}

void Cluster::snap_prepare(const std::shared_ptr<Wrapper>& w, const Json& m) {
    if (w->snap.seq != 0) violate("a wrapper is asked for a snapshot during another one");
    const Json* agent = field(m, "agent");
    if (agent == nullptr || number(*agent, "tid") != 3) violate("the agent's thread is unknown");
    w->snap = {};
    w->snap.seq = number(m, "seq");
    w->snap.then = text(m, "then");
    w->snap.incremental = chance.incremental && flag(m, "incremental") && !w->chain.empty();
    w->snap.path = fmt::format("{}/{}", text(m, "folder"), text(m, "file"));
    if (!text(m, "second").empty())
        w->snap.second = fmt::format("{}/{}", text(m, "second"), text(m, "file"));
    later(nobody, [this, w, seq = w->snap.seq] {
        if (!w->alive || !w->tree->alive || w->snap.seq != seq || w->snap.cancelled) return;
        say(w, {{"t", "progress"}, {"seq", seq}, {"bytes", 10}, {"total", ghost_bytes}});
        if (snap_fails(w, "prepare")) return;
        w->snap.ready = true;
        say(w, {{"t", "snap_ready"}, {"seq", seq}});
    });
}

void Cluster::snap_freeze(const std::shared_ptr<Wrapper>& w, uint64_t seq) {
    // An adopting wrapper knows nothing of it.
    if (w->snap.seq != seq || !w->snap.ready) {
        violate("a wrapper that is not ready is to freeze");
        return say(w, {{"t", "failed"}, {"seq", seq}, {"stage", "freeze"}, {"why", "not ready"}});
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
    w->tree->stopped = true;
    later(nobody, [this, w, seq] {
        if (!w->alive || !w->tree->alive) return;
        const bool fails = chance.fail_stage == "freeze" && chance.fail_rank == w->rank;
        w->snap.freezing = false;
        w->snap.captured = true;
        if (w->snap.cancelled) {
            let_run(w);
            w->snap = {};
            return say(w, {{"t", "snap_cancelled"}, {"seq", seq}});
        }
        if (fails) {
            snap_fails(w, "freeze");
            return let_run(w);
        }
        say(w, {{"t", "snap_captured"}, {"seq", seq}, {"pause_us", 1000}});
        w->snap.frozen = w->snap.then == "kill";
        if (!w->snap.frozen) let_run(w);
    });
}

void Cluster::snap_write(const std::shared_ptr<Wrapper>& w, uint64_t seq) {
    constexpr int64_t slice = 5'000'000;
    for (int64_t at_us = slice; at_us < chance.write_us; at_us += slice) {
        at(now + at_us, nobody, [this, w, seq, at_us] {
            if (!w->alive || w->snap.seq != seq) return;
            say(w, {{"t", "progress"}, {"seq", seq}, {"bytes", at_us}, {"total", 0}});
        });
    }
    at(now + latency() + chance.write_us, nobody, [this, w, seq] {
        if (!w->alive || !w->tree->alive || w->snap.seq != seq || w->snap.cancelled) return;
        if (snap_fails(w, "write")) return;
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
            return say(w, {{"t", "failed"},
                           {"seq", seq_was},
                           {"stage", "write"},
                           {"why", "no space left on device"}});
        }
        const auto slash = w->snap.path.rfind('/');
        say(w, {{"t", "snap_written"},
                {"seq", seq},
                {"file", w->snap.path.substr(slash + 1)},
                {"kind", w->snap.incremental ? "incremental" : "full"},
                {"chain", w->snap.incremental ? Json(w->chain) : Json::array()},
                {"digest", fmt::format("{:032x}", w->rank)},
                {"bytes", ghost_bytes},
                {"page_bytes", ghost_bytes},
                {"memory", 2 * ghost_bytes},
                {"stdin_bytes", -1},
                {"files", {{{"path", "/out"}, {"size", 10 + w->rank}}}}});
    });
}

void Cluster::snap_cancel(const std::shared_ptr<Wrapper>& w, uint64_t seq) {
    if (w->snap.freezing) {
        w->snap.cancelled = true;  // the freeze is finished first
        return;
    }
    ::unlink(w->snap.path.c_str());
    if (!w->snap.second.empty()) ::unlink(w->snap.second.c_str());
    const bool frozen = w->snap.frozen;
    w->snap = {};
    w->snap.frozen = frozen;
    say(w, {{"t", "snap_cancelled"}, {"seq", seq}});
}

// The tree goes on and its agent is signalled.
void Cluster::let_run(const std::shared_ptr<Wrapper>& w) {
    if (!w->tree || !w->tree->alive) return;
    w->tree->stopped = false;
    w->snap.frozen = false;
    wake(w->tree);
}

// --- a restart ---

void Cluster::boot_restart(const std::shared_ptr<Wrapper>& w) {
    w->tree->stopped = true;
    (void)w->control
        .send({{"t", "hello"},
               {"role", "wrapper"},
               {"version", wrapper_protocol},
               {"job", "4711"},
               {"rank", w->rank},
               {"secret", job_secret},
               {"pid", w->pid},
               {"init", 0},
               {"mode", "restart"}})
        .ok();
}

void Cluster::restart_check(const std::shared_ptr<Wrapper>& w) {
    later(nobody, [this, w] {
        if (!w->alive || !w->tree->alive) return;
        if (chance.fail_stage == "check" && chance.fail_rank == w->rank)
            return say(w, {{"t", "failed"}, {"seq", 0}, {"stage", "check"}, {"why", "no file"}});
        w->snap.ready = true;
        say(w, {{"t", "checked"}, {"seq", 0}});
    });
}

void Cluster::restart_import(const std::shared_ptr<Wrapper>& w) {
    later(nobody, [this, w] {
        if (!w->alive || !w->tree->alive) return;
        for (const auto& other : wrappers_)
            if (!other->snap.ready) violate("files are cut back before all have looked");
        say(w, {{"t", "progress"}, {"seq", 0}, {"bytes", 10}, {"total", ghost_bytes}});
        if (chance.fail_stage == "import" && chance.fail_rank == w->rank) {
            return say(w, {{"t", "failed"}, {"seq", 0}, {"stage", "import"}, {"why", "no luck"}});
        }
        w->held = true;
        say(w,
            {{"t", "held"},
             {"seq", 0},
             {"init", w->tree->init},
             {"bytes", ghost_bytes},
             {"agent", {{"pid", 2}, {"tid", 3}}}},
            true);
    });
}

}  // namespace ghost::plugin::sim
