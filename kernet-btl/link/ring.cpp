// SPDX-License-Identifier: BSD-3-Clause
#include "kernet-btl/link/ring.hpp"

#include <bit>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>

namespace kernet {

namespace {

constexpr uint64_t ring_magic = 0x35474e495254454bULL;  // "KETRING5"
// Both directions' lines and payload areas and the user's buffers share a first-level cache, often
// of 32 KB, of which turns of 64 lines take an eighth. No less: it is also the least room of a
// writer who is not being read.
constexpr uint64_t turn_length = 64;
constexpr uint64_t rewind_after = 2048;
// Where it begins again: half a page from where most buffers begin (RingGeometry::stagger).
constexpr uint64_t rewind_to = 2048;
constexpr int required_seals = F_SEAL_SHRINK | F_SEAL_GROW;
// What messages in turns use, of the lines and of the payload area: touched when the ring is made.
// All of it, 650 KB each way, would take either end as long as a rank needs to come back from a
// snapshot; the rest comes with the first messages that need it.
constexpr size_t lines_ahead = 16 << 10, payload_ahead = 64 << 10;

}  // namespace

bool RingGeometry::valid() const {
    return std::has_single_bit(lines) && lines >= 8 && lines <= 65536 && bytes % 4096 == 0 &&
           bytes >= 3 * (wire::max_message + 64) && bytes <= 64u << 20;
}

Result<std::pair<std::unique_ptr<RingMapping>, Fd>> RingMapping::create(
    const RingGeometry& geometry) {
    if (!geometry.valid()) return ghost::make_error(ghost::Code::invalid, "size a ring");
    Fd fd(memfd_create("kernet", MFD_CLOEXEC | MFD_ALLOW_SEALING));
    if (!fd) return ghost::sys_error("create memory file for a ring");
    const size_t size = 2 * geometry.direction_size();
    if (ftruncate(fd.get(), static_cast<off_t>(size)) != 0) return ghost::sys_error("size a ring");
    if (fcntl(fd.get(), F_ADD_SEALS, required_seals) != 0) return ghost::sys_error("seal a ring");
    void* base = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd.get(), 0);
    if (base == MAP_FAILED) return ghost::sys_error("map a ring");
    std::unique_ptr<RingMapping> map(new RingMapping(static_cast<uint8_t*>(base), geometry, true));
    map->prepare();
    for (int direction = 0; direction < 2; direction++) {
        RingControl* control = map->control(direction);
        control->magic = ring_magic;
        control->lines = geometry.lines;
        control->bytes = geometry.bytes;
        if (getrandom(&control->key, sizeof control->key, 0) != sizeof control->key) {
            return ghost::sys_error("draw a ring's key");
        }
    }
    return std::make_pair(std::move(map), std::move(fd));
}

Result<std::unique_ptr<RingMapping>> RingMapping::attach(const Fd& fd) {
    // Sealed against shrinking, so that reading can never raise SIGBUS.
    const int seals = fcntl(fd.get(), F_GET_SEALS);
    if (seals < 0 || (seals & required_seals) != required_seals) {
        return ghost::make_error(ghost::Code::corrupt, "map a ring", {},
                                 "memory file is not sealed");
    }
    struct stat st {};
    RingControl head{};
    if (fstat(fd.get(), &st) != 0) return ghost::sys_error("map a ring");
    const ssize_t got = pread(fd.get(), static_cast<void*>(&head), sizeof head, 0);
    const RingGeometry geometry{head.lines, head.bytes};
    if (got != sizeof head || head.magic != ring_magic || !geometry.valid() ||
        static_cast<uint64_t>(st.st_size) != 2 * geometry.direction_size()) {
        return ghost::make_error(ghost::Code::corrupt, "map a ring", {},
                                 "not a ring of this version");
    }
    void* base = mmap(nullptr, static_cast<size_t>(st.st_size), PROT_READ | PROT_WRITE, MAP_SHARED,
                      fd.get(), 0);
    if (base == MAP_FAILED) return ghost::sys_error("map a ring");
    std::unique_ptr<RingMapping> map(new RingMapping(static_cast<uint8_t*>(base), geometry, false));
    map->prepare();
    return map;
}

