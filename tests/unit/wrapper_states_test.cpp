// SPDX-License-Identifier: BSD-3-Clause
// What a wrapper is told out of turn, and what its own states do not allow, is refused: a source
// says `failed` and is as before, a restore wrapper gives up.
#include <gtest/gtest.h>

#include <poll.h>
#include <string>
#include <vector>

#include "base/control_socket.hpp"
#include "pmix-plugin/wrapper/mover.hpp"
#include "pmix-plugin/wrapper/restorer.hpp"
#include "pmix-plugin/wrapper/snapshotter.hpp"

namespace ghost::plugin {
namespace {

template <typename T>
schema::Received received(const T& message) {
    std::string answer;
    auto out = schema::Reader(to_wrapper, "test").read(schema::encode(message), answer);
    EXPECT_TRUE(out) << answer;
    return *out;
}

template <typename Table>
size_t changes(const Table& table) {
    size_t out = 0;
    for (const auto& from : table)
        for (const auto& next : table) out += table.allows(from.state, next.state) ? 1 : 0;
    return out;
}

Connect to_nowhere(uint64_t seq) {
    return {seq, 1, 3, "127.0.0.1", 1, "token"};
}

// A rank's tree without a process, and what the node agent is told.
class WrapperStates : public testing::Test {
  protected:
    TreeParts parts() {
        return {who_, 0, stdio_, guard_, [this](const std::string& packet) { said_ += packet; }};
    }
    // Since the last call.
    std::string said() { return std::exchange(said_, {}); }
    // Nothing but this was said.
    testing::AssertionResult failed(Stage stage, uint64_t seq) {
        const std::string packet = said();
        const auto read = schema::decode<Failed>(packet);
        if (read.ok() && read->stage == stage && read->seq == seq && read->rank == 3)
            return testing::AssertionSuccess();
        return testing::AssertionFailure() << "said: " << packet;
    }

