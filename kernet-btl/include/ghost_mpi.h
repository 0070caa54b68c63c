/* SPDX-License-Identifier: BSD-3-Clause */
/* ghost_mpi: what an MPI program may say to Ghost while it runs, as move me, or not now. Link with
 * libghost_mpi (pkg-config ghost_mpi). No program needs this: without it its ranks are moved and
 * saved too.
 *
 *     ghost_mpi_hold();       a licence is taken out, a device is driven, …
 *     ghost_mpi_release();
 *     ghost_mpi_move("");     this node is too slow: to another one
 *
 * To be moved or saved a rank is stopped: it is asked to, its connections are left, its memory
 * goes. A rank that holds is not stopped. Whoever wants it to be asks again for some seconds; then
 * the request is refused, in words ("the program has asked not to be stopped now"), and a snapshot
 * of the schedule is put off.
 *
 * Without Ghost (mpirun without "--mca ghost 1", another MPI) all of this may be called as well:
 * nobody stops the rank, and requests fail with ENOTSUP.
 *
 * Failure: functions that return int return 0, or -1 with errno set. No function ends the program
 * or throws.
 *
 * Safety has one word of each group: any: any number of threads at a time; no-fork: not in a child
 * of fork(2), which is not a rank; no-signal: not by a signal handler.
 */
#ifndef GHOST_MPI_H
#define GHOST_MPI_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

#define GHOST_MPI_API __attribute__((visibility("default")))

/* --- not now --- */

/* From its return until ghost_mpi_release() this rank is not stopped. Counts: each call needs its
 * own release. Waits while the rank is being stopped just now, until it goes on.
 * Returns: 0, or -1: EDEADLK, called by what ghost_mpi_watch() was given.
 * Owner: nothing is taken or given.
 * Safety: any, no-fork, no-signal */
GHOST_MPI_API int ghost_mpi_hold(void);

/* Takes one ghost_mpi_hold() back.
 * Returns: 0, or -1: EPERM, nothing is held.
 * Owner: nothing is taken or given.
 * Safety: any, no-fork, no-signal */
GHOST_MPI_API int ghost_mpi_release(void);

/* --- requests --- */

/* Requests that this rank moves to `node`, or, if that is empty or NULL, to one that Ghost chooses.
 * It is on its way some time after this has returned, in which it goes on; if nothing comes of it
 * mpirun says why. MPI_Init must have been called.
 * Returns: 0, the request has arrived; or -1: ENOTSUP, there is no Ghost; EIO, it did not arrive.
 * Owner: the text stays the caller's.
 * Safety: any, no-fork, no-signal */
GHOST_MPI_API int ghost_mpi_move(const char* node);

/* Requests a snapshot of the job (--mca ghost_checkpoint_dir), as ghost_mpi_move() requests a move.
 * Returns: 0, the request has arrived; or -1: ENOTSUP, there is no Ghost; EIO, it did not arrive.
 * Owner: nothing is taken or given.
 * Safety: any, no-fork, no-signal */
GHOST_MPI_API int ghost_mpi_checkpoint(void);

/* --- before and after --- */

/* From now on `before` is called when this rank is about to be stopped, and `after` when it goes
 * on: `elsewhere` is 1 in a process that was made anew, by a move or a restart, else 0. By a thread
 * of Ghost's, while the program's threads run; they must return within a few seconds, and must not
 * call MPI or ghost_mpi_hold(). A live move stops a rank twice. Either may be NULL; those of an
 * earlier call are replaced.
 * Returns: 0, or -1: EDEADLK, called by one of them.
 * Owner: `data` stays the caller's, until others replace these.
 * Safety: any, no-fork, no-signal */
GHOST_MPI_API int ghost_mpi_watch(void (*before)(void* data),
                                  void (*after)(void* data, int elsewhere), void* data);

/* --- for Ghost itself --- */

/* How Ghost, in this process, takes part. `begin`: 0: the rank may be stopped, and whoever wants to
 * hold waits until `end`; -1: it holds. */
struct ghost_mpi_stops {
    size_t size; /* of this structure */
    int (*begin)(void);
    void (*before)(void);
    void (*after)(int elsewhere);
    void (*end)(void);
};

/* Called by Ghost.
 * Returns: the same at each call, never NULL.
 * Owner: the library.
 * Safety: any, no-fork, no-signal */
GHOST_MPI_API const struct ghost_mpi_stops* ghost_mpi_stops(void);

#ifdef __cplusplus
}
#endif
#endif
