// SPDX-License-Identifier: BSD-3-Clause
// The filters of one socket, one after the other: in order when sending, backwards when receiving.
#pragma once

#include <memory>
#include <vector>

#include "kernet-btl/filter/filter.hpp"

namespace kernet::filter {

// Room between two stages. Shared by the chains of one data path, one call at a time.
class Scratch {
  public:
    // At least `size` bytes; the content is lost by the next get() of the same index (0 or 1).
    uint8_t* get(size_t index, size_t size) {
        if (rooms_[index].size() < size) rooms_[index].resize(size);
        return rooms_[index].data();
    }

  private:
    std::vector<uint8_t> rooms_[2];
};

class Chain {
  public:
    explicit Chain(std::vector<std::unique_ptr<Filter>> filters) : filters_(std::move(filters)) {}

    // The most bytes that encode() makes of `size`.
    size_t bound(size_t size) const { return bound(size, filters_.size()); }
    // `out` has room for bound(size) and does not overlap `in`. Returns the bytes made.
    size_t encode(const MessageId& id, const uint8_t* in, size_t size, uint8_t* out,
                  Scratch& scratch);
    // Code::corrupt if a stage refuses the bytes, or what comes out is longer than `room`. `out`
    // may hold anything then.
    Result<size_t> decode(const MessageId& id, const uint8_t* in, size_t size, uint8_t* out,
                          size_t room, Scratch& scratch);
    void suspend();
    void wakeup();
    void begin_life(const SocketId& socket);

  private:
    size_t bound(size_t size, size_t stages) const;

    std::vector<std::unique_ptr<Filter>> filters_;
};

}  // namespace kernet::filter
