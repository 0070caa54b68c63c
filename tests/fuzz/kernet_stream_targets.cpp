// SPDX-License-Identifier: BSD-3-Clause
#include <algorithm>
#include <cstring>
#include <iterator>
#include <memory>
#include <netinet/in.h>
#include <sys/socket.h>

#include "base/fd.hpp"
#include "kernet-btl/streams/channel.hpp"
#include "kernet-btl/streams/directory.hpp"
#include "kernet-btl/streams/handle.hpp"
#include "kernet-btl/streams/stream_socket.hpp"
#include "kernet-btl/wire/channel.hpp"
#include "tests/fuzz/kernet_targets.hpp"

namespace ghost::fuzz {
namespace {

using namespace kernet;
using Json = nlohmann::json;

Bytes bytes_of(const std::string& text) {
    return {text.begin(), text.end()};
}

Json parse(const uint8_t* data, size_t size) {
    return Json::parse(data, data + size, nullptr, false);
}

// --- locations, entries and requests of the directory ---

Location place(uint32_t process, int node) {
    Location where;
    where.rank = process;
    where.node = node;
    where.node_name = "n" + std::to_string(node);
    where.attached = true;
    where.tcp = {{"10.0.0.1", 4711}, {"fd00::1", 65535}};
    where.unix_name = "@ghost/0/1/r2.7";
    return where;
}

// Sockets attached, suspended and gone.
Entry entry_of(StreamType type, size_t sockets) {
    Entry entry;
    entry.id = 0x1234567890abcdef;
    entry.type = type;
    entry.creator = 0;
    entry.class_name = "class";
    entry.version = {3, 5};
    entry.sockets.resize(sockets);
    for (size_t i = 0; i < sockets; i++) {
        SocketEntry& socket = entry.sockets[i];
        socket.state = i < 3 ? SocketState::attached : SocketState::suspended;
        socket.incarnation = 1 + static_cast<uint32_t>(i % 2);
        socket.key = i;
        if (i < 3) socket.where = place(static_cast<uint32_t>(i), static_cast<int>(i));
        if (i > 1) socket.farewells[1] = {1, 4};
    }
    entry.answered = {{"0.1.2", 1, 7}};
    return entry;
}

StreamType type_of(unsigned variant) {
    return static_cast<StreamType>(variant % 3);
}

Entry some_entry(unsigned variant) {
    return entry_of(type_of(variant), variant % 3 == 0 ? 2 : 4);
}

Change some_change(unsigned variant) {
    Change change;
    change.operation = static_cast<Operation>(variant % 10);
    change.id = 1 + variant / 10;
    change.where = place(9, 1);
    change.farewells[2] = {1, 6};
    change.type = type_of(variant);
    change.sockets = change.type == StreamType::direct ? 2 : 0;
    return change;
}

bool read_location(const uint8_t* data, size_t size) {
    const auto location = location_from_json(parse(data, size));
    if (!location) return false;
    if (!(*location_from_json(to_json(*location)) == *location)) std::abort();
    return true;
}

Bytes location_seed(unsigned variant) {
    return bytes_of(to_json(place(variant, static_cast<int>(variant % 3) - 1)).dump());
}

bool read_entry(const uint8_t* data, size_t size) {
    const std::string text(reinterpret_cast<const char*>(data), size);
    const auto entry = schema::decode<SentEntry>(text);
    const auto change = schema::decode<SentChange>(text);
    if (entry) {
        const Entry meant = as_meant(*entry);
        if (!(as_meant(*schema::decode<SentEntry>(schema::encode(sent(meant)))) == meant))
            std::abort();
    }
    if (change) {
        const std::string said = schema::encode(sent(as_meant(*change)));
        if (schema::encode(sent(as_meant(*schema::decode<SentChange>(said)))) != said) std::abort();
    }
    return entry.ok() || change.ok();
}

Bytes entry_seed(unsigned variant) {
    return bytes_of(variant % 2 ? schema::encode(sent(some_entry(variant)))
                                : schema::encode(sent(some_change(variant))));
}

// --- the directory: one manager of three, a message of another one in each line ---

class SilentPort final : public DirectoryPort {
  public:
    void send(int, const std::string&) override {}
    void answer(uint64_t, const Status&, uint16_t, const Entry*) override {}
    void changed(const Entry& entry) override { (void)sent(entry); }
};

constexpr int managers = 3;

bool read_directory(const uint8_t* data, size_t size) {
    SilentPort port;
    Directory directory(0, managers, 1, port);
    for (int manager = 1; manager < managers; manager++) directory.manager_up(manager);
    directory.request(5, some_change(0));
    const uint8_t* end = data + size;
    bool all = true;
    for (int line = 0; data < end; line++) {
        const uint8_t* newline = std::find(data, end, '\n');
        const std::string message(data, newline);
        all = all && Json::parse(message, nullptr, false).is_object();
        directory.receive(1 + line % 2, message);
        if (line % 4 == 3) directory.tick();
        data = newline + (newline < end);
    }
    directory.manager_lost(1, true);
    directory.node_left(1);
    return all;
}

// What manager 0 hears while three of them carry out some changes.
class Recorder {
  public:
    Recorder() {
        for (int i = 0; i < managers; i++) {
            ports_.push_back(std::make_unique<Port>(*this, i));
            all_.push_back(std::make_unique<Directory>(i, managers, 1, *ports_.back()));
        }
        for (int i = 0; i < managers; i++) {
            for (int j = 0; j < managers; j++) all_[static_cast<size_t>(i)]->manager_up(j);
        }
        deliver();
    }
    std::string heard(unsigned variant) {
        heard_.clear();
        for (unsigned i = 0; i < 4; i++) {
            Change change = some_change(i == 0 ? 0 : variant + i);
            change.id = 77 + variant;
            all_[(variant + i) % managers]->request(1 + i, change);
            deliver();
        }
        return heard_;
    }

