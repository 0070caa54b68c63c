// SPDX-License-Identifier: BSD-3-Clause
// Link `shm`: two single-producer single-consumer rings in one memory file, for two processes of
// one node (docs/WIRE.md, "Rings").
//
// A direction is an array of 64-byte lines and a payload area. Up to 48 bytes of a message lie in
// its line, so that a small one costs the transfer of one cache line; up to some 4 KB run on in the
// lines that follow, which the processor fetches ahead; more lie in one piece of the payload area.
// The stamp of a message's first line, written last, is the ring's key and its number (stamp_of): a
// message is there exactly if the line carries the stamp the reader expects, and neither side ever
// clears anything. The key is random because a line may hold the bytes of an earlier message, which
// must not look like a stamp; numbers are spread because it may hold an earlier stamp of which a
// message has covered some bytes. The reader's count of consumed lines gives the room back; what it
// has not consumed is the retained tail of the stream. Line and payload sizes are measured choices
// (docs/notes/012). A writer whose reader has consumed everything begins at the start again, in the
// payload area as, if it is answered, among the lines, so that messages in turns stay within what
// the first-level caches of both hold, and only those in flight spread over all of it. A message
// whose successor is in the first line says so.
#pragma once

#include <algorithm>
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
        uint32_t where;  // offset in the payload area if it does not run on
    };
};
static_assert(sizeof(RingLine) == 64);

// Lines a message of that length takes if it runs on.
inline constexpr uint32_t lines_of(size_t length) {
    if (length <= RingLine::inline_size) return 1;
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
    uint32_t lines = 2048;        // power of two
    uint32_t bytes = 512 * 1024;  // payload area, a multiple of 4096

    // What ob1 sends at once has 4 KB at most, which is slower to fetch away from its first line.
    static constexpr uint32_t most_run_on = 64;
    // The longest message that runs on in the lines behind its first.
    constexpr size_t run_on_max() const {
        return RingLine::inline_size + sizeof(RingLine) * std::min(lines / 2, most_run_on);
    }
    // Behind the last line, for a message that runs on there.
    static constexpr size_t behind = most_run_on * sizeof(RingLine);
    // Before the first line and behind all of them: lines begin half a page from where most buffers
    // do: a load waits for an earlier store to the same place of another page.
    static constexpr size_t stagger = 2048;
    size_t direction_size() const {
        return 4096 + stagger + size_t{lines} * sizeof(RingLine) + behind + stagger + bytes;
    }
    bool valid() const;
};

// How the body of a bulk frame is cut: a quarter of it, but no more and no less than this. Bytes,
// multiples of 64, at most 64 KiB.
struct RingPieces {
    size_t least = 2048;
    size_t most = 65536;
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
    void prepare() const;

    RingMapping(uint8_t* base, const RingGeometry& geometry, bool creator)
        : base_(base), geometry_(geometry), creator_(creator) {}
    uint8_t* base_;
    RingGeometry geometry_;
    bool creator_;
};

inline constexpr uint32_t last_of_turn = 1u << 30;  // in RingLine::info

inline constexpr uint32_t line_info(size_t length, uint8_t tag, LineKind kind) {
    return static_cast<uint32_t>(length) | uint32_t{tag} << 20 | static_cast<uint32_t>(kind) << 28;
}

// Where the next message begins after the last of a turn, which would else be followed by that
// number: in the array's first line. Lines passed over count as used.
inline constexpr uint64_t next_turn(uint64_t number, uint32_t mask) {
    return (number + mask) & ~uint64_t{mask};
}

// What a line says, copied out of shared memory before it is judged.
struct LineView {
    LineKind kind;
    uint8_t tag;
    uint32_t seq;
    uint32_t length;
    uint32_t lines;     // it takes
    bool last_of_turn;  // the next one is in the first line
    uint8_t* data;

    // Number of the line the message after this one begins in.
    uint64_t after(uint64_t number, uint32_t mask) const {
        number += lines;
        return last_of_turn ? next_turn(number, mask) : number;
    }
};

// Reads a line; false if it cannot be believed. Fields are read once: the other process could
// change them between the check and the use.
inline bool read_line(const RingLine& line, size_t run_on_max, uint8_t* payload, uint64_t bytes,
                      LineView& out) {
    const auto once = [](const uint32_t& shared) {
        return *static_cast<const volatile uint32_t*>(&shared);
    };
    const uint32_t info = once(line.info);
    out.length = info & 0xfffff;
    out.tag = static_cast<uint8_t>(info >> 20);
    out.kind = static_cast<LineKind>(info >> 28 & 3);
    out.seq = once(line.seq);
    out.last_of_turn = (info & last_of_turn) != 0;
    if (info >> 31 != 0 || out.length > wire::max_message) [[unlikely]]
        return false;
    if (out.length <= run_on_max) [[likely]] {
        out.lines = lines_of(out.length);
        out.data = const_cast<uint8_t*>(line.bytes);
        return true;
    }
    out.lines = 1;
    const uint32_t where = once(line.where);
    if (where > bytes || out.length > bytes - where) return false;
    out.data = payload + where;
    return true;
}

