// SPDX-License-Identifier: BSD-3-Clause
// Wrappers: their connections, and what happens to a rank when its wrapper dies.
#include <csignal>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/wait.h>

#include "base/exit_status.hpp"
#include "base/log.hpp"
#include "base/pidfd.hpp"
#include "pmix-plugin/node/impl.hpp"

namespace ghost::plugin {

void take_tree(RankSlot& slot, pid_t init) {
    if (init <= 1) return;
    slot.init = init;
    slot.tree = open_pidfd(init);
}

bool tree_alive(const RankSlot& slot, const TreeControl& control) {
    if (slot.init <= 1 || slot.ended) return false;
    if (control.alive) return control.alive(slot.init);
    if (!slot.tree.valid()) return false;
    return !await_pidfd(slot.tree.get(), 0);
}

void kill_tree(const RankSlot& slot, const TreeControl& control) {
    if (slot.init <= 1) return;
    if (control.kill) return control.kill(slot.init);
    if (slot.tree.valid()) signal_pidfd(slot.tree.get(), SIGKILL);
}

namespace {

using T = Transfer;

constexpr int most_adoptions = 8;  // something kills them: let the rank end rather than go round

}  // namespace

// The callbacks must know which connection they are of: an old one may close late.
void NodeAgent::Impl::listen_to_wrapper(RankId rank, ControlConnection& connection) {
    const ControlConnection* which = &connection;
    auto reader =
        std::make_shared<schema::Reader>(from_wrapper, fmt::format("the wrapper of rank {}", rank));
    connection.handle(
        [this, rank, which, reader](ControlMessage& m) { wrapper_packet(rank, which, *reader, m); },
        [this, rank, which] { wrapper_closed(rank, which); });
}

std::shared_ptr<ControlConnection> NodeAgent::Impl::open_wrapper(RankId rank,
                                                                 ControlSocket socket) {
    auto connection = ControlConnection::open(adapter_, std::move(socket), nullptr, nullptr);
    listen_to_wrapper(rank, *connection);
    return connection;
}

void NodeAgent::Impl::use_wrapper(RankSlot& s, std::shared_ptr<ControlConnection> connection) {
    if (s.wrapper) s.wrapper->close();
    s.wrapper = std::move(connection);
    s.ended = false;
}

void NodeAgent::Impl::wrapper_closed(RankId rank, const ControlConnection* which) {
    RankSlot* s = find(rank);
    if (s == nullptr || s->wrapper.get() != which) return;
    s->wrapper.reset();
    if (s->transfer == T::leaving) return die_expired(*s);
    if (s->snap.participates) return;  // wrapper_died() follows
    // `going` waits for wrapper_died(): the tree may live, then a new wrapper adopts it.
    if (is_source(s->transfer)) {
        fail(*s, Stage::wrapper, fmt::format("the wrapper of rank {} has gone", rank));
    }
}

// The tree ended in the ordinary way; the wrapper ends with its status now.
void NodeAgent::Impl::wrapper_exit_said(RankSlot& s, const Exit& m) {
    const bool gave_up = WIFEXITED(m.status) && WEXITSTATUS(m.status) == lost_server_status;
    if (gave_up && s.transfer == T::going && !s.snap.participates) {
        s.ended = true;
        return fail(s, Stage::attach, "the rank gave up, and has ended");
    }
    tree_ended(s, is_target(s.transfer) ? "its copy has ended" : has_ended(s.rank));
}

// Its processes are, whether or not its wrapper has come to saying so.
bool NodeAgent::Impl::is_gone(const RankSlot& s) const {
    const bool known = s.init > 1 && (settings_.tree.alive || s.tree.valid());
    return s.ended || (known && !tree_alive(s, settings_.tree));
}

void NodeAgent::Impl::tree_ended(RankSlot& s, const std::string& why) {
    s.ended = true;
    s.spare.clear();
    if (s.transfer == T::leaving) return gone(s);
    if (s.snap.participates) return participant_ended(s, why);
    if (s.transfer == T::going) {
        // Ended before its agent could attach: the move is done, there is nobody to wake.
        if (change(s, T::none)) report(Done{s.seq, s.rank, {}, true});
        return;
    }
    fail(s, is_target(s.transfer) ? Stage::importing : Stage::rank, why);
    if (s.transfer == T::returning) back_home(s);
}

// A rank that ends while the job is saved or restarted.
void NodeAgent::Impl::participant_ended(RankSlot& s, const std::string& why) {
    if (s.snap.early) std::exchange(s.snap.early, nullptr)->close();
    if (s.transfer != T::going) snapshot_failed(s, Stage::rank, why);
    if (s.snap.work != SnapWork::idle) (void)change(s, SnapWork::idle);
    if (s.transfer == T::going) (void)change(s, T::none);
    give_up_gates(s);
    participant_.poke();
}

// The snapshot is off; the wrapper that adopts the tree knows nothing of it.
void NodeAgent::Impl::participant_wrapper_died(RankSlot& s, bool alive, const std::string& why) {
    if (s.snap.work != SnapWork::idle) (void)change(s, SnapWork::idle);
    snapshot_failed(s, Stage::wrapper, why);
    const bool frozen = s.quiesce == Quiesce::quiet || s.quiesce == Quiesce::frozen;
    if (alive && s.snap.off && frozen) resume(s);
}

// From the adapter: true means "taken care of".
bool NodeAgent::Impl::wrapper_died(RankId rank, int status) {
    // Its last words may still be in the socket: `exit` makes it an ordinary end.
    if (RankSlot* s = find(rank); s != nullptr && s->wrapper) {
        auto connection = s->wrapper;
        if (connection->is_open()) connection->read_now();
    }
    RankSlot* s = find(rank);
    if (s == nullptr || s->transfer == T::leaving || s->transfer == T::draining) return false;
    // The ghost is out: whether the rank has ended depends on what the coordinator decides.
    if (s->transfer == T::exported && !tree_alive(*s, settings_.tree)) {
        s->unreported = true;
        tree_ended(*s, fmt::format("rank {} was killed", rank));
        return true;
    }
    if (s->ended) return report_ended(*s, status), false;
    if (s->snap.restart && s->snap.participates && s->transfer != T::going) {
        return restart_wrapper_died(*s, status);
    }
    if (s->wrapper) std::exchange(s->wrapper, nullptr)->close();
    const bool alive = tree_alive(*s, settings_.tree);
    // In the ordinary way, though it could not say so.
    if (!alive && status == 0) {
        tree_ended(*s, has_ended(rank));
        return report_ended(*s, status), false;
    }
    log::warning("the wrapper of rank {} died (status {}), its processes {}", rank, status,
                 alive ? "live" : "have ended");
    adapter_.output_given(rank, std::nullopt);
    const std::string why = fmt::format("the wrapper of rank {} died", rank);
    if (s->snap.participates) participant_wrapper_died(*s, alive, why);
    if (is_source(s->transfer) && !s->snap.participates) fail(*s, Stage::wrapper, why);
    if (alive && adopt(*s)) {
        participant_.poke();
        return true;
    }
    kill_tree(*s, settings_.tree);
    if ((s->transfer == T::switched || s->transfer == T::going) && !s->snap.participates) {
        fail(*s, Stage::going, why);
        s->ended = true;
        return false;
    }
    tree_ended(*s, why);
    return false;
}

// The rank must see the end of its input: no write end of it may stay open here.
void NodeAgent::Impl::stdin_closed(RankSlot& s) {
    if (s.spare.size() != 6) return;
    for (size_t i : {0u, 3u}) s.spare[i].reset(::open("/dev/null", O_RDWR | O_CLOEXEC));
}

// The tree is the daemon's child now (a subreaper's), not the new wrapper's: it is told the status.
void NodeAgent::Impl::watch_orphan(RankSlot& s) {
    if (std::exchange(s.orphan, s.init) == s.init) return;
    adapter_.on_orphan_exit(
        s.init, [weak = weak_from_this(), rank = s.rank, init = s.init](int status) {
            auto self = weak.lock();
            RankSlot* slot = self && self->running_ ? self->find(rank) : nullptr;
            if (slot == nullptr || slot->init != init || !slot->wrapper) return;
            slot->wrapper->tell(ChildStatus{status});
        });
}

bool NodeAgent::Impl::adopt(RankSlot& s) {
    if (s.spare.size() != 6 || ++s.adoptions > most_adoptions) return false;
    std::vector<std::string> argv = {settings_.wrapper,      "--adopt", "--rank",
                                     fmt::to_string(s.rank), "--init",  fmt::to_string(s.init),
                                     "--control-fd",         "3"};
    auto spawned = adapter_.adopt_wrapper(s.rank, argv,
                                          {s.spare[0].get(), s.spare[1].get(), s.spare[2].get()});
    if (!spawned.ok()) {
        log::error("no new wrapper for rank {}: {}", s.rank, spawned.error().message());
        return false;
    }
    watch_orphan(s);
    s.wrapper = open_wrapper(s.rank, std::move(spawned->control));
    s.wrapper->tell(Adopt{s.rank, s.init, s.input_bytes},
                    {s.spare[3].get(), s.spare[4].get(), s.spare[5].get()});
    log::warning("a new wrapper has adopted rank {}: it goes on", s.rank);
    // The move was called off before the new one was there.
    if (s.quiesce == Quiesce::resuming) s.wrapper->tell(Resume{s.seq, s.thread});
    return true;
}

}  // namespace ghost::plugin
