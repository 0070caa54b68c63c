// SPDX-License-Identifier: BSD-3-Clause
// FIFO and LIFO sockets among themselves, simulated: every socket in a process of its own, ways
// between them that keep their order but are as slow as it happens, maps that come to everyone at
// other times. What comes out is checked against what the streams promise (docs/KERNET.md).
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <fmt/format.h>
#include <map>
#include <memory>
#include <random>
#include <set>
#include <vector>

#include "kernet-btl/streams/stream_socket.hpp"
#include "tests/rounds.hpp"

namespace {

using namespace kernet;

class World {
  public:
    World(uint64_t seed, StreamType type, bool moves) : random_(seed), moves_(moves) {
        Change create;
        create.operation = Operation::create;
        create.id = 1 + seed;
        create.type = type;
        carry_out(create);
    }

    // Until every message has been taken. False: not in so many steps.
    bool run(size_t writers, size_t readers, int messages) {
        total_ = writers * static_cast<size_t>(messages);
        std::vector<uint8_t> roles(writers, role_writer);
        roles.insert(roles.end(), readers, role_reader);
        std::shuffle(roles.begin(), roles.end(), random_);
        for (uint8_t role : roles) users_.push_back({role, role == role_writer ? messages : 0});
        for (size_t steps = 0; steps < 400 * total_ + 40'000; steps++) {
            if (taken_ == total_ && gone_ == writers) return true;
            step();
        }
        return false;
    }

    size_t moves() const { return moved_; }
    const std::vector<std::string>& wrong() const { return wrong_; }
    std::string state() const {
        return fmt::format("{} of {} taken, {} versions", taken_, total_, versions_.size());
    }

  private:
    struct Message {
        wire::StreamHeader header;
        BodyPtr body;
    };
    // A process with one socket, which is there once the answer to its attach or wakeup has come.
    struct Process final : StreamHost {
        World* world = nullptr;
        uint32_t rank = 0;
        std::unique_ptr<StreamSocket> socket;
        size_t version = 0;  // the next it is told of
        std::vector<Message> orphans;

        void send_message(uint32_t to, const wire::StreamHeader& header,
                          const BodyPtr& body) override {
            world->ways_[{rank, to}].push_back({header, body});
        }
        void know(const Location&) override {}
        void woken() override {}
    };
    enum class Stage : uint8_t { outside, coming, inside, suspended, gone };
    struct User {
        uint8_t role = 0;
        int to_send = 0;
        Stage stage = Stage::outside;
        Process* process = nullptr;
        size_t answered = 0;  // version its attach or wakeup made
        uint16_t number = 0;
        int sent = 0;
        uint64_t key = 0;
        nlohmann::json state = {};
        std::map<int, int> last = {};  // reader: of each writer
    };

    size_t chance(size_t of) { return random_() % of; }

    uint16_t carry_out(const Change& change) {
        uint16_t number = 0;
        const Status done = apply(entry_, change, number);
        if (!done) wrong_.push_back(done.error().message());
        entry_.version = {1, entry_.version.change + 1};
        versions_.push_back(entry_);
        return number;
    }

    void step() {
        const size_t what = chance(100);
        if (what < 45) return deliver();
        if (what < 60) return tell();
        User& user = users_[chance(users_.size())];
        switch (user.stage) {
            case Stage::outside:
                if (chance(4) == 0) attach(user);
                return;
            case Stage::coming:
                if (chance(3) == 0) adopt(user);
                return;
            case Stage::inside:
                return act(user);
            case Stage::suspended:
                if (chance(3) == 0) wake(user);
                return;
            case Stage::gone:
                return;
        }
    }

    void run_local(Process& process) {
        auto& own = ways_[{process.rank, process.rank}];
        while (!own.empty()) {
            Message message = std::move(own.front());
            own.erase(own.begin());
            receive(process, std::move(message));
        }
    }

    void receive(Process& process, Message message) {
        if (process.socket && process.socket->number() == message.header.to) {
            process.socket->receive(message.header, std::move(message.body));
        } else {
            process.orphans.push_back(std::move(message));
        }
    }

    void deliver() {
        std::vector<std::pair<uint32_t, uint32_t>> full;
        for (const auto& [way, messages] : ways_) {
            if (!messages.empty()) full.push_back(way);
        }
        if (full.empty()) return;
        const auto way = full[chance(full.size())];
        for (size_t some = 1 + chance(4); some > 0 && !ways_[way].empty(); some--) {
            Message message = std::move(ways_[way].front());
            ways_[way].erase(ways_[way].begin());
            receive(*processes_[way.second], std::move(message));
            run_local(*processes_[way.second]);
        }
    }

    void tell() {
        const User& user = users_[chance(users_.size())];
        if (user.stage != Stage::inside || user.process->version >= versions_.size()) return;
        Process& process = *user.process;
        process.socket->update(versions_[process.version++]);
        run_local(process);
    }

    Process& new_process(Change& change) {
        processes_.push_back(std::make_unique<Process>());
        Process& process = *processes_.back();
        process.world = this;
        process.rank = static_cast<uint32_t>(processes_.size() - 1);
        change.where.rank = process.rank;
        change.where.attached = true;
        return process;
    }

