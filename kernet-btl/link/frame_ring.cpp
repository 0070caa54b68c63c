// SPDX-License-Identifier: BSD-3-Clause
#include "kernet-btl/link/frame_ring.hpp"

#include <algorithm>
#include <bit>
#include <linux/if_packet.h>
#include <sys/mman.h>
#include <sys/socket.h>

namespace kernet {

namespace {

// Before the payload in a slot: the header, the sender's address, and 16 bytes in which the kernel
// leaves room for an Ethernet header (tpacket_rcv()).
constexpr size_t in_front =
    (TPACKET2_HDRLEN + TPACKET_ALIGNMENT - 1) / TPACKET_ALIGNMENT * TPACKET_ALIGNMENT + 16;
constexpr size_t usual_block = 64 << 10;

static_assert(std::atomic_ref<uint32_t>::is_always_lock_free);

}  // namespace

Result<std::unique_ptr<FrameRing>> FrameRing::make(const ghost::Fd& socket, size_t most,
                                                   size_t bytes) {
    const int version = TPACKET_V2;
    if (setsockopt(socket.get(), SOL_PACKET, PACKET_VERSION, &version, sizeof version) != 0) {
        return ghost::sys_error("choose a kind of frame ring");
    }
    const size_t slot =
        (in_front + most + TPACKET_ALIGNMENT - 1) / TPACKET_ALIGNMENT * TPACKET_ALIGNMENT;
    const size_t block = std::max(usual_block, std::bit_ceil(slot));
    const size_t per_block = block / slot;
    const size_t blocks = std::max(bytes / block, (least_slots + per_block - 1) / per_block);
    tpacket_req wish{};
    wish.tp_block_size = static_cast<unsigned>(block);
    wish.tp_block_nr = static_cast<unsigned>(blocks);
    wish.tp_frame_size = static_cast<unsigned>(slot);
    wish.tp_frame_nr = static_cast<unsigned>(blocks * per_block);
    if (setsockopt(socket.get(), SOL_PACKET, PACKET_RX_RING, &wish, sizeof wish) != 0) {
        return ghost::sys_error("make a frame ring");
    }
    void* memory =
        mmap(nullptr, blocks * block, PROT_READ | PROT_WRITE, MAP_SHARED, socket.get(), 0);
    if (memory == MAP_FAILED) return ghost::sys_error("map a frame ring");
    // A child of this process has no use for it, and would keep it alive.
    madvise(memory, blocks * block, MADV_DONTFORK);
    return std::unique_ptr<FrameRing>(
        new FrameRing(memory, blocks * block, block, slot, blocks * per_block));
}

FrameRing::~FrameRing() {
    munmap(memory_, size_);
}

uint8_t* FrameRing::slot(size_t number) const {
    const size_t per_block = block_ / slot_;
    return memory_ + number / per_block * block_ + number % per_block * slot_;
}

std::atomic_ref<uint32_t> FrameRing::status(size_t number) const {
    return std::atomic_ref<uint32_t>(reinterpret_cast<tpacket2_hdr*>(slot(number))->tp_status);
}

// False: no frame of ours can be in it.
bool FrameRing::view(size_t number, PacketView& frame) const {
    const auto* header = reinterpret_cast<const tpacket2_hdr*>(slot(number));
    const size_t begin = header->tp_net, size = header->tp_snaplen;
    if (begin < sizeof *header || begin > slot_ || size > slot_ - begin) return false;
    frame = {slot(number) + begin, size};
    return header->tp_snaplen == header->tp_len;
}

int FrameRing::take(PacketView* frames, int most) {
    for (; given_ > 0; given_--) {
        const size_t number = at_ >= given_ ? at_ - given_ : at_ + slots_ - given_;
        status(number).store(TP_STATUS_KERNEL, std::memory_order_release);
    }
    int count = 0;
    while (count < most && given_ < slots_ &&
           status(at_).load(std::memory_order_acquire) & TP_STATUS_USER) {
        if (view(at_, frames[count])) count++;
        given_++;
        at_ = at_ + 1 == slots_ ? 0 : at_ + 1;
    }
    return count;
}

}  // namespace kernet
