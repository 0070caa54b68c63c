// SPDX-License-Identifier: BSD-3-Clause
// Preloaded (LD_PRELOAD) into mpirun, it makes a connection to another daemon fail in the next call
// that reads from it or writes to it, once a file appears: FAIL_READ or FAIL_WRITE name it.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

// Not of this node: it is a daemon's, if mpirun reads and writes it.
static int is_daemons(int fd) {
    struct sockaddr_in peer, own;
    socklen_t size = sizeof peer;
    if (getpeername(fd, (struct sockaddr*)&peer, &size) || peer.sin_family != AF_INET) return 0;
    size = sizeof own;
    if (getsockname(fd, (struct sockaddr*)&own, &size)) return 0;
    return own.sin_addr.s_addr != peer.sin_addr.s_addr;
}

static int fails(int fd, const char* variable) {
    const char* name = getenv(variable);
    if (!name || strcmp(program_invocation_short_name, "mpirun") != 0) return 0;
    if (access(name, F_OK) != 0 || !is_daemons(fd) || unlink(name) != 0) return 0;
    shutdown(fd, SHUT_RDWR);
    return 1;
}

ssize_t writev(int fd, const struct iovec* pieces, int count) {
    if (!fails(fd, "FAIL_WRITE")) return syscall(SYS_writev, fd, pieces, count);
    errno = EPIPE;
    return -1;
}

ssize_t read(int fd, void* data, size_t size) {
    if (!fails(fd, "FAIL_READ")) return syscall(SYS_read, fd, data, size);
    errno = ECONNRESET;
    return -1;
}