    void attach(User& user) {
        Change change;
        change.operation = Operation::attach;
        change.role = user.role;
        user.process = &new_process(change);
        user.number = carry_out(change);
        user.answered = versions_.size() - 1;
        user.stage = Stage::coming;
    }

    void adopt(User& user) {
        Process& process = *user.process;
        process.socket =
            StreamSocket::make(process, versions_[user.answered], user.number, 1 << 20);
        process.version = user.answered + 1;
        if (!user.state.is_null() && !process.socket->restore(user.state)) {
            wrong_.push_back("a handle is not taken");
        }
        process.socket->begin();
        for (Message& message : std::exchange(process.orphans, {})) {
            receive(process, std::move(message));
        }
        run_local(process);
        user.stage = Stage::inside;
    }

    void act(User& user) {
        StreamSocket& socket = *user.process->socket;
        if (moves_ && chance(60) == 0) return suspend(user);
        if (user.role == role_reader) {
            socket.wanted(chance(4) == 0 ? 0 : 1);
            if (const BodyPtr body = socket.take()) took(user, *body);
        } else if (user.sent < user.to_send) {
            const std::string text = fmt::format("{} {}", user.number, ++user.sent);
            socket.send(make_body(text.c_str(), text.size() + 1));
        } else if (socket.all_taken()) {
            return leave(user);
        }
        run_local(*user.process);
    }

    void took(User& user, const Body& body) {
        int writer = 0, number = 0;
        const auto* text = reinterpret_cast<const char*>(body.bytes.get());
        if (std::sscanf(text, "%d %d", &writer, &number) != 2) wrong_.emplace_back("no message");
        if (!seen_.insert({writer, number}).second) {
            wrong_.push_back(fmt::format("message {} of writer {} twice", number, writer));
        }
        if (entry_.type == StreamType::fifo && !moves_ && number <= user.last[writer]) {
            wrong_.push_back(fmt::format("reader {} got message {} of writer {} after {}",
                                         user.number, number, writer, user.last[writer]));
        }
        user.last[writer] = number;
        taken_++;
    }

    Change about(User& user, Operation operation) {
        Change change;
        change.operation = operation;
        change.socket = user.number;
        change.incarnation = user.process->socket->incarnation();
        return change;
    }

    void leave(User& user) {
        user.process->socket->stop();
        Change change = about(user, Operation::unattach);
        change.farewells = user.process->socket->farewells(false);
        carry_out(change);
        user.process->socket.reset();
        user.stage = Stage::gone;
        gone_++;
    }

    void suspend(User& user) {
        user.process->socket->stop();
        Change change = about(user, Operation::suspend);
        change.key = user.key = random_();
        change.farewells = user.process->socket->farewells(true);
        carry_out(change);
        user.state = user.process->socket->save();
        user.process->socket.reset();
        user.stage = Stage::suspended;
        moved_++;
    }

    void wake(User& user) {
        Change change;
        change.operation = Operation::wakeup;
        change.socket = user.number;
        change.key = user.key;
        user.process = &new_process(change);
        carry_out(change);
        user.answered = versions_.size() - 1;
        user.stage = Stage::coming;
    }

    std::mt19937_64 random_;
    const bool moves_;
    Entry entry_;
    std::vector<Entry> versions_;
    std::vector<std::unique_ptr<Process>> processes_;
    std::map<std::pair<uint32_t, uint32_t>, std::vector<Message>> ways_;
    std::vector<User> users_;
    std::set<std::pair<int, int>> seen_;
    std::vector<std::string> wrong_;
    size_t total_ = 0, taken_ = 0, gone_ = 0, moved_ = 0;
};

struct Case {
    const char* name;
    StreamType type;
    bool moves;
};

class KernetQueue : public testing::TestWithParam<Case> {};

uint64_t seeds() {
    const int usual = std::getenv("GHOST_TEST_SLOWER") ? 50 : 500;
    return static_cast<uint64_t>(ghost::test::rounds("GHOST_TEST_SEEDS", usual, 5000));
}

TEST_P(KernetQueue, MessagesAreGivenOnceInOrder) {
    size_t moves = 0;
    for (uint64_t seed = 0; seed < seeds() && !HasFailure(); seed++) {
        World world(seed, GetParam().type, GetParam().moves);
        EXPECT_TRUE(world.run(1 + seed % 4, 1 + seed / 4 % 4, 60))
            << "seed " << seed << ": " << world.state();
        for (const auto& wrong : world.wrong()) ADD_FAILURE() << "seed " << seed << ": " << wrong;
        moves += world.moves();
    }
    EXPECT_TRUE(!GetParam().moves || moves > seeds()) << "hardly anybody moved: " << moves;
}

INSTANTIATE_TEST_SUITE_P(Streams, KernetQueue,
                         testing::Values(Case{"Fifo", StreamType::fifo, false},
                                         Case{"Lifo", StreamType::lifo, false},
                                         Case{"FifoMoves", StreamType::fifo, true},
                                         Case{"LifoMoves", StreamType::lifo, true}),
                         [](const auto& info) { return info.param.name; });

}  // namespace
