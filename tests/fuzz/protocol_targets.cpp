// SPDX-License-Identifier: BSD-3-Clause
// Messages between the parties of a job, with the holder, between the ends of a clone, manifests of
// snapshots, and how daemons get the job's secret: whatever comes is read or refused, and what was
// read is the same when it is written and read again.
#include <algorithm>
#include <cstring>
#include <random>

#include "base/hash.hpp"
#include "base/log.hpp"
#include "ghost-core/engine/ghost_metadata.hpp"
#include "ghost-core/engine/holder_messages.hpp"
#include "kernet-btl/agent/messages.hpp"
#include "kernet-btl/streams/messages.hpp"
#include "pmix-plugin/events/event.hpp"
#include "pmix-plugin/protocol/client_coordinator.hpp"
#include "pmix-plugin/protocol/daemons.hpp"
#include "pmix-plugin/protocol/node_wrapper.hpp"
#include "pmix-plugin/settings/job_secret.hpp"
#include "pmix-plugin/settings/secret_exchange.hpp"
#include "pmix-plugin/snapshots/manifest.hpp"
#include "pmix-plugin/snapshots/parity.hpp"
#include "pmix-plugin/wrapper/rank_metadata.hpp"
#include "tests/fuzz/targets.hpp"
#include "tools/clone_messages.hpp"
#include "tools/history.hpp"
#include "tools/report_page.hpp"

