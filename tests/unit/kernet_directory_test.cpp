// SPDX-License-Identifier: BSD-3-Clause
// The directory of streams: what one entry allows, and managers in a simulation where messages wait
// for any time, connections break, managers end and begin again.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <deque>
#include <fmt/format.h>
#include <memory>
#include <random>

#include "kernet-btl/streams/directory.hpp"
#include "tests/rounds.hpp"

namespace {

using ghost::Code;
using kernet::Change;
using kernet::Directory;
using kernet::Entry;
using kernet::Operation;
using kernet::SocketState;
using kernet::Status;
using kernet::StreamId;
using kernet::StreamType;

Change make_change(Operation operation, StreamId id) {
    Change change;
    change.operation = operation;
    change.id = id;
    return change;
}

kernet::Location place(uint32_t process, int node) {
    kernet::Location where;
    where.rank = process;
    where.node = node;
    where.node_name = fmt::format("n{}", node);
    where.attached = true;
    return where;
}

Change creation(StreamId id, StreamType type, uint16_t sockets) {
    Change change = make_change(Operation::create, id);
    change.type = type;
    change.sockets = sockets;
    change.where = place(1, 0);
    return change;
}

// --- one entry ---

TEST(SocketStates, AllowsOnlyListedTransitions) {
    using S = SocketState;
    const std::vector<std::pair<S, S>> allowed{
        {S::free, S::attached},       {S::free, S::unattached},    {S::attached, S::suspended},
        {S::attached, S::unattached}, {S::suspended, S::attached}, {S::suspended, S::unattached}};
    for (S from : {S::free, S::attached, S::suspended, S::unattached}) {
        for (S to : {S::free, S::attached, S::suspended, S::unattached}) {
            const bool expected =
                std::find(allowed.begin(), allowed.end(), std::pair(from, to)) != allowed.end();
            EXPECT_EQ(kernet::socket_states.allows(from, to), expected)
                << kernet::socket_states.name(from) << " to " << kernet::socket_states.name(to);
        }
    }
}

TEST(DirectoryEntry, DirectStreamLifeCycle) {
    Entry entry;
    uint16_t socket = 9;
    ASSERT_TRUE(apply(entry, creation(7, StreamType::direct, 2), socket).ok());
    Change attach = make_change(Operation::attach, 7);
    attach.where = place(11, 0);
    ASSERT_TRUE(apply(entry, attach, socket).ok());
    EXPECT_EQ(socket, 0);
    EXPECT_FALSE(entry.ready());
    attach.where = place(12, 1);
    ASSERT_TRUE(apply(entry, attach, socket).ok());
    EXPECT_EQ(socket, 1);
    EXPECT_TRUE(entry.ready());
    EXPECT_EQ(entry.connected(), 2u);
    EXPECT_EQ(apply(entry, attach, socket).error().code, Code::refused);  // no third

    Change suspend = make_change(Operation::suspend, 7);
    suspend.socket = 1;
    suspend.incarnation = 1;
    suspend.key = 1234;
    ASSERT_TRUE(apply(entry, suspend, socket).ok());
    EXPECT_EQ(entry.connected(), 1u);
    EXPECT_EQ(apply(entry, suspend, socket).error().code, Code::refused);  // already
    Change wakeup = make_change(Operation::wakeup, 7);
    wakeup.socket = 1;
    wakeup.key = 1;
    wakeup.where = place(13, 2);
    EXPECT_EQ(apply(entry, wakeup, socket).error().code, Code::refused);  // wrong key
    wakeup.key = 1234;
    ASSERT_TRUE(apply(entry, wakeup, socket).ok());
    EXPECT_EQ(entry.sockets[1].where.node, 2);
    EXPECT_EQ(entry.sockets[1].incarnation, 2u);
    EXPECT_EQ(apply(entry, wakeup, socket).error().code, Code::refused);  // a handle works once

    Change leave = make_change(Operation::unattach, 7);
    leave.socket = 0;
    leave.incarnation = 1;
    ASSERT_TRUE(apply(entry, leave, socket).ok());
    EXPECT_FALSE(entry.destroyed);
    leave.socket = 1;
    EXPECT_EQ(apply(entry, leave, socket).error().code, Code::refused);  // an older incarnation
    leave.incarnation = 2;
    ASSERT_TRUE(apply(entry, leave, socket).ok());
    EXPECT_TRUE(entry.destroyed);  // both have left
    EXPECT_EQ(apply(entry, attach, socket).error().code, Code::not_found);
}

TEST(DirectoryEntry, QueueGrowsWithSockets) {
    Entry entry;
    uint16_t socket = 0;
    ASSERT_TRUE(apply(entry, creation(7, StreamType::fifo, 0), socket).ok());
    Change attach = make_change(Operation::attach, 7);
    attach.where = place(11, 0);
    for (size_t i = 0; i < kernet::max_sockets; i++) {
        ASSERT_TRUE(apply(entry, attach, socket).ok());
        EXPECT_EQ(socket, i);
    }
    EXPECT_EQ(apply(entry, attach, socket).error().code, Code::refused);
    Change left = make_change(Operation::node_left, 7);
    left.node = 0;
    ASSERT_TRUE(apply(entry, left, socket).ok());
    EXPECT_TRUE(entry.sockets[5].lost);
    EXPECT_EQ(entry.connected(), 0u);
}

TEST(DirectoryEntry, EntrySurvivesEncoding) {
    Entry entry;
    uint16_t socket = 0;
    ASSERT_TRUE(apply(entry, creation(~0ull, StreamType::lifo, 3), socket).ok());
    Change attach = make_change(Operation::attach, entry.id);
    attach.where = place(0xffffffff, 3);
    attach.where.tcp.push_back({"127.0.0.1", 4711});
    ASSERT_TRUE(apply(entry, attach, socket).ok());
    Change suspend = make_change(Operation::suspend, entry.id);
    suspend.incarnation = 1;
    suspend.key = ~0ull;
    suspend.farewells[2] = {1, 77};
    ASSERT_TRUE(apply(entry, suspend, socket).ok());
    ASSERT_TRUE(apply(entry, attach, socket).ok());
    entry.version = {3, 4};
    entry.answered.push_back({"0.1.2", 1, 5});
    using ghost::schema::decode;
    const std::string text = ghost::schema::encode(kernet::sent(entry));
    auto again = decode<kernet::SentEntry>(text);
    ASSERT_TRUE(again.ok()) << again.error().message();
    EXPECT_EQ(as_meant(*again), entry);
    auto whole = nlohmann::json::parse(text);
    whole.erase("t");
    EXPECT_EQ(whole.size(), 11U);
    for (const auto& [field, value] : whole.items()) {
        auto damaged = whole;
        damaged[field] = nullptr;
        EXPECT_EQ(decode<kernet::SentEntry>(damaged.dump()).error().code, Code::corrupt) << field;
    }
}

// --- managers ---

struct Answer {
    Status status;
    uint16_t socket = 0;
    Entry entry;
};

class Simulation {
  public:
    explicit Simulation(int managers, uint64_t seed) : random_(seed), managers_(managers) {
        for (int i = 0; i < managers; i++) nodes_.push_back(std::make_unique<Node>(*this, i));
        for (int i = 0; i < managers; i++) begin(i);
    }

