// SPDX-License-Identifier: BSD-3-Clause
// Moves bytes from one descriptor to another without ever blocking or losing any.
//
// The buffer is bounded: while the sink takes nothing the source is not read, so the writer at the
// source is held up as if it wrote to the sink itself.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "pmix-plugin/wrapper/output_meter.hpp"

namespace ghost::plugin {

// A descriptor to wait for; -1: none.
struct Interest {
    int fd = -1;
    bool to_write = false;
    bool operator==(const Interest&) const = default;
};

// One direction. Both descriptors stay the caller's and are non-blocking. One thread.
class Pump {
  public:
    Pump() = default;
    Pump(int source, int sink, std::optional<OutputMeter> meter = {})
        : source_(source), sink_(sink), meter_(std::move(meter)) {}

    // What to wait for now.
    Interest interest() const;
    // Moves what can be moved now. False: nothing could.
    bool run();
    // No byte is left that was written to the source before this call (run() was just called), or
    // nothing can come any more.
    bool drained() const { return empty() && (dry_ || ended_ || source_ < 0); }
    // The source has ended, or was never there, and everything has arrived.
    bool finished() const { return source_ < 0 || (ended_ && empty()); }
    // The sink takes nothing any more (EPIPE, EIO); what comes is thrown away.
    bool broken() const { return broken_; }
    // Something waits for the sink.
    bool blocked() const { return !empty(); }
    bool connected() const { return source_ >= 0; }
    // Bytes read from the source so far.
    uint64_t taken() const { return taken_; }

    // Stops or starts reading the source.
    void pause(bool on) { paused_ = on; }
    // Takes out what was read and not yet written.
    std::string take_pending();
    // Reads all that the source has, however much that is: whoever writes there is stopped.
    void draw_in();
    const std::optional<OutputMeter>& meter() const { return meter_; }
    // Puts bytes before everything that is still to come.
    void put_back(const std::string& bytes);

  private:
    bool read_source();
    bool empty() const { return begin_ == end_; }
    bool fill();
    bool flush();

    int source_ = -1;
    int sink_ = -1;
    std::vector<char> buffer_;
    size_t begin_ = 0, end_ = 0;  // read and not yet written
    uint64_t taken_ = 0;
    std::optional<OutputMeter> meter_;
    bool dry_ = false;  // the last read found nothing
    bool ended_ = false;
    bool broken_ = false;
    bool paused_ = false;
};

// Everything that can be read from a non-blocking descriptor now.
std::string read_available(int fd);
void set_nonblocking(int fd);

}  // namespace ghost::plugin
