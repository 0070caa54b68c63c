// SPDX-License-Identifier: BSD-3-Clause
// A KerNet socket: this process's end of the DIRECT stream to one peer rank (RR-4987, 3.2).
//
// Numbers frames, keeps them until acknowledged, drops repeated ones, and goes on over whatever
// link it is given. Everything here is data side: called inside the gate, or by the control side
// while the gate is closed. See docs/WIRE.md, "Exactly once".
#pragma once

#include <cstdint>
#include <memory>
#include <utility>

#include "kernet-btl/transport/filtered.hpp"
#include "kernet-btl/transport/registry.hpp"
#include "kernet-btl/transport/socket_state.hpp"
#include "kernet-btl/link/link.hpp"

namespace kernet {

class DataPath;
class Socket;

// The upper layer. Called on data-path threads inside progress(); may send.
class Receiver {
  public:
    virtual ~Receiver() = default;
    // A message. The bytes are valid during the call.
    virtual void deliver(Socket& socket, uint8_t tag, uint8_t* bytes, size_t size) = 0;
    // A bulk message begins: where its body of `size` bytes goes, null to refuse (it is dropped).
    // The room must stay until placed(); after a lost link it is filled again from the start.
    virtual uint8_t* place(Socket& socket, uint8_t tag, const uint8_t* head, size_t head_size,
                           size_t size) = 0;
    // The body is complete.
    virtual void placed(Socket& socket, uint8_t tag, const uint8_t* head, size_t head_size,
                        uint8_t* body, size_t size) = 0;
    // A bulk message of ours was acknowledged (its body is no longer looked at), or a frame given
    // to send_frame() with a token has left for the link. With filters a bulk message is released
    // when its last frame has left, perhaps before send_bulk() returns. Must not send.
    virtual void released(Socket& socket, void* token) = 0;
    // It has got a link, of another kind perhaps: the peer, or this process, has moved. Also by the
    // control side, while the gate is closed. Must not send.
    virtual void linked(Socket& /*socket*/) {}
};

class Socket final : private LinkEvents {
  public:
    Socket(DataPath& path, PeerShared& shared, Receiver& receiver);
    ~Socket() override;
    Socket(const Socket&) = delete;
    Socket& operator=(const Socket&) = delete;

    uint32_t peer() const { return shared_.rank; }
    DataPath& path() const { return path_; }
    SocketState state() const { return state_; }
    bool linked() const { return link_ != nullptr; }
    // Its link is looked at for nearly nothing: the peer shares memory with us.
    bool local() const { return link_ && link_->traits().quick; }
    // No link now, and one is to come: the peer moves, or the first link is being made.
    bool expects_link() const {
        return state_ == SocketState::attached && !linked() && peer_said_ != PeerSaid::left &&
               !gone();
    }
    // The peer has ended: nothing that is sent from now on can reach it.
    bool gone() const { return shared_.gone.load(std::memory_order_relaxed); }
    // And there is what never was in a link to it.
    bool undeliverable() const;
    void* user = nullptr;  // the upper layer's
    // The tag of the last message that has come since this was asked; 0: none has.
    uint8_t take_heard() { return std::exchange(heard_, uint8_t{0}); }

    // --- sending: reserve() then commit(), nothing in between ---
    // Where the bytes of a message of at most wire::max_message bytes go. Never null.
    uint8_t* reserve(size_t size) {
        staged_ = nullptr;
        if (uint8_t* room = room_in_link(size)) [[likely]]
            return room;
        return reserve_frame(size);
    }
    // Bytes that wait here for room in a link, or for a link. An upper layer that is not to fill
    // memory without end stops at some backlog.
    size_t backlog() const { return backlog_; }
    void commit(size_t size, uint8_t tag) {
        if (!staged_) [[likely]]
            return link_->commit(size, tag, next_seq_++);
        commit_frame(size, tag);
    }
    // Sends a frame of the path's pool whose bytes are already filled in. Takes it over. True if
    // it has left for the link (or is acknowledged later without further notice); false if it
    // waits: then released(token) is called when it has left (with filters perhaps at once). more:
    // the caller sends something else right away, or calls flush(); both may leave together.
    bool send_frame(Frame* frame, size_t size, uint8_t tag, void* token, bool more = false);
    // Sends a message of two pieces, of at most wire::max_message bytes together, which are the
    // caller's again when it returns. For long ones by a connection, quicker than copying them
    // between reserve() and commit(). size > 0.
    void send_pieces(uint8_t tag, const void* front, size_t front_size, const void* rest,
                     size_t size);
    // Sends head and body; the body is the caller's and stays untouched until released(token).
    // size > 0; head_size <= wire::max_bulk_head.
    void send_bulk(uint8_t tag, const void* head, size_t head_size, const void* body, size_t size,
                   void* token);
    // The body of the bulk message of that token, not yet acknowledged, is copied: it is the
    // caller's again. released() is not called for it any more.
    void own_body(const void* token);

    // --- progress; returns the number of events ---
    // Nothing has come and nothing waits to go, said for next to nothing.
    bool quiet() const { return link_ && link_->quiet() && waiting_.empty(); }
    // These three if linked().
    int poll();
    // What is due by itself: going on writing, acknowledging.
    int attend();
    Link& link() const { return *link_; }
    // By what it goes now; "" without a link. Static text.
    const char* link_name() const { return link_ ? link_->name() : ""; }
    // Writes what waits. True if nothing does any more.
    bool flush();
    // Gate closed, by the control side: writes what waits without taking in any message. True if
    // something still waits.
    bool push();

