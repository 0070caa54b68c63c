/* SPDX-License-Identifier: BSD-3-Clause */
/* Ghost: processes become ghosts and ghosts processes, from C. Link with libghost (pkg-config ghost).
 *
 *     ghost_object *g = ghost_create();
 *     ghost_plug_specification(g, "zstd:/var/ghosts/a");
 *     if (ghost_export_process(g, pid) != 0) fprintf(stderr, "%s\n", ghost_error());
 *     ghost_free(g);
 *
 * Failure: functions that return int return 0, or -1 with errno set; those that return bytes or a
 * pointer return -1 or NULL likewise. ghost_error() then says what was tried, on what, and why it
 * failed. Any function may also fail with ENOMEM. The kinds of failures:
 *     EINVAL      a wrong argument              EPERM      refused: not now, or not here
 *     ENOENT      no such process or file       EAGAIN     somebody else is at it; try again
 *     EOPNOTSUPP  this machine cannot do it     ETIMEDOUT  nobody came in time
 *     EPIPE       the other end is gone         EBADMSG    a checksum or format rule does not hold
 *     EPROTO      a fault of this library       others     the system call's own
 * No C++ exception leaves a function. Memory that runs out while a ghost's head is composed
 * may end the program, though (std::terminate).
 *
 * Ownership: what a _create or _open function returns is the caller's, who gives it to the matching
 * _free or _close function once. Texts and bytes that are passed in are read before the function
 * returns and stay the caller's. Pointers to objects must not be NULL where it is not said.
 *
 * Threads, fork, signals: the line "Safety" of each function has one word of each group:
 *     any, object      any thread at any time, or one thread at a time for each object
 *     fork, no-fork    also in a child of fork(2), or not for objects made before the fork
 *     signal, no-signal  may be called by a signal handler, or not
 * Calls that block go on after a signal handler has run. A thread in a call must not be cancelled
 * (pthread_cancel(3)).
 *
 * Exporting and importing need root and criu (environment GHOST_CRIU, else the one Ghost was
 * configured with). They start children; the program must not reap unknown children meanwhile, nor
 * ignore SIGCHLD.
 *
 * Structures begin with their size, set by the caller to sizeof the structure: a library that is newer
 * than the program leaves what the program does not know alone. Zero the rest.
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
typedef struct ghost_connection ghost_connection;

/* Describes the last call of this thread that failed.
 * Returns: a text, empty if none has failed; never NULL.
 * Owner: the library; valid until the thread's next failure.
 * Safety: any, fork, no-signal */
GHOST_API const char *ghost_error(void);

/* --- Ghosts --- */

/* Makes a ghost with nothing in it.
 * Returns: the ghost, or NULL (ENOMEM).
 * Owner: the caller; ghost_free().
 * Safety: any, fork, no-signal */
GHOST_API ghost_object *ghost_create(void);

/* Frees the ghost; NULL is allowed. An imported process runs on.
 * Returns: nothing; cannot fail.
 * Owner: what was associated stays its owner's.
 * Safety: object, fork, no-signal */
GHOST_API void ghost_free(ghost_object *g);

/* Says of which class the ghost's resource object is.
 * Returns: 0; -1: EINVAL, no class has this id.
 * Owner: unchanged.
 * Safety: object, fork, no-signal */
GHOST_API int ghost_plug(ghost_object *g, uint32_t class_id);

/* Sets the parameters of a class that takes them as text: a user's, or the specification inside
 * GHOST_COMPRESS ("file:/a"), GHOST_STRIPE and GHOST_TEE ("/a;/b").
 * Returns: 0 or -1; the parameters are looked at by the export or import.
 * Owner: the text is copied.
 * Safety: object, fork, no-signal */
GHOST_API int ghost_set_parameters(ghost_object *g, const char *parameters);

/* Sets class and parameters in one: "zstd,level=3:file:/a", "encrypt,key=/k:/a", "stripe:/a;/b",
 * "mine:parameters", or a path.
 * Returns: 0; -1: EINVAL, the specification is wrong.
 * Owner: the text is copied.
 * Safety: object, fork, no-signal */
GHOST_API int ghost_plug_specification(ghost_object *g, const char *specification);

