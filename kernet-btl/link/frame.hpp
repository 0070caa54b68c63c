// SPDX-License-Identifier: BSD-3-Clause
// Frames of the sending side: built once, kept until the peer has acknowledged them.
//
// Owner: the KerNet socket that sends them; data side only, so nothing here is locked.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "kernet-btl/wire/frame.hpp"

namespace kernet {

// One message. The bytes of a data frame, or the head of a bulk frame, follow the structure; the
// body of a bulk frame stays where the user has it, that of a data frame until keep_body(). The
// wire header lies right before the bytes so that a byte-stream link sends both with one piece of a
// gather write.
struct Frame {
    Frame* next = nullptr;
    const uint8_t* body = nullptr;  // the user's; of a bulk frame valid until acknowledged
    size_t body_size = 0;
    void* token = nullptr;     // the upper layer's name for it, to be told when released
    uint8_t* owned = nullptr;  // a copy of the body; then `body` is that
    uint32_t capacity = 0;     // bytes that fit behind
    uint32_t pool_class = 0;
    wire::FrameHeader header;

    uint8_t* bytes() { return reinterpret_cast<uint8_t*>(this + 1); }
    const uint8_t* bytes() const { return reinterpret_cast<const uint8_t*>(this + 1); }
    bool bulk() const { return header.type == wire::FrameType::bulk; }
    size_t byte_count() const {  // bytes behind the structure
        return static_cast<size_t>(header.length) - body_size;
    }
    // The body of a data frame joins its bytes, where there is room for it.
    void keep_body() {
        std::memcpy(bytes() + byte_count(), body, body_size);
        body_size = 0;
    }
    // The body is copied, and the user's is not looked at any more.
    void own_body() {
        if (owned || body_size == 0) return;
        owned = new uint8_t[body_size];
        std::memcpy(owned, body, body_size);
        body = owned;
    }
    size_t wire_size() const { return wire::frame_header_size + header.length; }
};
static_assert(offsetof(Frame, header) + sizeof(wire::FrameHeader) == sizeof(Frame),
              "header and bytes must be contiguous");

// Recycles frames by size; a frame never shrinks or grows.
class FramePool {
  public:
    FramePool() = default;
    FramePool(const FramePool&) = delete;
    FramePool& operator=(const FramePool&) = delete;
    ~FramePool();

    // A frame that holds at least `size` bytes (at most wire::max_message); header reset. Never
    // null: running out of memory ends the process, as everywhere in C++.
    Frame* get(size_t size);
    void put(Frame* frame);
    // Of a frame of which only the first `size` bytes are of use: itself, or in its place a smaller
    // one with these bytes and a header that is reset.
    Frame* shrink(Frame* frame, size_t size);

  private:
    static uint32_t class_of(size_t size);

    static constexpr std::array<uint32_t, 6> sizes_{192,       1024,      5 * 1024,
                                                    18 * 1024, 66 * 1024, wire::max_message};
    // Free frames kept per class; more are given back to the heap.
    static constexpr std::array<uint32_t, 6> keep_{1024, 512, 256, 128, 64, 32};
    std::array<std::vector<Frame*>, 6> free_;
};

// Frames in order of their numbers.
class FrameQueue {
  public:
    bool empty() const { return head_ == nullptr; }
    Frame* front() const { return head_; }
    void push(Frame* frame) {
        frame->next = nullptr;
        (head_ ? tail_->next : head_) = frame;
        tail_ = frame;
    }
    Frame* pop() {
        Frame* frame = head_;
        head_ = frame->next;
        return frame;
    }
    // Puts all frames of `other` before ours; `other` is empty afterwards.
    void prepend(FrameQueue& other) {
        if (other.empty()) return;
        other.tail_->next = head_;
        if (!head_) tail_ = other.tail_;
        head_ = other.head_;
        other.head_ = nullptr;
    }

  private:
    Frame* head_ = nullptr;
    Frame* tail_ = nullptr;  // valid if head_ is
};

}  // namespace kernet
