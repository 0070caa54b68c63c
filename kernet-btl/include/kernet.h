/* SPDX-License-Identifier: BSD-3-Clause */
/* KerNet: dynamic streams, whose sockets can be suspended in one process and woken up in another, on
 * another node, while the other ends go on (Gallard, Morin: "Dynamic Streams", RR-4987). Link with
 * libkernet (pkg-config kernet). Needs the stream manager of this node (kernetd(8)); no MPI.
 *
 *     kernet_node *node = kernet_open(NULL);
 *     kernet_stream stream;
 *     kernet_create(node, KERNET_DIRECT, 2, &stream);
 *     int socket = kernet_attach(node, stream, KERNET_BOTH);
 *     if (kernet_send(node, socket, "hello", 5, -1) != 0) fprintf(stderr, "%s\n", kernet_error());
 *     kernet_close(node);
 *
 * Failure: functions that return int return 0, or -1 with errno set; those that return bytes, a number
 * or a pointer return -1 or NULL likewise. kernet_error() then says more. Any function may also fail
 * with ENOMEM. The kinds of failures:
 *     EAGAIN      not possible at once (timeout 0)
 *     ETIMEDOUT   not possible within the timeout, or the managers did not answer
 *     EPIPE       the other end has left, its process or node is gone, or the stream was destroyed
 *     ENOTCONN    the stream manager of this node is not reachable
 *     ENOENT      no such stream, socket, node or class
 *     EPERM       refused: kernet_error() says why
 *     EINVAL      a wrong argument               EMSGSIZE   the message is larger than the buffer
 *     EBADMSG     not a handle, or damaged       EPROTO     a fault of this library
 * No C++ exception leaves a function. Memory that runs out while a message to the managers is composed
 * may end the program, though (std::terminate).
 *
 * Timeouts are in milliseconds; -1 waits for ever, 0 does not wait.
 *
 * Ownership: kernet_open() and kernet_suspend() give what the caller has to give back. Texts and bytes
 * that are passed in are read before the function returns and stay the caller's. A node must not be
 * NULL where it is not said, and sockets and streams are numbers: a wrong one is ENOENT.
 *
 * Threads, fork, signals: the line "Safety" of each function has one word of each group:
 *     any, object        any number of threads at a time, calls for one socket being served one after
 *                        the other; or one thread at a time for each node
 *     fork, no-fork      also in a child of fork(2), or not: the child must not use a node that was
 *                        opened before, not even to close it (exec(2) and _exit(2) are fine)
 *     signal, no-signal  may be called by a signal handler, or not
 * Calls that wait go on after a signal handler has run; the thread of a node takes no signals. A thread
 * in a call must not be cancelled (pthread_cancel(3)).
 *
 * Structures begin with their size, set by the caller to sizeof the structure: a library that is newer
 * than the program leaves what the program does not know alone. Zero the rest.
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

/* Describes this thread's last failure.
 * Returns: a text, empty if there was none; never NULL.
 * Owner: the library; valid until the thread's next failure.
 * Safety: any, fork, no-signal */
KERNET_API const char *kernet_error(void);

/* --- A process's part --- */

typedef struct kernet_node kernet_node;

/* Connects to the stream manager at `manager` (NULL: $KERNET_MANAGER, else kernetd's own default) and
 * starts one thread.
 * Returns: the node, or NULL: ECONNREFUSED or ENOENT, no manager is there; or the system's reason.
 * Owner: the caller; kernet_close().
 * Safety: any, fork, no-signal */
KERNET_API kernet_node *kernet_open(const char *manager);

/* Unattaches all sockets; messages that the other ends have not received are lost. NULL is allowed.
 * Returns: nothing; cannot fail.
 * Owner: the node is gone.
 * Safety: object, no-fork, no-signal */
KERNET_API void kernet_close(kernet_node *node);

/* Tells the name of this node.
 * Returns: the name; never NULL.
 * Owner: the node; valid until kernet_close().
 * Safety: any, no-fork, no-signal */
KERNET_API const char *kernet_node_name(const kernet_node *node);

/* Gives a descriptor for poll(2) and the like, readable when a socket or channel has changed since the
 * last kernet_poll().
 * Returns: the descriptor; cannot fail.
 * Owner: the node; do not close it.
 * Safety: any, no-fork, no-signal */
KERNET_API int kernet_fd(const kernet_node *node);

/* --- Streams --- */

enum kernet_type {
    KERNET_DIRECT = 0, /* one to one */
    KERNET_FIFO = 1,   /* several readers and writers; each message to one reader, the oldest first */
    KERNET_LIFO = 2    /* the same, the newest first */
};

typedef uint64_t kernet_stream; /* the same in all processes of the cluster; never 0 */

