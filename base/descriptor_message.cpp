// SPDX-License-Identifier: BSD-3-Clause
#include "base/descriptor_message.hpp"

#include <cerrno>
#include <cstring>
#include <sys/socket.h>

namespace ghost {
namespace {

// A message with room for one descriptor. It is where it is made: it points into itself.
struct Letter {
    Letter(void* data, size_t size) : part{data, size} {
        head.msg_iov = &part;
        head.msg_iovlen = 1;
        head.msg_control = control;
        head.msg_controllen = CMSG_LEN(sizeof(int));  // in what else there is, one more would fit
    }
    Letter(const Letter&) = delete;
    Letter& operator=(const Letter&) = delete;

    alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
    iovec part;
    msghdr head{};
};

}  // namespace

ssize_t send_with_descriptor(int socket, const void* data, size_t size, int fd, int flags) {
    Letter letter(const_cast<void*>(data), size);
    if (fd < 0) {
        letter.head.msg_control = nullptr;
        letter.head.msg_controllen = 0;
    } else {
        cmsghdr* header = CMSG_FIRSTHDR(&letter.head);
        header->cmsg_level = SOL_SOCKET;
        header->cmsg_type = SCM_RIGHTS;
        header->cmsg_len = CMSG_LEN(sizeof fd);
        std::memcpy(CMSG_DATA(header), &fd, sizeof fd);
    }
    return ::sendmsg(socket, &letter.head, flags | MSG_NOSIGNAL);
}

WithDescriptor receive_with_descriptor(int socket, void* to, size_t size, int flags) {
    Letter letter(to, size);
    WithDescriptor out;
    do out.size = ::recvmsg(socket, &letter.head, flags | MSG_CMSG_CLOEXEC);
    while (out.size < 0 && errno == EINTR);
    if (out.size < 0) return out;
    out.whole = (letter.head.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) == 0;
    const cmsghdr* header = CMSG_FIRSTHDR(&letter.head);
    if (header == nullptr || header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS ||
        header->cmsg_len != CMSG_LEN(sizeof(int)))
        return out;
    int fd = -1;
    std::memcpy(&fd, CMSG_DATA(header), sizeof fd);
    out.fd.reset(fd);
    return out;
}

}  // namespace ghost