class RingRx;

// Writing end. One thread.
class RingTx {
  public:
    // answers: the reading end of the other direction, which outlives it. Null: every message
    // counts as answered.
    RingTx(const RingMapping& map, int direction, const RingRx* answers = nullptr);

    // Room for one message of `size` bytes: where its bytes go, or null if there is none now.
    // Nothing is visible before commit(); a second reserve() replaces the first.
    uint8_t* reserve(size_t size) {
        const uint32_t need = lines_for(size);
        if (position_ + need - consumed_ > lines_count_) [[unlikely]] {
            if (!refresh() || position_ + need - consumed_ > lines_count_) return nullptr;
        }
        if (size <= run_on_max_) return place();
        return reserve_payload(*line_, size);
    }
    // Where the next message goes if it has fewer bytes than room() says; reserve() knows better
    // where that says too little.
    uint8_t* place() const { return line_->bytes; }
    size_t room() const {
        const uint64_t free = consumed_ + lines_count_ - position_;
        constexpr uint64_t head = sizeof(RingLine) - RingLine::inline_size;
        return free > 0 ? std::min(free * sizeof(RingLine) - head, run_on_max_) + 1 : 0;
    }
    // Publishes what was written there, or where reserve() gave room.
    void commit(size_t size, uint8_t tag, LineKind kind, uint64_t seq) {
        RingLine& line = *line_;
        uint32_t count = 1;
        if (size <= run_on_max_) [[likely]] {
            count = lines_of(size);
        } else {
            room_ = next_;
        }
        ends_[(position_ + count - 1) & mask_] = room_.position;
        line.seq = static_cast<uint32_t>(seq);
        line.info = line_info(size, tag, kind);
        uint64_t next = position_ + count;
        if (next >= turn_at_) [[unlikely]]
            next = end_turn(line, next);
        line.stamp.store(stamp_, std::memory_order_release);
        position_ = next;
        line_ = &lines_[next & mask_];
        messages_++;
        stamp_ = stamp_of(key_, position_);
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
    uint32_t lines_for(size_t size) const { return size > run_on_max_ ? 1 : lines_of(size); }
    bool refresh();
    uint64_t end_turn(RingLine& line, uint64_t next);
    uint8_t* reserve_payload(RingLine& line, size_t size);
    void rewind_payload();

    RingLine* lines_;
    RingLine* line_;  // of position_
    uint8_t* payload_;
    RingControl* control_;
    uint64_t key_;
    size_t run_on_max_;
    uint32_t lines_count_;
    uint32_t mask_;
    uint64_t bytes_;
    uint64_t position_ = 0;                        // lines published
    uint64_t stamp_;                               // of the next
    uint64_t consumed_ = 0;                        // last known
    uint64_t turn_at_;                             // the turn goes on at least to there
    uint64_t messages_ = 0, looked_messages_ = 0;  // published; when the last turn was to end
    uint64_t looked_answers_ = 0;
    const RingRx* answers_;
    // In the payload area: bytes handed out, counting skipped ones, and where the next are. (Kept
    // beside each other: a division would take a tenth of what a message takes.)
    struct Room {
        uint64_t position = 0;
        uint64_t at = 0;  // at most bytes_
    };
    Room room_, next_;            // next_: after what reserve() gave there
    uint64_t payload_free_ = 0;   // bytes given back
    uint64_t rewind_at_;          // not before room_.position is there
    std::vector<uint64_t> ends_;  // per line: room_.position after the message it is the last of
};

// Reading end. One thread.
class RingRx {
  public:
    RingRx(const RingMapping& map, int direction);

    bool ready() const { return word().load(std::memory_order_acquire) == stamp_; }
    // There is a message exactly if the word has that value.
    const std::atomic<uint64_t>& word() const { return line_->stamp; }
    uint64_t stamp() const { return stamp_; }
    // The message ready() saw; false if it cannot be believed (the link must be dropped).
    bool view(LineView& out) const { return read_line(*line_, run_on_max_, payload_, bytes_, out); }
    uint64_t messages() const { return messages_; }  // done with
    // Done with it: its room may be used again.
    void advance(const LineView& line) {
        position_ = line.after(position_, mask_);
        line_ = &lines_[position_ & mask_];
        messages_++;
        stamp_ = stamp_of(key_, position_);
        control_->consumed.store(position_, std::memory_order_release);
    }

  private:
    RingLine* lines_;
    RingLine* line_;  // of position_
    uint8_t* payload_;
    RingControl* control_;
    uint64_t key_;
    size_t run_on_max_;
    uint32_t mask_;
    uint32_t bytes_;
    uint64_t position_ = 0;
    uint64_t messages_ = 0;
    uint64_t stamp_;  // of the next
};

}  // namespace kernet