/* What the streams of a class have in common. */
struct kernet_class {
    size_t size;      /* sizeof(struct kernet_class) */
    const char *name; /* NULL: none */
    enum kernet_type type;
    unsigned sockets;    /* DIRECT: 2; FIFO and LIFO: how many, or 0: any number, up to 256 */
    const char *filters; /* a text stored with the stream; NULL: none */
};

/* Registers a class of streams in this process.
 * Returns: its descriptor (0 or above); -1: EINVAL.
 * Owner: the texts are copied.
 * Safety: any, no-fork, no-signal */
KERNET_API int kernet_register_class(kernet_node *node, const struct kernet_class *properties);

/* Creates a stream of a class.
 * Returns: 0 and the stream; -1: ENOENT, no such class; ENOTCONN; ETIMEDOUT.
 * Owner: the stream is the cluster's; kernet_destroy().
 * Safety: any, no-fork, no-signal */
KERNET_API int kernet_create_of(kernet_node *node, int class_descriptor, kernet_stream *stream);

/* Creates a stream of no class; `sockets` as in struct kernet_class.
 * Returns: 0 and the stream; -1: EINVAL; ENOTCONN; ETIMEDOUT.
 * Owner: the stream is the cluster's; kernet_destroy().
 * Safety: any, no-fork, no-signal */
KERNET_API int kernet_create(kernet_node *node, enum kernet_type type, unsigned sockets,
                             kernet_stream *stream);

/* Destroys the stream: calls on its sockets fail with EPIPE. A DIRECT stream is destroyed by itself
 * when both sockets have left.
 * Returns: 0; -1: ENOENT; ENOTCONN; ETIMEDOUT.
 * Owner: the stream is gone in all processes.
 * Safety: any, no-fork, no-signal */
KERNET_API int kernet_destroy(kernet_node *node, kernet_stream stream);

/* What kernet_get_info() tells of a stream. */
struct kernet_info {
    size_t size; /* sizeof(struct kernet_info), set by the caller */
    enum kernet_type type;
    unsigned sockets;   /* how many there are */
    unsigned connected; /* how many of them are attached now */
    unsigned suspended;
    char class_name[64]; /* longer ones are cut off */
    char filters[64];
};

/* Asks the managers about a stream.
 * Returns: 0; -1: ENOENT, no such stream or destroyed; EINVAL, `size` is not set; ENOTCONN; ETIMEDOUT.
 * Owner: the structure is the caller's.
 * Safety: any, no-fork, no-signal */
KERNET_API int kernet_get_info(kernet_node *node, kernet_stream stream, struct kernet_info *info);

/* --- Sockets --- */

enum kernet_role { KERNET_READER = 1, KERNET_WRITER = 2, KERNET_BOTH = 3 };

/* Takes a free socket of the stream. `role` counts for FIFO and LIFO.
 * Returns: its number in this process (greater than 0); -1: ENOENT; EPERM, none is free;
 *   ENOTCONN; ETIMEDOUT.
 * Owner: the socket is this process's until kernet_suspend(), kernet_unattach() or kernet_close().
 * Safety: any, no-fork, no-signal */
KERNET_API int kernet_attach(kernet_node *node, kernet_stream stream, enum kernet_role role);

/* Waits until all sockets of the stream are attached.
 * Returns: 0; -1: EAGAIN or ETIMEDOUT, not yet; EPIPE; ENOENT.
 * Owner: unchanged.
 * Safety: any, no-fork, no-signal */
KERNET_API int kernet_wait(kernet_node *node, int socket, int timeout);

/* Suspends the socket: it leaves this process. The handle holds its whole state, messages included.
 * One process, on any node of the cluster, can wake the socket up with it, once.
 * Returns: 0 and `*size` bytes at `*handle`; -1: ENOENT; ENOTCONN; ETIMEDOUT. The socket is still
 *   attached then, but after ENOMEM.
 * Owner: the handle is the caller's; kernet_free().
 * Safety: any, no-fork, no-signal */
KERNET_API int kernet_suspend(kernet_node *node, int socket, void **handle, size_t *size);

/* Wakes up a suspended socket in this process.
 * Returns: its number in this process (greater than 0); -1: EBADMSG, not a handle; EPERM, it was used
 *   before; ENOENT, the stream is gone; ENOTCONN; ETIMEDOUT.
 * Owner: the handle stays the caller's; the socket is this process's.
 * Safety: any, no-fork, no-signal */
KERNET_API int kernet_wakeup(kernet_node *node, const void *handle, size_t size);

/* Frees a handle; NULL is allowed. The socket stays suspended.
 * Returns: nothing; cannot fail.
 * Owner: the handle is gone.
 * Safety: any, fork, no-signal */
KERNET_API void kernet_free(void *handle);

/* Leaves the stream for good. Waits until the other ends have received everything this socket sent.
 * Timeout 0 does not wait: what is left is lost.
 * Returns: 0; -1: ETIMEDOUT, the socket is still attached; ENOENT; ENOTCONN.
 * Owner: the number is free.
 * Safety: any, no-fork, no-signal */
