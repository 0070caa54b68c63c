// SPDX-License-Identifier: BSD-3-Clause
// What fuzzing has found (tests/fuzz/kernet_*_targets.cpp), case by case; tests/fuzz/short_run.cpp
// is the short run of the targets.
#include <gtest/gtest.h>

#include "kernet-btl/streams/directory.hpp"
#include "kernet-btl/streams/handle.hpp"
#include "kernet-btl/streams/stream_socket.hpp"
#include "kernet-btl/wire/handshake.hpp"

namespace {

using namespace kernet;
using Json = nlohmann::json;

const std::string secret(64, 'a');

Location somewhere() {
    Location where;
    where.rank = 3;
    where.node_name = "n";
    where.attached = true;
    return where;
}

Entry entry_of(StreamType type, size_t sockets) {
    Entry entry;
    entry.id = 7;
    entry.type = type;
    entry.version = {1, 1};
    entry.sockets.resize(sockets);
    for (SocketEntry& socket : entry.sockets) {
        socket.state = SocketState::attached;
        socket.incarnation = 1;
        socket.where = somewhere();
    }
    return entry;
}

class Host final : public StreamHost {
  public:
    void send_message(uint32_t, const wire::StreamHeader& header, const BodyPtr&) override {
        last = header;
    }
    void know(const Location&) override {}
    void woken() override {}
    wire::StreamHeader last;
};

constexpr size_t keep = 1000;

Json saved(StreamType type) {
    Host host;
    const auto socket = StreamSocket::make(host, entry_of(type, 2), 0, keep);
    socket->begin();
    socket->send(make_body("one", 3));
    return socket->save();
}

bool restored(StreamType type, const Json& state) {
    Host host;
    return StreamSocket::make(host, entry_of(type, 2), 0, keep)->restore(state);
}

// The bytes of a handle that says this.
std::string handle_saying(const std::vector<uint8_t>& cbor) {
    std::string out = "KNTH1" + std::string(cbor.begin(), cbor.end());
    const auto mac = wire::HandshakeKey::make(secret, "handle c")->mac(out.data(), out.size());
    return out.append(reinterpret_cast<const char*>(mac.data()), mac.size());
}

TEST(KernetHandle, HandleSurvivesEncoding) {
    Handle handle{7, 1, 99, true, saved(StreamType::direct), Json::binary_t({1, 2, 3})};
    const auto sealed = seal_handle(handle, "c", secret);
    ASSERT_TRUE(sealed.ok());
    const auto again = open_handle(*sealed, "c", secret);
    ASSERT_TRUE(again.ok());
    EXPECT_EQ(again->stream, handle.stream);
    EXPECT_EQ(again->socket, handle.socket);
    EXPECT_EQ(again->key, handle.key);
    EXPECT_EQ(again->bytes, handle.bytes);
    EXPECT_EQ(again->state, handle.state);
    EXPECT_EQ(again->rest, handle.rest);
    EXPECT_FALSE(open_handle(*sealed, "another", secret).ok());
}

TEST(KernetHandle, OversizedLengthsAreRefused) {
    // an array, and an object, of 2^60 elements
    for (const uint8_t major : {0x9b, 0xbb}) {
        const auto read =
            open_handle(handle_saying({major, 0x10, 0, 0, 0, 0, 0, 0, 0}), "c", secret);
        ASSERT_FALSE(read.ok());
        EXPECT_EQ(read.error().code, ghost::Code::corrupt);
    }
}

TEST(KernetHandle, NumbersOutOfRangeAreRefused) {
    const Json good{{"stream", 7}, {"socket", 1}, {"key", 9}, {"bytes", false}, {"state", 0}};
    EXPECT_TRUE(open_handle(handle_saying(Json::to_cbor(good)), "c", secret).ok());
    for (const auto& [field, value] : std::initializer_list<std::pair<const char*, Json>>{
             {"stream", 1e300}, {"socket", 65536 + 1}, {"key", -1}, {"bytes", 3}, {"rest", "x"}}) {
        Json bad = good;
        bad[field] = value;
        EXPECT_FALSE(open_handle(handle_saying(Json::to_cbor(bad)), "c", secret).ok()) << field;
    }
}

TEST(KernetHandle, ImpossibleStateIsRefused) {
    const Json direct = saved(StreamType::direct), queue = saved(StreamType::fifo);
    EXPECT_TRUE(restored(StreamType::direct, direct));
    EXPECT_TRUE(restored(StreamType::fifo, queue));
    EXPECT_FALSE(restored(StreamType::direct, Json()));
    EXPECT_FALSE(restored(StreamType::fifo, Json::array()));
    EXPECT_FALSE(restored(StreamType::direct, queue));
    EXPECT_FALSE(restored(StreamType::fifo, direct));
    const auto with = [](Json state, const char* field, const Json& value) {
        state[field] = value;
        return state;
    };
    const Json item = queue["pool"][0];
    EXPECT_FALSE(restored(StreamType::direct, with(direct, "sent", 0)));  // and one is kept
    EXPECT_FALSE(restored(StreamType::direct, with(direct, "sent", 1e300)));
    EXPECT_FALSE(restored(StreamType::direct, with(direct, "kept", Json{"text"})));
    EXPECT_FALSE(restored(StreamType::fifo, with(queue, "sent", 0)));  // less than what waits
    EXPECT_FALSE(restored(StreamType::fifo, with(queue, "pool", Json{item, item})));
    EXPECT_FALSE(restored(StreamType::fifo, with(queue, "pool", Json{Json{0, 1, item[2]}})));
    // more not taken by a reader than was given to it, a reader that is not, one twice
    EXPECT_FALSE(restored(StreamType::fifo, with(queue, "lanes", Json{Json{1, 1, 0, Json{item}}})));
    const Json lane{1, 1, 1, Json::array()}, nobody{2, 1, 1, Json::array()};
    EXPECT_TRUE(restored(StreamType::fifo, with(queue, "lanes", Json{lane})));
    EXPECT_FALSE(restored(StreamType::fifo, with(queue, "lanes", Json{nobody})));
    EXPECT_FALSE(restored(StreamType::fifo, with(queue, "lanes", Json{lane, lane})));
}

// A map with fewer sockets than the one before left a writer's way to a reader without a place.
TEST(KernetMap, MapThatLosesSocketsIsRefused) {
    Host host;
    Entry entry = entry_of(StreamType::fifo, 3);
    const auto socket = StreamSocket::make(host, entry, 0, keep);
    socket->begin();
    socket->send(make_body("one", 3));
    wire::StreamHeader give;
    give.kind = wire::StreamKind::give;
    give.number = 1;
    give.from_incarnation = give.to_incarnation = 1;
    const struct {
        uint32_t incarnation = 1;
        uint16_t reader = 2;
    } reader;
    socket->receive(give, make_body(&reader, 6));
    ASSERT_EQ(host.last.kind, wire::StreamKind::data);
    entry.sockets.resize(1);
    entry.version.change++;
    socket->update(entry);
    EXPECT_EQ(socket->entry().sockets.size(), 3U);
}

TEST(KernetDirectoryEntry, OversizedNumbersAreRefused) {
    const auto read_entry = [](const Json& json) {
        return ghost::schema::decode<SentEntry>(json.dump());
    };
    const Json good = Json::parse(ghost::schema::encode(sent(entry_of(StreamType::fifo, 2))));
    ASSERT_TRUE(read_entry(good).ok());
    const auto refused = [&](const std::function<void(Json&)>& spoil) {
        Json json = good;
        spoil(json);
        return !read_entry(json).ok();
    };
    EXPECT_TRUE(refused([](Json& j) { j["sockets"][0].erase("at"); }));  // attached nowhere
    const auto list = [](std::vector<Json> items) { return Json(std::move(items)); };
    const Json bye = list({1, 1, 2}), long_ago = list({1, uint64_t{1} << 32, 1});
    EXPECT_FALSE(refused([&](Json& j) { j["sockets"][0]["bye"] = list({bye}); }));
    EXPECT_TRUE(refused([&](Json& j) { j["sockets"][0]["bye"] = list({long_ago}); }));
    EXPECT_TRUE(refused([&](Json& j) { j["sockets"][0]["bye"] = list({bye, bye}); }));
    EXPECT_TRUE(refused([&](Json& j) { j["answered"] = list({list({"r", 65536, 1})}); }));
    EXPECT_TRUE(refused([](Json& j) { j["creator"] = UINT64_MAX; }));
    EXPECT_TRUE(refused([](Json& j) { j["id"] = 0; }));
    EXPECT_TRUE(refused([](Json& j) {
        j["type"] = 0;
        j["sockets"].erase(1);
    }));  // DIRECT, of one
    EXPECT_TRUE(refused([](Json& j) { j["sockets"][0]["at"]["node"] = UINT64_MAX; }));
    // Where a socket was says nothing when it is suspended.
    Json suspended = good;
    suspended["sockets"][0]["state"] = static_cast<int>(SocketState::suspended);
    const auto read = read_entry(suspended);
    ASSERT_TRUE(read.ok());
    const Entry meant = as_meant(*read);
    EXPECT_EQ(meant.sockets[0].where, Location());
    EXPECT_EQ(as_meant(*read_entry(Json::parse(ghost::schema::encode(sent(meant))))), meant);
}

}  // namespace
