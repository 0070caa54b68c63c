// SPDX-License-Identifier: BSD-3-Clause
#include <sodium.h>

#include <algorithm>
#include <cstring>
#include <deque>
#include <memory>
#include <netinet/in.h>
#include <sys/socket.h>

#include "base/log.hpp"
#include "kernet-btl/transport/datapath.hpp"
#include "kernet-btl/link/loop.hpp"
#include "kernet-btl/link/reliable.hpp"
#include "kernet-btl/link/shm.hpp"
#include "kernet-btl/link/table.hpp"
#include "kernet-btl/wire/channel.hpp"
#include "kernet-btl/wire/handshake.hpp"
#include "tests/fuzz/kernet_targets.hpp"

namespace ghost::fuzz {
namespace {

using namespace kernet;

constexpr uint32_t peers_epoch = 7;

// One end of a stream with three messages sent, of which two may be acknowledged; the fuzzed bytes
// come by its link.
class End final : private Receiver {
  public:
    End() : path_(registry_, false), shared_(registry_.peer(1)) {
        path_.set_receiver(this);
        socket_ = &path_.attach(1);
    }
    ~End() override { path_.unattach_all(); }

    void adopt(std::unique_ptr<Link> link) {
        auto offer = std::make_unique<LinkHandoff>();
        offer->peer = &shared_;
        offer->generation = 1;
        offer->link = std::move(link);
        registry_.offers.put(std::move(offer));
        for (int i = 0; i < 3; i++) send(100);
        path_.progress();
    }
    void progress() { path_.progress(); }
    bool lost() const { return shared_.lost_generation.load() != 0; }

  private:
    void send(size_t size) {
        Gate::Holder inside(path_.gate());
        std::memset(socket_->reserve(size), 'm', size);
        socket_->commit(size, 1);
    }
    void deliver(Socket&, uint8_t, uint8_t* bytes, size_t size) override {
        for (size_t i = 0; i < size; i++) sum_ += bytes[i];  // all of it is there
    }
    uint8_t* place(Socket&, uint8_t, const uint8_t*, size_t, size_t size) override {
        room_.reset();
        if (size > 5000) return nullptr;  // refused, as an upper layer may
        room_ = std::make_unique<uint8_t[]>(size);
        return room_.get();
    }
    void placed(Socket&, uint8_t, const uint8_t*, size_t, uint8_t* body, size_t size) override {
        for (size_t i = 0; i < size; i++) sum_ += body[i];
    }
    void released(Socket&, void*) override {}

    Registry registry_;
    DataPath path_;
    PeerShared& shared_;
    Socket* socket_;
    std::unique_ptr<uint8_t[]> room_;
    uint64_t sum_ = 0;
};

// --- frames: the byte stream of links like tcp ---

class FedLink final : public ByteLink {
  public:
    // Comes in pieces of `piece` bytes.
    FedLink(Input& input, size_t piece) : ByteLink(3, peers_epoch), input_(input), piece_(piece) {}
    const char* name() const override { return "fed"; }
    int fd() const override { return -1; }

