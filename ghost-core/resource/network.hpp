// SPDX-License-Identifier: BSD-3-Clause
// The resource object of a migration: one TCP connection from the source to the target.
//
// The target listens and gives (port, token) away over the control path; the source connects, both
// prove to know the job's secret, then the ghost flows from source to target, and answers the other
// way. Both directions are sealed (resource/sealing.hpp): nobody on the way reads, changes, drops,
// repeats or reorders anything, or ends it before its end, without the reader's noticing.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/fd.hpp"
#include "ghost-core/resource/resource.hpp"
#include "ghost-core/resource/sealing.hpp"

namespace ghost::core {

struct NetworkOptions {
    int operation_ms = 10000;       // longest silence of the peer in any one read or write
    size_t buffer_bytes = 4 << 20;  // asked for with SO_SNDBUF/SO_RCVBUF; the kernel may cap it
    int port = 0;                   // listener: a fixed one; 0: one that is free
    // listener: at the first address of these interfaces (names or CIDR nets); empty: at all
    std::string interfaces;
    std::string token;  // listener: a fixed one both ends know; empty: a random one
};

// One thread may write while another one reads.
class NetworkResource : public Resource {
  public:
    ~NetworkResource() override;
    // Source side: connects and proves itself. `host` is a name or address, `token` what the
    // target's listener gave, `secret` the job's secret (any text, not empty).
    // refused: the other end does not know the secret or the token; timeout; io.
    static Result<std::unique_ptr<NetworkResource>> connect(const std::string& host, int port,
                                                            const std::string& token,
                                                            const std::string& secret,
                                                            NetworkOptions options = {});

    ResourceClass class_id() const override { return ResourceClass::network; }
    Status init() override { return {}; }
    Status write(const void* data, size_t size) override;
    Status write_gather(iovec* pieces, size_t count) override;
    // peer_lost: the connection has ended before the other side's finalize(); corrupt: what came is
    // not what it has sealed.
    Result<size_t> read(void* data, size_t size) override;
    // Ends this side's direction.
    Status finalize() override;

    void interrupt() override;

    // The socket, for shutdown(2). Stays owned.
    int fd() const { return fd_.get(); }

  private:
    friend class NetworkListener;
    NetworkResource(Fd fd, std::string peer, const Greeting& greeting);

    Status send_record(const char* from, size_t size, bool last);
    Status await_bytes(size_t wanted);
    Error damaged();

    Fd fd_;
    std::string peer_;  // for messages

    // The writer's.
    std::unique_ptr<Seal> out_;
    std::vector<char> record_;

    // The reader's.
    std::unique_ptr<Seal> in_;
    std::vector<char> arrived_;   // records as they came
    size_t begin_ = 0, end_ = 0;  // of what of them is there and not read
    size_t opened_ = 0;           // bytes at begin_ that are a record's, opened; its tag follows
    bool in_over_ = false;        // the last record has come
};

// The target's end before the source has come. One thread.
class NetworkListener {
  public:
    // Listens on a free port of all interfaces, IPv6 and IPv4, or of the one that is chosen.
    static Result<NetworkListener> listen(const std::string& secret, NetworkOptions options = {});

    // The chosen interface's address, else this machine's host name: a hint only, nodes usually
    // know each other by another name.
    const std::string& host() const { return host_; }
    int port() const { return port_; }
    const std::string& token() const { return token_; }  // 64 hex digits, good for one connection
    int fd() const { return fd_.get(); }                 // readable: accept() will not wait

    // Takes the source's connection; strangers that do not prove themselves are dropped and the
    // wait goes on until timeout_ms (-1: for ever) is over (Code::timeout). The resource stays
    // usable after the listener is gone.
    Result<std::unique_ptr<NetworkResource>> accept(int timeout_ms);
    // Makes an accept() that waits in another thread fail soon (refused), and all later ones.
    void interrupt();

  private:
    NetworkListener() = default;

    Fd fd_;
    int port_ = 0;
    std::string host_, token_, secret_;
    NetworkOptions options_;
};

}  // namespace ghost::core