    // --- links ---
    // Asks for a link although nothing is to be sent yet.
    void connect() {
        if (!linked()) ask_for_link();
    }
    void adopt(LinkHandoff& offer);
    // Gate closed, by the control side, if linked(): gives up a link whose other end's node is
    // dead; what was not acknowledged goes by the next one.
    void leave_if_dead();
    // Gate closed: leaves the link, keeping what the peer has not acknowledged.
    void suspend();
    // The filters of the process have begun another life of the job.
    void begin_life() {
        if (filtered_) filtered_->begin_life();
    }
    void wakeup();
    // For good: says bye, drops what is kept.
    void unattach();
    // Frames not acknowledged or not yet in a link.
    bool busy();
    // Frames that a peer who reads on, or will be back, has not acknowledged.
    bool undelivered() { return busy() && (linked() || expects_link()); }
    // Frames of the peer that its filters cannot have made.
    uint64_t refused() const { return filtered_ ? filtered_->refused() : 0; }
    // Something would be lost if this process ended now.
    bool unsettled() const { return backlog_ > 0 || (link_ && !link_->settled()); }

  private:
    enum class Leave { lost, suspended, unattached };
    // What the peer said before its link goes.
    enum class PeerSaid : uint8_t { nothing, suspends, left };

    [[nodiscard]] bool change(SocketState to);
    // Where a message goes in the link itself; null if it has to be a frame.
    uint8_t* room_in_link(size_t size) {
        if (!waiting_.empty()) [[unlikely]]
            return nullptr;
        if (size < place_->limit) [[likely]]
            return place_->begin;
        return in_place_ ? link_->reserve(size) : nullptr;
    }
    uint8_t* reserve_frame(size_t size);
    void commit_frame(size_t size, uint8_t tag);
    void enqueue(Frame* frame, bool more = false);
    void append(Frame* frame);
    void start_sending(bool first, bool more);
    void drop_link(Leave why);
    void lose_link(const char* wrong);
    void keep(FrameQueue& tail);
    void drop_acknowledged(uint64_t ack);
    void release(Frame* frame);
    void left(Frame* frame);
    void ask_for_link();

    bool flush_link();
    void written(size_t bytes, bool& says);
    void acknowledge_idle();

    // filters, socket_filters.cpp
    void send_filtered(Frame* plain, bool more = false);
    void encode_some();
    bool flush_filtered();
    bool take_filtered(uint64_t seq, uint8_t tag, const uint8_t* bytes, size_t size);
    void end_long();

    void arrived(uint64_t seq) {
        received_ = seq;
        shared_.received.store(seq, std::memory_order_release);
    }

    // LinkEvents
    wire::FrameLimits limits() const override;
    void on_ack(uint64_t ack) override;
    bool on_data(uint64_t seq, uint8_t tag, uint8_t* bytes, size_t size) override;
    uint8_t* on_bulk(const wire::FrameHeader& header, const uint8_t* head) override;
    void on_bulk_done(const wire::FrameHeader& header) override;
    void on_control(wire::FrameType type) override;

    // A bulk message being received. Survives the link it came by.
    struct BulkIn {
        uint64_t seq = 0;  // 0: none
        uint8_t tag = 0;
        uint8_t head_size = 0;
        uint8_t head[wire::max_bulk_head];
        uint8_t* body = nullptr;  // null: refused
        uint64_t size = 0;
    };
    uint8_t* begin_bulk(uint64_t seq, uint8_t tag, const uint8_t* head, size_t head_size,
                        uint64_t size);
    void end_bulk();

    static constexpr Link::Place nowhere{};

    // Hot: what sending and receiving a small message in place touches.
    const Link::Place* place_ = &nowhere;  // of link_; nowhere without one, and with filters
    std::unique_ptr<Link> link_;
    Frame* staged_ = nullptr;
    FrameQueue waiting_;  // in order: not entirely in a link
    uint64_t next_seq_ = 1;
    uint64_t received_ = 0;
    std::unique_ptr<Filtered> filtered_;  // null without filters

    DataPath& path_;
    PeerShared& shared_;
    Receiver& receiver_;
    SocketState state_ = SocketState::free;
    uint8_t heard_ = 0;
    bool in_place_ = false;  // messages are written where the link keeps them
    FrameQueue sent_;        // in the link, not acknowledged, and not kept by it
    uint64_t generation_ = 0;
    size_t backlog_ = 0;
    uint64_t exposed_ = 0;  // last number that may have gone by a link now gone
    PeerSaid peer_said_ = PeerSaid::nothing;
    bool corked_ = false;    // what waits is to leave with what the caller sends next
    bool resuming_ = false;  // what waits may have arrived by the last link: the peer must say
    size_t offset_ = 0;      // of the first that waits, bytes written
    uint64_t told_ = 0;      // last acknowledgement we sent
    uint64_t bytes_since_told_ = 0;
    uint32_t idle_polls_ = 0;
    bool lost_ = false;     // found broken while sending
    bool polling_ = false;  // inside Link::poll(): the link must stay until it returns
    BulkIn bulk_in_;
};

}  // namespace kernet
