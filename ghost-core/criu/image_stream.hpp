// SPDX-License-Identifier: BSD-3-Clause
// CRIU's image streaming protocol (criu/img-streamer.c): criu connects to a socket in its images
// folder and asks for one end of a pipe per image file. Private to ghost-core/criu.
#pragma once

#include <string>

#include "base/fd.hpp"
#include "base/result.hpp"

namespace ghost::core {

// A listening Unix stream socket `name` in `folder`, of any length of path; an old one is replaced.
Result<Fd> listen_in_folder(const std::string& folder, const std::string& name);

// The connection that waits. Its reads are limited to a few seconds.
Result<Fd> accept_connection(int listener);

// Name of the file criu asks for; empty when it has closed the connection.
Result<std::string> read_image_request(int connection);

// Answers a request of a restore: whether there is such a file.
Status answer_image_request(int connection, bool exists);

// The descriptor that comes with the next byte.
Result<Fd> receive_descriptor(int connection);

// Exactly `size` bytes; false if the connection ends before the first one.
Result<bool> receive_exactly(int connection, void* data, size_t size);

}  // namespace ghost::core
