// SPDX-License-Identifier: BSD-3-Clause
// The ring of slots in which the system leaves the frames of a packet socket, mapped into this
// process: a look takes no system call, and nor does a frame (packet(7), PACKET_RX_RING;
// Documentation/networking/packet_mmap.rst). TPACKET_V2, since V3 hands over whole blocks, and
// those late. One thread.
//
// Making one waits for the system's other processors, 8 to 16 ms: packet_set_ring() in the kernel
// calls synchronize_net().
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>

#include "base/fd.hpp"
#include "kernet-btl/link/packet_driver.hpp"

namespace kernet {

class FrameRing {
  public:
    // Of a socket that hears nothing yet (not bound). most: bytes of the longest frame. bytes: what
    // the ring may take, which it exceeds for the sake of `least_slots` only. Code::io if the
    // system will not.
    static Result<std::unique_ptr<FrameRing>> make(const ghost::Fd& socket, size_t most,
                                                   size_t bytes);
    static constexpr size_t least_slots = 32;

    ~FrameRing();
    FrameRing(const FrameRing&) = delete;
    FrameRing& operator=(const FrameRing&) = delete;

    size_t slots() const { return slots_; }
    // Gives the slots of before back, and frames that have come, at most so many. They stay where
    // they are until the next call.
    int take(PacketView* frames, int most);

  private:
    FrameRing(void* memory, size_t size, size_t block, size_t slot, size_t slots)
        : memory_(static_cast<uint8_t*>(memory)),
          size_(size),
          block_(block),
          slot_(slot),
          slots_(slots) {}
    uint8_t* slot(size_t number) const;
    std::atomic_ref<uint32_t> status(size_t number) const;
    bool view(size_t number, PacketView& frame) const;

    uint8_t* memory_;
    size_t size_;   // bytes mapped
    size_t block_;  // bytes; no slot goes over the end of one
    size_t slot_;   // bytes
    size_t slots_;
    size_t at_ = 0;     // the slot to be looked at next
    size_t given_ = 0;  // slots before it that the last call has handed out
};

}  // namespace kernet
