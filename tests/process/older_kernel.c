// SPDX-License-Identifier: BSD-3-Clause
// Preloaded (LD_PRELOAD), it makes the kernel look older than 6.7 to programs: no PAGEMAP_SCAN, no
// guard pages. criu keeps what it knows of the kernel, so it is told by CRIU_FAULT=135 to read page
// maps entry by entry (FI_DONT_USE_PAGEMAP_SCAN).
#define _GNU_SOURCE
#include <errno.h>
#include <stdarg.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

int ioctl(int fd, unsigned long request, ...) {
    const unsigned long pagemap_scan = 0xc0606610;  // linux/fs.h of 6.7
    va_list more;
    va_start(more, request);
    void* argument = va_arg(more, void*);
    va_end(more);
    if (request != pagemap_scan || strcmp(program_invocation_short_name, "criu") == 0)
        return (int)syscall(SYS_ioctl, fd, request, argument);
    errno = ENOTTY;
    return -1;
}

int madvise(void* at, size_t bytes, int advice) {
    const int guard_install = 102;  // linux/mman.h of 6.13
    if (advice != guard_install) return (int)syscall(SYS_madvise, at, bytes, advice);
    errno = EINVAL;
    return -1;
}
