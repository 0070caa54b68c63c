// SPDX-License-Identifier: BSD-3-Clause
// Sockets with filters, whose links the test makes, reads and spoils.
#include <gtest/gtest.h>

#include <cstring>
#include <functional>
#include <malloc.h>
#include <sys/socket.h>
#include <vector>

#include "kernet-btl/transport/datapath.hpp"
#include "kernet-btl/link/tcp.hpp"
#include "tests/contract/kernet_ends.hpp"
#include "tests/unit/kernet_filters.hpp"

namespace {

using kernet::DataPath;
using kernet::Filters;
using kernet::LinkHandoff;
using kernet::Registry;
using kernet::Socket;
using Bytes = std::vector<uint8_t>;

class Inbox : public kernet::Receiver {
  public:
    void deliver(Socket&, uint8_t tag, uint8_t* bytes, size_t size) override {
        tags.push_back(tag);
        messages.emplace_back(bytes, bytes + size);
    }
    uint8_t* place(Socket&, uint8_t, const uint8_t* head, size_t head_size, size_t size) override {
        if (head_size == 1 && *head == 0) return nullptr;
        room_.resize(size);
        return room_.data();
    }
    void placed(Socket&, uint8_t tag, const uint8_t* head, size_t head_size, uint8_t*,
                size_t) override {
        tags.push_back(tag);
        heads.emplace_back(head, head + head_size);
        messages.push_back(room_);
    }
    void released(Socket&, void* token) override { released_tokens.push_back(token); }

    std::vector<uint8_t> tags;
    std::vector<Bytes> messages, heads;
    std::vector<void*> released_tokens;

  private:
    Bytes room_;
};

struct End {
    End(uint32_t rank, const std::string& filters)
        : path(registry, false), shared(registry.peer(1 - rank)) {
        path.set_receiver(&inbox);
        auto list = kernet::filter::List::parse(filters);
        EXPECT_TRUE(list.ok() && list->prepare().ok());
        if (list->empty()) return;
        kernet::filter::SocketId own{"7", "1", {}, rank, rank};
        path.set_filters(std::make_unique<Filters>(std::move(*list), own));
    }
    ~End() { path.unattach_all(); }
    void offer(int fd, uint64_t generation, uint64_t peer_last_seen) {
        auto made = std::make_unique<LinkHandoff>();
        made->peer = &shared;
        made->generation = generation;
        made->peer_last_seen = peer_last_seen;
        made->link = std::make_unique<kernet::TcpLink>(ghost::Fd(fd), 0, 0, 0);
        registry.offers.put(std::move(made));
    }
    Socket& socket() { return path.attach(shared.rank); }
    void send(const Bytes& bytes, uint8_t tag = 1) {
        kernet::Gate::Holder inside(path.gate());
        uint8_t* room = socket().reserve(bytes.size());
        if (!bytes.empty()) std::memcpy(room, bytes.data(), bytes.size());
        socket().commit(bytes.size(), tag);
    }
    void send_bulk(const Bytes& head, const Bytes& body, uint8_t tag = 2) {
        kernet::Gate::Holder inside(path.gate());
        socket().send_bulk(tag, head.data(), head.size(), body.data(), body.size(),
                           const_cast<Bytes*>(&body));
    }
    Registry registry;
    Inbox inbox;
    DataPath path;
    kernet::PeerShared& shared;
};

// Two ends and a link between them through somebody who reads, and may change, every byte.
class Wiretap : public testing::Test {
  protected:
    void link(End& a, End& b) {
        generation_++;
        for (auto& end : {std::pair{&a, 0}, {&b, 1}}) {
            int fds[2];
            ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds), 0);
            tap_[end.second].reset(fds[1]);
            End& other = end.second == 0 ? b : a;
            end.first->offer(fds[0], generation_, other.shared.received.load());
        }
    }
    void drop_links() {
        for (ghost::Fd& end : tap_) end.reset();
    }
    // What goes from one to the other passes `change`.
    void pump(End& a, End& b, const std::function<void(int from, Bytes&)>& change = nullptr) {
        // A listener acknowledges after 64 polls in which nothing came: then all is done.
        for (int idle = 0; idle < 200; idle++) {
            a.path.progress();
            b.path.progress();
            for (int from : {0, 1}) {
                const ssize_t got = read(tap_[from].get(), room_.data(), room_.size());
                if (got == 0) tap_[1 - from].reset();
                if (got <= 0) continue;
                idle = 0;
                Bytes bytes(room_.begin(), room_.begin() + got);
                seen.insert(seen.end(), bytes.begin(), bytes.end());
                if (change) change(from, bytes);
                for (size_t at = 0; at < bytes.size();) {
                    const ssize_t put =
                        write(tap_[1 - from].get(), bytes.data() + at, bytes.size() - at);
                    if (put > 0) {
                        at += static_cast<size_t>(put);
                    } else if (errno != EAGAIN) {
                        break;
                    }
                    a.path.progress();
                    b.path.progress();
                }
            }
        }
    }
    bool saw(const Bytes& pattern) const {
        return std::search(seen.begin(), seen.end(), pattern.begin(), pattern.end()) != seen.end();
    }
    Bytes seen;

  private:
    ghost::Fd tap_[2];
    Bytes room_ = Bytes(300'000);
    uint64_t generation_ = 0;
};

