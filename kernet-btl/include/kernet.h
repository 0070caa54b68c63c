/* SPDX-License-Identifier: BSD-3-Clause */
/* KerNet: dynamic streams, whose sockets can be suspended in one process and woken up in another, on
 * another node, while the others go on (Gallard, Morin: "Dynamic Streams", RR-4987). See
 * docs/KERNET.md. Needs the stream manager of this node (kernetd); no MPI.
 *
 * Functions that return int return 0, or -1 and set errno; kernet_error() says more:
 *   EAGAIN     not possible at once (timeout 0);  ETIMEDOUT  not possible within the timeout
 *   EPIPE      the other end has left, its process or node is gone, or the stream was destroyed
 *   ENOTCONN   the stream manager of this node is not reachable
 *   ENOENT     no such stream, socket, node or class;  EBUSY, EPERM  refused: see kernet_error()
 *   EMSGSIZE   the message is larger than the buffer; it stays queued
 * Timeouts are in milliseconds; -1 waits for ever, 0 does not wait. Any number of threads may call;
 * calls for one socket are served one after the other.
 */
#ifndef KERNET_H
#define KERNET_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

#ifdef __cplusplus
extern "C" {
#endif

#define KERNET_API __attribute__((visibility("default")))

/* Describes this thread's last failure. Valid until its next failure. */
KERNET_API const char *kernet_error(void);

/* --- a process's part ----------------------------------------------------------------------- */

typedef struct kernet_node kernet_node;

/* Connects to the stream manager at `manager` (NULL: $KERNET_MANAGER, else kernetd's own default).
 * NULL on an error. */
KERNET_API kernet_node *kernet_open(const char *manager);
/* Unattaches all sockets; messages that the other ends have not received are lost. NULL is allowed. */
KERNET_API void kernet_close(kernet_node *node);
/* The name of this node; valid as long as `node`. */
KERNET_API const char *kernet_node_name(const kernet_node *node);
/* A descriptor for poll(2) and the like, readable when a socket or channel has changed since the last
 * kernet_poll(). The node owns it: do not close it. */
KERNET_API int kernet_fd(const kernet_node *node);

/* --- streams -------------------------------------------------------------------------------- */

enum kernet_type {
    KERNET_DIRECT = 0, /* one to one */
    KERNET_FIFO = 1,   /* several readers and writers; each message to one reader, the oldest first */
    KERNET_LIFO = 2    /* the same, the newest first */
};

typedef uint64_t kernet_stream; /* the same in all processes of the cluster; never 0 */

/* What the streams of a class have in common. */
struct kernet_class {
    const char *name;
    enum kernet_type type;
    unsigned sockets;    /* DIRECT: 2; FIFO and LIFO: how many, or 0: any number, up to 256 */
    const char *filters; /* a text stored with the stream; NULL: none */
};
/* Returns the descriptor of the class in this process, or -1. */
KERNET_API int kernet_register_class(kernet_node *node, const struct kernet_class *properties);
KERNET_API int kernet_create_of(kernet_node *node, int class_descriptor, kernet_stream *stream);
/* A stream of no class. */
KERNET_API int kernet_create(kernet_node *node, enum kernet_type type, unsigned sockets,
                             kernet_stream *stream);
/* Destroys the stream: calls on its sockets fail with EPIPE. A DIRECT stream is destroyed by itself
 * when both sockets have left. */
KERNET_API int kernet_destroy(kernet_node *node, kernet_stream stream);

struct kernet_info {
    enum kernet_type type;
    unsigned sockets;   /* how many there are */
    unsigned connected; /* how many of them are attached now */
    unsigned suspended;
    char class_name[64];
    char filters[64];
};
KERNET_API int kernet_get_info(kernet_node *node, kernet_stream stream, struct kernet_info *info);

/* --- sockets -------------------------------------------------------------------------------- */

enum kernet_role { KERNET_READER = 1, KERNET_WRITER = 2, KERNET_BOTH = 3 };

/* Takes a free socket of the stream. Returns its number in this process (greater than 0), or -1.
 * `role` counts for FIFO and LIFO. */
KERNET_API int kernet_attach(kernet_node *node, kernet_stream stream, enum kernet_role role);
/* Waits until all sockets of the stream are attached. */
KERNET_API int kernet_wait(kernet_node *node, int socket, int timeout);
/* Suspends the socket: it leaves this process. The handle (`*size` bytes at `*handle`, to be freed with
 * kernet_free()) holds its whole state, messages included. One process, on any node of the cluster,
 * can wake the socket up with it, once. */
KERNET_API int kernet_suspend(kernet_node *node, int socket, void **handle, size_t *size);
KERNET_API int kernet_wakeup(kernet_node *node, const void *handle, size_t size);
KERNET_API void kernet_free(void *handle);
/* Leaves the stream for good. Waits until the other ends have received everything this socket sent;
 * after a timeout the socket is still attached. Timeout 0 does not wait: what is left is lost. */
KERNET_API int kernet_unattach(kernet_node *node, int socket, int timeout);

/* Sends one message of up to 1 GiB; the buffer may be reused when the call returns. Blocks while more
 * than 8 MiB sent on this socket is unread; a message longer than that is sent once at most 2 MiB is
 * ahead of it. */
KERNET_API int kernet_send(kernet_node *node, int socket, const void *bytes, size_t size,
                           int timeout);
KERNET_API int kernet_sendv(kernet_node *node, int socket, const struct iovec *parts, int count,
                            int timeout);
/* Receives the next message: returns its size, which may be 0, or -1. In byte mode: bytes of one or
 * more messages. */
KERNET_API ssize_t kernet_recv(kernet_node *node, int socket, void *bytes, size_t size,
                               int timeout);
KERNET_API ssize_t kernet_recvv(kernet_node *node, int socket, const struct iovec *parts, int count,
                                int timeout);
enum kernet_mode { KERNET_MESSAGES = 0, KERNET_BYTES = 1 };
KERNET_API int kernet_set_mode(kernet_node *node, int socket, enum kernet_mode mode);

enum kernet_ready {
    KERNET_CAN_RECV = 1,
    KERNET_CAN_SEND = 2,
    KERNET_ENDED = 4 /* the other end has left for good */
};
struct kernet_pollsocket {
    int socket;
    short events;  /* of kernet_ready: what to wait for */
    short revents; /* result; KERNET_ENDED also if it was not asked for */
};
/* Returns the number of sockets that are ready; 0 after a timeout. Polling a FIFO or LIFO for
 * KERNET_CAN_RECV requests a message, which then belongs to this socket. */
KERNET_API int kernet_poll(kernet_node *node, struct kernet_pollsocket *sockets, unsigned count,
                           int timeout);

/* --- channels between nodes ------------------------------------------------------------------- */

/* Makes this process the receiver of the node's messages on the channel (16 and above). */
KERNET_API int kernet_channel_open(kernet_node *node, unsigned channel);
/* Sends up to 48 KiB. Returns 0 when the process at the other node has the message, else -1; it never
 * fails silently. */
KERNET_API int kernet_channel_send(kernet_node *node, const char *to, unsigned channel,
                                   unsigned type, const void *bytes, size_t size);
/* Returns the size, or -1. `from` may be NULL; else it receives the sender's node name, truncated to
 * `from_size`. */
KERNET_API ssize_t kernet_channel_recv(kernet_node *node, unsigned channel, unsigned *type,
                                       char *from, size_t from_size, void *bytes, size_t size,
                                       int timeout);

#ifdef __cplusplus
}
#endif

#endif
