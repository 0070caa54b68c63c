// SPDX-License-Identifier: BSD-3-Clause
// CRIU's image streaming protocol (criu/img-streamer.c): criu connects to a socket in its images
// folder and asks for one end of a pipe per image file. Private to ghost-core/criu.
#pragma once

#include <string>

#include "base/fd.hpp"
#include "base/result.hpp"

namespace ghost::core {

// A socket that a criu connects to, once. One thread.
class CriuSocket {
  public:
    // `name` in `folder`, of any length of path; an old one is replaced.
    Status listen(const std::string& folder, const std::string& name);
    // Readable when take() is to be called. -1: the connection has been closed.
    int fd() const { return connected_ ? connection_.get() : listener_.get(); }
    // False: criu has just connected, and nothing is to be read yet. Reads are limited to a few
    // seconds.
    Result<bool> take();
    int connection() const { return connection_.get(); }
    bool has_connected() const { return connected_; }  // whether or not it is there still
    void hang_up() { connection_.reset(); }
    void close() { *this = {}; }

  private:
    Fd listener_, connection_;
    bool connected_ = false;
};

// Name of the file criu asks for; empty when it has closed the connection.
Result<std::string> read_image_request(int connection);

// Answers a request of a restore: whether there is such a file.
Status answer_image_request(int connection, bool exists);

// The descriptor that comes with the next byte.
Result<Fd> receive_descriptor(int connection);

// Exactly `size` bytes; false if the connection ends before the first one.
Result<bool> receive_exactly(int connection, void* data, size_t size);

}  // namespace ghost::core