  private:
    ssize_t send_bytes(const iovec* pieces, int count) override {
        size_t all = 0;
        for (int i = 0; i < count; i++) all += pieces[i].iov_len;
        return static_cast<ssize_t>(all);
    }
    bool send_whole(const void*, size_t) override { return true; }
    ssize_t receive_bytes(const iovec* pieces, int count) override {
        size_t all = 0;
        for (int i = 0; i < count && all < piece_; i++) {
            const uint8_t* from = input_.data();
            const size_t part = input_.skip(std::min(pieces[i].iov_len, piece_ - all));
            if (part > 0) std::memcpy(pieces[i].iov_base, from, part);
            all += part;
        }
        return static_cast<ssize_t>(all);
    }
    ssize_t peek_bytes(void* bytes, size_t size) override {
        const size_t part = std::min(size, input_.left());
        if (part > 0) std::memcpy(bytes, input_.data(), part);
        return static_cast<ssize_t>(part);
    }
    Input& input_;
    size_t piece_;
};

bool read_frames(const uint8_t* data, size_t size) {
    Input input(data, size);
    const size_t piece = 17 + input.take<uint8_t>() * size_t{997};
    End end;
    end.adopt(std::make_unique<FedLink>(input, piece));
    for (size_t before = SIZE_MAX; input.left() != before && !end.lost();) {
        before = input.left();
        end.progress();
    }
    return !end.lost() && input.left() == 0;
}

void append_frame(Bytes& bytes, wire::FrameType type, uint64_t seq, size_t size, size_t head = 0) {
    wire::FrameHeader header;
    header.type = type;
    header.epoch = peers_epoch;
    header.length = size;
    header.head = static_cast<uint8_t>(head);
    header.seq = seq;
    header.ack = std::min<uint64_t>(seq, 2);
    append(bytes, header);
    bytes.insert(bytes.end(), size, static_cast<uint8_t>(seq));
}

// An acknowledgement, then messages of both kinds, one of them again, then an end.
Bytes frames_of(unsigned variant) {
    variant %= 60;
    Bytes out;
    append_frame(out, wire::FrameType::ack, 0, 0);
    append_frame(out, wire::FrameType::data, 1, 10 * variant);
    append_frame(out, wire::FrameType::bulk, 2, 20 + 300 * (variant % 5), variant % 20);
    append_frame(out, wire::FrameType::bulk, 2, 20 + 300 * (variant % 5), variant % 20);
    append_frame(out, wire::FrameType::data, 3, variant % 2 ? 0 : 5000);
    if (variant % 3 == 1) append_frame(out, wire::FrameType::suspend, 0, 0);
    if (variant % 3 == 2) append_frame(out, wire::FrameType::bye, 0, 0);
    return out;
}

Bytes frames_seed(unsigned variant) {
    Bytes out{static_cast<uint8_t>(variant % 4)};
    const Bytes frames = frames_of(variant);
    out.insert(out.end(), frames.begin(), frames.end());
    return out;
}

// What a frame header must have whatever it says.
void repair_frames(Bytes& bytes) {
    for (size_t at = 1; at + wire::frame_header_size <= bytes.size();) {
        wire::FrameHeader header = wire::decode(bytes.data() + at);
        header.magic = wire::frame_magic;
        header.version = wire::frame_version;
        header.epoch = peers_epoch;
        header.reserved = 0;
        header.ack %= 4;
        header.seq %= 6;
        const size_t behind = bytes.size() - at - sizeof header;
        if (header.length > behind && header.length % 16 != 0) header.length = behind;
        std::memcpy(bytes.data() + at, &header, sizeof header);
        at += sizeof header + static_cast<size_t>(std::min<uint64_t>(header.length, behind));
    }
}

// --- packets: the same stream in packets ---

const wire::PacketKey packets_in{11, 13, peers_epoch}, packets_out{12, 14, 3};
constexpr size_t largest_packet = 400;

class FedDriver final : public PacketDriver {
  public:
    explicit FedDriver(Input& input) : input_(input) {}
    const char* name() const override { return "fed"; }
    LinkAddress address() const override { return {}; }
    Status connect(const LinkAddress&, uint64_t) override { return {}; }
    size_t max_packet() const override { return largest_packet; }
    size_t receive_room() const override { return 1 << 20; }
    int fd() const override { return -1; }
    int send(const PacketView*, int count) override { return count; }
    int receive(PacketView* packets, int most) override {
        given_.clear();
        while (input_.left() > 0 && static_cast<int>(given_.size()) < most) {
            const auto size = input_.take<uint16_t>();
            const uint8_t* from = input_.data();
            const size_t part = input_.skip(size);
            given_.push_back({std::make_unique<uint8_t[]>(part), part});
            if (part > 0) std::memcpy(given_.back().first.get(), from, part);
        }
        for (size_t i = 0; i < given_.size(); i++)
            packets[i] = {given_[i].first.get(), given_[i].second};
        return static_cast<int>(given_.size());
    }

