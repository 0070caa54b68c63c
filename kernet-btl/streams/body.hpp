// SPDX-License-Identifier: BSD-3-Clause
// The bytes of one message of a stream, shared by whoever keeps or sends it, and the store that
// keeps the memory of long ones for the next.
//
// Memory of 128 KB and more malloc takes from the kernel and gives back each time, and the kernel
// fills it with zeros; a message of that length then took 1.5 to 4 times as long as TCP's
// (docs/PERFORMANCE.md, "Streams and links").
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

namespace kernet {

class BodyStore;

struct Body {
    // Memory of its own.
    explicit Body(size_t size) : size(size), bytes(new uint8_t[size], GiveBack{}) {}
    Body(size_t size, uint8_t* bytes, std::shared_ptr<BodyStore> store)
        : size(size), bytes(bytes, GiveBack{std::move(store), size}) {}

    struct GiveBack {
        std::shared_ptr<BodyStore> store;  // null: the heap
        size_t size = 0;
        void operator()(uint8_t* bytes) const;
    };
    size_t size;
    std::unique_ptr<uint8_t[], GiveBack> bytes;
};
using BodyPtr = std::shared_ptr<Body>;
BodyPtr make_body(const void* bytes, size_t size);

// Bodies whose memory is used again. Any thread; lives until its last body has died.
class BodyStore : public std::enable_shared_from_this<BodyStore> {
  public:
    // Not initialised.
    BodyPtr get(size_t size);
    ~BodyStore();
    // Bytes at most that are kept while nobody uses them.
    static constexpr size_t most_kept = size_t{16} << 20;
    size_t kept() const;

  private:
    friend struct Body::GiveBack;
    void put(uint8_t* bytes, size_t size);

    // Room is taken by powers of two; what needs less than the shortest or more than the longest
    // has memory of its own.
    static constexpr size_t shortest = size_t{64} << 10, longest = size_t{8} << 20;
    static size_t shelf_of(size_t room);
    mutable std::mutex mutex_;
    std::array<std::vector<uint8_t*>, 8> shelves_;
    size_t kept_ = 0;
};

}  // namespace kernet
