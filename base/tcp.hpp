// SPDX-License-Identifier: BSD-3-Clause
// What the kernel knows of the node at the other end of a TCP connection.
#pragma once

#include <algorithm>
#include <cstdint>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

namespace ghost {

// Whether that node has answered nothing for so long though it was asked more than once: what was
// sent was sent again, or a full window was asked about. That something was sent just now says
// nothing: no answer can be there yet. Its system answers for a process that is stopped, computes
// or does not read, so this says nothing about the process. False for what is no connection.
inline bool is_unanswered(int fd, int64_t for_us) {
    constexpr uint8_t asked = 2;  // times, to no answer; one may get lost
    tcp_info info{};
    socklen_t size = sizeof info;
    if (::getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &size) != 0) return false;
    const int64_t silence_ms = std::min(info.tcpi_last_ack_recv, info.tcpi_last_data_recv);
    // An answer ends a row of probes; one sent again and acknowledged ends that row.
    return silence_ms * 1000 > for_us &&
           (info.tcpi_retransmits >= asked || info.tcpi_probes >= asked);
}

}  // namespace ghost