KERNET_API int kernet_unattach(kernet_node *node, int socket, int timeout);

/* Sends one message of up to 1 GiB. Blocks while more than 8 MiB sent on this socket is unread; a
 * message longer than that is sent once at most 2 MiB is ahead of it.
 * Returns: 0; -1: nothing was sent: EAGAIN, ETIMEDOUT, EPIPE, ENOENT, EINVAL.
 * Owner: the bytes stay the caller's and may be changed when the call returns.
 * Safety: any, no-fork, no-signal */
KERNET_API int kernet_send(kernet_node *node, int socket, const void *bytes, size_t size,
                           int timeout);

/* Sends one message that is gathered from `count` parts.
 * Returns: as kernet_send(); EINVAL also for a negative count.
 * Owner: as kernet_send().
 * Safety: any, no-fork, no-signal */
KERNET_API int kernet_sendv(kernet_node *node, int socket, const struct iovec *parts, int count,
                            int timeout);

/* Receives the next message; in byte mode, bytes of one or more messages.
 * Returns: its size, which may be 0; -1: EMSGSIZE, it is larger than the buffer and stays queued;
 *   EAGAIN, ETIMEDOUT, EPIPE, ENOENT, EINVAL (a writer).
 * Owner: the buffer is the caller's.
 * Safety: any, no-fork, no-signal */
KERNET_API ssize_t kernet_recv(kernet_node *node, int socket, void *bytes, size_t size,
                               int timeout);

/* Receives the next message and scatters it over `count` parts.
 * Returns: as kernet_recv(); EINVAL also for a negative count.
 * Owner: the buffers are the caller's.
 * Safety: any, no-fork, no-signal */
KERNET_API ssize_t kernet_recvv(kernet_node *node, int socket, const struct iovec *parts, int count,
                                int timeout);

enum kernet_mode { KERNET_MESSAGES = 0, KERNET_BYTES = 1 };

/* Says how the socket is read: message by message (as at first), or as a stream of bytes.
 * Returns: 0; -1: ENOENT; EINVAL.
 * Owner: unchanged.
 * Safety: any, no-fork, no-signal */
KERNET_API int kernet_set_mode(kernet_node *node, int socket, enum kernet_mode mode);

enum kernet_ready {
    KERNET_CAN_RECV = 1,
    KERNET_CAN_SEND = 2,
    KERNET_ENDED = 4 /* the other end has left for good */
};

/* As struct pollfd of poll(2): its size is fixed, since it stands in arrays. */
struct kernet_pollsocket {
    int socket;
    short events;  /* of kernet_ready: what to wait for */
    short revents; /* result; KERNET_ENDED also if it was not asked for */
};

/* Waits until one of the sockets is ready. Polling a FIFO or LIFO for KERNET_CAN_RECV requests a
 * message, which then belongs to this socket.
 * Returns: the number of sockets that are ready, 0 after the timeout; -1: ENOMEM.
 * Owner: the array is the caller's.
 * Safety: any, no-fork, no-signal */
KERNET_API int kernet_poll(kernet_node *node, struct kernet_pollsocket *sockets, unsigned count,
                           int timeout);

/* --- Channels between nodes --- */

/* Makes this process the receiver of the node's messages on the channel (16 to 65535).
 * Returns: 0; -1: EPERM, another process receives them; EINVAL; ENOTCONN; ETIMEDOUT.
 * Owner: the channel is this process's until kernet_close().
 * Safety: any, no-fork, no-signal */
KERNET_API int kernet_channel_open(kernet_node *node, unsigned channel);

/* Sends up to 48 KiB to the process that has opened the channel at the node `to`; it never fails
 * silently.
 * Returns: 0, that process has the message; -1: EPERM, nobody has opened it; ENOENT, no such node;
 *   EPIPE, the node is gone; EINVAL; ENOTCONN; ETIMEDOUT.
 * Owner: the bytes stay the caller's.
 * Safety: any, no-fork, no-signal */
KERNET_API int kernet_channel_send(kernet_node *node, const char *to, unsigned channel,
                                   unsigned type, const void *bytes, size_t size);

/* Receives a message of a channel. `type` may be NULL; `from` may be NULL, else it receives the
 * sender's node name, cut off to `from_size`. What is larger than the buffer is cut off too.
 * Returns: the message's whole size; -1: EAGAIN, ETIMEDOUT; ENOENT, the channel is not open; EINVAL.
 * Owner: the buffers are the caller's.
 * Safety: any, no-fork, no-signal */
KERNET_API ssize_t kernet_channel_recv(kernet_node *node, unsigned channel, unsigned *type,
                                       char *from, size_t from_size, void *bytes, size_t size,
                                       int timeout);

#ifdef __cplusplus
}
#endif

#endif
