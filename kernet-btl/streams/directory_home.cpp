// SPDX-License-Identifier: BSD-3-Clause
// The home's side of the directory: one change of a stream after the other.
//
//   unowned ─ request ─► collecting ─ a quorum has answered ─► writing ─ all have it ─► idle
//      ▲                                     (none has it: idle)  ▲                      │
//      └─ somebody took over, or the view changed                 └────── change ────────┘
#include <algorithm>

#include "base/state_machine.hpp"
#include "kernet-btl/streams/directory.hpp"

namespace kernet {

namespace {

constexpr size_t remembered_answers = 128;  // more than are asked between two ticks
constexpr size_t max_queue = 4096;

}  // namespace

bool Directory::change(Owner& owner, Step next) {
    struct Row {
        Step state;
        const char* name;
        uint32_t next;
    };
    static constexpr ghost::StateTable steps(std::to_array<Row>({
        {Step::unowned, "unowned", to({Step::unowned, Step::collecting})},
        // again, with a higher term
        {Step::collecting, "collecting",
         to({Step::unowned, Step::collecting, Step::idle, Step::writing})},
        {Step::idle, "idle", to({Step::unowned, Step::writing})},
        // again, to others
        {Step::writing, "writing", to({Step::unowned, Step::idle, Step::writing})},
    }));
    const auto who = [] { return "directory: home of a stream"; };
    if (!steps.change(owner.step, next, ghost::log::Level::trace, who)) return false;
    owner.nonce = ++counter_;
    owner.waiting.clear();
    owner.agreed = {self_};
    return true;
}

void Directory::on_ask(int from, const AskHome& message) {
    Work work{from, message.request, as_meant(message.change)};
    const StreamId id = work.change.id;
    // Who asks will ask again, and elsewhere once it sees what this manager sees.
    if (home(id) != self_ || !quorum()) return;
    Owner& owner = owners_[id];
    const auto same = [&work](const Work& other) { return other.request == work.request; };
    if ((owner.current && same(*owner.current)) || owner.queue.size() >= max_queue ||
        std::any_of(owner.queue.begin(), owner.queue.end(), same)) {
        return;
    }
    owner.queue.push_back(std::move(work));
    advance(id, owner);
}

void Directory::advance(StreamId id, Owner& owner) {
    while (!owner.queue.empty()) {
        if (owner.step == Step::unowned) {
            collect(id, owner);  // which may call this again
            return;
        }
        if (owner.step != Step::idle) return;
        Work work = std::move(owner.queue.front());
        owner.queue.pop_front();
        begin(id, owner, std::move(work));
    }
}

// --- taking over ---

void Directory::collect(StreamId id, Owner& owner) {
    const auto replica = replicas_.find(id);
    uint64_t& fence = fence_of(id);
    if (replica != replicas_.end()) fence = std::max(fence, replica->second.version.term);
    const auto managers = static_cast<uint64_t>(managers_);
    owner.term = (std::max(fence, owner.term) / managers + 1) * managers +
                 static_cast<uint64_t>(self_);  // no other manager's
    fence = owner.term;
    if (!change(owner, Step::collecting)) return;
    owner.entry = replica != replicas_.end() ? replica->second : Entry{};
    owner.holders.clear();
    owner.waiting = live_;
    owner.waiting.erase(self_);
    if (owner.waiting.empty()) return collected(id, owner);
    const GetEntry question{id, owner.nonce, owner.term};
    for (int manager : std::set<int>(owner.waiting)) post(manager, ManagerMessage::get, question);
}

void Directory::on_have(int from, const HaveEntry& message) {
    const StreamId id = message.id;
    const auto found = owners_.find(id);
    if (found == owners_.end()) return;
    Owner& owner = found->second;
    if (owner.step != Step::collecting || owner.nonce != message.nonce) return;
    if (!message.ok) {
        uint64_t& fence = fence_of(id);
        fence = std::max(fence, message.fence);
        return collect(id, owner);
    }
    if (message.entry) {
        Entry entry = as_meant(*message.entry);
        if (owner.entry.id == 0 || entry.version > owner.entry.version)
            owner.entry = std::move(entry);
        owner.holders.insert(from);
    }
    owner.agreed.insert(from);
    owner.waiting.erase(from);
    if (owner.waiting.empty()) collected(id, owner);
}

void Directory::collected(StreamId id, Owner& owner) {
    if (!is_quorum(owner.agreed)) {
        change(owner, Step::unowned);  // tried again at the next tick
        return;
    }
    if (owner.entry.id == 0) {
        change(owner, Step::idle);
        return advance(id, owner);
    }
    owner.next = owner.entry;
    owner.next.version.term = owner.term;
    write(id, owner);
}

// --- changes ---

// Whatever the answer, it is given only when a quorum still knows this manager as the home: another
// one that this manager cannot see may have changed the entry meanwhile.
void Directory::begin(StreamId id, Owner& owner, Work work) {
    const auto& answered = owner.entry.answered;
    const auto before = std::find_if(answered.begin(), answered.end(),
                                     [&](const Answered& a) { return a.request == work.request; });
    owner.next = owner.entry;
    owner.result = {};
    owner.socket = 0;
    if (before != answered.end()) {
        owner.socket = before->socket;
    } else {
        owner.result = apply(owner.next, work.change, owner.socket);
    }
    if (owner.next.id == 0) {  // as all have just said
        reply(work, owner.result, 0, nullptr);
        change(owner, Step::unowned);
        return;
    }
    if (owner.next != owner.entry) {
        owner.next.version = {owner.term, owner.next.version.change + 1};
        owner.next.answered.push_back({work.request, owner.socket, work.change.key});
        if (owner.next.answered.size() > remembered_answers) owner.next.answered.pop_front();
    }
    owner.current = std::move(work);
    write(id, owner);
}

void Directory::write(StreamId id, Owner& owner) {
    if (!change(owner, Step::writing)) return;
    if (!store(owner.next)) return step_down(owner);
    // Those that keep it no longer are told as well: of the last socket that left there.
    owner.waiting = keepers(owner.next);
    for (int manager : owner.holders) {
        if (live_.count(manager)) owner.waiting.insert(manager);
    }
    owner.waiting.erase(self_);
    if (owner.waiting.empty()) return written(id, owner);
    const PutEntry message{owner.nonce, sent(owner.next)};
    for (int manager : std::set<int>(owner.waiting)) post(manager, ManagerMessage::put, message);
}

void Directory::on_took(int from, const TookEntry& message) {
    const StreamId id = message.id;
    const auto found = owners_.find(id);
    if (found == owners_.end()) return;
    Owner& owner = found->second;
    if (owner.step != Step::writing || owner.nonce != message.nonce) return;
    if (!message.ok) {
        uint64_t& fence = fence_of(id);
        fence = std::max(fence, message.fence);
        return step_down(owner);
    }
    owner.agreed.insert(from);
    owner.waiting.erase(from);
    if (owner.waiting.empty()) written(id, owner);
}

void Directory::written(StreamId id, Owner& owner) {
    const std::set<int> keep = keepers(owner.next);
    if (!quorum()) return step_down(owner);
    // Some have been lost meanwhile: others must take it in their place.
    if (!std::includes(owner.agreed.begin(), owner.agreed.end(), keep.begin(), keep.end())) {
        return write(id, owner);
    }
    for (int manager : owner.agreed) {
        if (keep.count(manager)) continue;
        post(manager, ManagerMessage::drop,
             DropEntry{id, owner.next.version.term, owner.next.version.change});
    }
    owner.holders = keep;
    owner.entry = std::move(owner.next);
    change(owner, Step::idle);
    if (owner.current) {
        const Work work = std::move(*owner.current);
        owner.current.reset();
        reply(work, owner.result, owner.socket, &owner.entry);
    }
    advance(id, owner);
}

// Another manager is the home now, or this one must ask again before it may go on. Who asked asks
// again, and gets the answer of before if the change was carried out.
void Directory::step_down(Owner& owner) {
    change(owner, Step::unowned);
    owner.current.reset();
    owner.queue.clear();
}

// Another manager asks for the entry, or has written it, as its home.
void Directory::overtaken(StreamId id, uint64_t term) {
    const auto found = owners_.find(id);
    if (found != owners_.end() && term > found->second.term) step_down(found->second);
}

void Directory::reply(const Work& work, const Status& status, uint16_t socket, const Entry* entry) {
    HomeAnswer answer;
    answer.request = work.request;
    answer.ok = status.ok();
    answer.socket = socket;
    if (!status) {
        const SentError error = sent(status.error());
        answer.code = error.code;
        answer.tried = error.tried;
        answer.object = error.object;
        answer.why = error.why;
        answer.sys = error.sys;
    }
    if (entry) {
        answer.entry = sent(*entry);
        answer.entry->answered.clear();
    }
    post(work.from, ManagerMessage::answer, std::move(answer));
}

void Directory::home_tick() {
    for (auto at = owners_.begin(); at != owners_.end();) {
        Owner& owner = at->second;
        const bool nothing = owner.step == Step::unowned && owner.queue.empty();
        const bool no_stream =
            owner.step == Step::idle && (owner.entry.id == 0 || owner.entry.destroyed);
        if (nothing || no_stream) {
            at = owners_.erase(at);
            continue;
        }
        if (owner.step == Step::unowned && quorum()) collect(at->first, owner);
        ++at;
    }
}

void Directory::home_lost(int manager) {
    for (auto& [id, owner] : owners_) {
        owner.holders.erase(manager);
        if (owner.waiting.erase(manager) == 0 || !owner.waiting.empty()) continue;
        if (owner.step == Step::collecting) {
            collected(id, owner);
        } else if (owner.step == Step::writing) {
            written(id, owner);
        }
    }
}

}  // namespace kernet
