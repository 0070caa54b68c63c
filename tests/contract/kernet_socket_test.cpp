// SPDX-License-Identifier: BSD-3-Clause
// Two sockets without connectors: the test decides who does what in which order.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <functional>
#include <sys/socket.h>
#include <vector>

#include "kernet-btl/transport/datapath.hpp"
#include "kernet-btl/link/shm.hpp"
#include "kernet-btl/link/tcp.hpp"

namespace {

using kernet::DataPath;
using kernet::LinkHandoff;
using kernet::Registry;
using kernet::RingMapping;
using kernet::Socket;

// Each message holds its number, in every eight bytes.
class Counter : public kernet::Receiver {
  public:
    void deliver(Socket&, uint8_t, uint8_t* bytes, size_t size) override { check(bytes, size); }
    uint8_t* place(Socket&, uint8_t, const uint8_t*, size_t, size_t size) override {
        room_.resize(size);
        return room_.data();
    }
    void placed(Socket&, uint8_t, const uint8_t*, size_t, uint8_t* body, size_t size) override {
        check(body, size);
    }
    void released(Socket&, void*) override {
        released_++;
        if (on_release) on_release();
    }
    std::function<void()> on_release;

    uint64_t taken() const { return taken_; }
    uint64_t released() const { return released_; }
    bool wrong() const { return wrong_; }

  private:
    void check(const uint8_t* bytes, size_t size) {
        for (size_t at = 0; at + 8 <= size; at += 8) {
            uint64_t word;
            std::memcpy(&word, bytes + at, 8);
            if (word != taken_) wrong_ = true;
        }
        taken_++;
    }
    std::vector<uint8_t> room_;
    uint64_t taken_ = 0, released_ = 0;
    bool wrong_ = false;
};

struct End {
    explicit End(uint32_t peer) : path(registry, false), shared(registry.peer(peer)) {
        path.set_receiver(&receiver);
    }
    void offer(std::unique_ptr<RingMapping> ring, uint64_t generation, uint64_t peer_last_seen) {
        auto made = std::make_unique<LinkHandoff>();
        made->peer = &shared;
        made->generation = generation;
        made->peer_last_seen = peer_last_seen;
        made->link = std::make_unique<kernet::ShmLink>(std::move(ring), kernet::RingPieces{});
        registry.offers.put(std::move(made));
    }
    Registry registry;
    Counter receiver;
    DataPath path;
    kernet::PeerShared& shared;
};

void relink(End& a, End& b, uint64_t generation) {
    auto made = RingMapping::create(kernet::RingGeometry{});
    ASSERT_TRUE(made.ok());
    auto other = RingMapping::attach(made->second);
    ASSERT_TRUE(other.ok());
    a.offer(std::move(made->first), generation, b.shared.received.load());
    b.offer(std::move(*other), generation, a.shared.received.load());
}

void offer_connection(Registry& to, kernet::PeerShared& peer, int fd, uint64_t generation,
                      uint64_t peer_last_seen) {
    auto made = std::make_unique<LinkHandoff>();
    made->peer = &peer;
    made->generation = generation;
    made->peer_last_seen = peer_last_seen;
    made->link = std::make_unique<kernet::TcpLink>(kernet::Fd(fd), 0, 0, 0);
    to.offers.put(std::move(made));
}

// One end is `a`'s, the other that of the process with `registry`, which knows it as `peer`.
void connect(End& a, Registry& registry, kernet::PeerShared& peer, uint64_t generation) {
    int ends[2];
    ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends), 0);
    offer_connection(a.registry, a.shared, ends[0], generation, peer.received.load());
    offer_connection(registry, peer, ends[1], generation, a.shared.received.load());
}

