/* SPDX-License-Identifier: BSD-3-Clause */
/* A class of resource objects in a shared object of yours: what libghost and `ghost` load.
 *
 * The shared object exports ghost_resource_class_2(), which returns one filled-in table. A resource
 * object is made for one direction (GHOST_USE_WRITE by an export, GHOST_USE_READ by an import) and
 * used by one thread at a time, only interrupt() by another. C, so that any language can be used.
 * docs/API.md says how it is used; docs/examples/ has two, and the contract suite runs over yours:
 *     tests/contract/ghost_resource_test --class-so ./mine.so --class-parameters '{}/name'
 */
#ifndef GHOST_RESOURCE_CLASS_H
#define GHOST_RESOURCE_CLASS_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#ifdef __cplusplus
extern "C" {
#endif

enum ghost_use { GHOST_USE_WRITE = 0, GHOST_USE_READ = 1 };

/* The first id that is yours. An id means the same on every node of a cluster. */
#define GHOST_FIRST_USER_CLASS 1000

/* What a class may use of Ghost: other resource objects, opened by their specification
 * ("file:/a", "zstd:file:/b", a path). All return 0 or a negative errno; read returns bytes,
 * 0 at the end. close() without finalize() leaves nothing behind that looks complete. */
struct ghost_resource_host {
    int (*open)(const char *specification, enum ghost_use use, void **resource);
    int (*write)(void *resource, const void *data, size_t size);
    ssize_t (*read)(void *resource, void *data, size_t size);
    int (*finalize)(void *resource);
    void (*close)(void *resource);
};

struct ghost_resource_class {
    uint32_t id;      /* >= GHOST_FIRST_USER_CLASS, and no other class's */
    const char *name; /* lower case letters, digits and "-"; stands in specifications: "name:…" */

    /* Makes an object, ready for use; `parameters` is what follows "name:". 0 or a negative errno:
     * then no object is left. `host` stays valid. */
    int (*init)(void **object, enum ghost_use use, const char *parameters,
                const struct ghost_resource_host *host);
    /* 1 to size bytes, 0 at the end, or a negative errno. */
    ssize_t (*read)(void *object, void *data, size_t size);
    /* Takes all of it, or a negative errno. */
    int (*write)(void *object, const void *data, size_t size);
    /* After the last write: everything is where it belongs. 0 or a negative errno. */
    int (*finalize)(void *object);
    /* Gives the object up, always called last. Without a successful finalize() before, nothing may
     * be left of a written ghost that looks complete. */
    void (*release)(void *object);
    /* Makes a read or write that waits fail soon; called by another thread. May be NULL. */
    void (*interrupt)(void *object);
};

/* The one symbol a shared object has to export; the number is that of this interface. */
#define GHOST_RESOURCE_CLASS_SYMBOL "ghost_resource_class_2"
__attribute__((visibility("default"))) const struct ghost_resource_class *
ghost_resource_class_2(void);

#ifdef __cplusplus
}
#endif
#endif
