/* SPDX-License-Identifier: BSD-3-Clause */
/* Ghost: processes out of their system and back, from C. See docs/API.md.
 *
 * The names of "Ghost Process" (Vallée et al., section 3.2) are at the end of this file, as inline
 * functions, because file_open or network_read are names other libraries export too; the shared
 * object has them with "ghost_" in front. Define GHOST_NO_PAPER_NAMES to be without them.
 *
 * Functions that return int return 0, or -1 and set errno; those that return bytes or a pointer
 * return -1 or NULL likewise. ghost_error() says more. Everything blocks. Objects are for one
 * thread at a time. Exporting and importing need root and criu (environment GHOST_CRIU, else the
 * one Ghost was configured with), and the caller must not reap unknown children meanwhile.
 */
#ifndef GHOST_H
#define GHOST_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "ghost/resource_class.h"

#ifdef __cplusplus
extern "C" {
#endif

#define GHOST_API __attribute__((visibility("default")))

/* Class ids, the same on every node. Those of users' classes start at 1000. */
enum ghost_class_id {
    GHOST_MEMORY = 1,   /* ghost_associate_buffer() */
    GHOST_FILE = 2,     /* ghost_associate_file() */
    GHOST_NETWORK = 3,  /* ghost_associate_network() */
    GHOST_COMPRESS = 5, /* these by ghost_set_parameters() or ghost_plug_specification() */
    GHOST_ENCRYPT = 6,
    GHOST_STRIPE = 7,
    GHOST_TEE = 8
};

typedef struct ghost_object ghost_object;
typedef struct ghost_buffer ghost_buffer;
typedef struct ghost_file ghost_file;
typedef struct ghost_node ghost_node;

/* What went wrong in the last call of this thread that failed: what was tried, on which object,
 * why. Valid until the thread's next failure. */
GHOST_API const char *ghost_error(void);

/* --- ghosts ------------------------------------------------------------------------------- */

/* A ghost with nothing in it. NULL only without memory. */
GHOST_API ghost_object *ghost_create(void);
/* What was associated stays its owner's. */
GHOST_API void ghost_free(ghost_object *g);

/* Says of which class the ghost's resource object is. EINVAL: no such class. */
GHOST_API int ghost_plug(uint32_t class_id, ghost_object *g);
/* The parameters of a class that takes them as text: a user's, or the specification inside
 * GHOST_COMPRESS ("file:/a"), GHOST_STRIPE and GHOST_TEE ("/a;/b"). */
GHOST_API int ghost_set_parameters(ghost_object *g, const char *parameters);
/* Class and parameters in one: "zstd,level=3:file:/a", "encrypt,key=/k:/a", "stripe:/a;/b",
 * "mine:parameters", a path. See docs/API.md. */
GHOST_API int ghost_plug_specification(const char *specification, ghost_object *g);

/* What becomes of the original once its ghost is complete. Before, nothing happens to it; after a
 * failure it runs on. */
enum ghost_then { GHOST_THEN_CONTINUE = 0, GHOST_THEN_STOP = 1, GHOST_THEN_KILL = 2 };
GHOST_API int ghost_set_then(ghost_object *g, enum ghost_then then);

/* Writes the process, and all of its tree, to the plugged resource. With GHOST_THEN_STOP it stands
 * afterwards, intact: ghost_resume_process() or ghost_destroy_process() decides. */
GHOST_API int ghost_export_process(ghost_object *g, pid_t process);
/* Makes a process from the plugged resource: it runs when this returns its number, and is a child
 * of the caller (of a tree that `ghost run` started, that of its init). Its standard input, output
 * and error are the caller's where they led out of the tree. -1: nothing is left. */
GHOST_API pid_t ghost_import_process(ghost_object *g);

/* 1 in a clone (`ghost dup`, `ghost import --clone`), 0 in an original, and -1 with errno ENOENT where
 * nobody can tell: in a process that `ghost run` has not started. It is the environment's GHOST_CLONE,
 * so ask each time. */
GHOST_API int ghost_is_clone(void);

GHOST_API int ghost_resume_process(pid_t process);
/* Ends every process of the tree; does not reap. */
GHOST_API int ghost_destroy_process(pid_t process);

/* Of the last export or import. */
struct ghost_statistics {
    uint64_t bytes;          /* page contents and skeleton */
    uint64_t page_bytes;     /* page contents */
    uint64_t zero_bytes;     /* export: pages left out because they hold only zeros */
    uint64_t skeleton_bytes; /* everything that is not page contents */
    int64_t stood_us;        /* export: how long the process stood still, µs */
    int64_t total_us;        /* the whole call, µs */
};
GHOST_API int ghost_get_statistics(const ghost_object *g, struct ghost_statistics *statistics);

/* --- memory ------------------------------------------------------------------------------- */

/* A buffer that grows; `size` bytes of it are touched at once, so that an export finds it warm. */
GHOST_API ghost_buffer *ghost_buffer_create(size_t size);
GHOST_API void ghost_buffer_free(ghost_buffer *b);
/* Bytes read, from where the last read ended; 0 at the end. */
GHOST_API ssize_t ghost_buffer_read(void *destination, ghost_buffer *b, size_t size);
/* Appends. */
GHOST_API int ghost_buffer_write(ghost_buffer *b, const void *source, size_t size);
GHOST_API size_t ghost_buffer_size(const ghost_buffer *b);
/* Reading starts at the front again. */
GHOST_API void ghost_buffer_rewind(ghost_buffer *b);
/* No content; the memory stays warm. */
GHOST_API void ghost_buffer_clear(ghost_buffer *b);
/* An export replaces the buffer's content; an import reads it from the front. */
GHOST_API int ghost_associate_buffer(ghost_buffer *b, ghost_object *g);

/* --- files -------------------------------------------------------------------------------- */

/* Nothing happens before the first read, write, export or import: that decides the direction. */
GHOST_API ghost_file *ghost_file_open(const char *path);
GHOST_API ssize_t ghost_file_read(ghost_file *f, void *destination, size_t size);
GHOST_API int ghost_file_write(ghost_file *f, const void *source, size_t size);
/* What was written gets its name, complete and on the disk; -1: nothing is left of it. */
GHOST_API int ghost_file_close(ghost_file *f);
GHOST_API int ghost_associate_file(ghost_file *f, ghost_object *g);

/* --- network ------------------------------------------------------------------------------ */

/* The connection to a node, over TCP: `node` is a host's name or address, or NULL to wait (one
 * minute at most) for one that connects. `channel` is a text both ends know and nobody else: each
 * proves to know it before anything else is sent. */
GHOST_API ghost_node *ghost_node_open(const char *node, const char *channel, int port);
GHOST_API void ghost_node_close(ghost_node *n);
GHOST_API ssize_t ghost_network_read(ghost_node *n, void *destination, size_t size); /* all of it,
                                                      fewer only at the end */
GHOST_API int ghost_network_write(ghost_node *n, const void *source, size_t size);
/* An export connects to `node`, an import waits (`node` is not used). */
GHOST_API int ghost_associate_network(const char *node, const char *channel, int port, ghost_object *g);

/* --- classes of one's own ----------------------------------------------------------------- */

/* EEXIST: the id or name is another class's; EINVAL: an id below 1000 or a table with holes. The
 * table has to stay. */
GHOST_API int ghost_register_class(const struct ghost_resource_class *table);
/* The same from a shared object (ghost/resource_class.h). */
GHOST_API int ghost_load_class(const char *shared_object);

#ifdef __cplusplus
}
#endif

