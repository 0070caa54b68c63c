/* SPDX-License-Identifier: BSD-3-Clause */
/* What the schizo component's C shell asks of Ghost. Nothing throws or blocks; in mpirun and in
 * every daemon the calls come from the runtime's main thread, except ghost_schizo_child_env(),
 * which may run on several of its launch threads at once. */
#ifndef GHOST_SCHIZO_BRIDGE_H
#define GHOST_SCHIZO_BRIDGE_H

#ifdef __cplusplus
#define GHOST_NOEXCEPT noexcept
extern "C" {
#else
#define GHOST_NOEXCEPT
#endif

/* Registers one parameter with the MCA and returns its value (the user's, from environment or
 * parameter file, or the default). */
typedef const char* (*ghost_register_fn)(const char* name, const char* fallback,
                                         const char* meaning);
typedef const char* (*ghost_get_fn)(void);
/* The value of a component selection ("pml") in Open MPI's parameter files; NULL if none has it. */
typedef const char* (*ghost_file_fn)(const char* name);
/* Puts one variable into an environment, in place of an old value. */
typedef void (*ghost_set_fn)(void* env, const char* name, const char* value);

/* Registers every parameter of parameters.hpp; values out of parameter files go into the
 * environment as OMPI_MCA_..., where every other part reads them. */
void ghost_schizo_parameters(ghost_register_fn each) GHOST_NOEXCEPT;

/* Called once before components are chosen: if the job is one of ours, sets what job_settings.hpp
 * decides in this process's environment. In mpirun (`decides` not 0) a user's setting that leaves
 * no room for migration, or another version of Open MPI than 4.1, switches Ghost off for the whole
 * job; the text to show is returned then (valid until the next call), else NULL. `component` is the
 * component's own path, `version` Open MPI's. */
const char* ghost_schizo_prepare(int decides, const char* component, const char* version,
                                 ghost_file_fn in_files) GHOST_NOEXCEPT;

/* mpirun, after ghost_schizo_prepare(): which choices of the parameter files the job does not
 * follow; NULL if it follows all. */
const char* ghost_schizo_instead(void) GHOST_NOEXCEPT;

/* Where the job's secret comes from, and how it goes to the daemons that this process starts; after
 * ghost_schizo_prepare(). users_agent gives the launch agent that the user has chosen
 * (plm_rsh_agent), NULL if none. Gives what went wrong (valid until the next call), else NULL. */
const char* ghost_schizo_secret(int decides, ghost_get_fn users_agent) GHOST_NOEXCEPT;

/* mpirun, after ghost_schizo_prepare() gave a text: the topic of help-ghost.txt it belongs to. */
const char* ghost_schizo_topic(void) GHOST_NOEXCEPT;

/* And not 0 if the job must not be started without Ghost: it is to be restarted from a snapshot,
 * or its messages are to go through filters. */
int ghost_schizo_ends(void) GHOST_NOEXCEPT;

/* mpirun: why the ranks of a job that runs with Ghost cannot be frozen; NULL if they can be. */
const char* ghost_schizo_lacks_privilege(void) GHOST_NOEXCEPT;

/* Folder with help-ghost.txt, or "" if it was not found. */
const char* ghost_schizo_help_dir(void) GHOST_NOEXCEPT;

/* mpirun: what every rank of the job gets, by the launch message; among it, if daemons are not
 * started by a launch agent, which hands the job's secret on, the public key with which they ask
 * for it. Ranks do not get that. */
void ghost_schizo_app_env(int by_launch_agent, void* env, ghost_set_fn set) GHOST_NOEXCEPT;

/* A daemon, before a fork: what this one rank gets. shared: what all ranks of the job got by its
 * launch message, "NAME=value" up to a NULL. */
void ghost_schizo_child_env(unsigned job, unsigned rank, char* const* shared, unsigned node,
                            const char* node_name, void* env, ghost_set_fn set) GHOST_NOEXCEPT;

/* The same for a rank of a job that was spawned by ranks of job `host`; shared: of that job. */
void ghost_schizo_guest_env(unsigned host, char* const* shared, unsigned node,
                            const char* node_name, void* env, ghost_set_fn set) GHOST_NOEXCEPT;

#ifdef __cplusplus
}
#endif
#endif
