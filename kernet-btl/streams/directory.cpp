// SPDX-License-Identifier: BSD-3-Clause
// The view, the requester's side and the replica's side; the home's is directory_home.cpp.
#include "kernet-btl/streams/directory.hpp"

#include <algorithm>
#include <fmt/format.h>

#include "base/log.hpp"

namespace kernet {

namespace {

using ghost::Code;

// Up to so many managers a quorum of them keeps each entry; of more, that many.
constexpr size_t all_vote = 9;
constexpr size_t keepers_of_many = 5;
constexpr size_t max_tombstones = 10'000;
constexpr size_t max_bare_fences = 10'000;

// splitmix64 (Steele, Lea, Flood): every bit depends on every bit.
uint64_t mix(uint64_t x) {
    x += 0x9e3779b97f4a7c15;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9;
    x = (x ^ x >> 27) * 0x94d049bb133111eb;
    return x ^ x >> 31;
}

}  // namespace

Directory::Directory(int self, int managers, uint64_t incarnation, DirectoryPort& port)
    : self_(self),
      managers_(managers),
      incarnation_(incarnation),
      port_(port),
      live_{self},
      members_{self} {}

// --- view ---

void Directory::manager_up(int manager) {
    if (manager < 0 || manager >= managers_ || manager == self_) return;
    members_.insert(manager);
    left_.erase(manager);
    if (!live_.insert(manager).second) return;
    view_changed();
    replicate_again();  // a quorum may be one more now
    run();
}

void Directory::manager_lost(int manager, bool gone) {
    if (manager < 0 || manager >= managers_ || manager == self_) return;
    const bool was_member = members_.count(manager) > 0;
    if (gone) {
        members_.erase(manager);
    } else {
        members_.insert(manager);
    }
    if (live_.erase(manager) == 0 && was_member == !gone) return;
    home_lost(manager);
    view_changed();
    replicate_again();
    run();
}

void Directory::node_left(int node) {
    if (!left_.insert(node).second) return;
    sweep_left_nodes();
    run();
}

// Requests whose home is another one now are asked again there; a home that is none steps down.
void Directory::view_changed() {
    for (auto& [id, owner] : owners_) {
        if (home(id) != self_) step_down(owner);
    }
    for (auto& [request, pending] : pending_) ask_home(request, pending);
    sweep_left_nodes();
}

// A manager more or less: whoever has a replica sees to it that the home, old or new, makes as many
// as it takes now.
void Directory::replicate_again() {
    for (auto& [id, owner] : owners_) {
        if (owner.step != Step::idle || owner.entry.id == 0) continue;
        const std::set<int> keep = keepers(owner.entry);
        if (std::includes(owner.holders.begin(), owner.holders.end(), keep.begin(), keep.end())) {
            continue;
        }
        owner.next = owner.entry;
        write(id, owner);
    }
    std::vector<StreamId> orphans;
    for (const auto& [id, entry] : replicas_) {
        const auto owner = owners_.find(id);
        const bool owned = owner != owners_.end() && owner->second.step != Step::unowned;
        if (!entry.destroyed && !owned) orphans.push_back(id);
    }
    for (StreamId id : orphans) {
        Change look;
        look.id = id;
        ask_on_own_account(look);
    }
}

void Directory::sweep_left_nodes() {
    std::vector<Change> changes;
    for (const int node : left_) {
        for (const auto& [id, entry] : replicas_) {
            const bool acts = std::any_of(
                entry.sockets.begin(), entry.sockets.end(), [node](const SocketEntry& socket) {
                    return socket.state == SocketState::attached && socket.where.node == node;
                });
            if (!acts) continue;
            Change change;
            change.operation = Operation::node_left;
            change.id = id;
            change.node = node;
            changes.push_back(change);
        }
    }
    for (const Change& change : changes) ask_on_own_account(change);
}

// Once at a time.
void Directory::ask_on_own_account(const Change& change) {
    for (const auto& [request, pending] : pending_) {
        if (pending.token == 0 && pending.change.id == change.id &&
            pending.change.operation == change.operation && pending.change.node == change.node) {
            return;
        }
    }
    request(0, change);
}

std::vector<int> Directory::by_hash(StreamId id) const {
    std::vector<int> order(live_.begin(), live_.end());
    const auto weight = [id](int manager) { return mix(id ^ mix(static_cast<uint64_t>(manager))); };
    std::sort(order.begin(), order.end(), [&](int a, int b) { return weight(a) > weight(b); });
    return order;
}

int Directory::home(StreamId id) const {
    return by_hash(id).front();
}

// More than half of those that have not gone; of exactly half, the half that has the lowest one.
bool Directory::is_quorum(const std::set<int>& managers) const {
    size_t count = 0;
    for (int manager : managers) count += members_.count(manager);
    if (count * 2 != members_.size()) return count * 2 > members_.size();
    return managers.count(*members_.begin()) > 0;
}

std::set<int> Directory::keepers(const Entry& entry) const {
    std::set<int> keep{self_};
    if (live_.count(entry.creator)) keep.insert(entry.creator);
    for (const SocketEntry& socket : entry.sockets) {
        if (socket.state == SocketState::attached && live_.count(socket.where.node)) {
            keep.insert(socket.where.node);
        }
    }
    for (int manager : by_hash(entry.id)) {
        const bool enough = members_.size() <= all_vote ? is_quorum(keep) && keep.size() > 1
                                                        : keep.size() >= keepers_of_many;
        if (enough) break;
        keep.insert(manager);
    }
    return keep;
}

// --- messages ---

// Messages to this manager itself are handled here, one after the other, never inside each other.
void Directory::run() {
    if (running_) return;
    running_ = true;
    while (!inbox_.empty()) {
        const auto message = std::move(inbox_.front());
        inbox_.pop_front();
        handle(self_, message);
    }
    running_ = false;
}

void Directory::receive(int from, std::string_view message) {
    auto reader = readers_.find(from);
    if (reader == readers_.end())
        reader =
            readers_.try_emplace(from, between_managers, fmt::format("manager {}", from)).first;
    std::string answer;
    const auto read = reader->second.read(message, answer);
    if (!answer.empty()) port_.send(from, answer);
    if (read) handle(from, *read);
    run();
}

void Directory::handle(int from, const ghost::schema::Received& message) {
    switch (message.type<ManagerMessage>()) {
        case ManagerMessage::ask:
            return on_ask(from, message.as<AskHome>());
        case ManagerMessage::answer:
            return on_answer(message.as<HomeAnswer>());
        case ManagerMessage::get:
            return on_get(from, message.as<GetEntry>());
        case ManagerMessage::have:
            return on_have(from, message.as<HaveEntry>());
        case ManagerMessage::put:
            return on_put(from, message.as<PutEntry>());
        case ManagerMessage::took:
            return on_took(from, message.as<TookEntry>());
        case ManagerMessage::drop:
            return on_drop(message.as<DropEntry>());
    }
}

// --- requester ---

void Directory::request(uint64_t token, Change change, uint32_t limit) {
    const std::string request = fmt::format("{}.{:x}.{}", self_, incarnation_, ++counter_);
    auto [at, added] = pending_.emplace(request, Pending{token, std::move(change), limit});
    ask_home(at->first, at->second);
    run();
}

void Directory::ask_home(const std::string& request, const Pending& pending) {
    post(home(pending.change.id), ManagerMessage::ask, AskHome{request, sent(pending.change)});
}

void Directory::on_answer(const HomeAnswer& message) {
    const auto found = pending_.find(message.request);
    if (found == pending_.end()) return;
    const Pending pending = std::move(found->second);
    pending_.erase(found);
    if (pending.token == 0) return;
    std::optional<Entry> entry;
    if (message.entry) entry = as_meant(*message.entry);
    Status status;
    if (!message.ok)
        status = as_meant(
            SentError{message.code, message.tried, message.object, message.why, message.sys});
    port_.answer(pending.token, status, message.socket, entry ? &*entry : nullptr);
}

void Directory::tick() {
    std::vector<Pending> late;
    for (auto at = pending_.begin(); at != pending_.end();) {
        if (at->second.ticks_left-- > 0) {
            ask_home(at->first, at->second);
            ++at;
            continue;
        }
        late.push_back(std::move(at->second));
        at = pending_.erase(at);
    }
    home_tick();
    forget_fences();
    sweep_left_nodes();
    run();
    for (const Pending& pending : late) {
        if (pending.token == 0) continue;
        port_.answer(
            pending.token,
            ghost::make_error(quorum() ? Code::timeout : Code::refused, "change in the directory",
                              fmt::format("stream {:016x}", pending.change.id),
                              quorum() ? "" : "most managers are out of reach"),
            0, nullptr);
    }
}

// --- replica ---

void Directory::on_get(int from, const GetEntry& message) {
    uint64_t& fence = fence_of(message.id);
    const auto found = replicas_.find(message.id);
    if (found != replicas_.end()) fence = std::max(fence, found->second.version.term);
    const bool agreed = message.term >= fence;
    if (agreed) fence = message.term;
    if (agreed && from != self_) overtaken(message.id, message.term);
    HaveEntry answer{message.id, message.nonce, agreed, fence, std::nullopt};
    if (found != replicas_.end()) answer.entry = sent(found->second);
    post(from, ManagerMessage::have, std::move(answer));
}

void Directory::on_put(int from, const PutEntry& message) {
    const Entry entry = as_meant(message.entry);
    const bool took = store(entry);
    if (took && from != self_) overtaken(entry.id, entry.version.term);
    post(from, ManagerMessage::took, TookEntry{entry.id, message.nonce, took, fence_of(entry.id)});
}

void Directory::on_drop(const DropEntry& message) {
    const auto found = replicas_.find(message.id);
    if (found == replicas_.end() || found->second.version > Version{message.term, message.change})
        return;
    bare_.push_back(found->first);
    replicas_.erase(found);
}

// False: a later manager has written, or is about to.
bool Directory::store(const Entry& entry) {
    uint64_t& fence = fence_of(entry.id);
    if (entry.version.term < fence) return false;
    fence = entry.version.term;
    Entry& replica = replicas_[entry.id];
    if (replica.id != 0 && replica.version > entry.version) return false;
    const bool news = replica.id == 0 || replica.version != entry.version;
    if (entry.destroyed && !replica.destroyed) tombstones_.push_back(entry.id);
    replica = entry;
    forget_tombstones();
    if (news) port_.changed(entry);
    return true;
}

// The term below which nobody may write a stream's entry any more; 0 at first.
uint64_t& Directory::fence_of(StreamId id) {
    const auto [at, added] = fences_.try_emplace(id, 0);
    if (added) bare_.push_back(id);
    return at->second;
}

// Fences of streams whose entries others keep, or that were only asked for. What a home that was
// overtaken so long ago may still write is kept out by its other keepers, and by tombstones.
void Directory::forget_fences() {
    while (bare_.size() > max_bare_fences) {
        if (replicas_.count(bare_.front()) == 0) fences_.erase(bare_.front());
        bare_.pop_front();
    }
}

void Directory::forget_tombstones() {
    while (tombstones_.size() > max_tombstones) {
        replicas_.erase(tombstones_.front());
        fences_.erase(tombstones_.front());
        tombstones_.pop_front();
    }
}

}  // namespace kernet
