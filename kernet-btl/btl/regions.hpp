// SPDX-License-Identifier: BSD-3-Clause
// Memory of this process that peers may use, and what is sent of it before it is asked for.
//
// ob1's RGET announces a large message and the receiver asks for it: two ways over the wire before
// the first byte. A region can be offered instead: it follows its announcement at once, and a
// receiver that was waiting has it put where it belongs. One that was not drops it, says so, and
// asks for it later. docs/WIRE.md, "Get".
#pragma once

#include <cstdint>
#include <memory>
#include <unordered_map>
#include <vector>

#include "kernet-btl/btl/bridge.h"
#include "kernet-btl/transport/socket.hpp"

// A peer, as Open MPI knows it.
struct mca_btl_base_endpoint_t {
    kernet::Socket* socket;
    // Long messages to it go one behind the other, and none comes back (Module::count_long).
    bool streams = false;
    uint32_t otherwise = 0;  // in a row: sent as `streams` does not say
    uint32_t missed = 0;     // offers that came too early: one more for each, one less for each hit
    uint32_t skip = 0;       // regions that are not offered, because some were missed
};

// What a peer needs to use registered memory; travels inside ob1's headers.
struct mca_btl_base_registration_handle_t {
    uint64_t id;
    uint64_t base;
    uint64_t size;
    uint64_t ahead;  // 1: it comes without being asked for
};

namespace kernet::btl {

// Used inside the gate.
class Regions {
  public:
    using Handle = mca_btl_base_registration_handle_t;
    using Peer = mca_btl_base_endpoint_t;

    Handle* add(const void* base, size_t size);
    // The same, to be sent to `peer` by send_offers() whatever happens (or removed before).
    Handle* offer(Peer* peer, const void* base, size_t size);
    // The memory is the user's again: what is kept of an offer for a repetition is copied.
    void remove(Handle* handle);
    // Whether [address, address + size) lies in the region `id` now.
    bool covers(uint64_t id, uint64_t address, uint64_t size) const;

    bool offers_wait() const { return !offers_.empty(); }
    // Sends what is offered to `peer`, null: to anybody.
    void send_offers(const Peer* peer);
    // An offer has been acknowledged; token: what send_bulk() was given for it.
    static bool is_offer(const void* token) { return reinterpret_cast<uintptr_t>(token) & 1; }
    static void acknowledged(void* token);
    // Rank `rank` was not ready for the offer of region `id`: there are fewer for a while.
    void missed(uint32_t rank, uint64_t id);

  private:
    struct Region {
        Handle handle;  // first: Open MPI sees only this
        Peer* peer = nullptr;
        bool kept = false;  // sent as an offer and not acknowledged
        bool missed = false;
    };
    static void* token_of(Region* region);
    static constexpr uint32_t most_missed = 10;
    static Region* region_of(Handle* handle) { return reinterpret_cast<Region*>(handle); }

    // id = slot + 1 + turn << 32: a slot used again has another id.
    std::vector<std::unique_ptr<Region>> slots_;
    std::vector<uint32_t> free_;
    std::vector<Region*> offers_;
};

// The receiver's side: offers that found nobody waiting. One entry for each slot of a peer's
// regions: a later region in the same slot is another one.
class MissedOffers {
  public:
    void add(uint32_t peer, uint64_t region) { missed_[key(peer, region)] = region; }
    bool contains(uint32_t peer, uint64_t region) const {
        const auto found = missed_.find(key(peer, region));
        return found != missed_.end() && found->second == region;
    }

  private:
    static uint64_t key(uint32_t peer, uint64_t region) {
        return uint64_t{peer} << 32 | static_cast<uint32_t>(region);
    }
    std::unordered_map<uint64_t, uint64_t> missed_;
};

// Our own messages between BTLs; the last of the tags reserved for BTLs (btl.h).
inline constexpr uint8_t tag_updated = MCA_BTL_TAG_BTL + 0x18;  // the answer to an update
inline constexpr uint8_t tag_update = MCA_BTL_TAG_BTL + 0x19;
inline constexpr uint8_t tag_done = MCA_BTL_TAG_BTL + 0x1a;  // a put or an atomic operation is done
inline constexpr uint8_t tag_atomic = MCA_BTL_TAG_BTL + 0x1b;
inline constexpr uint8_t tag_put = MCA_BTL_TAG_BTL + 0x1c;     // short: with the data; or bulk
inline constexpr uint8_t tag_offer = MCA_BTL_TAG_BTL + 0x1d;   // bulk: a region; head: its id
inline constexpr uint8_t tag_missed = MCA_BTL_TAG_BTL + 0x1e;  // the id of a dropped offer
inline constexpr uint8_t tag_get = MCA_BTL_TAG_BTL + 0x1f;
constexpr bool is_own(uint8_t tag) {
    return tag >= tag_updated && tag <= tag_get;
}

}  // namespace kernet::btl