    // Connected to every other one that lives.
    void begin(int manager) {
        Node& node = *nodes_[static_cast<size_t>(manager)];
        node.versions.clear();
        node.directory = std::make_unique<Directory>(manager, managers_, ++incarnations_, node);
        for (int other = 0; other < managers_; other++) {
            if (other != manager && alive(other)) connect(manager, other);
        }
    }
    void end(int manager) {
        nodes_[static_cast<size_t>(manager)]->directory.reset();
        for (int other = 0; other < managers_; other++) cut(manager, other, true);
    }
    bool alive(int manager) const {
        return nodes_[static_cast<size_t>(manager)]->directory != nullptr;
    }
    void connect(int a, int b) {
        connected_.insert({a, b});
        connected_.insert({b, a});
        at(a).manager_up(b);
        at(b).manager_up(a);
    }
    bool connected(int a, int b) const { return connected_.count({a, b}) > 0; }
    void cut(int a, int b, bool gone = false) {
        if (a == b) return;
        connected_.erase({a, b});
        connected_.erase({b, a});
        wires_.erase({a, b});
        wires_.erase({b, a});
        if (alive(a)) at(a).manager_lost(b, gone && !alive(b));
        if (alive(b)) at(b).manager_lost(a, gone && !alive(a));
    }
    Directory& at(int manager) { return *nodes_[static_cast<size_t>(manager)]->directory; }

