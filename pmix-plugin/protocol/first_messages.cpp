// SPDX-License-Identifier: BSD-3-Clause
// What a connection to a node agent begins with: a wrapper's, a rank's, or that of a rank that has
// to know the job's secret first.
#include "kernet-btl/agent/messages.hpp"
#include "pmix-plugin/protocol/node_wrapper.hpp"

namespace ghost::plugin {

namespace {

constexpr schema::Message messages[] = {
    schema::message<Greeting>(FirstMessage::hello),
    schema::message<kernet::AskSecret>(FirstMessage::secret),
};

}  // namespace

constinit const schema::Family first_messages = schema::family("* to N", messages);

}  // namespace ghost::plugin