// The peer goes on reading while the link is left: here it takes its next 32 lines in the middle of
// the sender's reckoning, when the first frame it had taken is given back.
TEST(KernetSocket, LinkLostDuringReadLosesNothing) {
    constexpr uint64_t bulks = 20;
    End a(1), b(0);
    Socket& out = a.path.attach(1);
    b.path.attach(0);
    relink(a, b, 1);
    b.path.progress();
    a.path.progress();
    std::vector<std::vector<uint64_t>> bodies;
    for (uint64_t i = 0; i < bulks; i++) bodies.emplace_back(1024, i);
    for (auto& body : bodies) {
        kernet::Gate::Holder inside(a.path.gate());
        out.send_bulk(1, nullptr, 0, body.data(), body.size() * 8, &body);
    }
    b.path.progress();
    ASSERT_GT(b.receiver.taken(), 2u);
    ASSERT_EQ(a.receiver.released(), 0u);
    const uint64_t before = b.receiver.taken();
    a.receiver.on_release = [&] {
        if (b.receiver.taken() == before) b.path.progress();
    };
    relink(a, b, 2);
    // Only the sender takes the new link now: the peer still reads the old one.
    LinkHandoff* kept = b.registry.offers.take();
    a.path.progress();
    ASSERT_GT(b.receiver.taken(), before + 2);
    ASSERT_LT(b.receiver.taken(), bulks);
    b.registry.offers.put(std::unique_ptr<LinkHandoff>(kept));
    for (int i = 0; i < 1000; i++) {
        b.path.progress();
        a.path.progress();
    }
    EXPECT_EQ(b.receiver.taken(), bulks);
    EXPECT_EQ(a.receiver.released(), bulks);
    EXPECT_FALSE(b.receiver.wrong());
    a.path.unattach_all();
    b.path.unattach_all();
}

// What is in a ring when it is left, of both kinds, and what had no room in it: by the next link,
// of whichever kind, all of it comes in its order.
TEST(KernetSocket, RingContentsGoInOrderByNextLink) {
    constexpr uint64_t messages = 60, words = 4096;
    for (const bool ring_follows : {true, false}) {
        SCOPED_TRACE(ring_follows);
        End a(1), b(0);
        Socket& out = a.path.attach(1);
        b.path.attach(0);
        relink(a, b, 1);
        b.path.progress();
        a.path.progress();
        std::vector<std::vector<uint64_t>> bodies;
        for (uint64_t i = 0; i < messages; i++) bodies.emplace_back(words, i);
        for (uint64_t i = 0; i < messages; i++) {
            kernet::Gate::Holder inside(a.path.gate());
            if (i % 2 == 0) {
                std::memcpy(out.reserve(sizeof i), &i, sizeof i);
                out.commit(sizeof i, 1);
            } else {
                out.send_bulk(1, nullptr, 0, bodies[i].data(), words * 8, &bodies[i]);
            }
        }
        EXPECT_GT(out.backlog(), 0U);
        b.path.progress();
        EXPECT_GT(b.receiver.taken(), 0U);
        EXPECT_LT(b.receiver.taken(), messages / 4);
        ring_follows ? relink(a, b, 2) : connect(a, b.registry, b.shared, 2);
        for (int i = 0; i < 10'000 && (b.receiver.taken() < messages || out.busy()); i++) {
            a.path.progress();
            b.path.progress();
        }
        EXPECT_EQ(b.receiver.taken(), messages);
        EXPECT_FALSE(b.receiver.wrong());
        EXPECT_EQ(a.receiver.released(), messages / 2);
        a.path.unattach_all();
        b.path.unattach_all();
    }
}

// The body of a bulk message is the caller's again before it has been acknowledged: what is sent
// again after a lost link is what it was then.
TEST(KernetSocket, OwnedBodyIsResentUnchanged) {
    End a(1), b(0);
    Socket& out = a.path.attach(1);
    b.path.attach(0);
    relink(a, b, 1);
    b.path.progress();
    a.path.progress();
    auto body = std::make_unique<std::vector<uint64_t>>(4096, 0);
    {
        kernet::Gate::Holder inside(a.path.gate());
        out.send_bulk(1, nullptr, 0, body->data(), body->size() * 8, body.get());
        out.own_body(body.get());
    }
    std::fill(body->begin(), body->end(), 99);
    body.reset();
    relink(a, b, 2);  // nothing of it had been taken
    for (int i = 0; i < 100; i++) {
        a.path.progress();
        b.path.progress();
    }
    EXPECT_EQ(b.receiver.taken(), 1U);
    EXPECT_FALSE(b.receiver.wrong());
    EXPECT_EQ(a.receiver.released(), 0U);  // there is nothing to be told any more
    EXPECT_FALSE(out.busy());
    a.path.unattach_all();
    b.path.unattach_all();
}

