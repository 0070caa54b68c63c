// Link `shm`: two single-producer single-consumer rings in one memory file, for two processes of
// one node (docs/WIRE.md, "Rings").
//
// A direction is an array of 64-byte lines and a payload area. Up to 48 bytes of a message lie in
// its line, so that a small one costs the transfer of one cache line; up to run_on_max bytes run on
// in the lines that follow, which the processor fetches ahead; more lie in one piece of the payload
// area. The stamp of a message's first line, written last, is the ring's key and its number
// (stamp_of): a message is there exactly if the line carries the stamp the reader expects, and
// neither side ever clears anything. The key is random because a line may hold the bytes of an
// earlier message, which must not look like a stamp; numbers are spread because it may hold an
// earlier stamp of which a message has covered some bytes. The reader's count of consumed lines
// gives the room back; what it has not consumed is the retained tail of the stream. Line and
// payload sizes are measured choices (design: transport facts, "Same node"). A writer whose reader
// has consumed everything begins at the start again, in the payload area as among the lines, so
// that messages in turns stay within what the first-level caches of both hold, and only those in
// flight spread over all of it. A message whose successor is in the first line says so.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "base/fd.hpp"
#include "base/result.hpp"
#include "kernet-btl/wire/frame.hpp"

namespace kernet {

using ghost::Fd;
using ghost::Result;
using ghost::Status;

enum class LineKind : uint8_t { data = 0, bulk_head = 1, bulk_piece = 2, resume = 3 };

struct alignas(64) RingLine {
    static constexpr size_t inline_size = 48;
    std::atomic<uint64_t> stamp;
    uint32_t seq;   // frame number, low 32 bits
    uint32_t info;  // length (20 bits), tag (8), kind (2), the next one is in the first line (1)
    union {
        uint8_t bytes[inline_size];
        uint32_t where;  // offset in the payload area if length > run_on_max
    };
};
static_assert(sizeof(RingLine) == 64);

inline constexpr size_t run_on_max = RingLine::inline_size + 4 * sizeof(RingLine);
// Lines a message of that length takes.
inline constexpr uint32_t lines_of(size_t length) {
    if (length <= RingLine::inline_size || length > run_on_max) return 1;
    return static_cast<uint32_t>(1 + (length - RingLine::inline_size + 63) / sizeof(RingLine));
}

// Stamps of lines that are less than 2^20 apart differ in their upper three bytes at least: the
// multiples of 2^64 divided by the golden ratio are far from each other (Knuth, TAOCP 3, 6.4). A
// message covers a stamp's bytes from the lowest on, so what is left of an old one is never all of
// a later one that it would have to share with random bytes. (What turns have passed over for
// longer may fit in those three bytes once in 2^24; five of the key's have to be met besides.)
inline constexpr uint64_t stamp_step = 0x9e3779b97f4a7c15;
inline constexpr uint64_t stamp_of(uint64_t key, uint64_t number) {
    return key + number * stamp_step;
}

struct RingGeometry {
    uint32_t lines = 512;         // power of two
    uint32_t bytes = 512 * 1024;  // payload area, a multiple of 4096

    // The page of lines behind the last one is for a message that runs on there.
    static constexpr size_t behind = 4096;
    size_t direction_size() const {
        return 4096 + size_t{lines} * sizeof(RingLine) + behind + bytes;
    }
    bool valid() const;
};

// First page of a direction.
struct RingControl {
    uint64_t magic;
    uint32_t lines;
    uint32_t bytes;
    uint64_t key;  // random
    uint8_t pad0[40];
    alignas(64) std::atomic<uint64_t> consumed;  // written by the reader only
    uint8_t pad1[56];
};

// The mapping of one memory file; unmapped when destroyed. Not tied to a thread.
class RingMapping {
  public:
    // Makes a sealed memory file with both rings; the descriptor is for the peer.
    static Result<std::pair<std::unique_ptr<RingMapping>, Fd>> create(const RingGeometry& geometry);
    // Maps a received one. Seals, size and geometry are checked; Code::corrupt if they are wrong.
    static Result<std::unique_ptr<RingMapping>> attach(const Fd& fd);
    ~RingMapping();
    RingMapping(const RingMapping&) = delete;
    RingMapping& operator=(const RingMapping&) = delete;

    // direction 0 is written by whoever made the file.
    RingControl* control(int direction) const;
    RingLine* lines(int direction) const;
    uint8_t* payload(int direction) const;
    const RingGeometry& geometry() const { return geometry_; }
    bool creator() const { return creator_; }

  private:
    RingMapping(uint8_t* base, const RingGeometry& geometry, bool creator)
        : base_(base), geometry_(geometry), creator_(creator) {}
    uint8_t* base_;
    RingGeometry geometry_;
    bool creator_;
};

inline constexpr uint32_t line_info(size_t length, uint8_t tag, LineKind kind) {
    return static_cast<uint32_t>(length) | uint32_t{tag} << 20 | static_cast<uint32_t>(kind) << 28;
}

// What a line says, copied out of shared memory before it is judged.
struct LineView {
    LineKind kind;
    uint8_t tag;
    uint32_t seq;
    uint32_t length;
    bool last_of_turn;  // the next one is in the first line
    uint8_t* data;

