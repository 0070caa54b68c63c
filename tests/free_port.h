/* SPDX-License-Identifier: BSD-3-Clause */
/* A port of this machine that nobody has, for suites in C and C++: one by name would now and then be
 * some other connection's. */
#pragma once

#include <arpa/inet.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* In host order; 0: there is none. Nobody listens there yet. */
static inline uint16_t free_port(void) {
    struct sockaddr_in address;
    socklen_t size = sizeof address;
    uint16_t port = 0;
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    memset(&address, 0, sizeof address);
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (bind(fd, (const struct sockaddr *)&address, size) == 0 &&
        getsockname(fd, (struct sockaddr *)&address, &size) == 0)
        port = ntohs(address.sin_port);
    close(fd);
    return port;
}
