/* SPDX-License-Identifier: BSD-3-Clause */
/* A class of resource objects of one's own, in the style of an object store: a ghost is put as
 * numbered parts and a manifest that names them; the manifest comes last, so that a ghost is either
 * there as a whole or not at all. Here the store is a folder; put an HTTP client into put(), get()
 * and drop() and it is one of those.
 *
 *   cc -shared -fPIC -I$(pkg-config --variable=includedir ghost) object_store.c -o object_store.so
 *   ghost export 4711 --to objects:/some/folder      (GHOST_CLASSES=./object_store.so)
 */
#include <ghost/resource_class.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define PART_BYTES (4u << 20)

struct object {
    char folder[1024];
    enum ghost_use use;
    unsigned long generation; /* of this ghost in the folder */
    unsigned long parts;      /* written, or in the manifest */
    unsigned long next;       /* part to be read */
    unsigned long old_generation, old_parts;
    size_t filled, given; /* bytes of the part in memory */
    int complete;
    char part[PART_BYTES];
};

/* The three operations of the store. */

static void part_name(char *to, size_t size, const struct object *o, unsigned long generation,
                      unsigned long number) {
    snprintf(to, size, "%s/%lu.%06lu", o->folder, generation, number);
}

static int put(const char *name, const void *data, size_t size) {
    const char *from = data;
    int fd = open(name, O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0600);
    int failed = fd < 0;
    while (!failed && size > 0) {
        ssize_t done = write(fd, from, size);
        failed = done < 0 && errno != EINTR;
        if (done > 0) from += done, size -= (size_t)done;
    }
    failed = failed || fsync(fd) != 0;
    failed = (fd >= 0 && close(fd) != 0) || failed;
    return failed ? -errno : 0;
}

static ssize_t get(const char *name, void *data, size_t size) {
    int fd = open(name, O_RDONLY | O_CLOEXEC);
    ssize_t got = 0;
    size_t all = 0;
    if (fd < 0) return -errno;
    while (all < size && (got = read(fd, (char *)data + all, size - all)) > 0) all += (size_t)got;
    got = got < 0 ? -errno : (ssize_t)all;
    close(fd);
    return got;
}

static void drop(const struct object *o, unsigned long generation, unsigned long parts) {
    char name[1100];
    for (unsigned long i = 0; i < parts; i++) {
        part_name(name, sizeof name, o, generation, i);
        unlink(name);
    }
}

/* The manifest: "GENERATION PARTS\n". */

static int read_manifest(const struct object *o, unsigned long *generation, unsigned long *parts) {
    char name[1100], text[100] = {0};
    ssize_t got;
    snprintf(name, sizeof name, "%s/manifest", o->folder);
    got = get(name, text, sizeof text - 1);
    if (got < 0) return (int)got;
    return sscanf(text, "%lu %lu", generation, parts) == 2 ? 0 : -EBADMSG;
}

static int write_manifest(const struct object *o) {
    char fresh[1100], name[1100], text[100];
    int size = snprintf(text, sizeof text, "%lu %lu\n", o->generation, o->parts);
    int status;
    snprintf(fresh, sizeof fresh, "%s/manifest.new", o->folder);
    snprintf(name, sizeof name, "%s/manifest", o->folder);
    status = put(fresh, text, (size_t)size);
    if (status == 0 && rename(fresh, name) != 0) status = -errno;
    return status;
}

/* The class. */

static int store_init(void **object, enum ghost_use use, const char *parameters,
                      const struct ghost_resource_host *host) {
    struct object *o = calloc(1, sizeof *o);
    int status;
    (void)host;
    if (o == NULL) return -ENOMEM;
    o->use = use;
    if (strlen(parameters) >= sizeof o->folder || *parameters == '\0') {
        free(o);
        return -EINVAL;
    }
    strcpy(o->folder, parameters);
    if (use == GHOST_USE_WRITE && mkdir(o->folder, 0700) != 0 && errno != EEXIST) {
        status = -errno;
        free(o);
        return status;
    }
    status = read_manifest(o, &o->old_generation, &o->old_parts);
    if (use == GHOST_USE_READ && status != 0) {
        free(o);
        return status;
    }
    o->generation = use == GHOST_USE_READ ? o->old_generation : o->old_generation + 1;
    o->parts = use == GHOST_USE_READ ? o->old_parts : 0;
    *object = o;
    return 0;
}

static int put_part(struct object *o) {
    char name[1100];
    int status;
    part_name(name, sizeof name, o, o->generation, o->parts);
    o->parts++; /* also if it fails: what is there of it is dropped */
    status = put(name, o->part, o->filled);
    o->filled = 0;
    return status;
}

static int store_write(void *object, const void *data, size_t size) {
    struct object *o = object;
    const char *from = data;
    while (size > 0) {
        size_t room = PART_BYTES - o->filled, share = size < room ? size : room;
        memcpy(o->part + o->filled, from, share);
        o->filled += share;
        from += share;
        size -= share;
        if (o->filled == PART_BYTES) {
            int status = put_part(o);
            if (status != 0) return status;
        }
    }
    return 0;
}

static ssize_t store_read(void *object, void *data, size_t size) {
    struct object *o = object;
    if (o->given == o->filled) {
        char name[1100];
        ssize_t got;
        if (o->next == o->parts) return 0;
        part_name(name, sizeof name, o, o->generation, o->next++);
        got = get(name, o->part, PART_BYTES);
        if (got <= 0) return got < 0 ? got : -EBADMSG;
        o->filled = (size_t)got;
        o->given = 0;
    }
    if (size > o->filled - o->given) size = o->filled - o->given;
    memcpy(data, o->part + o->given, size);
    o->given += size;
    return (ssize_t)size;
}

static int store_finalize(void *object) {
    struct object *o = object;
    int status = 0;
    if (o->use == GHOST_USE_READ) return 0;
    if (o->filled > 0) status = put_part(o);
    if (status == 0) status = write_manifest(o);
    o->complete = status == 0;
    if (o->complete) drop(o, o->old_generation, o->old_parts);
    return status;
}

static void store_release(void *object) {
    struct object *o = object;
    if (o->use == GHOST_USE_WRITE && !o->complete) drop(o, o->generation, o->parts);
    free(o);
}

const struct ghost_resource_class *ghost_resource_class_2(void) {
    static const struct ghost_resource_class table = {
        .id = 1001,
        .name = "objects",
        .init = store_init,
        .read = store_read,
        .write = store_write,
        .finalize = store_finalize,
        .release = store_release,
    };
    return &table;
}