/* What becomes of the original once its ghost is complete. */
enum ghost_then {
    GHOST_THEN_CONTINUE = 0, /* it runs on */
    GHOST_THEN_STOP = 1,     /* it stays stopped, intact */
    GHOST_THEN_KILL = 2      /* it is killed */
};

/* Says what becomes of the original; without this call it continues. Before its ghost is complete
 * nothing happens to it, and after a failure it runs on.
 * Returns: 0; -1: EINVAL.
 * Owner: unchanged.
 * Safety: object, fork, no-signal */
GHOST_API int ghost_set_then(ghost_object *g, enum ghost_then then);

/* How an export takes a process. */
enum ghost_mode {
    GHOST_MODE_STOP = 0,       /* it is stopped until all is written */
    GHOST_MODE_CONCURRENT = 1, /* it runs while its memory is copied and written, and is stopped for
                                * some milliseconds; needs memory for the copy (ENOMEM) */
    GHOST_MODE_LIVE = 2,       /* migration: it is made at the target while it runs here (pre-copy) */
    GHOST_MODE_LAZY = 3,       /* migration: it runs there at once, its memory follows (post-copy) */
    GHOST_MODE_HYBRID = 4      /* migration: memory goes ahead, what is written too fast follows */
};

/* Says how, without this call by GHOST_MODE_STOP. Everything else needs a process that `ghost run` or
 * ghost_start_process() has started (EPERM). A migration needs the network as resource, a criu with the
 * changes that come with Ghost (EOPNOTSUPP) and GHOST_THEN_KILL; the ghost that imports it is set to one
 * of the three, too.
 * Returns: 0; -1: EINVAL.
 * Owner: unchanged.
 * Safety: object, fork, no-signal */
GHOST_API int ghost_set_mode(ghost_object *g, enum ghost_mode mode);

/* Says whether a concurrent export goes on tracking what the process writes, so that this ghost can be
 * the parent of another: until that one's export, the next one of this ghost, or ghost_free(). The
 * process pays about a microsecond for the first write to each page.
 * Returns: 0; cannot fail.
 * Owner: unchanged.
 * Safety: object, fork, no-signal */
GHOST_API int ghost_set_tracking(ghost_object *g, int tracking);

/* Says whether an import takes files that another user has made, or that others may write to: what is in
 * them runs as the caller. Without this call such a file is refused (EPERM); root's are taken.
 * Returns: 0; cannot fail.
 * Owner: unchanged.
 * Safety: object, fork, no-signal */
GHOST_API int ghost_set_trust_owner(ghost_object *g, int trust);

/* Makes a pair of keys, which say who has made a ghost: the secret one in the new file `path` (mode 0600), the
 * public one, for others, in `path`.pub. The folder has to be the caller's alone.
 * Returns: 0; -1: EEXIST, one of them is there; others: it cannot be written.
 * Owner: nobody's.
 * Safety: object, fork, no-signal */
GHOST_API int ghost_make_keys(const char *path);

/* Names the file of a secret key that exports sign with: whoever has the public one knows what this process has
 * written, every byte of it. NULL: they do not sign. The network is not for signed ghosts (an export then fails
 * with EINVAL): it is sealed.
 * Returns: 0; -1: EPERM, others may read or write the file; EINVAL, it is no secret key.
 * Owner: unchanged; the file is read now.
 * Safety: object, fork, no-signal */
GHOST_API int ghost_set_sign_key(ghost_object *g, const char *file);

/* Names the file of a public key: an import takes only what its owner has signed, each MiB when that is known,
 * and of parents found beside it the same; anything else is refused (EPERM). NULL: signatures are not looked at.
 * Returns: 0; -1: EPERM, others may write to the file; EINVAL, it is no key.
 * Owner: unchanged; the file is read now.
 * Safety: object, fork, no-signal */
GHOST_API int ghost_set_verify_key(ghost_object *g, const char *file);

/* Makes this an incremental ghost: a concurrent export writes only what has changed since the one of
 * `parent`, which tracks the process (else EPERM); after a failure it does so no longer. An import reads
 * the parent's resource too, and that one's parent's. NULL: this is a full ghost; the import of one that
 * is a file by specification then looks for its parents beside it.
 * Returns: 0; -1: EINVAL, it would be its own parent.
 * Owner: the parent stays the caller's and must outlive the exports and imports.
 * Safety: object (both), fork, no-signal */