// Memory ahead of need, and no more than that: what the kernel does not give now it gives later.
void RingMapping::prepare() const {
    // A child of this process has no use for it, and would keep it alive.
    madvise(base_, 2 * geometry_.direction_size(), MADV_DONTFORK);
    for (int direction = 0; direction < 2; direction++) {
        auto* const begin = reinterpret_cast<uint8_t*>(control(direction));
        const size_t rest = geometry_.direction_size() - geometry_.bytes;
        madvise(begin, std::min(4096 + RingGeometry::stagger + lines_ahead, rest),
                MADV_POPULATE_WRITE);
        const size_t part = std::min<size_t>(payload_ahead, geometry_.bytes);
        madvise(begin + rest, part, MADV_POPULATE_WRITE);
    }
}

RingMapping::~RingMapping() {
    munmap(base_, 2 * geometry_.direction_size());
}

RingControl* RingMapping::control(int direction) const {
    return reinterpret_cast<RingControl*>(base_ + (direction ? geometry_.direction_size() : 0));
}

RingLine* RingMapping::lines(int direction) const {
    return reinterpret_cast<RingLine*>(reinterpret_cast<uint8_t*>(control(direction)) + 4096 +
                                       RingGeometry::stagger);
}

uint8_t* RingMapping::payload(int direction) const {
    return reinterpret_cast<uint8_t*>(lines(direction) + geometry_.lines) + RingGeometry::behind +
           RingGeometry::stagger;
}

RingTx::RingTx(const RingMapping& map, int direction, const RingRx* answers)
    : lines_(map.lines(direction)),
      line_(lines_),
      payload_(map.payload(direction)),
      control_(map.control(direction)),
      key_(control_->key),
      run_on_max_(map.geometry().run_on_max()),
      lines_count_(map.geometry().lines),
      mask_(map.geometry().lines - 1),
      bytes_(map.geometry().bytes),
      stamp_(stamp_of(key_, 0)),
      turn_at_(turn_length),
      answers_(answers),
      rewind_at_(rewind_after),
      ends_(map.geometry().lines, 0) {}

bool RingTx::refresh() {
    const uint64_t consumed = control_->consumed.load(std::memory_order_acquire);
    // Only a count between the last one and what we wrote can be true.
    if (consumed <= consumed_ || consumed > position_) return false;
    consumed_ = consumed;
    payload_free_ = ends_[(consumed - 1) & mask_];
    return true;
}

// The number after `line`, which is about to be published: that of a first line if nothing but it
// is in the ring.
uint64_t RingTx::end_turn(RingLine& line, uint64_t next) {
    // Whoever only sends wants all of the ring's room, and has no use for what is near.
    const uint64_t answers = answers_ ? answers_->messages() : messages_;
    const bool in_turns = 2 * (answers - looked_answers_) >= messages_ - looked_messages_;
    looked_answers_ = answers;
    looked_messages_ = messages_;
    if (in_turns) refresh();
    if (in_turns && consumed_ == position_ && (next & mask_) >= turn_length) {
        line.info |= last_of_turn;
        next = next_turn(next, mask_);
        ends_[mask_] = room_.position;
    }
    turn_at_ = next + turn_length;
    return next;
}

// To the start, if nothing is in it: what is left of this turn counts as handed out and given back.
void RingTx::rewind_payload() {
    refresh();
    if (consumed_ == position_ && room_.at > rewind_to) {
        room_.position += bytes_ - room_.at + rewind_to;
        room_.at = rewind_to;
        payload_free_ = room_.position;
    }
    rewind_at_ = room_.position + rewind_after;
}

uint8_t* RingTx::reserve_payload(RingLine& line, size_t size) {
    const uint64_t need = (size + 63) & ~uint64_t{63};
    if (room_.position >= rewind_at_) rewind_payload();
    Room start = room_;
    if (start.at + need > bytes_) start = {start.position + bytes_ - start.at, 0};  // none wraps
    if (start.position + need - payload_free_ > bytes_) {
        if (!refresh() || start.position + need - payload_free_ > bytes_) return nullptr;
    }
    next_ = {start.position + need, start.at + need};
    line.where = static_cast<uint32_t>(start.at);
    return payload_ + start.at;
}

bool RingTx::view(uint64_t number, LineView& out) const {
    const RingLine& line = lines_[number & mask_];
    return line.stamp.load(std::memory_order_relaxed) == stamp_of(key_, number) &&
           read_line(line, run_on_max_, payload_, bytes_, out);
}

RingRx::RingRx(const RingMapping& map, int direction)
    : lines_(map.lines(direction)),
      line_(lines_),
      payload_(map.payload(direction)),
      control_(map.control(direction)),
      key_(control_->key),
      run_on_max_(map.geometry().run_on_max()),
      mask_(map.geometry().lines - 1),
      bytes_(map.geometry().bytes),
      stamp_(stamp_of(key_, 0)) {}

}  // namespace kernet
