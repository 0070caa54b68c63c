// SPDX-License-Identifier: BSD-3-Clause
// The bridge between the PMIx component's C shell and Ghost inside mpirun and its daemons.
// Called from the thread that starts and finalizes the PMIx server (the runtime's main thread).
#pragma once

#ifdef __cplusplus
#define GHOST_NOEXCEPT noexcept
extern "C" {
#else
#define GHOST_NOEXCEPT
#endif

// Not 0: this process is mpirun or a daemon of a job of ours (--mca ghost 1, not switched off, and
// Open MPI 4.1's runtime around us; another version is refused with a message).
int ghost_plugin_wanted(void) GHOST_NOEXCEPT;

// Says that a library of another version than `needed` is in use; the job runs without Ghost.
void ghost_plugin_refuse(const char* library, const char* version,
                         const char* needed) GHOST_NOEXCEPT;

// Posts the start of coordinator and node agent to the runtime's loop and returns at once: messages
// between daemons do not exist yet when the PMIx server starts.
void ghost_plugin_start(void) GHOST_NOEXCEPT;

// Ends both and takes every event off the loop; the library may be unloaded afterwards.
void ghost_plugin_stop(void) GHOST_NOEXCEPT;

#ifdef __cplusplus
}
#endif
