// SPDX-License-Identifier: BSD-3-Clause
// Somebody between the two ends of a ghost's connection, who reads, changes, drops, repeats,
// exchanges, sends back or cuts off what passes: he reads nothing, and the reader notices.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <functional>
#include <netinet/in.h>
#include <sodium.h>
#include <sys/socket.h>
#include <thread>
#include <unistd.h>

#include "base/fd.hpp"
#include "ghost-core/resource/network.hpp"

namespace ghost::core {
namespace {

const std::string secret = "secret";
constexpr size_t greeting_bytes = sizeof(Hello) + sizeof(Proof);

sockaddr_in loopback(int port) {
    sockaddr_in out{};
    out.sin_family = AF_INET;
    out.sin_port = htons(static_cast<uint16_t>(port));
    out.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return out;
}

Fd connect_to(int port) {
    Fd fd(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    const auto to = loopback(port);
    EXPECT_EQ(connect(fd.get(), reinterpret_cast<const sockaddr*>(&to), sizeof to), 0);
    return fd;
}

// All up to the end, or `size` bytes.
std::string receive(int fd, size_t size = SIZE_MAX) {
    std::string out;
    char part[65536];
    while (out.size() < size) {
        const auto got = recv(fd, part, std::min(sizeof part, size - out.size()), 0);
        if (got <= 0) break;
        out.append(part, static_cast<size_t>(got));
    }
    return out;
}

void send_all(int fd, const std::string& what) {
    for (size_t at = 0; at < what.size();) {
        const auto sent = send(fd, what.data() + at, what.size() - at, MSG_NOSIGNAL);
        if (sent <= 0) return;
        at += static_cast<size_t>(sent);
    }
}

using Records = std::vector<std::string>;

Records records_of(const std::string& stream) {
    Records out;
    for (size_t at = 0; at < stream.size();) {
        const size_t size = Seal::head_of(stream.data() + at).size + Seal::overhead;
        out.push_back(stream.substr(at, size));
        at += size;
    }
    return out;
}

std::string joined(const Records& records) {
    std::string out;
    for (const auto& one : records) out += one;
    return out;
}

// Stands between the two and changes hellos as they pass; the connection is his when both have
// proved themselves.
class Between {
  public:
    using Change = std::function<void(Hello& hello, Side whose)>;

    explicit Between(Change change = {}) {
        auto listener = NetworkListener::listen(secret);
        EXPECT_TRUE(listener.ok());
        token = listener->token();
        const Fd door(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
        auto address = loopback(0);
        EXPECT_EQ(bind(door.get(), reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
        EXPECT_EQ(listen(door.get(), 1), 0);
        socklen_t size = sizeof address;
        getsockname(door.get(), reinterpret_cast<sockaddr*>(&address), &size);
        std::thread one([&] {
            auto made =
                NetworkResource::connect("127.0.0.1", ntohs(address.sin_port), token, secret);
            if (made) source = std::move(*made);
        });
        std::thread two([&] {
            auto came = listener->accept(5000);
            if (came) target = std::move(*came);
        });
        to_source = Fd(accept(door.get(), nullptr, nullptr));
        to_target = connect_to(listener->port());
        pass(to_source, to_target, sizeof(Hello), change, Side::source);
        pass(to_target, to_source, sizeof(Hello), change, Side::target);
        pass(to_source, to_target, sizeof(Proof), {}, Side::source);
        pass(to_target, to_source, sizeof(Proof), {}, Side::target);
        // Who was refused has hung up; the listener waits for another one.
        one.join();
        if (!source) to_target.reset(), listener->interrupt();
        two.join();
    }

    std::unique_ptr<NetworkResource> source, target;
    Fd to_source, to_target;
    std::string token, greeting;  // what the source has said of it

  private:
    void pass(const Fd& from, const Fd& to, size_t size, const Change& change, Side side) {
        std::string said = receive(from.get(), size);
        if (side == Side::source) greeting += said;
        if (change && said.size() == sizeof(Hello)) {
            Hello hello;
            std::memcpy(&hello, said.data(), sizeof hello);
            change(hello, side);
            std::memcpy(said.data(), &hello, sizeof hello);
        }
        send_all(to.get(), said);
        if (said.size() < size) shutdown(to.get(), SHUT_WR);
    }
};

// What a rank's memory may look like to somebody who looks for it.
std::string pattern(size_t size, char with) {
    std::string out;
    while (out.size() < size) out.append("page of rank ").append(1, with).append(" 0123456789 ");
    out.resize(size);
    return out;
}

// All that `writer` writes, sealed, as it passes.
std::string sealed(NetworkResource& writer, const Fd& there,
                   const std::vector<std::string>& parts) {
    std::string out;
    std::thread collector([&] { out = receive(there.get()); });
    for (const auto& part : parts) EXPECT_TRUE(writer.write(part.data(), part.size()).ok());
    EXPECT_TRUE(writer.finalize().ok());
    collector.join();
    return out;
}

// What a reader gets until the end or an error.
struct Got {
    std::string bytes;
    Status status;
};
Got read_to_end(NetworkResource& reader, size_t step) {
    Got out;
    std::string part(step, 0);
    for (;;) {
        auto got = reader.read(part.data(), part.size());
        if (!got) return out.status = got.error(), out;
        if (*got == 0) return out;
        out.bytes.append(part.data(), *got);
    }
}

const std::vector<std::string> parts = {pattern(100, 'a'), pattern(300'000, 'b'), pattern(40, 'c'),
                                        pattern(1, 'd'), pattern(70'000, 'e')};

// Passes on what `change` makes of the records; in each direction, with large and small reads.
void expect_noticed(const std::function<void(Records&)>& change, Code code) {
    for (const bool forward : {true, false}) {
        for (const size_t step : {size_t{1} << 20, size_t{1000}}) {
            Between between;
            ASSERT_TRUE(between.source && between.target);
            auto& writer = forward ? *between.source : *between.target;
            auto& reader = forward ? *between.target : *between.source;
            const auto& in = forward ? between.to_source : between.to_target;
            auto& out = forward ? between.to_target : between.to_source;
            auto records = records_of(sealed(writer, in, parts));
            ASSERT_EQ(records.size(), 8U);  // the second part is three, the end is one
            change(records);
            Got got;
            std::thread reading([&] { got = read_to_end(reader, step); });
            send_all(out.get(), joined(records));
            shutdown(out.get(), SHUT_WR);
            reading.join();
            ASSERT_FALSE(got.status.ok()) << got.bytes.size();
            EXPECT_EQ(got.status.error().code, code) << got.status.error().message();
            const std::string all = joined(parts);
            EXPECT_LE(got.bytes.size(), all.size());
            EXPECT_EQ(got.bytes, all.substr(0, got.bytes.size()));  // nothing that was not written
            char more = 0;
            EXPECT_FALSE(reader.read(&more, 1).ok());  // and nothing afterwards
        }
    }
}

TEST(SealedConnection, IsReadByItsEndsAlone) {
    Between between;
    ASSERT_TRUE(between.source && between.target);
    for (const bool forward : {true, false}) {
        auto& writer = forward ? *between.source : *between.target;
        auto& reader = forward ? *between.target : *between.source;
        const auto& in = forward ? between.to_source : between.to_target;
        const auto& out = forward ? between.to_target : between.to_source;
        const auto passing = sealed(writer, in, parts);
        EXPECT_EQ(passing.find("page"), std::string::npos);
        EXPECT_EQ(passing.find("0123"), std::string::npos);
        Got got;
        std::thread reading([&] { got = read_to_end(reader, 77777); });
        send_all(out.get(), passing);
        reading.join();
        EXPECT_TRUE(got.status.ok()) << got.status.error().message();
        EXPECT_EQ(got.bytes, joined(parts));
    }
}

TEST(SealedConnection, ChangedBytesAreNoticed) {
    for (const size_t at : {size_t{0}, size_t{2}, size_t{4}, size_t{1000}, Seal::limit + 4,
                            Seal::limit + Seal::overhead - 1})
        expect_noticed([&](Records& all) { all[1][at] = static_cast<char>(all[1][at] ^ 1); },
                       Code::corrupt);
    expect_noticed([](Records& all) { all[0][3] = static_cast<char>(all[0][3] ^ 0x80); },
                   Code::corrupt);  // now said to be the last one
    expect_noticed([](Records& all) { all[7][3] = 0; }, Code::corrupt);  // not any more
}

TEST(SealedConnection, DroppedRepeatedAndExchangedRecordsAreNoticed) {
    expect_noticed([](Records& all) { all.erase(all.begin() + 2); }, Code::corrupt);
    expect_noticed([](Records& all) { all.erase(all.begin()); }, Code::corrupt);
    expect_noticed([](Records& all) { all.insert(all.begin() + 1, all[0]); }, Code::corrupt);
    expect_noticed([](Records& all) { std::swap(all[1], all[2]); }, Code::corrupt);
}

TEST(SealedConnection, AnEarlyEndIsNoticed) {
    expect_noticed([](Records& all) { all.clear(); }, Code::peer_lost);
    expect_noticed([](Records& all) { all.pop_back(); }, Code::peer_lost);
    expect_noticed([](Records& all) { all.resize(3); }, Code::peer_lost);
    expect_noticed([](Records& all) { all.resize(3), all[2].resize(50); }, Code::peer_lost);
}

// One's own bytes sent back are not the other's.
TEST(SealedConnection, ReflectedRecordsAreNoticed) {
    Between between;
    ASSERT_TRUE(between.source && between.target);
    const auto passing = sealed(*between.source, between.to_source, {pattern(100, 'a')});
    send_all(between.to_source.get(), passing);
    const auto got = read_to_end(*between.source, 1000);
    ASSERT_FALSE(got.status.ok());
    EXPECT_EQ(got.status.error().code, Code::corrupt);
    EXPECT_EQ(got.bytes, "");
}

// Nor is what was said on one connection of any use on another one.
TEST(SealedConnection, ARecordedConnectionIsOfNoUse) {
    Between first, second;
    ASSERT_TRUE(first.source && first.target && second.source && second.target);
    const auto passing = sealed(*first.source, first.to_source, {pattern(100, 'a')});
    send_all(second.to_target.get(), passing);
    const auto got = read_to_end(*second.target, 1000);
    EXPECT_FALSE(got.status.ok());
    EXPECT_EQ(got.bytes, "");

    NetworkOptions options;
    options.token = first.token;
    auto listener = NetworkListener::listen(secret, options);
    ASSERT_TRUE(listener.ok());
    const Fd repeats = connect_to(listener->port());
    send_all(repeats.get(), first.greeting);
    EXPECT_EQ(first.greeting.size(), greeting_bytes);
    EXPECT_FALSE(listener->accept(500).ok());
}

// With keys of his own towards both he could read all of it; with no key at all too.
TEST(SealedConnection, HellosCannotBeChanged) {
    ASSERT_GE(sodium_init(), 0);
    const std::vector<std::function<void(Hello&)>> changes = {
        [](Hello& hello) {
            std::array<unsigned char, 32> own{7};
            crypto_scalarmult_base(hello.key.data(), own.data());
        },
        [](Hello& hello) { hello.key.fill(0); },
        [](Hello& hello) { hello.nonce[3] ^= 1; },
        [](Hello& hello) { hello.ciphers = 9; },
        [](Hello& hello) { hello.reserved = 1; },
    };
    for (const auto& change : changes)
        for (const Side whose : {Side::source, Side::target}) {
            Between between([&](Hello& hello, Side side) {
                if (side == whose) change(hello);
            });
            EXPECT_FALSE(between.source);
            EXPECT_FALSE(between.target);
        }
}

// A processor without AES agrees with one that has it on what both have.
TEST(Seal, BothCiphersAndWhoHasOne) {
    ASSERT_GE(sodium_init(), 0);
    for (const uint32_t had : {0U, cipher_chacha20}) {
        Greeting source(Side::source, "token", secret, std::make_shared<PassingKey>(), had);
        Greeting target(Side::target, "token", secret);
        ASSERT_TRUE(source.take(target.hello()) && target.take(source.hello()));
        ASSERT_TRUE(source.agree() && target.agree());
        EXPECT_TRUE(source.proves(target.proof()) && target.proves(source.proof()));
        EXPECT_FALSE(source.proves(source.proof()));
        EXPECT_EQ(source.cipher(), target.cipher());
        EXPECT_TRUE(had == 0 || source.cipher() == cipher_chacha20);
        EXPECT_EQ(source.key_of(Side::source), target.key_of(Side::source));
        EXPECT_NE(source.key_of(Side::source), source.key_of(Side::target));
        Seal out(source.cipher(), source.key_of(Side::source), Seal::Use::close),
            in(target.cipher(), target.key_of(Side::source), Seal::Use::open);
        const std::string text = pattern(1000, 'x');
        std::string record(text.size() + Seal::overhead, 0), opened(text.size(), 0);
        for (int i = 0; i < 3; i++) {
            ASSERT_TRUE(out.close(text.data(), text.size(), i == 2, record.data()));
            EXPECT_EQ(Seal::head_of(record.data()).size, text.size());
            EXPECT_EQ(Seal::head_of(record.data()).last, i == 2);
            EXPECT_EQ(record.find("page"), std::string::npos);
            EXPECT_TRUE(in.open(record.data(), opened.data()));
            EXPECT_EQ(opened, text);
        }
        EXPECT_FALSE(in.open(record.data(), opened.data()));
    }
}

// Who knows the secret later, and all that was said, has not what the keys were made of.
TEST(Seal, TheSecretAloneMakesNoKey) {
    ASSERT_GE(sodium_init(), 0);
    Greeting source(Side::source, "token", secret), target(Side::target, "token", secret);
    ASSERT_TRUE(source.take(target.hello()) && target.take(source.hello()));
    ASSERT_TRUE(source.agree() && target.agree());
    Greeting later(Side::source, "token", secret);  // with a key of its own, as anybody's
    ASSERT_TRUE(later.take(target.hello()) && later.agree());
    EXPECT_NE(later.key_of(Side::source), source.key_of(Side::source));
}

}  // namespace
}  // namespace ghost::core
