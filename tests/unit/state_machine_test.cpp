// SPDX-License-Identifier: BSD-3-Clause
// base/state_machine.hpp: what the table has is done and logged, what it has not is refused.
#include "base/state_machine.hpp"

#include <cstdlib>
#include <fstream>
#include <gtest/gtest.h>
#include <iterator>
#include <string>
#include <unistd.h>

namespace {

using ghost::StateTable;
using ghost::to;
using ghost::log::Level;

enum class Door { open, closed, locked, gone };

struct DoorRow {
    Door state;
    const char* name;
    uint32_t next;
    int keys;
};

constexpr StateTable doors(std::to_array<DoorRow>({
    {Door::open, "open", to({Door::closed, Door::open}), 0},
    {Door::closed, "closed", to({Door::open, Door::locked}), 0},
    {Door::locked, "locked", to({Door::closed, Door::gone}), 1},
    {Door::gone, "gone", 0, 0},
}));

static_assert(doors.allows(Door::closed, Door::locked));
static_assert(!doors.allows(Door::open, Door::locked));
static_assert(doors[Door::locked].keys == 1);
static_assert(doors.is_final(Door::gone) && !doors.is_final(Door::open));

// Log lines go to a file of the test's.
class StateMachine : public ::testing::Test {
  protected:
    void SetUp() override {
        setenv("GHOST_LOG", path_.c_str(), 1);
        ghost::log::setup("test", Level::debug);
    }
    void TearDown() override {
        unsetenv("GHOST_LOG");
        ghost::log::setup("ghost", Level::warning);
        ::unlink(path_.c_str());
    }
    std::string logged() const {
        std::ifstream in(path_);
        return {std::istreambuf_iterator<char>(in), {}};
    }
    bool change(Door next, Level level = Level::debug) {
        return doors.change(door_, next, level, [this] {
            asked_++;
            return "door 3";
        });
    }

    Door door_ = Door::open;
    int asked_ = 0;

  private:
    std::string path_ = ::testing::TempDir() + "/state_machine." + std::to_string(getpid());
};

TEST_F(StateMachine, ChangeIsDoneAndLogged) {
    EXPECT_TRUE(change(Door::closed));
    EXPECT_EQ(door_, Door::closed);
    EXPECT_NE(logged().find("door 3: open -> closed"), std::string::npos) << logged();
}

TEST_F(StateMachine, RefusedChangeIsLoggedAndNotDone) {
    EXPECT_FALSE(change(Door::locked));
    EXPECT_EQ(door_, Door::open);
    EXPECT_NE(logged().find("bug: door 3: no way from open to locked"), std::string::npos)
        << logged();
    door_ = Door::gone;
    EXPECT_FALSE(change(Door::open));
    EXPECT_EQ(door_, Door::gone);
}

TEST_F(StateMachine, DisabledLogFormatsNothing) {
    EXPECT_TRUE(change(Door::closed, Level::trace));
    EXPECT_TRUE(change(Door::open, Level::trace));
    EXPECT_TRUE(change(Door::open));  // the table has it, and nothing has changed
    EXPECT_EQ(asked_, 0);
    EXPECT_EQ(logged(), "");
}

TEST_F(StateMachine, EveryPairOfStatesIsAnsweredByTheTable) {
    int allowed = 0;
    for (const DoorRow& from : doors) {
        for (const DoorRow& next : doors) {
            door_ = from.state;
            const bool done = change(next.state);
            EXPECT_EQ(done, doors.allows(from.state, next.state));
            EXPECT_EQ(door_, done ? next.state : from.state);
            allowed += done ? 1 : 0;
        }
    }
    EXPECT_EQ(allowed, 6);
}

}  // namespace