  private:
    struct Port final : DirectoryPort {
        Port(Recorder& recorder, int self) : recorder(recorder), self(self) {}
        void send(int manager, const std::string& message) override {
            recorder.mail_.push_back({self, manager, message});
        }
        void answer(uint64_t, const Status&, uint16_t, const Entry*) override {}
        void changed(const Entry&) override {}
        Recorder& recorder;
        int self;
    };
    struct Mail {
        int from, to;
        std::string message;
    };
    void deliver() {
        while (!mail_.empty()) {
            const Mail mail = mail_.front();
            mail_.pop_front();
            if (mail.to == 0) heard_ += mail.message + "\n";
            all_[static_cast<size_t>(mail.to)]->receive(mail.from, mail.message);
        }
    }
    std::vector<std::unique_ptr<Port>> ports_;
    std::vector<std::unique_ptr<Directory>> all_;
    std::deque<Mail> mail_;
    std::string heard_;
};

Bytes directory_seed(unsigned variant) {
    return bytes_of(Recorder().heard(variant % 16));
}

// --- channels: the hello of who connects, then frames; their MACs are made here ---

class Counter final : public ChannelListener {
  public:
    bool message(int, uint16_t channel, uint16_t, std::string_view bytes) override {
        for (const char byte : bytes) sum_ += static_cast<uint8_t>(byte);
        return channel == 1;
    }
    void delivered(uint64_t, const Status&) override {}
    void node_changed(int, NodeState state) override { up = up || state == NodeState::up; }
    bool up = false;

