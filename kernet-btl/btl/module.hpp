// SPDX-License-Identifier: BSD-3-Clause
// The BTL module: Open MPI's transfers on KerNet streams, one stream per pair of ranks.
//
// Everything works with a peer in either placement, which can change while messages are under way;
// what differs (rings or one large frame) is decided per message below this layer. Only the eager
// limit follows the places. It is one for all peers: ob1 compares modules when it answers, also of
// messages that came long ago, so that a peer cannot be given another one. Large contiguous
// messages go by ob1's RGET protocol: the receiver asks, the sender's BTL answers with one bulk
// message. With GET rather than PUT, the receiver is done when the data is there, and the FIN that
// ends the sender's request is also the proof that the user's buffer is no longer needed for a
// repetition.
#pragma once

#include <memory>
#include <set>
#include <thread>
#include <utility>
#include <vector>

#include "kernet-btl/agent/agent.hpp"
#include "kernet-btl/btl/bridge.h"
#include "kernet-btl/btl/regions.hpp"
#include "kernet-btl/btl/update.h"
#include "kernet-btl/transport/datapath.hpp"
#include "kernet-btl/transport/endpoint.hpp"

namespace kernet::btl {

// A descriptor with its buffer, which is a frame ready to be sent.
struct Fragment {
    mca_btl_base_descriptor_t base;  // first: Open MPI sees only this
    mca_btl_base_segment_t segment;
    mca_btl_base_endpoint_t* endpoint;
    Frame* frame;  // null once it is the socket's
};

// Something of ours in a peer's memory that was asked for and has not been answered.
struct Pending {
    uint64_t cookie = 0;  // 0: free slot
    uint64_t offer = 0;   // a get that is not asked for: the region that comes by itself
    uint32_t peer = 0;
    // Of atomic operations: what was there before goes to `address`, or is not asked for; Locks.
    enum class Kind : uint8_t { transfer, fetch, lock, lock_again } kind = Kind::transfer;
    mca_btl_base_endpoint_t* endpoint = nullptr;
    void* address = nullptr;
    mca_btl_base_registration_handle_t* handle = nullptr;
    size_t size = 0;
    mca_btl_base_rdma_completion_fn_t callback = nullptr;
    void* context = nullptr;
    void* data = nullptr;
    uint64_t remote = 0;  // of atomic operations
};

// An operation on a word of 8 bytes.
struct Atomic {
    enum Kind : uint64_t { add = 1, bit_and, bit_or, bit_xor, swap, compare_swap };
    uint64_t kind;
    uint64_t operand;
    uint64_t compare;
};

// An update on its way; what it points to is the caller's.
struct Update {
    kernet_update_t head;
    const kernet_run_t* runs;
    const void* data;
    size_t bytes;
};

// Locks of windows that this process holds in memory of peers.
//
// osc rdma of Open MPI 4.1.4 takes the lock of a dynamic window's regions exclusively
// (ompi_osc_rdma_find_dynamic_region) and then waits until nobody holds it exclusively, to take it
// shared too (ompi_osc_rdma_refresh_dynamic_region): for itself, that is. So whoever holds a lock
// exclusively does not see that somebody does.
class Locks {
  public:
    static constexpr uint64_t exclusive = uint64_t{1} << 63;  // OMPI_OSC_RDMA_LOCK_EXCLUSIVE
    // What an operation on that word is to them; one that gives a lock back is noted.
    Pending::Kind asked(uint32_t peer, uint64_t word, const Atomic& operation);
    // What it has found there; the value to be told.
    uint64_t answered(const Pending& operation, uint64_t was);

  private:
    std::vector<std::pair<uint32_t, uint64_t>> held_;
};

// Tags of ob1 that a message begins with: MATCH, RNDV, RGET (Open MPI 4.1.4, pml_ob1_hdr.h).
constexpr bool is_first_of_message(uint8_t tag) {
    return tag > MCA_BTL_TAG_PML && tag <= MCA_BTL_TAG_PML + 3;
}

// Everything of the BTL in this process. Made by init, destroyed by finalize; used inside the gate.
class Module final : public Receiver {
  public:
    explicit Module(std::unique_ptr<Endpoint> endpoint);
    ~Module() override;

    Endpoint& endpoint() { return *endpoint_; }
    DataPath& path() { return path_; }
    // Starts whoever serves the endpoint: the rank agent, or without ghost a thread of ours.
    Status start(const AgentConfig* agent);
    void stop();
    // Where a rank of this job is need not be known: the agent asks.
    bool finds_ranks() const { return agent_ && agent_->attached(); }

