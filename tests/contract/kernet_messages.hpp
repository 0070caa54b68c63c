// SPDX-License-Identifier: BSD-3-Clause
// The native interface: DIRECT streams of messages between two ranks, with the verbs of RR-4987.
//
//   StreamHub hub(endpoint);
//   Stream& stream = hub.attach(peer);     // this rank's KerNet socket of the stream
//   stream.send(message);                  // never lost, whatever moves meanwhile
//   while (!stream.recv(message)) hub.progress();
//
// suspend and wakeup are the endpoint's (suspend_all, wakeup_all): a process moves with all its
// sockets. Data side: one thread, or several if the endpoint was made for them.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <unordered_map>
#include <vector>

#include "kernet-btl/transport/datapath.hpp"
#include "kernet-btl/transport/endpoint.hpp"

namespace kernet {

class Stream {
  public:
    using Message = std::vector<uint8_t>;

    explicit Stream(Socket& socket) : socket_(socket) {}

    uint32_t peer() const { return socket_.peer(); }
    // Takes the message over; returns at once. Call progress() to move it.
    void send(Message message);
    // The next message, in the order sent; false if none has come yet.
    bool recv(Message& message);
    // Bytes that could not be given to a link yet; a sender should not let them grow for ever.
    size_t backlog();
    // Gives the socket back for good; the peer is told.
    void unattach();

  private:
    friend class StreamHub;
    Socket& socket_;
    std::deque<Message> inbox_;
    Message arriving_;  // a large one, being received
};

// All streams of an endpoint. The endpoint must outlive it and have no other user.
class StreamHub final : public Receiver {
  public:
    explicit StreamHub(Endpoint& endpoint) : path_(endpoint.data()) { path_.set_receiver(this); }

    // Gives all sockets back, so that nothing is received or released afterwards.
    ~StreamHub() override { path_.unattach_all(); }
    StreamHub(const StreamHub&) = delete;
    StreamHub& operator=(const StreamHub&) = delete;

    Stream& attach(uint32_t peer);
    int progress() { return path_.progress(); }

    void deliver(Socket& socket, uint8_t tag, uint8_t* bytes, size_t size) override;
    uint8_t* place(Socket& socket, uint8_t tag, const uint8_t* head, size_t head_size,
                   size_t size) override;
    void placed(Socket& socket, uint8_t tag, const uint8_t* head, size_t head_size, uint8_t* body,
                size_t size) override;
    void released(Socket& socket, void* token) override;

  private:
    Stream& stream_of(Socket& socket);
    DataPath& path_;
    std::unordered_map<uint32_t, std::unique_ptr<Stream>> streams_;
};

}  // namespace kernet
