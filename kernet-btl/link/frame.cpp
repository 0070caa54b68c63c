// SPDX-License-Identifier: BSD-3-Clause
#include "kernet-btl/link/frame.hpp"

#include <cstring>
#include <new>

namespace kernet {

FramePool::~FramePool() {
    for (auto& list : free_) {
        for (Frame* frame : list) ::operator delete(frame);
    }
}

uint32_t FramePool::class_of(size_t size) {
    uint32_t cls = 0;
    while (cls + 1 < sizes_.size() && sizes_[cls] < size) cls++;
    return cls;
}

Frame* FramePool::get(size_t size) {
    const uint32_t cls = class_of(size);
    Frame* frame = nullptr;
    if (free_[cls].empty()) {
        frame = new (::operator new(sizeof(Frame) + sizes_[cls])) Frame;
        frame->capacity = sizes_[cls];
        frame->pool_class = cls;
        return frame;
    }
    frame = free_[cls].back();
    free_[cls].pop_back();
    frame->body = nullptr;
    frame->body_size = 0;
    frame->token = nullptr;
    frame->header = wire::FrameHeader{};
    return frame;
}

void FramePool::put(Frame* frame) {
    delete[] frame->owned;
    frame->owned = nullptr;
    auto& list = free_[frame->pool_class];
    if (list.size() >= keep_[frame->pool_class]) {
        ::operator delete(frame);
        return;
    }
    list.push_back(frame);
}

Frame* FramePool::shrink(Frame* frame, size_t size) {
    if (class_of(size) >= frame->pool_class) return frame;
    Frame* smaller = get(size);
    std::memcpy(smaller->bytes(), frame->bytes(), size);
    put(frame);
    return smaller;
}

}  // namespace kernet