/* --- the paper's names -------------------------------------------------------------------- */

#ifndef GHOST_NO_PAPER_NAMES

typedef ghost_object *ghost_t;
typedef ghost_buffer *buff_t;

static inline ghost_t create_new_ghost(void) {
    return ghost_create();
}
static inline int export_process(ghost_t g, pid_t process) {
    return ghost_export_process(g, process);
}
static inline pid_t import_process(ghost_t g) {
    return ghost_import_process(g);
}
static inline int plug_resource_object(uint32_t class_id, ghost_t g) {
    return ghost_plug(class_id, g);
}
static inline int destroy_process(pid_t process) {
    return ghost_destroy_process(process);
}
static inline buff_t create_new_buffer(size_t size) {
    return ghost_buffer_create(size);
}
static inline ssize_t buff_read(void *destination, buff_t b, size_t size) {
    return ghost_buffer_read(destination, b, size);
}
static inline int buff_write(buff_t b, const void *source, size_t size) {
    return ghost_buffer_write(b, source, size);
}
static inline int associate_buffer_to_ghost(buff_t b, ghost_t g) {
    return ghost_associate_buffer(b, g);
}
static inline ghost_file *file_open(const char *path) {
    return ghost_file_open(path);
}
static inline ssize_t file_read(ghost_file *f, void *destination, size_t size) {
    return ghost_file_read(f, destination, size);
}
static inline int file_write(ghost_file *f, const void *source, size_t size) {
    return ghost_file_write(f, source, size);
}
static inline int file_close(ghost_file *f) {
    return ghost_file_close(f);
}
static inline int associate_file_to_ghost(ghost_file *f, ghost_t g) {
    return ghost_associate_file(f, g);
}
static inline ssize_t network_read(ghost_node *node, void *variable, size_t size) {
    return ghost_network_read(node, variable, size);
}
static inline int network_write(ghost_node *node, const void *variable, size_t size) {
    return ghost_network_write(node, variable, size);
}
static inline int associate_network_to_ghost(const char *node, const char *channel, int port,
                                             ghost_t g) {
    return ghost_associate_network(node, channel, port, g);
}

#endif /* GHOST_NO_PAPER_NAMES */
#endif
