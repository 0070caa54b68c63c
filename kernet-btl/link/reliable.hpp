// SPDX-License-Identifier: BSD-3-Clause
// One reliability for all lossy drivers: a byte stream over packets that get lost, come twice or
// in another order.
//
// Sending: bytes are copied into numbered segments, which stay until acknowledged. A segment is
// taken for lost when three packets that left after it have been seen (RFC 9002, 6.1.1), never
// because time passes: a peer that computes does not look at its link, and its silence says
// nothing. After a silence the oldest segment is sent again to get an answer (6.2). How much may be
// on its way is the lesser of the peer's window, which fits its socket's buffer, and a congestion
// window that is halved once for each round trip in which something was lost (7.3). What leaves is
// clocked by what is acknowledged; bursts are at most `burst` packets.
// Receiving: segments that come in order are handed out where the driver left them, others wait in
// a slot. Acknowledgements ride on segments; one goes by itself after `ack_segments`, at once when
// something is missing or was repeated, and after some polls in which nothing came.
// One thread.
#pragma once

#include <memory>
#include <vector>

#include "kernet-btl/link/packet_driver.hpp"
#include "kernet-btl/link/byte_link.hpp"
#include "kernet-btl/wire/packet.hpp"

namespace kernet {

// What both ends of a link agree on in the handshake; keys as this end sees them.
struct PacketKeys {
    wire::PacketKey out, in;
};

struct PacketCounts {
    uint64_t sent = 0;      // packets
    uint64_t again = 0;     // of them, segments sent before
    uint64_t probes = 0;    // of these, because of a silence
    uint64_t refused = 0;   // received packets that were not believed
    uint64_t repeated = 0;  // received segments that were there already
    uint64_t ahead = 0;     // received segments that had to wait for one before
};

class PacketLink final : public ByteLink {
  public:
    static constexpr size_t usual_slot_memory = 4 << 20;

    // driver: connected. dead_after_us: a link on which something is outstanding and nothing is
    // heard for so long is broken.
    // slot_memory: bytes of segments that may be outstanding, each way.
    PacketLink(std::unique_ptr<PacketDriver> driver, const PacketKeys& keys, int64_t dead_after_us,
               size_t slot_memory = usual_slot_memory);
    ~PacketLink() override;

    const char* name() const override { return driver_->name(); }
    int fd() const override { return driver_->fd(); }
    bool holds() const override { return ready_at_ != ready_.size() || driver_->holds(); }
    bool tend(bool absent) override;
    bool tended() const override { return true; }
    bool tells_leaving() const override { return false; }
    bool mute() const override { return given_up_ && !heard_; }
    bool settled() const override { return filled_ == acked_; }

    const PacketCounts& counts() const { return counts_; }
    // Bytes that go in one packet.
    size_t segment() const { return stride_ - wire::packet_header_size; }

  private:
    static constexpr int burst = 44;

    struct Sent {
        uint32_t size = 0;  // of the payload
        uint32_t order = 0;
        int64_t at = 0;
        bool arrived = false;
        bool lost = false;  // to be sent again
    };
    struct Piece {  // bytes received in order and not yet taken
        const uint8_t* data;
        size_t size;
    };

    ssize_t send_bytes(const iovec* pieces, int count) override;
    bool send_whole(const void* bytes, size_t size) override;
    ssize_t receive_bytes(const iovec* pieces, int count) override;
    ssize_t peek_bytes(void* bytes, size_t size) override;

    // sending
    uint64_t room() const;
    uint64_t on_the_way() const { return sent_to_ - acked_ - arrived_ahead_ - lost_; }
    int64_t patience() const;
    uint8_t* packet_of(uint64_t number) { return &out_[(number & mask_) * stride_]; }
    Sent& sent_of(uint64_t number) { return sent_[number & mask_]; }
    void fill(const iovec*& piece, const iovec* end, size_t& at);
    void transmit();
    bool transmit_lost();
    int emit(const uint64_t* numbers, int count, uint8_t flags);
    bool mind_silence(int64_t now);
    void look_for_absent(int64_t now);
    bool acknowledgement_due() const;
    // receiving
    int pull();
    void stash();
    uint32_t own_window() const;
    void take(const PacketView& packet);
    void take_segment(const wire::PacketHeader& header, const uint8_t* payload);
    void keep(uint64_t number, const uint8_t* payload, size_t size);
    void take_ack(const wire::PacketHeader& header, const uint8_t* map);
    uint64_t take_map(uint64_t ack, const uint8_t* map, size_t size);
    void find_lost();
    void sample(int64_t round_trip);
    void grow(uint64_t segments);
    void acknowledge();

    std::unique_ptr<PacketDriver> driver_;
    PacketKeys keys_;
    int64_t dead_after_;
    PacketCounts counts_;
    size_t stride_;   // bytes of a full packet
    uint32_t slots_;  // power of two
    uint64_t mask_;
    bool broken_ = false;

    // sending: numbers up to acked_ have arrived, up to sent_to_ have left, up to filled_ exist
    std::unique_ptr<uint8_t[]> out_;
    std::vector<Sent> sent_;
    uint64_t acked_ = 0, sent_to_ = 0, filled_ = 0;
    uint64_t arrived_ahead_ = 0;  // of those on their way, known to have arrived
    uint64_t lost_ = 0;           // of those on their way, to be sent again
    uint32_t order_ = 0;
    uint32_t peer_seen_ = 0;
    uint32_t peer_window_;
    double window_;  // congestion window, segments
    double threshold_ = 1e9;
    uint64_t recovery_ = 0;  // losses up to this number have been answered by a smaller window
    int64_t round_trip_ = 0, deviation_ = 0;
    int64_t probe_at_ = 0;  // 0: nothing is outstanding
    int probes_ = 0;        // in a row
    int64_t heard_at_ = 0;
    bool heard_ = false;
    bool given_up_ = false;

    // receiving
    std::unique_ptr<uint8_t[]> in_;
    std::vector<uint32_t> waiting_;  // by slot: bytes of a segment that came early; 0: none
    uint64_t received_ = 0;
    uint64_t highest_ = 0;
    uint32_t seen_ = 0;
    uint64_t base_ = 0;  // when the last look began: the last segment all of which was taken
    std::vector<Piece> ready_;
    size_t ready_at_ = 0;  // index of the first not taken
    uint32_t own_window_;
    uint32_t said_window_;         // what the other side believes
    uint32_t unacknowledged_ = 0;  // segments since we last said anything
    uint32_t idle_ = 0;            // calls of tend() since
    uint32_t calls_ = 0;           // of tend()
    bool answer_now_ = false;
    int64_t now_ = 0;      // of the look in progress
    int64_t said_at_ = 0;  // when we last sent anything
    std::vector<uint8_t> ack_packet_;
};

}  // namespace kernet
