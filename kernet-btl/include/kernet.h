/* KerNet: dynamic streams, whose sockets can be suspended in one process and woken up in another, on
 * another node, while the others go on (Gallard, Morin: "Dynamic Streams", RR-4987). See
 * docs/KERNET.md. Needs the stream manager of this node (kernetd); no MPI.
 *
 * Functions that return int return 0, or -1 and set errno; kernet_error() says more:
 *   EAGAIN     nothing at once (timeout 0), ETIMEDOUT  nothing in time
 *   EPIPE      the other end has left, its process or node is gone, the stream is destroyed
 *   ENOTCONN   the stream manager of this node is gone
 *   ENOENT     no such stream, socket, node, class;  EBUSY, EPERM  refused: see kernet_error()
 *   EMSGSIZE   the message is longer than the room; it is still there
 * Times are in milliseconds; -1 is for ever, 0 not at all. Any number of threads may call; the calls
 * for one socket are served one after the other.
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

/* What went wrong in this thread's last call that failed. Valid until its next failure. */
KERNET_API const char *kernet_error(void);

/* --- a process's part ----------------------------------------------------------------------- */

typedef struct kernet_node kernet_node;

/* Connects to the stream manager at `manager` (NULL: $KERNET_MANAGER, else kernetd's own default).
 * NULL on an error. */
KERNET_API kernet_node *kernet_open(const char *manager);
/* Gives all sockets back; what the others have not taken yet is lost. NULL is allowed. */
KERNET_API void kernet_close(kernet_node *node);
/* The name of this node; valid as long as `node`. */
KERNET_API const char *kernet_node_name(const kernet_node *node);
/* A descriptor for poll(2) and the like, readable when something has changed at one of the sockets or
 * channels since the last kernet_poll(). It stays the node's. */
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
    unsigned sockets;    /* 2 for DIRECT; FIFO and LIFO: how many, or 0: as many as ask (256) */
    const char *filters; /* kept for the sockets' owners; NULL: none */
};
/* Returns the descriptor of the class in this process, or -1. */
KERNET_API int kernet_register_class(kernet_node *node, const struct kernet_class *properties);
KERNET_API int kernet_create_of(kernet_node *node, int class_descriptor, kernet_stream *stream);
/* A stream of no class. */
KERNET_API int kernet_create(kernet_node *node, enum kernet_type type, unsigned sockets,
                             kernet_stream *stream);
/* For all its sockets, which find EPIPE. A DIRECT stream that both have left is destroyed by itself. */
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
/* Until all sockets of the stream are attached. */
KERNET_API int kernet_wait(kernet_node *node, int socket, int timeout);
/* Takes the socket away from this process. The handle, `*size` bytes at `*handle` to be freed with
 * kernet_free(), holds all of its state, messages included; whoever has it, on any node of the
 * cluster, wakes the socket up, once. */
KERNET_API int kernet_suspend(kernet_node *node, int socket, void **handle, size_t *size);
KERNET_API int kernet_wakeup(kernet_node *node, const void *handle, size_t size);
KERNET_API void kernet_free(void *handle);
/* Gives the socket back for good. Waits until the others have taken what was sent by it: after a
 * timeout it is still attached. With timeout 0 that is lost. */
KERNET_API int kernet_unattach(kernet_node *node, int socket, int timeout);

/* One message, of up to 1 GiB; returns when it is taken over, whatever moves meanwhile. It waits
 * while the others would have more than 8 MiB of this socket not taken, unless there are 2 MiB at
 * most before it. */
KERNET_API int kernet_send(kernet_node *node, int socket, const void *bytes, size_t size,
                           int timeout);
KERNET_API int kernet_sendv(kernet_node *node, int socket, const struct iovec *parts, int count,
                            int timeout);
/* The next message: its size, which may be 0, or -1. In byte mode: bytes of one or more messages. */
KERNET_API ssize_t kernet_recv(kernet_node *node, int socket, void *bytes, size_t size,
                               int timeout);
KERNET_API ssize_t kernet_recvv(kernet_node *node, int socket, const struct iovec *parts, int count,
                                int timeout);
enum kernet_mode { KERNET_MESSAGES = 0, KERNET_BYTES = 1 };
KERNET_API int kernet_set_mode(kernet_node *node, int socket, enum kernet_mode mode);

enum kernet_ready {
    KERNET_CAN_RECV = 1,
    KERNET_CAN_SEND = 2,
    KERNET_ENDED = 4 /* nobody is or comes at the other end */
};
struct kernet_pollsocket {
    int socket;
    short events;  /* of kernet_ready: what is waited for */
    short revents; /* out; KERNET_ENDED also unasked */
};
/* How many of the sockets are ready; 0 after a timeout. To wait for a message of a FIFO or LIFO is to
 * ask for one: it is then this socket's. */
KERNET_API int kernet_poll(kernet_node *node, struct kernet_pollsocket *sockets, unsigned count,
                           int timeout);

/* --- channels between nodes ------------------------------------------------------------------- */

/* From now on this process takes the node's messages of the channel (16 and above). */
KERNET_API int kernet_channel_open(kernet_node *node, unsigned channel);
/* Returns when the process at the other node has it, or -1: never silence. Up to 48 KiB. */
KERNET_API int kernet_channel_send(kernet_node *node, const char *to, unsigned channel,
                                   unsigned type, const void *bytes, size_t size);
/* The size, or -1. `from` may be NULL; else it gets the name of the node, cut to `from_size`. */
KERNET_API ssize_t kernet_channel_recv(kernet_node *node, unsigned channel, unsigned *type,
                                       char *from, size_t from_size, void *bytes, size_t size,
                                       int timeout);

#ifdef __cplusplus
}
#endif

#endif