GHOST_API int ghost_set_parent(ghost_object *g, ghost_object *parent);

/* Called by the thread that exports or imports, at most every few milliseconds, by an export also before
 * the first byte and when the ghost is complete: bytes of page contents done and to be done (at first,
 * and while a migration runs, an estimate). Not 0: the export or import is cancelled, as by
 * ghost_cancel(). It may throw (C++), which cancels too. */
typedef int (*ghost_progress)(void *argument, uint64_t done, uint64_t total);

/* Says what an export or import calls while pages go out or come in; NULL: nothing.
 * Returns: 0; cannot fail.
 * Owner: the argument stays the caller's and must outlive the exports and imports.
 * Safety: object, fork, no-signal */
GHOST_API int ghost_set_progress(ghost_object *g, ghost_progress progress, void *argument);

/* Cancels the export or import that another thread (or the one that a signal handler has interrupted)
 * makes with this ghost: it fails with ECANCELED soon, even if it waits for another node. The process of
 * an export runs on and nothing is left that looks complete; of an import nothing is left. Nothing
 * happens if none is under way, or once the ghost is complete, the migration decided, or the imported
 * process about to run.
 * Returns: nothing; cannot fail.
 * Owner: unchanged; the ghost must not be freed meanwhile.
 * Safety: any, no-fork, signal */
GHOST_API void ghost_cancel(ghost_object *g);

/* Starts a program, found by PATH, as `ghost run` does: with process numbers and System V IPC objects of
 * its own, so that it can be exported in every mode and imported beside whatever runs. It has the
 * caller's descriptors 0 to 2 and environment, and GHOST_CLONE=0. The environment variable GHOST_INIT
 * names a ghost-init other than the installed one.
 * Returns: the process number of its init, which stands for the tree in every call here; -1: ENOENT, no
 *   such program; EOPNOTSUPP, no right to make name spaces, or no ghost-init.
 * Owner: the process is a child of the caller; ghost_wait_process().
 * Safety: any (unless the environment is changed meanwhile), fork, no-signal */
GHOST_API pid_t ghost_start_process(char *const *argv);

/* Waits for the end of a process that ghost_start_process() or ghost_import_process() has given, and
 * reaps it. `status`: how the program ended, as of wait(2); NULL is allowed.
 * Returns: 0; -1: ECHILD, it is no child of the caller.
 * Owner: the number is free again.
 * Safety: any, no-fork, no-signal */
GHOST_API int ghost_wait_process(pid_t process, int *status);

/* Writes the process, and all of its tree, to the plugged resource. With GHOST_THEN_STOP it is stopped
 * afterwards: ghost_resume_process() or ghost_destroy_process() decides. A child of this process sees to
 * it that the process runs on if this one is killed meanwhile.
 * Returns: 0; -1: the process runs on and nothing is left that looks complete, but see
 *   enum ghost_outcome (EPIPE).
 * Owner: an associated buffer, file or class must stay until the function returns.
 * Safety: object, no-fork, no-signal */
GHOST_API int ghost_export_process(ghost_object *g, pid_t process);

/* Makes a process from the plugged resource. It runs when this returns. Its standard input, output and
 * error are the caller's where they led out of the tree, and must be of the same kind (EPERM).
 * Returns: its process number; -1: nothing is left of it.
 * Owner: the process is a child of the caller, who reaps it (of a tree that `ghost run` has started,
 *   the number is that of its init).
 * Safety: object, no-fork, no-signal */
GHOST_API pid_t ghost_import_process(ghost_object *g);

/* Tells a clone (`ghost dup`, `ghost import --clone`) from an original, by the environment's
 * GHOST_CLONE: ask each time.
 * Returns: 1 in a clone, 0 in an original; -1: ENOENT, `ghost run` has not started this process.
 * Owner: nothing.
 * Safety: any (unless the environment is changed meanwhile), fork, no-signal */
GHOST_API int ghost_is_clone(void);

/* Lets a stopped process and its tree run on.
 * Returns: 0; -1: ENOENT, no such process.
 * Owner: unchanged.
 * Safety: any, fork, no-signal */
GHOST_API int ghost_resume_process(pid_t process);

/* Kills every process of the tree.
 * Returns: 0; -1: ENOENT, no such process.
 * Owner: the parent reaps it; this does not.
 * Safety: any, fork, no-signal */
