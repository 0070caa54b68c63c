// SPDX-License-Identifier: BSD-3-Clause
#include "kernet-btl/wire/frame.hpp"

namespace kernet::wire {

namespace {

const char* check_numbered(const FrameHeader& header, const FrameLimits& limits) {
    if (header.seq == 0) return "numbered frame without a number";
    // A resumed link repeats frames (lower numbers), but never skips one.
    if (header.seq > limits.received + 1) return "gap in the sequence";
    if (header.length < header.head) return "frame shorter than its head";
    if (header.type == FrameType::data) {
        if (header.head > max_pad) return "too much before a message";
        return header.length <= max_message ? nullptr : "data frame too long";
    }
    if (header.head > max_bulk_head) return "bulk head too long";
    return header.length - header.head <= max_bulk_body ? nullptr : "bulk frame too long";
}

}  // namespace

const char* check(const FrameHeader& header, const FrameLimits& limits) {
    if (header.magic != frame_magic) return "wrong magic";
    if (header.version != frame_version) return "wrong version";
    if (header.epoch != limits.epoch) return "wrong epoch";
    if (header.reserved != 0) return "reserved field not zero";
    if (header.ack > limits.sent) return "acknowledges what was never sent";
    switch (header.type) {
        case FrameType::data:
        case FrameType::bulk:
            return check_numbered(header, limits);
        case FrameType::ack:
        case FrameType::suspend:
        case FrameType::bye:
            if (header.seq != 0 || header.length != 0 || header.head != 0) {
                return "control frame with content";
            }
            return nullptr;
    }
    return "unknown type";
}

}  // namespace kernet::wire