// A message of two pieces has been copied when the call returns, whether all of it, some of it or
// nothing had room in the connection, wherever in memory it lay; the next link, of whichever kind,
// has it all.
TEST(KernetSocket, CallerMayReusePieces) {
    constexpr uint64_t messages = 120;
    for (const bool ring_follows : {true, false}) {
        SCOPED_TRACE(ring_follows);
        End a(1), b(0);
        Socket& out = a.path.attach(1);
        b.path.attach(0);
        connect(a, b.registry, b.shared, 1);
        std::vector<uint8_t> memory(128 * 1024 + 128);
        uint64_t waited = 0;
        for (uint64_t number = 0; number < messages; number++) {
            uint8_t* rest = memory.data() + number % 64;
            const size_t words = 512 + number * 977 % 15'872;
            for (size_t i = 0; i < words; i++) std::memcpy(rest + 8 * i, &number, 8);
            {
                kernet::Gate::Holder inside(a.path.gate());
                out.send_pieces(1, &number, sizeof number, rest, 8 * words);
            }
            std::fill(memory.begin(), memory.end(), 0xee);
            waited += out.backlog() > 0;
            a.path.progress();
            if (number % 3 == 0) b.path.progress();
        }
        EXPECT_GT(waited, messages / 4);
        EXPECT_LT(waited, messages);
        EXPECT_GT(b.receiver.taken(), messages / 8);
        EXPECT_LT(b.receiver.taken(), messages);
        ring_follows ? relink(a, b, 2) : connect(a, b.registry, b.shared, 2);
        for (int i = 0; i < 10'000 && (b.receiver.taken() < messages || out.busy()); i++) {
            a.path.progress();
            b.path.progress();
        }
        EXPECT_EQ(b.receiver.taken(), messages);
        EXPECT_FALSE(b.receiver.wrong());
        a.path.unattach_all();
        b.path.unattach_all();
    }
}

// A peer that only listens acknowledges by itself after some polls (docs/WIRE.md), whether links
// are tried one by one or by an epoll set: what is kept for it does not grow until it speaks.
TEST(KernetSocket, ListenerAcknowledgesTakenMessages) {
    for (const uint32_t peers : {1U, 6U}) {
        SCOPED_TRACE(peers);
        Registry registry;
        Counter receiver;
        DataPath path(registry, false);
        path.set_receiver(&receiver);
        std::vector<std::unique_ptr<End>> others;
        std::vector<Socket*> sockets;
        for (uint32_t rank = 1; rank <= peers; rank++) {
            others.push_back(std::make_unique<End>(0));
            connect(*others.back(), registry, registry.peer(rank), 1);
            others.back()->path.attach(0);
            sockets.push_back(&path.attach(rank));
        }
        const uint64_t word = 0;
        for (Socket* socket : sockets) {
            kernet::Gate::Holder inside(path.gate());
            std::memcpy(socket->reserve(sizeof word), &word, sizeof word);
            socket->commit(sizeof word, 1);
        }
        for (int i = 0; i < 200; i++) {
            path.progress();
            for (auto& other : others) other->path.progress();
        }
        for (auto& other : others) EXPECT_EQ(other->receiver.taken(), 1U);
        for (Socket* socket : sockets) EXPECT_FALSE(socket->busy());
        path.unattach_all();
        for (auto& other : others) other->path.unattach_all();
    }
}

}  // namespace
