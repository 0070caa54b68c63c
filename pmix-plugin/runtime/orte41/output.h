/* SPDX-License-Identifier: BSD-3-Clause */
/* A rank's standard streams in this daemon (ORTE's framework iof). C, for that framework's headers
 * do not compile as C++. ORTE's main thread only; none of these touches the rank itself. `job` is
 * the application job's number. */
#ifndef GHOST_ORTE41_OUTPUT_H
#define GHOST_ORTE41_OUTPUT_H

#include <stddef.h>

#ifdef __cplusplus
#define GHOST_NOEXCEPT noexcept
extern "C" {
#else
#define GHOST_NOEXCEPT
#endif

/* Not 0: output of the rank has arrived here that ORTE has not read yet. */
int ghost_output_pending(unsigned job, unsigned rank) GHOST_NOEXCEPT;

/* The rank has left this daemon: gives up its streams here. In mpirun its standard input goes on
 * being read, for the daemon the rank is on now. */
void ghost_output_close(unsigned job, unsigned rank) GHOST_NOEXCEPT;

/* The rank has come to this daemon: ORTE forwards these pipe ends from now on and owns them. Not 0:
 * ORTE's error. */
int ghost_output_open(unsigned job, unsigned rank, int in, int out, int err) GHOST_NOEXCEPT;

/* mpirun: standard input for this rank goes to that daemon from now on. */
void ghost_output_redirect_input(unsigned job, unsigned rank, unsigned to) GHOST_NOEXCEPT;
/* mpirun: the rank starts anew, here or elsewhere, as ORTE's map says, and gets standard input
 * there, of which none is read meanwhile. Before it is started. */
void ghost_output_readdress_input(unsigned job, unsigned rank) GHOST_NOEXCEPT;

/* mpirun: reads no standard input for a while, unless all ranks get it, and goes on. What is read
 * beside a switch would go to the daemon that the rank has left. */
void ghost_output_read_own_input(int on) GHOST_NOEXCEPT;

/* A rank is started anew on this daemon: ORTE makes it another input. */
void ghost_output_renew_input(unsigned job, unsigned rank) GHOST_NOEXCEPT;

/* mpirun: its own standard input has come to its end. */
int ghost_output_input_ended(void) GHOST_NOEXCEPT;

/* Input for the rank that comes to this daemon stays here from now on; in mpirun none is read any
 * more. And the end of that. */
void ghost_output_hold_input(unsigned job, unsigned rank) GHOST_NOEXCEPT;
void ghost_output_resume_input(unsigned job, unsigned rank) GHOST_NOEXCEPT;

/* While it is held: takes what waits, at most size bytes, in pieces of up to ghost_output_piece;
 * returns how many. Less than size - ghost_output_piece: there is no more. *end: its end comes
 * next, and is taken too, or has come. */
enum { ghost_output_piece = 8192 };
size_t ghost_output_take_input(unsigned job, unsigned rank, char* data, size_t size,
                               int* end) GHOST_NOEXCEPT;

/* While it is held: puts this before all that waits; `end`: and the end of the input behind it. */
void ghost_output_give_input(unsigned job, unsigned rank, const char* data, size_t size,
                             int end) GHOST_NOEXCEPT;

/* mpirun: what ORTE reads of mpirun's standard input for one rank goes to `heard` first; size 0:
 * its end. Before ORTE reads any. Once. Not 0: that is not possible. */
typedef void ghost_input_heard(void* context, const char* data, size_t size);
int ghost_input_overhear(ghost_input_heard* heard, void* context) GHOST_NOEXCEPT;
/* It does so. */
int ghost_input_is_overheard(void) GHOST_NOEXCEPT;

/* mpirun: calls this from now on for all output of ranks that comes from other daemons, before ORTE
 * shows it; `error` not 0: of standard error. Once. Not 0: that is not possible. */
typedef void ghost_output_heard(void* context, unsigned job, unsigned rank, int error,
                                const char* data, size_t size);
int ghost_output_count(ghost_output_heard* heard, void* context) GHOST_NOEXCEPT;

#ifdef __cplusplus
}
#endif
#endif