GHOST_API int ghost_destroy_process(pid_t process);

/* What an export has come to. */
enum ghost_outcome {
    GHOST_OUTCOME_NONE = 0,     /* there was none, or an import since */
    GHOST_OUTCOME_STAYED = 1,   /* it failed, the process runs on */
    GHOST_OUTCOME_DONE = 2,     /* the ghost is complete; a migration: the process runs at the target */
    GHOST_OUTCOME_STRANDED = 3, /* lazy, hybrid: it ran at the target, and the connection was lost
                                 * before all pages were there. The original is kept stopped, as it
                                 * was. If the import has succeeded: ghost_destroy_process(). If not,
                                 * what ran there has been ended: ghost_resume_process(), if what it
                                 * has done there meanwhile may be done again */
    GHOST_OUTCOME_UNDECIDED = 4 /* migration: the connection was lost at the decision. The original is
                                 * kept stopped. If the import has succeeded: ghost_destroy_process();
                                 * if not: ghost_resume_process() */
};

/* Figures of a ghost's last export or import. */
struct ghost_statistics {
    size_t size;             /* sizeof(struct ghost_statistics), set by the caller */
    uint64_t bytes;          /* page contents and skeleton */
    uint64_t page_bytes;     /* page contents */
    uint64_t zero_bytes;     /* export: pages left out because they hold only zeros */
    uint64_t skeleton_bytes; /* everything that is not page contents */
    int64_t stopped_us;      /* export: how long the process was stopped, in microseconds */
    int64_t total_us;        /* the whole call, in microseconds */
    uint32_t outcome;        /* export: enum ghost_outcome, also of one that failed */
    uint32_t rounds;         /* live, hybrid: rounds in which memory was copied ahead */
    uint64_t deferred_bytes; /* lazy, hybrid: page contents that followed when it ran */
};

/* Copies the figures of the last export or import, of one that failed as far as it came; zeros before.
 * Returns: 0; -1: EINVAL, `size` is not set.
 * Owner: the structure is the caller's.
 * Safety: object, fork, no-signal */
GHOST_API int ghost_get_statistics(const ghost_object *g, struct ghost_statistics *statistics);

/* --- Memory --- */

/* Makes a buffer that grows. `size` bytes of it are touched at once, so that an export finds it warm.
 * Returns: the buffer, or NULL (ENOMEM).
 * Owner: the caller; ghost_buffer_free().
 * Safety: any, fork, no-signal */
GHOST_API ghost_buffer *ghost_buffer_create(size_t size);

/* Frees the buffer; NULL is allowed.
 * Returns: nothing; cannot fail.
 * Owner: a ghost it is associated with must not be used with it any more.
 * Safety: object, fork, no-signal */
GHOST_API void ghost_buffer_free(ghost_buffer *b);

/* Reads from where the last read ended.
 * Returns: the number of bytes, 0 at the end; -1 on failure.
 * Owner: the destination is the caller's.
 * Safety: object, fork, no-signal */
GHOST_API ssize_t ghost_buffer_read(ghost_buffer *b, void *destination, size_t size);

/* Appends bytes.
 * Returns: 0; -1: ENOMEM, some of the bytes may be in.
 * Owner: the bytes are copied.
 * Safety: object, fork, no-signal */
GHOST_API int ghost_buffer_write(ghost_buffer *b, const void *source, size_t size);

/* Tells how many bytes are in the buffer.
 * Returns: that number; cannot fail.
 * Owner: unchanged.
 * Safety: object, fork, no-signal */
GHOST_API size_t ghost_buffer_size(const ghost_buffer *b);

/* Makes reading start at the front again.
 * Returns: nothing; cannot fail.
 * Owner: unchanged.
 * Safety: object, fork, no-signal */
GHOST_API void ghost_buffer_rewind(ghost_buffer *b);

/* Empties the buffer; its memory stays warm.
 * Returns: nothing; cannot fail.
 * Owner: unchanged.
 * Safety: object, fork, no-signal */
GHOST_API void ghost_buffer_clear(ghost_buffer *b);

/* Makes the buffer the ghost's resource object: an export replaces its content, an import reads it
 * from the front.
 * Returns: 0; cannot fail.
 * Owner: the buffer stays the caller's and must outlive the exports and imports.
 * Safety: object, fork, no-signal */
