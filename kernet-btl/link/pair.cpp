// SPDX-License-Identifier: BSD-3-Clause
#include "kernet-btl/link/pair.hpp"

#include <sys/epoll.h>

#include "base/log.hpp"

namespace kernet {

namespace {

// How often the way by which nothing came lately is looked at: a look in vain costs 0.2 us.
constexpr uint32_t other_way_every = 4;
constexpr int turns = 8;
// One packet in twenty that goes again costs more than the connection does: a repetition takes a
// round trip and what the loss of three more packets takes to be seen.
constexpr uint64_t lost_of = 20, lost_at_least = 32;

}  // namespace

PairLink::PairLink(const char* name, std::unique_ptr<PacketLink> packets,
                   std::unique_ptr<TcpLink> bytes)
    : Link({}), name_(name), packets_(std::move(packets)), bytes_(std::move(bytes)) {
    packets_->await_others();
    bytes_->await_others();
}

// Repetitions after a silence are none of a loss: the peer may compute.
void PairLink::judge() {
    const PacketCounts& counts = packets_->counts();
    const uint64_t lost = counts.again - counts.probes;
    lossy_ = lost >= lost_at_least && lost * lost_of > counts.sent;
    if (lossy_) {
        ghost::log::info("kernet: {} of {} packets were lost: going on by the connection alone",
                         lost, counts.sent);
    }
}

// What is small goes by the connection too where something large stands behind it: both leave by
// one call, and who gets them looks at one way.
ssize_t PairLink::write(Frame* first, size_t offset, uint64_t ack) {
    if (offset == 0) {
        if (!lossy_) judge();
        full_ = full_ && !packets_->settled();
    }
    const Frame* end = first;
    while (end && in_packets(*end)) end = end->next;
    if (offset == 0) small_now_ = !end;  // (a frame that has begun stays where it is)
    if (small_now_) {
        const ssize_t wrote = packets_->write_until(end, first, offset, ack);
        if (wrote > 0) bytes_->answered();
        if (wrote != 0 || offset != 0) return wrote;
        // A connection takes far more for a peer that does not look than a window of packets does.
        full_ = true;
        small_now_ = false;
    }
    while (end && !in_packets(*end)) end = end->next;
    return bytes_->write_until(end, first, offset, ack);
}

// Acknowledgements are small; that we leave is told where the end of the connection follows it.
bool PairLink::write_control(wire::FrameType type, uint64_t ack) {
    if (type == wire::FrameType::ack && !lossy_ && !full_)
        return packets_->write_control(type, ack);
    return bytes_->write_control(type, ack);
}

Link::Poll PairLink::look(ByteLink& way, LinkEvents& events, Poll& result) {
    const Poll got = way.poll(events);
    if (got == Poll::idle) return got;
    result = got;
    if (got == Poll::progress) large_last_ = &way == bytes_.get();
    return got;
}

Link::Poll PairLink::poll(LinkEvents& events) {
    Poll result = Poll::idle;
    ByteLink* one = large_last_ ? static_cast<ByteLink*>(bytes_.get()) : packets_.get();
    ByteLink* other = large_last_ ? static_cast<ByteLink*>(packets_.get()) : bytes_.get();
    // A program that computes, and looks every few milliseconds, must not look four times.
    const bool both = looked_.was_long_ago() || waited_for_ || ++looks_ % other_way_every == 0;
    if (!both && !one->holds_early()) {
        if (look(*one, events, result) != Poll::progress) return result;
        if (!one->holds_early() && !other->holds_early()) return result;
    }
    for (int turn = 0; turn < turns; turn++) {
        const Poll first = look(*one, events, result);
        if (first == Poll::broken) break;
        const Poll second = look(*other, events, result);
        if (second == Poll::broken) break;
        const bool more = (first == Poll::progress && other->holds_early()) ||
                          (second == Poll::progress && one->holds_early());
        if (!more) return result;
    }
    if (result != Poll::broken) return result;
    // The connection's end may overtake packets that were sent before it.
    for (Poll got = Poll::progress; got == Poll::progress;) got = packets_->poll(events);
    return Poll::broken;
}

int PairLink::fd() const {
    if (both_) return both_.get();
    both_.reset(epoll_create1(EPOLL_CLOEXEC));
    for (const int fd : {packets_->fd(), bytes_->fd()}) {
        epoll_event event{};
        event.events = EPOLLIN | EPOLLRDHUP;
        if (both_ && epoll_ctl(both_.get(), EPOLL_CTL_ADD, fd, &event) != 0) both_.reset();
    }
    return both_ ? both_.get() : -1;
}

void PairLink::waited_for(bool on) {
    waited_for_ = on;
    bytes_->waited_for(on);
}

}  // namespace kernet
