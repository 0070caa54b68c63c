// A short run of the fuzz targets, with mutations of good inputs whose checksums are made right
// again half of the time. Under the sanitizers of ./check this is where it matters; `make fuzz` is
// the long run. GHOST_FUZZ_SECONDS (for each target) and GHOST_FUZZ_SEED change it.
#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <netinet/in.h>
#include <sys/socket.h>
#include <thread>
#include <unistd.h>

#include "base/clock.hpp"
#include "base/fd.hpp"
#include "ghost-core/resource/network.hpp"
#include "tests/fuzz/targets.hpp"

namespace ghost::fuzz {
namespace {

double seconds() {
    const char* text = std::getenv("GHOST_FUZZ_SECONDS");
    return text != nullptr ? std::strtod(text, nullptr) : 1.5;
}

unsigned first_seed() {
    const char* text = std::getenv("GHOST_FUZZ_SEED");
    return text != nullptr ? static_cast<unsigned>(std::strtoul(text, nullptr, 10)) : 1;
}

class Mutator {
  public:
    explicit Mutator(unsigned seed) : random_(seed) {}
    unsigned number(size_t below) { return static_cast<unsigned>(random_() % below); }

    void mutate(Bytes& bytes) {
        for (unsigned i = 0, count = 1 + number(4); i < count && !bytes.empty(); i++) once(bytes);
    }

  private:
    void once(Bytes& bytes) {
        const size_t at = number(bytes.size()), length = 1 + number(64);
        const size_t end = std::min(bytes.size(), at + length);
        const auto place = [&](size_t i) { return bytes.begin() + static_cast<ptrdiff_t>(i); };
        switch (number(7)) {
            case 0:
                bytes[at] ^= static_cast<uint8_t>(1U << number(8));
                break;
            case 1:
                bytes[at] = static_cast<uint8_t>(number(256));
                break;
            case 2:  // a number at its edges
                interesting(bytes, at & ~size_t{3});
                break;
            case 3:
                bytes.erase(place(at), place(end));
                break;
            case 4: {
                const Bytes part(place(at), place(end));
                bytes.insert(place(number(bytes.size())), part.begin(), part.end());
                break;
            }
            case 5:
                bytes.resize(at);
                break;
            default:  // some other place's bytes
                for (size_t i = at; i < end; i++) bytes[i] = bytes[number(bytes.size())];
        }
    }

    void interesting(Bytes& bytes, size_t at) {
        static constexpr uint64_t values[] = {
            0,        1,          2,        7,          8,          11,      12,
            255,      4095,       4096,     4097,       65536,      0xfffff, 0x100000,
            0x100001, 0x7fffffff, 1U << 31, 0xffffffff, 1ULL << 56, ~0ULL};
        const uint64_t value = values[number(std::size(values))];
        const size_t width = number(2) ? 4 : 8;
        for (size_t i = 0; i < width && at + i < bytes.size(); i++)
            bytes[at + i] = static_cast<uint8_t>(value >> (8 * i));
    }

    std::mt19937 random_;
};

class Fuzz : public ::testing::TestWithParam<Target> {};

TEST_P(Fuzz, NothingStrangeIsTakenAndNothingBreaks) {
    const auto& target = GetParam();
    for (unsigned variant = 0; variant < 12; variant++) {
        const auto seed = target.seed(variant);
        if (target.notices_all) {
            EXPECT_TRUE(target.run(seed.data(), seed.size())) << variant;
        }
    }
    const int64_t limit = monotonic_us() + static_cast<int64_t>(seconds() * 1e6);
    unsigned runs = 0, taken = 0;
    for (unsigned number = first_seed(); monotonic_us() < limit; number++, runs++) {
        Mutator mutator(number);
        const auto good = target.seed(mutator.number(12));
        Bytes bytes = good;
        mutator.mutate(bytes);
        const bool repaired = target.repair != nullptr && mutator.number(2) == 1;
        if (repaired) target.repair(bytes);
        // a copy of its own size, so that a read beyond its end is noticed
        const auto exact = std::make_unique<uint8_t[]>(bytes.size());
        std::memcpy(exact.get(), bytes.data(), bytes.size());
        const bool whole = target.run(exact.get(), bytes.size());
        taken += whole;
        if (target.notices_all && !repaired) {
            ASSERT_FALSE(whole && bytes != good) << "GHOST_FUZZ_SEED=" << number;
        }
    }
    std::printf("%u inputs, %u taken\n", runs, taken);
    EXPECT_GT(runs, 0U);
}

INSTANTIATE_TEST_SUITE_P(All, Fuzz, ::testing::ValuesIn(targets()),
                         [](const auto& info) { return std::string(info.param.name); });

// A stranger who sends anything: the listener drops him and takes the next one.
TEST(FuzzHandshake, StrangersAreDropped) {
    core::NetworkOptions options;
    options.operation_ms = 2000;
    auto listener = core::NetworkListener::listen("secret", options);
    ASSERT_TRUE(listener.ok());
    std::thread strangers([&] {
        Mutator mutator(first_seed());
        for (int i = 0; i < 40; i++) {
            const Fd fd(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
            sockaddr_in to{};
            to.sin_family = AF_INET;
            to.sin_port = htons(static_cast<uint16_t>(listener->port()));
            to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
            if (connect(fd.get(), reinterpret_cast<sockaddr*>(&to), sizeof to) != 0) continue;
            Bytes bytes(mutator.number(300));
            for (auto& byte : bytes) byte = static_cast<uint8_t>(mutator.number(256));
            if (send(fd.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL) < 0) continue;
            shutdown(fd.get(), SHUT_WR);
        }
        auto good = core::NetworkResource::connect("127.0.0.1", listener->port(), listener->token(),
                                                   "secret", options);
        EXPECT_TRUE(good.ok());
    });
    auto accepted = listener->accept(20000);
    EXPECT_TRUE(accepted.ok());
    strangers.join();
}

}  // namespace
}  // namespace ghost::fuzz