    Identity who_{.job = "1", .rank = 3, .life = "1f", .node_socket = "", .criu = "no-criu"};
    Stdio stdio_;
    core::Guard guard_;
    std::string said_;
};

// --- what blocks ---

// Whoever waits is to hear of everything that was done, be it that no bytes have come.
TEST(WorkerProgress, TellsOfStepsAndBytesOnce) {
    Worker worker;
    uint64_t bytes = 0, total = 0;
    worker.start([&worker]() -> Outgoing {
        worker.gets_on();
        return {};
    });
    worker.finish();
    EXPECT_TRUE(worker.progress(bytes, total));
    EXPECT_FALSE(worker.progress(bytes, total));
    worker.start([&worker]() -> Outgoing {
        worker.note(3, 7);
        return {};
    });
    worker.finish();
    EXPECT_TRUE(worker.progress(bytes, total));
    EXPECT_EQ(bytes, 3u);
    EXPECT_EQ(total, 7u);
    EXPECT_FALSE(worker.progress(bytes, total));
}

// --- the source of a move ---

struct AnyMover : Mover {
    using Mover::change;
    using Mover::Mover;
};

TEST(MoveStates, AllowsOnlyListedTransitions) {
    using S = MoveState;
    EXPECT_EQ(changes(move_states), 21u);
    EXPECT_FALSE(move_states.allows(S::idle, S::exporting));  // no target
    EXPECT_FALSE(move_states.allows(S::connecting, S::exporting));
    EXPECT_FALSE(move_states.allows(S::connected, S::leaving));  // nothing is out
    EXPECT_FALSE(move_states.allows(S::exporting, S::leaving));
    EXPECT_FALSE(move_states.allows(S::copying, S::exported));  // not without a last stop
    EXPECT_FALSE(move_states.allows(S::copying, S::leaving));
    EXPECT_FALSE(move_states.allows(S::calling_off, S::exported));
    EXPECT_FALSE(move_states.allows(S::leaving, S::idle));  // decided
    EXPECT_TRUE(move_states.is_final(S::gone));
}

TEST_F(WrapperStates, MoverRefusesOrdersOutOfTurn) {
    AnyMover mover(parts(), nullptr);
    EXPECT_TRUE(mover.handle(received(Export{1})));
    EXPECT_TRUE(failed(Stage::exporting, 1));
    EXPECT_TRUE(mover.idle());
    EXPECT_FALSE(mover.handle(received(SnapWrite{1})));  // of a snapshot
    EXPECT_TRUE(mover.handle(received(Die{2})));         // of a tree that was adopted exported
    EXPECT_TRUE(mover.leaving());
    EXPECT_TRUE(mover.handle(received(to_nowhere(3))));
    EXPECT_TRUE(failed(Stage::connect, 3));
    EXPECT_TRUE(mover.handle(received(Die{3})));
    EXPECT_TRUE(failed(Stage::ending, 3));
    EXPECT_TRUE(mover.handle(received(Cancel{3})));
    EXPECT_TRUE(mover.leaving());
    EXPECT_EQ(said(), "");
}

TEST_F(WrapperStates, MoverRefusesUnlistedTransition) {
    AnyMover mover(parts(), nullptr);
    EXPECT_FALSE(mover.change(MoveState::exported));
    EXPECT_TRUE(failed(Stage::moving, 0));
    EXPECT_TRUE(mover.idle());
    // As before: the next one begins, and fails for a reason of its own.
    EXPECT_TRUE(mover.handle(received(to_nowhere(1))));
    ASSERT_TRUE(mover.busy()) << said();
    pollfd ended{mover.fd(), POLLIN, 0};
    ASSERT_EQ(::poll(&ended, 1, 10'000), 1);
    mover.worker_done();
    EXPECT_TRUE(failed(Stage::connect, 1));
    EXPECT_TRUE(mover.idle());
}

TEST_F(WrapperStates, MoverCalledOffWhileConnectingIsSilent) {
    AnyMover mover(parts(), nullptr);
    EXPECT_TRUE(mover.handle(received(to_nowhere(1))));
    ASSERT_TRUE(mover.busy()) << said();
    EXPECT_TRUE(mover.handle(received(Cancel{1})));
    EXPECT_FALSE(mover.idle());
    pollfd ended{mover.fd(), POLLIN, 0};
    ASSERT_EQ(::poll(&ended, 1, 10'000), 1);
    mover.worker_done();
    EXPECT_EQ(said(), "");
    EXPECT_TRUE(mover.idle());
}

// --- a snapshot ---

struct AnySnapshotter : Snapshotter {
    using Snapshotter::change;
    using Snapshotter::Snapshotter;
};

TEST(SnapStates, AllowsOnlyListedTransitions) {
    using S = SnapState;
    EXPECT_EQ(changes(snap_states), 18u);
    EXPECT_FALSE(snap_states.allows(S::idle, S::ready));
    EXPECT_FALSE(snap_states.allows(S::preparing, S::freezing));  // it is copied first
    EXPECT_FALSE(snap_states.allows(S::ready, S::writing));
    EXPECT_FALSE(snap_states.allows(S::freezing, S::written));
    EXPECT_FALSE(snap_states.allows(S::written, S::calling_off));  // the worker has ended
    EXPECT_FALSE(snap_states.allows(S::clearing, S::preparing));
    EXPECT_FALSE(snap_states.allows(S::calling_off, S::written));
}

TEST_F(WrapperStates, SnapshotterRefusesOrdersOutOfTurn) {
    AnySnapshotter snapshotter(parts());
    EXPECT_TRUE(snapshotter.handle(received(SnapFreeze{1, {}})));
    EXPECT_TRUE(failed(Stage::freeze, 1));
    EXPECT_TRUE(snapshotter.handle(received(SnapWrite{1})));
    EXPECT_TRUE(snapshotter.handle(received(SnapEndRank{1, true})));
    EXPECT_EQ(said(), "");
    EXPECT_TRUE(snapshotter.idle());
    EXPECT_FALSE(snapshotter.handle(received(to_nowhere(1))));  // of a move
    // Whatever the wrapper knows of it.
    EXPECT_TRUE(snapshotter.handle(received(SnapCancel{2})));
    EXPECT_EQ(said(), schema::encode(SnapCancelled{2}));
    EXPECT_TRUE(snapshotter.handle(received(SnapCancel{1})));  // late
    EXPECT_EQ(said(), "");
}

TEST_F(WrapperStates, SnapshotterRefusesUnlistedTransition) {
    AnySnapshotter snapshotter(parts());
    EXPECT_FALSE(snapshotter.change(SnapState::written));
    EXPECT_TRUE(failed(Stage::snapshot, 0));
    EXPECT_TRUE(snapshotter.idle());
    EXPECT_TRUE(snapshotter.handle(received(SnapCancel{1})));
    EXPECT_EQ(said(), schema::encode(SnapCancelled{1}));
}

// --- a rank made of a ghost ---

struct AnyRestorer : Restorer {
    using Restorer::change;
    using Restorer::Restorer;
};

class NoGhost : public GhostSource {
  public:
    WrapperMode mode() const override { return WrapperMode::restore; }
    Status begin(const std::string&, const std::string&) override { return {}; }
    bool comes_later() const override { return true; }
    Outgoing ready(uint64_t seq) const override { return Checked{seq}; }
    int fd() const override { return -1; }
    Result<core::Importer> open(Worker&) override { return make_error(Code::refused, "open"); }
};

TEST(RestoreStates, AllowsOnlyListedTransitions) {
    using S = RestoreState;
    EXPECT_EQ(changes(restore_states), 13u);
    EXPECT_FALSE(restore_states.allows(S::waiting, S::importing));  // its source was not looked at
    EXPECT_FALSE(restore_states.allows(S::warming, S::importing));
    EXPECT_FALSE(restore_states.allows(S::importing, S::running));  // two copies would run
    EXPECT_FALSE(restore_states.allows(S::calling_off, S::held));
    EXPECT_TRUE(restore_states.is_final(S::running));
    EXPECT_TRUE(restore_states.is_final(S::failed));
}

class RestoreWrapper : public testing::Test {
  protected:
    void SetUp() override {
        auto signals = core::Signals::block();
        ASSERT_TRUE(signals) << signals.error().message();
        signals_.emplace(std::move(*signals));
        auto pair = control_pair();
        ASSERT_TRUE(pair) << pair.error().message();
        node_ = std::move(pair->first);
        restorer_.emplace(
            Identity{.job = "1", .rank = 3, .life = "1f", .node_socket = "", .criu = "no-criu"},
            *signals_, core::Guard(), std::move(pair->second), std::make_unique<NoGhost>());
    }
    void TearDown() override { signals_->restore(); }

    template <typename T>
    void tell(const T& message) {
        ASSERT_TRUE(node_.send_text(schema::encode(message)));
    }
    // The stages of the failures that it has told of, in front of what is no failure.
    std::string said() {
        std::string out;
        schema::Reader reader(from_wrapper, "test");
        while (auto packet = node_.receive(0)) {
            std::string answer;
            const auto message = reader.read(packet->text, answer);
            out += message && message->is<Failed>()
                       ? std::string("failed ") + name_of(message->as<Failed>().stage)
                   : message ? message->name()
                             : packet->text;
            out += "\n";
        }
        return out;
    }

    std::optional<core::Signals> signals_;
    ControlSocket node_;
    std::optional<AnyRestorer> restorer_;
};

TEST_F(RestoreWrapper, GoWithoutTreeIsRefused) {
    tell(Go{1, 3, {}});
    EXPECT_FALSE(restorer_->run());
    EXPECT_EQ(said(), "hello\nfailed go\n");
}

TEST_F(RestoreWrapper, SecondPrepareIsRefused) {
    tell(Prepare{1, 1, 3, 0});
    tell(Prepare{2, 1, 3, 0});
    EXPECT_FALSE(restorer_->run());
    EXPECT_EQ(said(), "hello\nfailed prepare\n");
}

TEST_F(RestoreWrapper, OrderForAnotherWrapperIsAnswered) {
    tell(Die{1});  // for the source
    tell(Abort{1});
    EXPECT_FALSE(restorer_->run());
    EXPECT_EQ(said(), "hello\n{\"t\":\"error\",\"why\":\"unknown message die\"}\n");
}

TEST_F(RestoreWrapper, UnlistedTransitionIsRefused) {
    EXPECT_FALSE(restorer_->change(RestoreState::running));
    EXPECT_FALSE(restorer_->run());
    EXPECT_EQ(said(), "failed import\nhello\n");
}

}  // namespace
}  // namespace ghost::plugin