  private:
    Input& input_;
    std::vector<std::pair<std::unique_ptr<uint8_t[]>, size_t>> given_;
};

bool read_packets(const uint8_t* data, size_t size) {
    Input input(data, size);
    End end;
    end.adopt(std::make_unique<PacketLink>(std::make_unique<FedDriver>(input),
                                           PacketKeys{packets_out, packets_in}, 1'000'000));
    for (int i = 0; i < 40 && !end.lost(); i++) end.progress();
    return !end.lost() && input.left() == 0;
}

void append_packet(Bytes& bytes, const wire::PacketHeader& header, const uint8_t* payload) {
    const auto size = static_cast<uint16_t>(sizeof header + header.length);
    append(bytes, size);
    const size_t at = bytes.size();
    bytes.resize(at + size);
    if (header.length > 0) std::memcpy(bytes.data() + at + sizeof header, payload, header.length);
    wire::seal_packet(bytes.data() + at, header, packets_in);
}

// Segments in order, or two of them exchanged, and a map of what has come.
Bytes packets_seed(unsigned variant) {
    const Bytes frames = frames_of(variant);
    std::vector<Bytes> packets;
    wire::PacketHeader header;
    header.window = 64;
    constexpr size_t most = largest_packet - sizeof header;
    for (size_t at = 0; at < frames.size(); at += most) {
        header.number++;
        header.order++;
        header.ack = variant % 2;
        header.seen = header.ack ? 1 : 0;
        header.flags = header.number % 5 == 0 ? wire::packet_answer : 0;
        header.length = static_cast<uint16_t>(std::min(most, frames.size() - at));
        packets.emplace_back();
        append_packet(packets.back(), header, frames.data() + at);
    }
    if (variant % 3 == 1 && packets.size() > 1) std::swap(packets[0], packets[1]);
    header.order++;
    header.number = 0;
    header.flags = wire::packet_selected;
    header.length = variant % 2;
    const uint8_t map[1] = {0};
    packets.emplace_back();
    append_packet(packets.back(), header, map);
    Bytes out;
    for (const Bytes& packet : packets) out.insert(out.end(), packet.begin(), packet.end());
    return out;
}

void repair_packets(Bytes& bytes) {
    for (size_t at = 0; at + 2 <= bytes.size();) {
        uint16_t size;
        std::memcpy(&size, bytes.data() + at, sizeof size);
        size = static_cast<uint16_t>(std::min<size_t>(size, bytes.size() - at - 2));
        std::memcpy(bytes.data() + at, &size, sizeof size);
        at += 2;
        if (size >= sizeof(wire::PacketHeader)) {
            wire::PacketHeader header;
            std::memcpy(&header, bytes.data() + at, sizeof header);
            header.magic = wire::packet_magic;
            header.version = wire::packet_version;
            header.flags &= 3;
            header.length = static_cast<uint16_t>(size - sizeof header);
            header.ack %= 4;
            if (header.number >= 4096) header.number %= 64;
            wire::seal_packet(bytes.data() + at, header, packets_in);
        }
        at += size;
    }
}

// --- rings: 16 bytes of counts, then lines, then what lies in the payload area ---

constexpr RingGeometry ring_geometry{8, 400 * 1024};

bool read_rings(const uint8_t* data, size_t size) {
    auto made = RingMapping::create(ring_geometry);
    if (!made) return false;
    RingMapping& map = *made->first;
    Input input(data, size);
    map.control(0)->consumed.store(input.take<uint64_t>());
    uint64_t stamps = input.take<uint64_t>();  // a bit for each line: whether its stamp is right
    const uint64_t key = map.control(1)->key;
    for (uint32_t i = 0; i < ring_geometry.lines && input.left() > 0; i++, stamps >>= 1) {
        RingLine& line = map.lines(1)[i];
        const uint8_t* from = input.data();
        const size_t part = input.skip(sizeof line);
        std::memcpy(static_cast<void*>(&line), from, part);
        if (stamps & 1) line.stamp.store(stamp_of(key, i));
    }
    const uint8_t* from = input.data();
    const size_t part = input.skip(ring_geometry.bytes);
    if (part > 0) std::memcpy(map.payload(1), from, part);
    End end;
    end.adopt(std::make_unique<ShmLink>(std::move(made->first), RingPieces{}));
    for (int i = 0; i < 4 && !end.lost(); i++) end.progress();
    return !end.lost();
}

Bytes rings_seed(unsigned variant) {
    Bytes out;
    append(out, uint64_t{variant % 5});
    append(out, ~uint64_t{0});
    const auto line = [&](uint32_t seq, size_t length, LineKind kind) {
        append(out, uint64_t{0});
        append(out, seq);
        append(out, line_info(length, 3, kind));
        append(out, kind == LineKind::bulk_head ? uint64_t{100} : uint64_t{0});
        out.insert(out.end(), 40, 'l');
    };
    line(0, 8, LineKind::resume);
    line(1, variant % 2 ? 48 : 40'000, LineKind::data);
    line(2, 8 + variant % 33, LineKind::bulk_head);
    line(2, 40, LineKind::bulk_piece);
    line(2, 60, LineKind::bulk_piece);
    line(3, 5, LineKind::data);
    out.insert(out.end(), 300, 'p');
    return out;
}

// --- handshakes: which message, then the message ---

struct Handshakes {
    wire::HandshakeKey key = *wire::HandshakeKey::make(std::string(64, 'a'), "fuzz");
    wire::Hello hello;
    wire::Welcome welcome;
    wire::ChannelHello channel;
    Handshakes() {
        hello.from = 1;
        hello.kind = wire::LinkKind::udp;
        hello.link.size = 2;
        wire::seal(hello, key);
        welcome.kind = wire::LinkKind::udp;
        welcome.link.size = 2;
        wire::seal(welcome, hello, key);
        channel.to = 1;
        wire::seal(channel, nullptr, key);
    }
};

const Handshakes& good() {
    static const Handshakes all;
    return all;
}

// The address in a message that was believed is given to an end of every link there is.
void connect_all(const wire::LinkAddress& address) {
    static Fd connection = [] {
        const Fd listener(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
        Fd fd(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
        sockaddr_in to{};
        to.sin_family = AF_INET;
        to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        socklen_t size = sizeof to;
        auto* any = reinterpret_cast<sockaddr*>(&to);
        if (bind(listener.get(), any, size) != 0 || listen(listener.get(), 1) != 0 ||
            getsockname(listener.get(), any, &size) != 0 || connect(fd.get(), any, size) != 0)
            std::abort();
        return fd;
    }();
    static const auto hub = std::make_shared<LoopHub>();
    for (const LinkLine& line : link_table()) {
        if (line.kind == wire::LinkKind::ofi) continue;        // what libfabric leaks is not ours
        if (line.kind == wire::LinkKind::framepair) continue;  // its packets are netdevice's
        if (!line.make || (line.usable && !line.usable(hub.get()))) continue;
        auto end = line.make({.connection = connection, .loop = hub.get()});
        if (end) (void)(*end)->connect(address, 1);
    }
}

bool read_handshake(const uint8_t* data, size_t size) {
    constexpr size_t sizes[] = {sizeof(wire::Hello), sizeof(wire::Welcome), sizeof(wire::Confirm),
                                sizeof(wire::ChannelHello), sizeof(wire::ChannelHello)};
    Input input(data, size);
    const auto which = input.take<uint8_t>();
    if (which >= std::size(sizes) || input.left() != sizes[which]) return false;
    switch (which) {
        case 0: {
            const auto hello = input.take<wire::Hello>();
            if (wire::check(hello, good().key)) return false;
            connect_all(hello.link);
            return true;
        }
        case 1: {
            const auto welcome = input.take<wire::Welcome>();
            if (wire::check(welcome, good().hello, good().key)) return false;
            connect_all(welcome.link);
            return true;
        }
        case 2: {
            const auto confirm = input.take<wire::Confirm>();
            return !wire::check(confirm, good().hello, good().welcome, good().key);
        }
        case 3:
            return !wire::check(input.take<wire::ChannelHello>(), nullptr, good().key);
        default:
            return !wire::check(input.take<wire::ChannelHello>(), &good().channel, good().key);
    }
}

template <typename Message, typename Seal>
void reseal(Bytes& bytes, Seal seal) {
    Message message;
    bytes.resize(1 + sizeof message);
    std::memcpy(static_cast<void*>(&message), bytes.data() + 1, sizeof message);
    message.magic = Message{}.magic;
    message.version = Message{}.version;
    seal(message);
    std::memcpy(bytes.data() + 1, &message, sizeof message);
}

void repair_handshake(Bytes& bytes) {
    if (bytes.empty()) return;
    const Handshakes& g = good();
    bytes[0] %= 5;
    switch (bytes[0]) {
        case 0:
            return reseal<wire::Hello>(bytes, [&](auto& m) { wire::seal(m, g.key); });
        case 1:
            return reseal<wire::Welcome>(bytes, [&](auto& m) { wire::seal(m, g.hello, g.key); });
        case 2:
            return reseal<wire::Confirm>(
                bytes, [&](auto& m) { wire::seal(m, g.hello, g.welcome, g.key); });
        case 3:
            return reseal<wire::ChannelHello>(bytes,
                                              [&](auto& m) { wire::seal(m, nullptr, g.key); });
        default:
            return reseal<wire::ChannelHello>(bytes,
                                              [&](auto& m) { wire::seal(m, &g.channel, g.key); });
    }
}

Bytes handshake_seed(unsigned variant) {
    Bytes out{static_cast<uint8_t>(variant % 5)};
    switch (variant % 5) {
        case 0:
            append(out, good().hello);
            break;
        case 1:
            append(out, good().welcome);
            break;
        case 2:
            append(out, wire::Confirm{});
            break;
        case 3:
            append(out, good().channel);
            break;
        default: {
            wire::ChannelHello answer;
            answer.answer = 1;
            append(out, answer);
        }
    }
    repair_handshake(out);
    return out;
}

}  // namespace

std::vector<Target> kernet_link_targets() {
    return {
        {"frames", read_frames, frames_seed, repair_frames, false},
        {"packets", read_packets, packets_seed, repair_packets, false},
        {"rings", read_rings, rings_seed, nullptr, false},
        {"handshakes", read_handshake, handshake_seed, repair_handshake, true},
    };
}

const std::vector<Target>& targets() {
    static const std::vector<Target> all = [] {
        // What is refused is logged, thousands of times a second.
        if (std::getenv("GHOST_LOG") == nullptr) setenv("GHOST_LOG", "/dev/null", 1);
        log::setup("fuzz", log::Level::error);
        std::vector<Target> list = kernet_link_targets();
        for (const Target& target : kernet_stream_targets()) list.push_back(target);
        return list;
    }();
    return all;
}

}  // namespace ghost::fuzz