    Fragment* fragment(mca_btl_base_endpoint_t* to, size_t size, uint32_t flags);
    void free(Fragment* fragment);
    int send(mca_btl_base_endpoint_t* to, Fragment* fragment, uint8_t tag);
    int get(const Pending& what, uint64_t remote, const void* remote_handle);
    // onesided.cpp. In memory of this process itself if there is no endpoint.
    int get_own(const Pending& what, uint64_t address);
    int put(const Pending& what, uint64_t remote, const void* remote_handle);
    int atomic(Pending what, const Atomic& operation, uint64_t remote, const void* remote_handle);
    // updates.cpp. In this process itself if there is no endpoint; no callback: no answer.
    void update(Update what, const Pending& asked);
    int progress();
    // Nothing can be sent to that peer any more; told once. Inside the gate.
    bool refuses(const mca_btl_base_endpoint_t* peer);
    // A long message is about to go to that peer. Inside the gate.
    void count_long(mca_btl_base_endpoint_t* peer) {
        if (is_first_of_message(peer->socket->take_heard()) != peer->streams) {
            peer->otherwise = 0;
        } else if (++peer->otherwise >= otherwise_in_a_row) {
            peer->otherwise = 0;
            peer->streams = !peer->streams;
            places_changed_ = true;
        }
    }
    // A peer that ob1 knows from now on, or not any more. Inside the gate.
    void know(mca_btl_base_endpoint_t* peer);
    void forget(const mca_btl_base_endpoint_t* peer);

    Regions regions;
    mca_btl_base_module_error_cb_fn_t on_error = nullptr;  // of whoever sends

    // Receiver
    void deliver(Socket& socket, uint8_t tag, uint8_t* bytes, size_t size) override;
    uint8_t* place(Socket& socket, uint8_t tag, const uint8_t* head, size_t head_size,
                   size_t size) override;
    void placed(Socket& socket, uint8_t tag, const uint8_t* head, size_t head_size, uint8_t* body,
                size_t size) override;
    void released(Socket& socket, void* token) override;
    void linked(Socket& socket) override;

  private:
    // A message between BTLs.
    void deliver_own(Socket& socket, uint8_t tag, const uint8_t* bytes, size_t size);
    void answer_get(Socket& socket, const uint8_t* bytes, size_t size);
    void note_missed(const Socket& socket, const uint8_t* bytes, size_t size);
    void take_put(Socket& socket, const uint8_t* bytes, size_t size);
    uint8_t* place_put(Socket& socket, const uint8_t* head, size_t head_size, size_t size);
    void put_is_placed(Socket& socket, const uint8_t* head, size_t head_size);
    void apply_atomic(Socket& socket, const uint8_t* bytes, size_t size);
    void note_done(const Socket& socket, const uint8_t* bytes, size_t size);
    void update_own(const Update& what, const Pending& asked);
    void take_update(Socket& socket, const uint8_t* bytes, size_t size);
    void note_updated(const Socket& socket, const uint8_t* bytes, size_t size);
    // A slot with a cookie of its own; and free again, its callback called.
    Pending& keep(const Pending& what);
    void finish(Pending& slot, int status);
    // The one of that cookie which is asked of `socket`'s peer; null if there is none.
    Pending* asked(const Socket& socket, uint64_t cookie);
    Pending* pending(const Socket& socket, uint8_t tag, const uint8_t* head, size_t head_size);
    int complete();
    void report_gone(uint32_t rank);
    void serve();
    void set_eager_limit();

    static constexpr uint32_t otherwise_in_a_row = 4;

    std::unique_ptr<Endpoint> endpoint_;
    DataPath& path_;
    std::vector<Fragment*> free_;
    std::vector<Fragment*> done_;     // sent, callback due
    std::vector<Fragment*> calling_;  // being called
    std::vector<Pending> pending_;
    std::vector<uint32_t> free_pending_;
    std::vector<uint32_t> awaiting_;  // slots of pending_ that wait for an offer
    MissedOffers missed_;
    Locks locks_;
    std::set<uint32_t> told_gone_;
    std::vector<mca_btl_base_endpoint_t*> peers_;
    bool places_changed_ = false;  // the limit may not fit any more
    const size_t far_limit_ = kernet_btl_module.btl_eager_limit;
    uint64_t next_cookie_ = 1;
    std::unique_ptr<RankAgent> agent_;
    std::thread server_;
    Fd stop_server_;
};

// Null before init and after finalize.
extern Module* module;

// setup.cpp: what the module table points to
int add_procs(mca_btl_base_module_t*, size_t count, opal_proc_t** procs,
              mca_btl_base_endpoint_t** endpoints, opal_bitmap_t* reachable);
int del_procs(mca_btl_base_module_t*, size_t count, opal_proc_t** procs,
              mca_btl_base_endpoint_t** endpoints);
int finalize(mca_btl_base_module_t*);

}  // namespace kernet::btl