  private:
    uint64_t sum_ = 0;
};

const wire::HandshakeKey& channel_key() {
    static const auto key = *wire::HandshakeKey::make(std::string(64, 'b'), "channel fuzz");
    return key;
}

Fd connect_to(uint16_t port) {
    Fd fd(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    const linger at_once{1, 0};
    setsockopt(fd.get(), SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
    sockaddr_in to{};
    to.sin_family = AF_INET;
    to.sin_port = htons(port);
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (connect(fd.get(), reinterpret_cast<sockaddr*>(&to), sizeof to) != 0) fd.reset();
    return fd;
}

Bytes sealed_frames(Input& input, const wire::ChannelHello& hello,
                    const wire::ChannelHello& answer) {
    wire::ChannelSeal seal(hello, answer, channel_key(), false);
    Bytes out;
    while (input.left() > 0) {
        const auto header = input.take<wire::ChannelHeader>();
        append(out, header);
        if (header.length > input.left()) break;
        const uint8_t* payload = input.data();
        const auto mac = seal.next(header, payload);
        out.insert(out.end(), payload, payload + header.length);
        input.skip(header.length);
        append(out, mac);
        if (header.reserved[0] & 0x80) out.back() ^= 1;
    }
    return out;
}

bool read_channel(const uint8_t* data, size_t size) {
    Counter counter;
    TcpChannelConfig config;
    config.self = 1;
    config.nodes = {{"n0", {"127.0.0.1", 1}}, {"n1", {"127.0.0.1", 0}}};
    config.cluster = "fuzz";
    config.secret_hex = std::string(64, 'b');
    auto channel = TcpChannel::create(config, counter);
    if (!channel) return false;
    const Fd fd = connect_to((*channel)->port());
    Input input(data, size);
    const auto hello = input.take<wire::ChannelHello>();
    if (!fd || send(fd.get(), &hello, sizeof hello, MSG_NOSIGNAL) < 0) return false;
    for (int i = 0; i < 2; i++) (*channel)->service();
    wire::ChannelHello answer;
    if (recv(fd.get(), &answer, sizeof answer, MSG_DONTWAIT) != sizeof answer) return false;
    const Bytes frames = sealed_frames(input, hello, answer);
    if (!frames.empty() && send(fd.get(), frames.data(), frames.size(), MSG_NOSIGNAL) < 0)
        return false;
    for (int i = 0; i < 3; i++) (*channel)->service();
    return counter.up;
}

void repair_channel(Bytes& bytes) {
    wire::ChannelHello hello;
    if (bytes.size() < sizeof hello) return;
    std::memcpy(static_cast<void*>(&hello), bytes.data(), sizeof hello);
    hello.magic = wire::channel_magic;
    hello.version = wire::channel_version;
    hello.answer = 0;
    hello.from = 0;
    hello.to = 1;
    wire::seal(hello, nullptr, channel_key());
    std::memcpy(bytes.data(), &hello, sizeof hello);
}

Bytes channel_seed(unsigned variant) {
    variant %= 60;
    Bytes out(sizeof(wire::ChannelHello));
    repair_channel(out);
    for (unsigned i = 0; i < 3; i++) {
        wire::ChannelHeader header;
        header.kind = static_cast<wire::ChannelKind>(1 + (variant + i) % 5);
        if (i == 0) header.kind = wire::ChannelKind::message;
        header.channel = static_cast<uint16_t>(1 + variant % 2);
        header.number = i;
        header.length = header.kind == wire::ChannelKind::message ? 50 * variant : 0;
        append(out, header);
        out.insert(out.end(), header.length, 'c');
    }
    return out;
}

// --- messages and handles of sockets ---

class SilentHost final : public StreamHost {
  public:
    void send_message(uint32_t, const wire::StreamHeader&, const BodyPtr& body) override {
        for (size_t i = 0; body && i < body->size; i++) sum_ += body->bytes[i];
    }
    void know(const Location&) override {}
    void woken() override {}

  private:
    uint64_t sum_ = 0;
};

constexpr size_t keep_bytes = 1 << 20;

// What a program does with a socket, and what its state must allow.
void use(StreamSocket& socket) {
    for (int i = 0; i < 3; i++) {
        if (socket.may_send(10)) socket.send(make_body("0123456789", 10));
        socket.wanted(2);
        (void)socket.take();
        socket.tick();
    }
}

void suspend_and_wake(StreamHost& host, StreamSocket& socket) {
    socket.stop();
    (void)socket.farewells(true);
    const Json state = Json::from_cbor(Json::to_cbor(socket.save()));
    const auto woken = StreamSocket::make(host, socket.entry(), socket.number(), keep_bytes);
    if (!woken->restore(state)) std::abort();
    woken->begin();
    use(*woken);
}

// What else happens between two messages.
void event(StreamSocket& socket, Entry& entry, uint8_t what) {
    SocketEntry& other = entry.sockets[1 + what / 8 % (entry.sockets.size() - 1)];
    switch (what % 8) {
        case 0:
            return use(socket);
        case 1:
            other.state = SocketState::suspended;
            break;
        case 2:
            other.state = SocketState::attached;
            other.incarnation++;
            break;
        case 3:
            other.state = SocketState::unattached;
            other.lost = what & 64;
            break;
        case 4:
            socket.stop();
            return socket.go_on();
        default:
            return;
    }
    entry.version.change++;
    socket.update(entry);
}

// The type, then messages: what happens first, the header, how long the body is, the body.
bool read_messages(const uint8_t* data, size_t size) {
    Input input(data, size);
    SilentHost host;
    Entry entry = some_entry(input.take<uint8_t>());
    const auto socket = StreamSocket::make(host, entry, 0, keep_bytes);
    socket->begin();
    use(*socket);
    while (input.left() > 0) {
        event(*socket, entry, input.take<uint8_t>());
        auto header = input.take<wire::StreamHeader>();
        const size_t most = input.take<uint8_t>();
        const uint8_t* from = input.data();
        socket->receive(header, make_body(from, input.skip(most)));
    }
    use(*socket);
    suspend_and_wake(host, *socket);
    return true;
}

void repair_messages(Bytes& bytes) {
    if (bytes.empty()) return;
    const Entry entry = some_entry(bytes[0]);
    for (size_t at = 2; at + sizeof(wire::StreamHeader) < bytes.size();) {
        wire::StreamHeader header;
        std::memcpy(static_cast<void*>(&header), bytes.data() + at, sizeof header);
        header.from = static_cast<uint16_t>(header.from % entry.sockets.size());
        header.from_incarnation =
            static_cast<uint16_t>(entry.sockets[header.from].incarnation + bytes[at - 1] % 2);
        header.to_incarnation = static_cast<uint16_t>(entry.sockets[0].incarnation);
        header.kind = static_cast<wire::StreamKind>(static_cast<uint8_t>(header.kind) % 10);
        if (header.number > UINT32_MAX) header.number %= 8;
        std::memcpy(bytes.data() + at, &header, sizeof header);
        at += sizeof header;
        at += 2 + bytes[at];
    }
}

Bytes messages_seed(unsigned variant) {
    Bytes out{static_cast<uint8_t>(variant)};
    for (unsigned i = 0; i < 8; i++) {
        out.push_back(static_cast<uint8_t>((i + variant) % 3 == 2 ? variant + i : 7));
        wire::StreamHeader header;
        header.number = 1 + i / 2;
        header.from = static_cast<uint16_t>((variant + i) % 3);
        header.kind = static_cast<wire::StreamKind>(1 + (variant / 3 + i) % 9);
        append(out, header);
        const size_t size = 16 + 8 * (i % 2);
        out.push_back(static_cast<uint8_t>(size));
        out.insert(out.end(), size, static_cast<uint8_t>(i));
    }
    repair_messages(out);
    return out;
}

const std::string handle_secret(64, 'c');

void repair_handle(Bytes& bytes) {
    constexpr std::string_view magic = "KNTH1";
    wire::Mac mac{};
    if (bytes.size() < 1 + magic.size() + mac.size()) return;
    std::copy(magic.begin(), magic.end(), bytes.begin() + 1);
    static const auto key = *wire::HandshakeKey::make(handle_secret, "handle fuzz");
    const size_t end = bytes.size() - mac.size();
    mac = key.mac(bytes.data() + 1, end - 1);
    std::copy(mac.begin(), mac.end(), bytes.begin() + static_cast<ptrdiff_t>(end));
}

// The type, then the handle.
bool read_handle(const uint8_t* data, size_t size) {
    Input input(data, size);
    SilentHost host;
    const Entry entry = some_entry(input.take<uint8_t>());
    const std::string sealed(reinterpret_cast<const char*>(input.data()), input.left());
    const auto handle = open_handle(sealed, "fuzz", handle_secret);
    if (!handle) return false;
    const auto socket = StreamSocket::make(host, entry, 0, keep_bytes);
    if (!socket->restore(handle->state)) return false;
    socket->begin();
    use(*socket);
    suspend_and_wake(host, *socket);
    return true;
}

Bytes handle_seed(unsigned variant) {
    SilentHost host;
    const Entry entry = some_entry(variant);
    const auto socket = StreamSocket::make(host, entry, 0, keep_bytes);
    socket->begin();
    const auto say = [&](wire::StreamKind kind, uint64_t number, const void* bytes, size_t size) {
        wire::StreamHeader header;
        header.from = 1;
        header.number = number;
        header.kind = kind;
        header.to_incarnation = static_cast<uint16_t>(entry.sockets[0].incarnation);
        header.from_incarnation = static_cast<uint16_t>(entry.sockets[1].incarnation);
        socket->receive(header, make_body(bytes, size));
    };
    for (unsigned i = 0; i < 2 + variant % 3; i++) socket->send(make_body("message", 7));
    for (uint64_t i = 1; i < 4; i++) say(wire::StreamKind::data, i, "answer", 6);
    const auto sealed =
        seal_handle({entry.id, 0, 5, false, socket->save(), {}}, "fuzz", handle_secret);
    Bytes out{static_cast<uint8_t>(variant)};
    std::copy(sealed->begin(), sealed->end(), std::back_inserter(out));
    return out;
}

}  // namespace

std::vector<Target> kernet_stream_targets() {
    return {
        {"locations", read_location, location_seed, nullptr, false},
        {"entries", read_entry, entry_seed, nullptr, false},
        {"directory", read_directory, directory_seed, nullptr, false},
        {"channels", read_channel, channel_seed, repair_channel, false},
        {"messages", read_messages, messages_seed, repair_messages, false},
        {"handles", read_handle, handle_seed, repair_handle, false},
    };
}

}  // namespace ghost::fuzz