    // Number of the line the message after this one begins in. Lines passed over count as used.
    uint64_t after(uint64_t number, uint32_t mask) const {
        number += lines_of(length);
        return last_of_turn ? (number + mask) & ~uint64_t{mask} : number;
    }
};

// Writing end. One thread.
class RingTx {
  public:
    RingTx(const RingMapping& map, int direction);

    // Room for one message of `size` bytes: where its bytes go, or null if there is none now.
    // Nothing is visible before commit(); a second reserve() replaces the first.
    uint8_t* reserve(size_t size) {
        const uint32_t need = lines_of(size);
        if (position_ + need - consumed_ > lines_count_) [[unlikely]] {
            if (!refresh() || position_ + need - consumed_ > lines_count_) return nullptr;
        }
        RingLine& line = lines_[position_ & mask_];
        if (size <= run_on_max) {
            next_payload_ = payload_position_;
            return line.bytes;
        }
        return reserve_payload(line, size);
    }
    // Publishes what reserve() gave room for.
    void commit(size_t size, uint8_t tag, LineKind kind, uint64_t seq) {
        RingLine& line = lines_[position_ & mask_];
        const uint32_t count = lines_of(size);
        payload_position_ = next_payload_;
        for (uint32_t i = 0; i < count; i++) ends_[(position_ + i) & mask_] = payload_position_;
        line.seq = static_cast<uint32_t>(seq);
        line.info = line_info(size, tag, kind);
        uint64_t next = position_ + count;
        if (next >= turn_at_) [[unlikely]]
            next = end_turn(line, next);
        line.stamp.store(stamp_, std::memory_order_release);
        position_ = next;
        stamp_ = stamp_of(key_, position_);
        if (size > RingLine::inline_size) own_next(count);
    }
    // Lines published and lines the reader is known to be done with.
    uint64_t position() const { return position_; }
    uint64_t consumed() {
        refresh();
        return consumed_;
    }
    // The message of ours that begins with that line, between consumed() and position(), for the
    // tail. False if the peer spoilt it.
    bool view(uint64_t number, LineView& out) const;
    // Where the message after that one begins.
    uint64_t after(uint64_t number, const LineView& line) const {
        return line.after(number, mask_);
    }

  private:
    // Fetches for writing, while nobody waits for it, what the next message of this size will
    // fill. Not its first line: that one the reader polls.
    void own_next(uint32_t count) const {
#ifdef __x86_64__
        if (count == 1) {
            const uint8_t* next = payload_ + payload_position_ % bytes_;
            asm volatile("prefetchw (%0)" ::"r"(next));
            asm volatile("prefetchw 64(%0)" ::"r"(next));
        }
        for (uint32_t i = 1; i < count; i++) {
            asm volatile("prefetchw (%0)" ::"r"(&lines_[(position_ + i) & mask_]));
        }
#endif
    }
    bool refresh();
    uint64_t end_turn(RingLine& line, uint64_t next);
    uint8_t* reserve_payload(RingLine& line, size_t size);
    void rewind_payload();

    RingLine* lines_;
    uint8_t* payload_;
    RingControl* control_;
    uint64_t key_;
    uint32_t lines_count_;
    uint32_t mask_;
    uint64_t bytes_;
    uint64_t position_ = 0;          // lines published
    uint64_t stamp_;                 // of the next
    uint64_t consumed_ = 0;          // last known
    uint64_t turn_at_;               // the turn goes on at least to there
    uint64_t payload_position_ = 0;  // bytes handed out, counting skipped ones
    uint64_t payload_free_ = 0;      // bytes given back
    uint64_t next_payload_ = 0;
    uint64_t rewind_at_;          // not before payload_position_ is there
    std::vector<uint64_t> ends_;  // per line: payload_position_ after it
};

// Reading end. One thread.
class RingRx {
  public:
    RingRx(const RingMapping& map, int direction);

    bool ready() const {
        return lines_[position_ & mask_].stamp.load(std::memory_order_acquire) == stamp_;
    }
    // The message ready() saw; false if it cannot be believed (the link must be dropped).
    bool view(LineView& out) const;
    // Done with it: its room may be used again.
    void advance(const LineView& line) {
        position_ = line.after(position_, mask_);
        stamp_ = stamp_of(key_, position_);
        control_->consumed.store(position_, std::memory_order_release);
    }

  private:
    RingLine* lines_;
    uint8_t* payload_;
    RingControl* control_;
    uint64_t key_;
    uint32_t mask_;
    uint32_t bytes_;
    uint64_t position_ = 0;
    uint64_t stamp_;  // of the next
};

}  // namespace kernet
