// SPDX-License-Identifier: BSD-3-Clause
// A recovery on one node: every rank ends, whatever it is in, and is started anew from a snapshot,
// here or elsewhere (docs/PROTOCOL.md, "A recovery"). From there on it is a restart of the job.
#include "base/log.hpp"
#include "pmix-plugin/node/impl.hpp"

namespace ghost::plugin {

// True: the runtime is not told; the coordinator decides. Whoever waits for a rank that is imported
// has heard of its end (restart_wrapper_died()), unless its wrapper never came.
bool NodeAgent::Impl::rank_died(RankId rank, int status) {
    const RankSlot* s = find(rank);
    const bool comes = s != nullptr ? is_target(s->transfer) : recovering_;
    const bool imported =
        recovering_ && s != nullptr && s->snap.restart && comes && s->transfer != Transfer::going;
    if (imported) return true;
    if (!settings_.recovers || (status == 0 && !comes)) return false;
    report(RankDied{rank, status});
    return true;
}

// Not before the job's secret is here: nothing is sent without.
void NodeAgent::Impl::beat() {
    if (!adapter_.secret().empty()) report(Pong{});
    beat_timer_ = adapter_.after(settings_.beat_us, [this] { beat(); });
}

void NodeAgent::Impl::recover_stop(const RecoverStop& m) {
    recovering_ = true;
    recovery_ = {};
    copies_.stop();
    discard_own_folder();
    for (auto& [rank, s] : slots_) {
        kill_tree(s, settings_.tree);
        const bool has_run = !is_target(s.transfer) || s.transfer == Transfer::going;
        if (!has_run || !s.wrapper) continue;
        if (!s.snap.restart) {
            s.wrapper->tell(Bye{});
            hear_last_words(rank, std::move(s.wrapper));
        } else {
            adapter_.output_given(rank, std::nullopt);
        }
    }
    while (!slots_.empty()) forget(slots_.begin()->first);
    locations_ = {};
    adapter_.stop_ranks(m.tree.without, [weak = weak_from_this()](const Status& stopped) {
        auto self = weak.lock();
        if (!self || !self->running_) return;
        self->end_last_words();
        self->recovery_ = {ParticipantStep::halted, stopped};
        self->participant_.poke();
    });
}

// The slot is forgotten, and its connection, but for this one thing.
void NodeAgent::Impl::hear_last_words(RankId rank, std::shared_ptr<ControlConnection> wrapper) {
    auto reader =
        std::make_shared<schema::Reader>(from_wrapper, fmt::format("the wrapper of rank {}", rank));
    const auto heard = [this, rank, reader](ControlMessage& m) {
        std::string answer;
        const auto message = reader->read(m.text, answer);
        if (!message || !message->is<OutputGiven>()) return;
        adapter_.output_given(rank, message->as<OutputGiven>());
        last_words_.erase(rank);
    };
    wrapper->handle(heard, nullptr);
    last_words_[rank] = std::move(wrapper);
}

// They have ended: what they have said is here.
void NodeAgent::Impl::end_last_words() {
    for (const auto& [rank, wrapper] : std::map(last_words_)) {
        if (wrapper->is_open()) wrapper->read_now();
        if (last_words_.erase(rank) > 0) adapter_.output_given(rank, std::nullopt);
        wrapper->close();
    }
}

void NodeAgent::Impl::recover_start(const RecoverStart& m) {
    shown_.clear();
    for (const ShownOutput& one : m.shown) shown_[one.rank] = one;
    counts_anew_ = m.anew;
    NodeRuntime::Births births{m.life, m.snapshot, {}, m.input_of, m.input_ended};
    for (const RankPlace& place : m.places) births.places.emplace_back(place.rank, place.node);
    recovery_ = {ParticipantStep::started, adapter_.start_ranks(births)};
}

}  // namespace ghost::plugin
