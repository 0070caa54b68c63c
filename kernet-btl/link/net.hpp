// SPDX-License-Identifier: BSD-3-Clause
// Sockets for links: listeners, connections, options, descriptors passed along. No state.
#pragma once

#include <cstdint>
#include <string>
#include <sys/socket.h>
#include <vector>

#include "base/fd.hpp"
#include "base/result.hpp"

namespace kernet::net {

using ghost::Fd;
using ghost::Result;
using ghost::Status;

struct TcpListening {
    std::vector<Fd> fds;  // all at the same port
    uint16_t port = 0;
};
// What a TCP connection of ours is to be like.
struct TcpTuning {
    std::string
        congestion;  // control algorithms, comma-separated, tried in order; "": the system's
    int64_t dead_after_us = 30'000'000;  // a node that is silent for so long is taken for dead
};

// Listens at these numeric addresses of this node, without any at all of them; non-blocking. At
// port `wish` if that is free, else (and for 0) at one the system chooses. Who connects and says
// nothing is not accepted for a second.
Result<TcpListening> listen_tcp(const TcpTuning& tuning, const std::vector<std::string>& hosts = {},
                                uint16_t wish = 0);
// Of a listener: strangers fill it first of all. The system has a limit of its own.
inline constexpr int backlog = 4096;
// "@name": abstract name space, stream socket, non-blocking.
Result<Fd> listen_unix(const std::string& name);

// Begins a non-blocking connection; it is complete (or failed) when writable.
Result<Fd> connect_tcp(const std::string& host, uint16_t port, const TcpTuning& tuning);
Result<Fd> connect_unix(const std::string& name);
// The pending error of a connection that became writable; 0 = connected.
int connect_error(const Fd& fd);
// Where a connection leads from and to. Code::peer_lost: it has ended meanwhile.
struct Ends {
    sockaddr_storage own{}, peer{};
    socklen_t own_size = sizeof own, peer_size = sizeof peer;
};
Result<Ends> ends_of(const Fd& connection);
// No delay, keep-alive such that an idle connection to a silent node breaks after dead_after_us
// (whole seconds, at least 4), and the first of the congestion control algorithms that the kernel
// allows (none: the system's own stays; BBR is several times slower on a quick network).
// Before the connection exists: a socket that was BBR's for a moment stays paced by a timer for
// ever (net/ipv4/tcp_bbr.c, bbr_init(): sk_pacing_status), which delays messages of some KB.
// What is accepted inherits it all from its listener.
void tune_tcp(const Fd& fd, const TcpTuning& tuning);
// Whether the connection has ended, or is_unanswered() for dead_after_us. TCP_USER_TIMEOUT is not
// for us: it also breaks a connection whose reader is slow (tcp(7): "due to zero window size").
bool node_is_dead(const Fd& fd, int64_t dead_after_us);
// For a connection that is read without being waited for: what comes is acknowledged on its way in,
// by whoever delivers it, and not by the recv() that takes it, which makes
// that message slower on its way to us, one of 2 KB by a third. The
// kernel does either, by how full its buffer has been, except below the low water mark
// (net/ipv4/tcp_input.c, __tcp_ack_snd_check(); tcp.c, tcp_cleanup_rbuf()). poll() and epoll do not
// tell of bytes below that mark. below: bytes, 1 before poll() and epoll are asked; the kernel
// makes the receive buffer twice as large if it may (tcp.c, tcp_set_rcvlowat()).
void acknowledge_on_arrival(int fd, int below);
// Bytes its receive buffer holds, bookkeeping included (socket(7), SO_RCVBUF).
size_t receive_room(const Fd& fd);
// True if the other end of a Unix socket belongs to this user (or root).
bool same_user(const Fd& fd);

// One sendmsg of all bytes with a descriptor beside; Code::io if it did not go out whole.
Status send_with_fd(const Fd& socket, const void* bytes, size_t size, int fd);
// Like recv(2), taking a descriptor if one comes along. Returns as recv does, errno set.
ssize_t receive_with_fd(const Fd& socket, void* bytes, size_t size, Fd& fd);

// Closes a socket whose last closing waits for the system's other processors (packet(7): 8 to 24
// ms), without waiting here: the descriptor is gone at once, the system ends the socket by itself.
void close_later(Fd fd);
// Whether this system does so; Code::unsupported: it closes them, but then and there.
Status closes_later();

}  // namespace kernet::net