GHOST_API int ghost_associate_buffer(ghost_object *g, ghost_buffer *b);

/* --- Files --- */

/* Names a file. Nothing happens before the first read, write, export or import: that decides the
 * direction.
 * Returns: the file, or NULL (ENOMEM).
 * Owner: the caller; ghost_file_close().
 * Safety: any, fork, no-signal */
GHOST_API ghost_file *ghost_file_open(const char *path);

/* Reads from where the last read ended.
 * Returns: the number of bytes, 0 at the end; -1: ENOENT, EINVAL if it is being written, or EPERM if
 *   another user has made it or others may write to it.
 * Owner: the destination is the caller's.
 * Safety: object, fork, no-signal */
GHOST_API ssize_t ghost_file_read(ghost_file *f, void *destination, size_t size);

/* Appends bytes to what will be the file.
 * Returns: 0; -1: the system's reason (ENOSPC), or EINVAL if it is being read.
 * Owner: the bytes stay the caller's.
 * Safety: object, fork, no-signal */
GHOST_API int ghost_file_write(ghost_file *f, const void *source, size_t size);

/* Gives what was written its name, complete and on the disk.
 * Returns: 0; -1: nothing is left of it.
 * Owner: the object is gone in either case; NULL is allowed.
 * Safety: object, fork, no-signal */
GHOST_API int ghost_file_close(ghost_file *f);

/* Makes the file the ghost's resource object.
 * Returns: 0; cannot fail.
 * Owner: the file stays the caller's and must outlive the export or import.
 * Safety: object, fork, no-signal */
GHOST_API int ghost_associate_file(ghost_object *g, ghost_file *f);

/* --- Network --- */

/* Connects to a node over TCP: `node` is a host's name or address, or NULL to wait (one minute at
 * most) for one that connects. `channel` is a text both ends know and nobody else: each proves to know
 * it before anything else is sent.
 * Returns: the connection, or NULL: EINVAL, ETIMEDOUT, EPERM (another channel), or the system's
 *   reason.
 * Owner: the caller; ghost_connection_close().
 * Safety: any, no-fork, no-signal */
GHOST_API ghost_connection *ghost_connection_open(const char *node, const char *channel, int port);

/* Closes the connection; NULL is allowed.
 * Returns: nothing; cannot fail.
 * Owner: the object is gone.
 * Safety: object, fork, no-signal */
GHOST_API void ghost_connection_close(ghost_connection *c);

/* Reads `size` bytes, fewer only at the end.
 * Returns: the number of bytes; -1: ETIMEDOUT, EPIPE, or the system's reason.
 * Owner: the destination is the caller's.
 * Safety: object, no-fork, no-signal */
GHOST_API ssize_t ghost_connection_read(ghost_connection *c, void *destination, size_t size);

/* Writes all of the bytes.
 * Returns: 0; -1: ETIMEDOUT, EPIPE, or the system's reason.
 * Owner: the bytes stay the caller's.
 * Safety: object, no-fork, no-signal */
GHOST_API int ghost_connection_write(ghost_connection *c, const void *source, size_t size);

/* Makes a connection the ghost's resource object: an export connects to `node`, an import waits (its
 * `node` is not used).
 * Returns: 0; -1: EINVAL, no channel or port.
 * Owner: the texts are copied.
 * Safety: object, fork, no-signal */
GHOST_API int ghost_associate_network(ghost_object *g, const char *node, const char *channel,
                                      int port);

/* --- Classes of one's own --- */

/* Adds a class of resource objects to this process (ghost/resource_class.h). Call it before other
 * threads use ghosts.
 * Returns: 0; -1: EEXIST, its id or name is another class's; EINVAL, an id below 1000 or a table with
 *   holes.
 * Owner: the table is the caller's and must stay for ever.
 * Safety: object, fork, no-signal */
GHOST_API int ghost_register_class(const struct ghost_resource_class *table);

/* Adds the class that a shared object exports. Call it before other threads use ghosts.
 * Returns: 0; -1: ENOENT or the loader's reason; EEXIST; EINVAL.
 * Owner: the library keeps the shared object loaded.
 * Safety: object, fork, no-signal */
GHOST_API int ghost_load_class(const char *shared_object);

#ifdef __cplusplus
}
#endif

#endif
