// SPDX-License-Identifier: BSD-3-Clause
// Memory of long messages: used again, bounded, and never by two at a time.
#include <cstring>
#include <gtest/gtest.h>
#include <random>
#include <thread>

#include "kernet-btl/streams/body.hpp"

namespace {

using namespace kernet;

constexpr size_t kb = 1024, mb = 1024 * kb;

TEST(KernetBody, LongBodiesReuseMemory) {
    const auto store = std::make_shared<BodyStore>();
    for (const size_t size : {33 * kb, 64 * kb, 129 * kb, 8 * mb}) {
        const uint8_t* before = store->get(size)->bytes.get();
        const BodyPtr body = store->get(size - 1);
        EXPECT_EQ(body->bytes.get(), before) << size;
        EXPECT_EQ(body->size, size - 1);
    }
}

TEST(KernetBody, StoreIsBounded) {
    const auto store = std::make_shared<BodyStore>();
    for (const size_t size : {1 * kb, 32 * kb, 100 * kb, 3 * mb, 8 * mb, 8 * mb + 1, 64 * mb}) {
        std::vector<BodyPtr> all;
        for (int i = 0; i < 100; i++) all.push_back(store->get(size));
        all.clear();
        EXPECT_LE(store->kept(), BodyStore::most_kept) << size;
    }
    EXPECT_GT(store->kept(), 0u);
}

// A message may be held longer than the streams of its process.
TEST(KernetBody, BodyOutlivesItsStore) {
    auto store = std::make_shared<BodyStore>();
    const BodyPtr body = store->get(mb);
    store.reset();
    std::memset(body->bytes.get(), 1, body->size);
}

TEST(KernetBody, ThreadsNeverShareBodies) {
    const auto store = std::make_shared<BodyStore>();
    const auto use = [&store](unsigned seed) {
        std::mt19937 random(seed);
        std::vector<std::pair<BodyPtr, uint8_t>> held;
        for (int i = 0; i < 3000; i++) {
            const auto mark = static_cast<uint8_t>(random());
            const BodyPtr body = store->get(1 + random() % (256 * kb));
            body->bytes[0] = body->bytes[body->size - 1] = mark;
            held.emplace_back(body, mark);
            if (held.size() < 8) continue;
            const size_t which = random() % held.size();
            const auto& [old, expected] = held[which];
            ASSERT_EQ(old->bytes[0], expected);
            ASSERT_EQ(old->bytes[old->size - 1], expected);
            held.erase(held.begin() + static_cast<long>(which));
        }
    };
    std::thread other(use, 1);
    use(2);
    other.join();
}

}  // namespace
