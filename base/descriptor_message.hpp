// SPDX-License-Identifier: BSD-3-Clause
// Messages on a Unix socket with one descriptor beside them, or none (SCM_RIGHTS, unix(7)).
// ControlSocket takes several.
#pragma once

#include <cstddef>
#include <sys/types.h>

#include "base/fd.hpp"

namespace ghost {

// As send(2), with `fd`, unless it is negative; never SIGPIPE.
ssize_t send_with_descriptor(int socket, const void* data, size_t size, int fd, int flags = 0);

struct WithDescriptor {
    ssize_t size = -1;  // as recv(2) gives it, with its errno
    bool whole = true;  // neither the message nor what came beside it was cut off
    Fd fd;              // the first one
};
// Descriptors that no place is left for are closed. What interrupts the wait is overheard.
WithDescriptor receive_with_descriptor(int socket, void* to, size_t size, int flags = 0);

}  // namespace ghost
