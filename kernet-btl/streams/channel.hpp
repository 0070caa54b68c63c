// SPDX-License-Identifier: BSD-3-Clause
// Channels (RR-4987, section 5, "Gimli"): messages between nodes, classified by channel and type. A
// message that cannot be delivered is an error to whoever sent it, never silence.
//
// `Channel` is what a stream manager needs of the nodes around it; `TcpChannel` is that over TCP
// connections on which every frame is authenticated (docs/WIRE.md, "Channels"). One thread.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/fd.hpp"
#include "base/result.hpp"
#include "kernet-btl/transport/location.hpp"

namespace kernet {

inline constexpr size_t max_channel_message = 1024 * 1024;  // bytes

// What is known of another node.
enum class NodeState : uint8_t {
    unknown,      // not tried yet
    up,           // connected
    unreachable,  // no connection; it may live
    gone,         // it has said that it leaves, or nobody listens at its address
};
const char* node_state_name(NodeState state);

class ChannelListener {
  public:
    virtual ~ChannelListener() = default;
    // A message. False: nobody here takes messages of this channel, which the sender is told.
    virtual bool message(int from, uint16_t channel, uint16_t type, std::string_view bytes) = 0;
    // The fate of a message that was sent with a number.
    virtual void delivered(uint64_t number, const Status& status) = 0;
    virtual void node_changed(int node, NodeState state) = 0;
};

class Channel {
  public:
    virtual ~Channel() = default;
    // number: what delivered() will say; 0: it will say nothing. An error at once if there is no
    // connection (peer_lost), no such node (not_found), the message is too long (invalid) or too
    // much waits already (busy); then delivered() is not called.
    virtual Status send(int node, uint16_t channel, uint16_t type, std::string_view bytes,
                        uint64_t number) = 0;
    virtual NodeState state(int node) const = 0;
};

struct NodeAddress {
    std::string name;
    TcpAddress at;
    std::vector<TcpAddress> others{};  // tried in turn where `at` leads nowhere
};

// A node's end, before the other nodes' addresses are known.
struct ChannelListening {
    std::vector<ghost::Fd> fds;
    std::vector<TcpAddress> at;  // where others may reach it
};
// On the addresses of the interfaces in `include` (see EndpointConfig's if_include), without any on
// all addresses of this node. Code::invalid, Code::io.
Result<ChannelListening> listen_for_channel(const std::string& include);
// Of a node that was told to us: the addresses, those with the best way to it from here first.
// Code::invalid: it has none.
Result<NodeAddress> best_address(const std::string& name, std::vector<TcpAddress> addresses,
                                 const std::string& include);

struct TcpChannelConfig {
    int self = 0;                    // which of the nodes is this one
    std::vector<NodeAddress> nodes;  // the same list, in the same order, on every node
    std::string cluster;             // its name; part of the key
    std::string secret_hex;          // 64 hex digits
    std::string congestion = "reno,cubic";
    int64_t retry_us = 200'000;  // between attempts to connect
    int64_t connect_timeout_us = 1'000'000;
    int64_t silence_us = 3'000'000;  // a connection by which nothing came for so long is given up
};

class TcpChannel final : public Channel {
  public:
    // Listens at its own address, or goes on with `listening` if there are any. Code::invalid,
    // Code::io.
    static Result<std::unique_ptr<TcpChannel>> create(const TcpChannelConfig& config,
                                                      ChannelListener& listener,
                                                      std::vector<ghost::Fd> listening = {});
    ~TcpChannel() override;

    int fd() const;  // readable when service() has something to do
    void service();
    // Who knows it says that the node has ended for good: it is gone, and never tried again.
    void expel(int node);
    // Tells all nodes that this one leaves, as far as that goes out at once.
    void leave();

    Status send(int node, uint16_t channel, uint16_t type, std::string_view bytes,
                uint64_t number) override;
    NodeState state(int node) const override;
    uint16_t port() const;

  private:
    struct Impl;
    explicit TcpChannel(std::unique_ptr<Impl> impl);
    std::unique_ptr<Impl> impl_;
};

}  // namespace kernet