    uint64_t ask(int manager, const Change& change) {
        at(manager).request(++tokens_, change, 20);
        return tokens_;
    }
    const Answer* answer(uint64_t token) const {
        const auto found = answers_.find(token);
        return found == answers_.end() ? nullptr : &found->second;
    }
    // One message arrives, any of those that may be the next. False: there is none.
    bool step() {
        if (wires_.empty()) return false;
        auto wire = wires_.begin();
        std::advance(wire, static_cast<long>(random_() % wires_.size()));
        const auto [from, to] = wire->first;
        const std::string message = std::move(wire->second.front());
        wire->second.pop_front();
        if (wire->second.empty()) wires_.erase(wire);
        at(to).receive(from, message);
        return true;
    }
    void settle() {
        for (int round = 0; round < 4; round++) {
            while (step()) {
            }
            tick();
        }
    }
    void tick() {
        for (int i = 0; i < managers_; i++) {
            if (alive(i)) at(i).tick();
        }
    }
    Answer wait(int manager, const Change& change) {
        const uint64_t token = ask(manager, change);
        for (int round = 0; round < 40 && !answer(token); round++) {
            while (step()) {
            }
            tick();
        }
        EXPECT_NE(answer(token), nullptr) << "no answer";
        return answer(token) ? *answer(token) : Answer{};
    }
    std::mt19937_64& random() { return random_; }

  private:
    struct Node final : kernet::DirectoryPort {
        Node(Simulation& all, int number) : all(all), number(number) {}
        void send(int manager, const std::string& message) override {
            if (all.connected(number, manager)) all.wires_[{number, manager}].push_back(message);
        }
        void answer(uint64_t token, const Status& status, uint16_t socket,
                    const Entry* entry) override {
            EXPECT_EQ(all.answers_.count(token), 0u) << "answered twice";
            all.answers_.insert({token, {status, socket, entry ? *entry : Entry{}}});
        }
        void changed(const Entry& entry) override {
            EXPECT_GE(entry.version, versions[entry.id]) << "a map goes back";
            versions[entry.id] = entry.version;
        }
        Simulation& all;
        int number;
        std::unique_ptr<Directory> directory;
        std::map<StreamId, kernet::Version> versions;
    };
    std::mt19937_64 random_;
    int managers_;
    std::vector<std::unique_ptr<Node>> nodes_;
    std::set<std::pair<int, int>> connected_;
    std::map<std::pair<int, int>, std::deque<std::string>> wires_;
    std::map<uint64_t, Answer> answers_;
    uint64_t tokens_ = 0, incarnations_ = 0;
};

// Actors attach, suspend, wake up and unattach at random managers; what they were told must hold.
class Actors {
  public:
    Actors(Simulation& simulation, int managers, StreamId id, size_t count)
        : simulation_(simulation), managers_(managers), id_(id), actors_(count) {}

    void act() {
        Actor& actor = actors_[simulation_.random()() % actors_.size()];
        if (actor.token) {
            look_for_answer(actor);
            return;
        }
        Change change = make_change(Operation::attach, id_);
        const auto process = static_cast<uint32_t>(&actor - actors_.data());
        const int manager = any_manager();
        change.where = place(process, manager);
        change.socket = actor.socket;
        change.incarnation = actor.incarnation;
        if (actor.state == SocketState::attached) {
            change.operation =
                simulation_.random()() % 4 == 0 ? Operation::unattach : Operation::suspend;
            change.key = actor.key = simulation_.random()() | 1;
        } else if (actor.state == SocketState::suspended) {
            change.operation = Operation::wakeup;
            change.key = actor.key;
        }
        actor.asked = change.operation;
        actor.token = simulation_.ask(manager, change);
        actor.manager = manager;
    }
    // A request given to a manager that ended has no answer.
    void manager_ended(int manager) {
        for (Actor& actor : actors_) {
            if (actor.token && actor.manager == manager && !simulation_.answer(actor.token)) {
                unknown(actor);
            }
        }
    }
    void check(const Entry& entry) {
        for (const Actor& actor : actors_) {
            if (actor.state == SocketState::free || actor.token) continue;
            const auto& socket = entry.sockets.at(actor.socket);
            EXPECT_EQ(socket.state, actor.state) << "socket " << actor.socket;
            EXPECT_EQ(socket.incarnation, actor.incarnation) << "socket " << actor.socket;
        }
    }
    void collect_answers() {
        for (Actor& actor : actors_) {
            if (actor.token) look_for_answer(actor);
        }
    }
    size_t done = 0;