namespace ghost::fuzz {
namespace {

using namespace ghost::schema;

using Random = std::minstd_rand;

Bytes bytes_of(const std::string& text) {
    return {text.begin(), text.end()};
}

void fill(const Record& record, void* object, Random& random);

std::string some_text(Random& random, uint64_t most) {
    constexpr char letters[] = "az/.-\"\\\n 09";
    std::string out(random() % 12, 'x');
    for (char& c : out) c = letters[random() % (sizeof letters - 1)];
    return most != 0 ? out.substr(0, most) : out;
}

// At the limits, and anywhere between.
uint64_t some_number(const Value& value, Random& random) {
    const uint64_t choices[] = {static_cast<uint64_t>(value.least), value.most,
                                std::min<uint64_t>(value.most, value.most / 2 + random() % 1000)};
    return choices[random() % 3];
}

void fill_value(const Value& value, void* at, Random& random) {
    switch (value.kind) {
        case Kind::boolean:
            *static_cast<bool*>(at) = random() % 2 == 1;
            return;
        case Kind::integer: {
            const uint64_t number = some_number(value, random);
            std::memcpy(at, &number, value.size);
            return;
        }
        case Kind::choice: {
            const uint64_t index = random() % value.names.size();
            std::memcpy(at, &index, value.size);
            return;
        }
        case Kind::real:
            *static_cast<double*>(at) = 0.5;
            return;
        case Kind::text:
            *static_cast<std::string*>(at) = some_text(random, value.most);
            return;
        case Kind::name:
            *static_cast<std::string*>(at) = some_text(random, 0) + (random() % 2 ? "\xff" : "");
            return;
        case Kind::bytes:
            static_cast<schema::Bytes*>(at)->data = some_text(random, 0) + "\xff";
            return;
        case Kind::record:
            return fill(*value.record, at, random);
        case Kind::raw:
            static_cast<Raw*>(at)->text = "[1]";
            return;
    }
}

void fill_once(const Record& record, void* object, Random& random) {
    for (const Field& field : record.fields) {
        void* at = field.member(object);
        if (field.shape == Shape::one) {
            fill_value(field.value, at, random);
            continue;
        }
        field.container->clear(at);
        const size_t most = field.shape == Shape::optional ? 1 : 3;
        for (size_t i = random() % (most + 1); i > 0; --i) {
            void* one = field.shape == Shape::map
                            ? field.container->add_named(at, some_text(random, 0))
                            : field.container->add(at);
            fill_value(field.value, one, random);
        }
    }
}

// Until nothing in it contradicts the rest.
void fill(const Record& record, void* object, Random& random) {
    fill_once(record, object, random);
    while (record.check != nullptr && record.check(object) != nullptr)
        fill_once(record, object, random);
}

// One after the other of all types, at its limits and elsewhere.
fuzz::Bytes seed_of(const Family& family, unsigned variant) {
    Random random(variant + 1);
    const Message& message = family.messages[random() % family.messages.size()];
    auto object = message.record->make();
    fill(*message.record, object.get(), random);
    return bytes_of(encode_as(message, object.get()));
}

bool read(const Family& family, const uint8_t* data, size_t size) {
    const std::string text(reinterpret_cast<const char*>(data), size);
    Reader reader(family, "a fuzzer");
    std::string answer;
    const auto message = reader.read(text, answer);
    if (!message) return false;
    if (!answer.empty()) __builtin_trap();
    for (const Message& one : family.messages) {
        if (std::strcmp(one.name(), message->name()) != 0) continue;
        auto first = one.record->make(), second = one.record->make();
        if (!decode(*one.record, text, first.get()).ok()) __builtin_trap();
        const std::string written = encode_as(one, first.get());
        if (!decode(*one.record, written, second.get()).ok()) __builtin_trap();
        if (encode_as(one, second.get()) != written) __builtin_trap();
    }
    return true;
}

constexpr Message the_ghosts[] = {{0, &core::GhostMetadata::table}};
constexpr Family metadata = family("metadata of ghosts", the_ghosts);
constexpr Message the_ranks[] = {{0, &plugin::RankMetadata::table}};
constexpr Family metadata_of_ranks = family("metadata of ranks", the_ranks);
constexpr Message the_manifest[] = {{0, &plugin::Manifest::table}};
constexpr Family manifests = family("manifests", the_manifest);

template <const Family& family>
Target target(const char* name) {
    return {name, [](const uint8_t* data, size_t size) { return read(family, data, size); },
            [](unsigned variant) { return seed_of(family, variant); }, nullptr, false};
}

// --- how the job's secret comes to daemons that ask for it ---

const plugin::JobSecret& some_secret() {
    static const plugin::JobSecret job{std::string(64, 'a'), std::string(16, 'b')};
    return job;
}

// A key that a daemon sends mpirun.
bool give(const uint8_t* data, size_t size) {
    plugin::SecretGiver giver(some_secret());
    return giver.give(1, {reinterpret_cast<const char*>(data), size}).ok();
}

Bytes key_seed(unsigned) {
    return bytes_of(plugin::ExchangeKeys().open_key());
}

const plugin::SecretGiver& the_giver() {
    static const plugin::SecretGiver giver(some_secret());
    return giver;
}

const plugin::SecretAsker& the_asker() {
    static const plugin::SecretAsker asker(the_giver().key());
    return asker;
}

// What a daemon takes for mpirun's answer to its key.
bool take(const uint8_t* data, size_t size) {
    const auto job = the_asker().take({reinterpret_cast<const char*>(data), size});
    if (job && job->secret != some_secret().secret) __builtin_trap();
    return job.ok();
}

Bytes answer_seed(unsigned) {
    plugin::SecretGiver giver(some_secret());
    return bytes_of(*giver.give(1, the_asker().key()));
}

// A secret as a launch agent hands it on: what was read is the same when it is written and read.
bool read_line(const uint8_t* data, size_t size) {
    const auto job = plugin::parse_secret({reinterpret_cast<const char*>(data), size}, "a fuzzer");
    if (!job) return false;
    const auto again = plugin::parse_secret(plugin::secret_line(*job), "a fuzzer");
    if (!again || again->secret != job->secret || again->life != job->life) __builtin_trap();
    return true;
}

Bytes line_seed(unsigned) {
    return bytes_of(plugin::secret_line(some_secret()));
}

// --- an event log that somebody gives to `ghost report` ---

// What was read is the same when it is written and read again, and nothing of it is markup.
bool read_log(const uint8_t* data, size_t size) {
    const plugin::EventsRead log = plugin::read_events({reinterpret_cast<const char*>(data), size});
    std::string written;
    for (const plugin::Event& event : log.events) written += plugin::line_of(event);
    const plugin::EventsRead again = plugin::read_events(written);
    if (again.events.size() != log.events.size() || again.unread != 0) __builtin_trap();
    const bool whole = log.unread == 0 && !log.events.empty();
    if (size % 4 != 0) return whole;  // pages take most of the time
    const auto history = tools::history_of(log);
    (void)tools::history_json(history, true)
        .dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
    if (tools::report_page(history).find("<script") != std::string::npos) __builtin_trap();
    return whole;
}

Bytes log_seed(unsigned variant) {
    Random random(variant + 1);
    std::string text;
    for (unsigned lines = 1 + random() % 8; lines > 0; --lines) {
        plugin::Event event;
        fill(plugin::Event::table, &event, random);
        event.time = "2025-01-31T23:59:59.123456Z";
        event.event = plugin::event_names[random() % std::size(plugin::event_names)];
        text += plugin::line_of(event);
    }
    return bytes_of(text);
}

// --- files of parity ---

constexpr size_t length_at = 12, sum_at = 24, parity_sum_at = 32, fixed_bytes = 64;

bool read_parity(const uint8_t* data, size_t size) {
    const std::string_view all(reinterpret_cast<const char*>(data), size);
    uint64_t offset = 0, checksum = 0;
    const auto head = plugin::read_parity_head(all, size, offset, checksum);
    return head && XXH3_64bits(data + offset, size - offset) == checksum;
}

void repair_parity(Bytes& bytes) {
    if (bytes.size() < fixed_bytes) return;
    uint32_t length = 0;
    std::memcpy(&length, bytes.data() + length_at, sizeof length);
    if (length > bytes.size() - fixed_bytes) return;
    Bytes text(bytes.begin(), bytes.begin() + sum_at);
    text.insert(text.end(), bytes.begin() + fixed_bytes, bytes.begin() + fixed_bytes + length);
    const uint64_t sum = XXH3_64bits(text.data(), text.size());
    std::memcpy(bytes.data() + sum_at, &sum, sizeof sum);
    const size_t offset = (fixed_bytes + length + 63) / 64 * 64;
    if (offset > bytes.size()) return;
    const uint64_t rest = XXH3_64bits(bytes.data() + offset, bytes.size() - offset);
    std::memcpy(bytes.data() + parity_sum_at, &rest, sizeof rest);
}

Bytes parity_seed(unsigned variant) {
    Random random(variant + 1);
    plugin::ParitySet set{"17.0", "4711-000003", {}};
    for (uint32_t node = 0; node < 2 + random() % 3; node++)
        set.members.push_back({node,
                               "gn" + std::to_string(node),
                               {{"4711-000003/rank-0.ghost", 1 + random() % 300}}});
    const size_t row = random() % set.members.size();
    Bytes out = bytes_of(plugin::parity_head(set, row));
    for (uint64_t i = set.parity_bytes(row); i > 0; i--)
        out.push_back(static_cast<uint8_t>(random()));
    repair_parity(out);
    return out;
}

}  // namespace

const std::vector<Target>& targets() {
    log::setup("fuzz", log::Level::error);  // each refusal is a warning
    static const std::vector<Target> all = {
        target<plugin::between_daemons>("daemons"),
        target<plugin::first_messages>("firstmessages"),
        target<plugin::from_wrapper>("fromwrapper"),
        target<plugin::to_wrapper>("towrapper"),
        target<kernet::from_rank>("fromrank"),
        target<kernet::to_rank>("torank"),
        target<kernet::between_managers>("managers"),
        target<kernet::to_manager>("tomanager"),
        target<kernet::from_manager>("frommanager"),
        target<plugin::to_coordinator>("tocoordinator"),
        target<plugin::from_coordinator>("fromcoordinator"),
        target<core::to_holder>("toholder"),
        target<core::from_holder>("fromholder"),
        target<tools::to_receiver>("toreceiver"),
        target<tools::from_receiver>("fromreceiver"),
        target<manifests>("manifest"),
        target<metadata>("metadata"),
        target<metadata_of_ranks>("rankmetadata"),
        {"askedsecret", give, key_seed, nullptr, false},
        {"givensecret", take, answer_seed, nullptr, true},
        {"secretline", read_line, line_seed, nullptr, false},
        {"parity", read_parity, parity_seed, repair_parity, true},
        {"eventlog", read_log, log_seed, nullptr, false},
    };
    return all;
}

}  // namespace ghost::fuzz
