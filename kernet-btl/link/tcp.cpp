// SPDX-License-Identifier: BSD-3-Clause
#include "kernet-btl/link/tcp.hpp"

#include <cerrno>
#include <sys/socket.h>
#include <utility>

#include "kernet-btl/link/net.hpp"

namespace kernet {

namespace {

// Bytes. What a message of up to 200 KB waits for is its receiver, who acknowledges nothing himself
// while a segment of 64 KB is below the mark; with one of 32 KB such messages take 1.05 to 1.3 of
// the time. Longer ones wait for their sender, and take 1.06 to 1.13 of it if all that is his work.
constexpr int mark = 128 << 10, mark_if_long = 32 << 10;
constexpr uint64_t longest_not_long = 224 << 10;
// Messages without an answer that make a stream, in which nobody waits for each. Its sender is the
// busy one, and takes in an acknowledgement on arrival in the middle of its work: messages of 8 to
// 32 KB take 0.85 to 0.95 of the time if the receiver makes them.
constexpr uint32_t unanswered_in_stream = 8;

bool would_block() {
    return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR;
}

ssize_t outcome(ssize_t got) {
    if (got > 0) return got;
    return got < 0 && would_block() ? 0 : -1;
}

}  // namespace

void TcpLink::waited_for(bool on) {
    waited_for_ = on;
    mark_arrivals();
}

void TcpLink::mark_arrivals() {
    const int below = waited_for_ || stream_ ? 1 : long_ ? mark_if_long : mark;
    net::acknowledge_on_arrival(fd_.get(), below);
}

void TcpLink::comes(uint64_t size) {
    if (size < mark_if_long || long_ == (size > longest_not_long)) return;
    long_ = !long_;
    if (!waited_for_) mark_arrivals();
}

void TcpLink::came() {
    if (stream_ || ++unanswered_ <= unanswered_in_stream) return;
    stream_ = true;
    if (!waited_for_) mark_arrivals();
}

void TcpLink::answered() {
    unanswered_ = 0;
    if (std::exchange(stream_, false) && !waited_for_) mark_arrivals();
}

bool TcpLink::node_is_dead() const {
    return net::node_is_dead(fd_, dead_after_us_);
}

ssize_t TcpLink::send_bytes(const iovec* pieces, int count) {
    msghdr message{};
    message.msg_iov = const_cast<iovec*>(pieces);
    message.msg_iovlen = static_cast<size_t>(count);
    answered();
    const ssize_t done = sendmsg(fd_.get(), &message, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (done >= 0) return done;
    return would_block() ? 0 : -1;
}

// A stream socket takes a header whole unless its buffer is full to the last few bytes; then the
// connection is given up, which costs a reconnection but loses nothing.
bool TcpLink::send_whole(const void* bytes, size_t size) {
    const ssize_t done = send(fd_.get(), bytes, size, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (done > 0 && done < static_cast<ssize_t>(size)) shutdown(fd_.get(), SHUT_RDWR);
    return done == static_cast<ssize_t>(size);
}

ssize_t TcpLink::receive_bytes(const iovec* pieces, int count) {
    if (count == 1) {
        return outcome(recv(fd_.get(), pieces->iov_base, pieces->iov_len, MSG_DONTWAIT));
    }
    return outcome(readv(fd_.get(), pieces, count));
}

ssize_t TcpLink::peek_bytes(void* bytes, size_t size) {
    return outcome(recv(fd_.get(), bytes, size, MSG_PEEK | MSG_DONTWAIT));
}

}  // namespace kernet