Bytes counted(size_t size, uint8_t first) {
    Bytes out(size);
    for (size_t i = 0; i < size; i++) out[i] = static_cast<uint8_t>(first + i * 7 + i / 251);
    return out;
}

TEST_F(Wiretap, SealedStreamIsUnreadable) {
    const Bytes secret = counted(64, 3), head = counted(8, 77), body = counted(500'000, 9);
    for (const bool sealed : {false, true}) {
        End a(0, sealed ? "crypto" : ""), b(1, sealed ? "crypto" : "");
        a.socket(), b.socket();
        link(a, b);
        a.send(secret);
        a.send_bulk(head, body);
        pump(a, b);
        ASSERT_EQ(b.inbox.messages, (std::vector{secret, body}));
        EXPECT_EQ(b.inbox.heads, std::vector<Bytes>{head});
        EXPECT_EQ(saw(secret), !sealed);
        EXPECT_EQ(saw(head), !sealed);
        EXPECT_EQ(saw(Bytes(body.begin() + 1000, body.begin() + 1032)), !sealed);
        seen.clear();
    }
}

// Whatever is changed on the way: the link goes, nothing false is delivered, and over the next link
// everything comes.
TEST_F(Wiretap, ChangedFrameIsRefused) {
    std::vector<Bytes> sent;
    for (size_t i = 0; i < 40; i++) sent.push_back(counted(100 + i, static_cast<uint8_t>(i)));
    const size_t frame = kernet::wire::frame_header_size;
    for (size_t spoilt = 0; spoilt <= 140; spoilt += 7) {
        End a(0, "crypto"), b(1, "crypto");
        a.socket(), b.socket();
        link(a, b);
        size_t passed = 0;
        for (const Bytes& message : sent) a.send(message);
        pump(a, b, [&](int from, Bytes& bytes) {
            // One of the 141 bytes of the first message, which follows the link's first ack.
            const size_t target = frame + frame + spoilt;
            if (from == 0 && passed <= target && target < passed + bytes.size())
                bytes[target - passed] ^= 0x10;
            if (from == 0) passed += bytes.size();
        });
        ASSERT_FALSE(b.socket().linked()) << spoilt;
        ASSERT_TRUE(b.inbox.messages.size() < 2) << spoilt;
        EXPECT_EQ(b.socket().refused(), 1U);
        link(a, b);
        pump(a, b);
        ASSERT_EQ(b.inbox.messages, sent) << spoilt;
    }
}

// A stranger on the wire who sends plain frames is not listened to.
TEST_F(Wiretap, PlainFramesAreRefused) {
    for (const auto type : {kernet::wire::FrameType::data, kernet::wire::FrameType::bulk}) {
        End a(0, ""), b(1, "crypto");  // as if the handshake had been got round
        a.socket(), b.socket();
        link(a, b);
        const Bytes body = counted(100'000, 1);
        if (type == kernet::wire::FrameType::data) {
            a.send(counted(100, 1));
        } else {
            a.send_bulk({}, body);
        }
        pump(a, b);
        EXPECT_TRUE(b.inbox.messages.empty());
        EXPECT_FALSE(b.socket().linked());
    }
}

// One that is recorded and played again is dropped by its number, or does not fit its place.
TEST_F(Wiretap, FrameAtAnotherPlaceIsRefused) {
    End a(0, "crypto"), b(1, "crypto");
    a.socket(), b.socket();
    link(a, b);
    const Bytes message = counted(100, 1);
    const size_t frame = kernet::wire::frame_header_size + 100 + 40 + 1;
    a.send(message, 1);
    Bytes first;
    pump(a, b, [&](int from, Bytes& bytes) {
        if (from == 0 && bytes.size() >= frame) first.assign(bytes.end() - frame, bytes.end());
    });
    ASSERT_EQ(b.inbox.messages.size(), 1U);
    ASSERT_EQ(first.size(), frame);
    a.send(message, 1);
    pump(a, b, [&](int from, Bytes& bytes) {
        if (from != 0 || bytes.size() != frame) return;
        // The first one's content under the second one's header.
        std::copy(first.begin() + kernet::wire::frame_header_size, first.end(),
                  bytes.begin() + kernet::wire::frame_header_size);
    });
    EXPECT_EQ(b.inbox.messages.size(), 1U);
    EXPECT_EQ(b.socket().refused(), 1U);
}

// The longest message the upper layer may send does not fit a frame any more once encoded.
TEST_F(Wiretap, EverySizeArrivesInOrder) {
    for (const char* filters : {"crypto", "compress=zstd", "crypto,compress"}) {
        End a(0, filters), b(1, filters);
        a.socket(), b.socket();
        link(a, b);
        std::vector<Bytes> sent, bodies;
        const size_t most = kernet::wire::max_message;
        for (size_t size :
             {size_t{0}, size_t{1}, size_t{300}, most - 42, most - 41, most - 40, most - 1, most})
            sent.push_back(counted(size, static_cast<uint8_t>(size)));
        for (size_t size : {size_t{1}, size_t{65'536}, size_t{65'537}, size_t{2'000'000}})
            bodies.push_back(counted(size, static_cast<uint8_t>(size)));
        const Bytes refused_head{0}, head{1};
        for (const Bytes& message : sent) a.send(message, 5);
        for (const Bytes& body : bodies) a.send_bulk(head, body, 6);
        a.send_bulk(refused_head, bodies[2], 7);
        a.send(sent[2], 8);
        std::vector<Bytes> expected = sent;
        expected.insert(expected.end(), bodies.begin(), bodies.end());
        expected.push_back(sent[2]);
        pump(a, b);
        ASSERT_EQ(b.inbox.messages.size(), expected.size()) << filters;
        EXPECT_TRUE(b.inbox.messages == expected) << filters;
        EXPECT_EQ(b.inbox.tags.back(), 8);
        EXPECT_EQ(b.inbox.heads, std::vector<Bytes>(bodies.size(), head));
        EXPECT_EQ(a.inbox.released_tokens.size(), bodies.size() + 1);
        EXPECT_EQ(a.socket().backlog(), 0U);
    }
}

// What waits to be encoded may be the caller's again before it has been.
TEST_F(Wiretap, WaitingBodyCanBeReclaimed) {
    End a(0, "crypto"), b(1, "crypto");
    a.socket(), b.socket();
    Bytes first = counted(2'000'000, 1), second = counted(2'000'000, 2);
    const std::vector<Bytes> sent{first, second};
    a.send_bulk({1}, first);
    a.send_bulk({1}, second);
    for (Bytes* body : {&first, &second}) {
        kernet::Gate::Holder inside(a.path.gate());
        a.socket().own_body(body);
        std::fill(body->begin(), body->end(), uint8_t{0});
    }
    link(a, b);
    pump(a, b);
    EXPECT_TRUE(b.inbox.messages == sent);
    EXPECT_TRUE(a.inbox.released_tokens.empty());
}

// For a peer that is away a long message waits as it is; what goes into memory is bounded.
TEST_F(Wiretap, LongMessageIsEncodedWhenSent) {
    End a(0, "crypto"), b(1, "crypto");
    a.socket(), b.socket();
    const Bytes body = counted(20'000'000, 1), last = counted(100, 4);
    a.send_bulk({1}, body);
    a.send(last);
    EXPECT_GE(a.socket().backlog(), body.size());
    EXPECT_TRUE(a.inbox.released_tokens.empty());
    link(a, b);
    pump(a, b);
    ASSERT_EQ(b.inbox.messages.size(), 2U);
    EXPECT_TRUE(b.inbox.messages[0] == body);
    EXPECT_EQ(b.inbox.messages[1], last);
    EXPECT_EQ(a.inbox.released_tokens.size(), 1U);
}

// Bytes that this process has taken of its heap and not given back; 0 under a sanitizer.
size_t allocated() {
    const struct mallinfo2 heap = mallinfo2();
    return heap.uordblks + heap.hblkhd;
}

class WiretapChain : public Wiretap, public testing::WithParamInterface<const char*> {};

INSTANTIATE_TEST_SUITE_P(All, WiretapChain, testing::ValuesIn(kernettest::all_chains),
                         [](const auto& info) { return kernettest::case_name(info.param); });

// Whoever looks at the backlog before it sends, as the BTL does, holds no more memory than that and
// what is encoded and in the link, whatever filters make of its messages: while the peer takes
// nothing, while it has gone, and while it still takes nothing after it has come back.
TEST_P(WiretapChain, SenderOfSlowPeerIsHeldBack) {
    constexpr size_t limit = 1'000'000;
    const kernettest::Folder folder;
    const std::string chain = kernettest::with_places(GetParam(), folder);
    End a(0, chain), b(1, chain);
    a.socket(), b.socket();
    // what compresses to a thirtieth
    Bytes message(64'000);
    for (size_t i = 0; i < 2'000; i++) message[i] = static_cast<uint8_t>(kernet_test::mix(i));
    size_t sent = 0;
    const size_t before = allocated();
    for (const bool linked : {true, false, true}) {
        if (linked) {
            link(a, b);
            a.path.progress();
        } else {
            drop_links();
            a.path.progress();
            EXPECT_FALSE(a.socket().linked());
        }
        while (a.socket().backlog() <= limit) {
            a.send(message);
            ASSERT_LT(++sent, 10'000U);
        }
    }
    EXPECT_LT(allocated(), before + 5 * limit) << sent << " messages";
    pump(a, b);
    EXPECT_EQ(b.inbox.messages.size(), sent);
    for (const Bytes& got : b.inbox.messages) ASSERT_TRUE(got == message);
    EXPECT_EQ(a.socket().backlog(), 0U);
}

}  // namespace