  private:
    struct Actor {
        SocketState state = SocketState::free;
        uint16_t socket = 0;
        uint32_t incarnation = 0;
        uint64_t key = 0, token = 0;
        int manager = -1;
        Operation asked = Operation::look;
    };
    int any_manager() {
        for (;;) {
            const int manager =
                static_cast<int>(simulation_.random()() % static_cast<uint64_t>(managers_));
            if (simulation_.alive(manager)) return manager;
        }
    }
    void unknown(Actor& actor) { actor = Actor{}; }
    void look_for_answer(Actor& actor) {
        const Answer* answer = simulation_.answer(actor.token);
        if (!answer) return;
        actor.token = 0;
        if (!answer->status) {
            const Code code = answer->status.error().code;
            // What was refused was refused for good; the rest may have happened all the same.
            if (code == Code::refused && actor.state == SocketState::free) return;
            EXPECT_TRUE(code == Code::timeout || code == Code::refused)
                << answer->status.error().message();
            EXPECT_FALSE(code == Code::refused &&
                         answer->status.error().message().find("out of reach") == std::string::npos)
                << answer->status.error().message();
            return unknown(actor);
        }
        done++;
        if (actor.asked == Operation::unattach) return unknown(actor);
        if (actor.asked == Operation::suspend) {
            actor.state = SocketState::suspended;
            return;
        }
        actor.state = SocketState::attached;
        actor.socket = answer->socket;
        actor.incarnation = answer->entry.sockets.at(answer->socket).incarnation;
        for (const Actor& other : actors_) {
            EXPECT_TRUE(&other == &actor || other.state == SocketState::free ||
                        other.socket != actor.socket)
                << "socket " << actor.socket << " was given twice";
        }
    }
    Simulation& simulation_;
    int managers_;
    StreamId id_;
    std::vector<Actor> actors_;
};

uint64_t seeds() {
    const int usual = std::getenv("GHOST_TEST_SLOWER") ? 8 : 40;
    return static_cast<uint64_t>(ghost::test::rounds("GHOST_TEST_SEEDS", usual, 400));
}

TEST(DirectorySimulation, ConfirmedChangeIsKept) {
    size_t done = 0;
    for (uint64_t seed = 0; seed < seeds() && !HasFailure(); seed++) {
        SCOPED_TRACE(fmt::format("seed {}", seed));
        const int managers = 2 + static_cast<int>(seed % 4);
        Simulation simulation(managers, seed);
        ASSERT_TRUE(simulation.wait(0, creation(seed + 1, StreamType::fifo, 0)).status.ok());
        Actors actors(simulation, managers, seed + 1, 6);
        auto& random = simulation.random();
        for (int action = 0; action < 400; action++) {
            actors.act();
            for (uint64_t steps = random() % 12; steps > 0; steps--) simulation.step();
            const int a = static_cast<int>(random() % static_cast<uint64_t>(managers));
            const int b = static_cast<int>(random() % static_cast<uint64_t>(managers));
            switch (random() % 40) {
                case 0:  // a connection breaks
                    if (a != b && simulation.connected(a, b)) simulation.cut(a, b);
                    break;
                case 1:
                case 2:
                    if (a != b && simulation.alive(a) && simulation.alive(b) &&
                        !simulation.connected(a, b)) {
                        simulation.connect(a, b);
                    }
                    break;
                case 3:
                    simulation.tick();
                    break;
                case 4: {  // one manager ends or begins, and nothing else before that is dealt with
                    for (int i = 0; i < managers; i++) {
                        for (int j = 0; j < i; j++) {
                            if (!simulation.connected(i, j) && simulation.alive(i) &&
                                simulation.alive(j)) {
                                simulation.connect(i, j);
                            }
                        }
                    }
                    simulation.settle();
                    int living = 0;
                    for (int i = 0; i < managers; i++) living += simulation.alive(i);
                    if (!simulation.alive(a)) {
                        simulation.begin(a);
                        simulation.settle();
                    } else if (living > 1) {
                        simulation.end(a);
                        actors.manager_ended(a);
                        simulation.settle();
                    }
                    break;
                }
                default:
                    break;
            }
        }
        for (int i = 0; i < managers; i++) {
            if (!simulation.alive(i)) simulation.begin(i);
            for (int j = 0; j < i; j++) {
                if (!simulation.connected(i, j)) simulation.connect(i, j);
            }
        }
        for (int round = 0; round < 8; round++) simulation.settle();
        actors.collect_answers();
        Entry first;
        for (int i = 0; i < managers; i++) {
            const Answer seen = simulation.wait(i, make_change(Operation::look, seed + 1));
            ASSERT_TRUE(seen.status.ok()) << seen.status.error().message();
            if (i == 0) first = seen.entry;
            EXPECT_EQ(seen.entry.sockets, first.sockets);
        }
        actors.check(first);
        done += actors.done;
    }
    EXPECT_GT(done, seeds() * 50) << "hardly anything was carried out";
}

TEST(DirectorySimulation, MinorityCannotChangeEntry) {
    Simulation simulation(5, 1);
    ASSERT_TRUE(simulation.wait(0, creation(42, StreamType::fifo, 0)).status.ok());
    for (int here : {3, 4}) {
        for (int there : {0, 1, 2}) simulation.cut(here, there);
    }
    Change attach = make_change(Operation::attach, 42);
    attach.where = place(1, 3);
    const Answer minority = simulation.wait(3, attach);
    ASSERT_FALSE(minority.status.ok());
    EXPECT_EQ(minority.status.error().code, Code::refused);
    attach.where = place(1, 0);
    const Answer majority = simulation.wait(0, attach);
    ASSERT_TRUE(majority.status.ok()) << majority.status.error().message();
    for (int here : {3, 4}) {
        for (int there : {0, 1, 2}) simulation.connect(here, there);
    }
    simulation.settle();
    EXPECT_EQ(simulation.wait(4, make_change(Operation::look, 42)).entry.connected(), 1u);
}

TEST(DirectorySimulation, HomeDiesNextHomeTakesOver) {
    for (StreamId id = 1; id <= 30; id++) {
        Simulation simulation(3, id);
        ASSERT_TRUE(simulation.wait(0, creation(id, StreamType::direct, 2)).status.ok());
        Change attach = make_change(Operation::attach, id);
        const int home = simulation.at(0).home(id);
        const int first = (home + 1) % 3, second = (home + 2) % 3;
        attach.where = place(1, first);
        ASSERT_TRUE(simulation.wait(first, attach).status.ok());
        simulation.end(home);
        attach.where = place(2, second);
        const Answer answer = simulation.wait(second, attach);
        ASSERT_TRUE(answer.status.ok()) << answer.status.error().message();
        EXPECT_EQ(answer.socket, 1);
        EXPECT_TRUE(answer.entry.ready());
        // And the next one.
        const int next = simulation.at(first).home(id), last = next == first ? second : first;
        simulation.settle();
        simulation.end(next);
        EXPECT_EQ(simulation.wait(last, make_change(Operation::look, id)).entry.connected(), 2u);
        simulation.at(last).node_left(next);
        EXPECT_EQ(simulation.wait(last, make_change(Operation::look, id)).entry.connected(), 1u);
    }
}

TEST(DirectorySimulation, UnknownStreamIsRefused) {
    Simulation simulation(3, 1);
    const Answer answer = simulation.wait(1, make_change(Operation::attach, 99));
    ASSERT_FALSE(answer.status.ok());
    EXPECT_EQ(answer.status.error().code, Code::not_found);
}

// What was promised about streams that are not there, or are others' to keep, is not kept for ever.
TEST(DirectorySimulation, PromisesAreForgottenAtLimit) {
    constexpr StreamId most = 10'000;
    Simulation simulation(3, 7);
    ASSERT_TRUE(simulation.wait(0, creation(1, StreamType::direct, 2)).status.ok());
    for (StreamId id = 2; id < most + 1000; id++) {
        simulation.ask(static_cast<int>(id % 3), make_change(Operation::look, id));
        while (simulation.step()) {
        }
    }
    simulation.tick();
    for (int manager = 0; manager < 3; manager++) {
        EXPECT_GE(simulation.at(manager).remembered(), most - 1);
        EXPECT_LE(simulation.at(manager).remembered(), most + 1);
    }
    const Answer answer = simulation.wait(2, make_change(Operation::look, 1));  // the oldest
    ASSERT_TRUE(answer.status.ok()) << answer.status.error().message();
    EXPECT_EQ(answer.entry.sockets.size(), 2U);
}

TEST(DirectorySimulation, DamagedMessagesAreDropped) {
    Simulation simulation(2, 1);
    for (const char* text : {"", "null", "[]", "{\"t\":\"get\"}", "{\"t\":\"put\",\"entry\":3}",
                             "{\"t\":\"ask\",\"change\":{}}", "{\"t\":7}"}) {
        simulation.at(0).receive(1, text);
    }
    EXPECT_TRUE(simulation.wait(0, creation(5, StreamType::direct, 2)).status.ok());
}

}  // namespace
