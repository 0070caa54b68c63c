// SPDX-License-Identifier: BSD-3-Clause
// Every message of every family, in every shape its table allows, is read as it was written
// (tests/fuzz/protocol_targets.cpp makes them).
#include <gtest/gtest.h>

#include <set>
#include <string>

#include "ghost-core/engine/holder_messages.hpp"
#include "kernet-btl/agent/messages.hpp"
#include "kernet-btl/streams/messages.hpp"
#include "pmix-plugin/protocol/client_coordinator.hpp"
#include "pmix-plugin/protocol/daemons.hpp"
#include "pmix-plugin/protocol/node_wrapper.hpp"
#include "tests/fuzz/targets.hpp"
#include "tools/clone_messages.hpp"

namespace ghost::plugin {
namespace {

TEST(Protocol, EveryMessageIsReadAsItWasWritten) {
    for (const fuzz::Target& target : fuzz::targets()) {
        for (unsigned variant = 0; variant < 2000; ++variant) {
            const fuzz::Bytes seed = target.seed(variant);
            ASSERT_TRUE(target.run(seed.data(), seed.size()))
                << target.name << " " << std::string(seed.begin(), seed.end());
        }
    }
}

// An operation's number tells late messages from others: what is compared must be there.
TEST(Protocol, SequencedMessagesCarryTheirNumber) {
    for (const schema::Family* family :
         {&between_daemons, &from_wrapper, &to_wrapper, &kernet::from_rank, &kernet::to_rank,
          &kernet::between_managers, &kernet::to_manager, &kernet::from_manager, &to_coordinator,
          &from_coordinator, &core::to_holder, &core::from_holder, &tools::to_receiver,
          &tools::from_receiver}) {
        std::set<std::string> names;
        for (const schema::Message& message : family->messages) {
            EXPECT_TRUE(names.insert(message.name()).second) << message.name() << " is there twice";
            bool has = false;
            for (const schema::Field& field : message.record->fields)
                has = has || std::string_view(field.name) == "seq";
            if (message.sequence != schema::Sequence::none) {
                EXPECT_TRUE(has) << message.name();
            }
        }
    }
}

}  // namespace
}  // namespace ghost::plugin
