// SPDX-License-Identifier: BSD-3-Clause
#include "pmix-plugin/events/event.hpp"

#include <algorithm>
#include <iterator>

#include "base/clock.hpp"
#include "base/json_text.hpp"
#include "base/schema_json.hpp"
#include "base/utc.hpp"

namespace ghost::plugin {

using schema::Field;
using schema::field;
using schema::Record;
using schema::record;

namespace {

constexpr uint64_t most_name = 4096;   // bytes of a name of anything
constexpr uint64_t most_text = 65536;  // of a sentence

constexpr Field place_fields[] = {
    field<&NodePlace::node>("node", "its name").at_most(most_name),
    field<&NodePlace::ranks>("ranks", "that are there"),
};

constexpr Field event_fields[] = {
    field<&Event::time>("time", "UTC, like 2025-01-31T23:59:59.123456Z").at_most(64),
    field<&Event::event>("event", "what happened").at_most(64),
    field<&Event::job>("job", "its number").at_most(most_name),
    field<&Event::life>("life", "number of this life of the job").at_most(most_name),
    field<&Event::host>("host", "mpirun's node").at_most(most_name),
    field<&Event::program>("program", "that is run").at_most(most_name),
    field<&Event::pid>("pid", "mpirun's"),
    field<&Event::places>("places", "which ranks are on which node").only_if_any(),
    field<&Event::id>("id", "of the request, as `ghost cancel` takes it"),
    field<&Event::what>("what", "was asked for").at_most(most_text),
    field<&Event::rank>("rank", "the one"),
    field<&Event::which>("which", "ranks").only_if_any(),
    field<&Event::node>("node", "the one").at_most(most_name),
    field<&Event::from>("from", "node on which the rank was").at_most(most_name),
    field<&Event::to>("to", "node to which it goes, or nodes").at_most(most_name),
    field<&Event::mode>("mode", "live or stop; before that is known auto").at_most(most_name),
    field<&Event::slots>("slots", "ranks that the node has room for"),
    field<&Event::snapshot>("snapshot", "its name").at_most(most_name),
    field<&Event::folder>("folder", "it is in").at_most(most_text),
    field<&Event::kind_of>("kind", "full or incremental").at_most(most_name),
    field<&Event::level>("level", "disk, memory, partner, xor, or one of those and disk")
        .at_most(most_name),
    field<&Event::asked_by>("asked_by", "interval, a command, a signal").at_most(most_name),
    field<&Event::then>("then", "continue, stop or kill").at_most(most_name),
    field<&Event::epoch>("epoch", "number of the placement"),
    field<&Event::ranks>("ranks", "how many"),
    field<&Event::bytes>("bytes", "that went, or were written").in("bytes"),
    field<&Event::rounds>("rounds", "of pre-copy"),
    field<&Event::downtime_us>("downtime_us", "the rank stood").in("µs"),
    field<&Event::pause_us>("pause_us", "all ranks stood").in("µs"),
    field<&Event::total_us>("total_us", "from begin to end").in("µs"),
    field<&Event::redone_us>("redone_us", "of a recovery: computed since the snapshot").in("µs"),
    field<&Event::interval_us>("interval_us", "between snapshots").in("µs"),
    field<&Event::cost_us>("cost_us", "of a snapshot").in("µs"),
    field<&Event::mtbf_us>("mtbf_us", "mean time between failures").in("µs"),
    field<&Event::harmed>("harmed", "the job was"),
    field<&Event::again>("again", "the node was there, and drained"),
    field<&Event::status>("status", "that was left: of ranks, of mpirun"),
    field<&Event::why>("why", "not").at_most(most_text),
};

}  // namespace

constinit const Record NodePlace::table =
    record<NodePlace>("place", "ranks of a node", place_fields);
constinit const Record Event::table =
    record<Event>("event", "what happened to the job", event_fields);

EventKind Event::kind() const {
    const auto* const last = std::end(event_names) - 1;  // other is no name
    const auto* const found = std::find(std::begin(event_names), last, event);
    return static_cast<EventKind>(found - std::begin(event_names));
}

int64_t Event::at_us() const {
    return utc_us(time).value_or(0);
}

Event make_event(EventKind kind) {
    Event event;
    event.time = utc_text(realtime_us());
    event.event = event_names[static_cast<size_t>(kind)];
    return event;
}

std::string line_of(const Event& event) {
    using Json = nlohmann::json;
    return schema::to_json(event).dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
}

EventsRead read_events(std::string_view text) {
    EventsRead out;
    while (!text.empty()) {
        const std::string_view line = text.substr(0, text.find('\n'));
        text.remove_prefix(std::min(text.size(), line.size() + 1));
        if (line.empty()) continue;
        if (out.events.size() + out.unread >= most_events) {
            out.cut = true;
            return out;
        }
        auto event = schema::decode<Event>(line);
        event.ok() ? out.events.push_back(std::move(*event)) : void(++out.unread);
    }
    return out;
}

}  // namespace ghost::plugin
