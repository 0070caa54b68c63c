/* SPDX-License-Identifier: BSD-3-Clause */
/* A class of resource objects over others: what is written goes to both of two resources (say, a
 * disk and another node's memory), and is read from the first that can be opened.
 *
 *   cc -shared -fPIC -I$(pkg-config --variable=includedir ghost) tee.c -o tee.so
 *   ghost export 4711 --to 'both:/disk/a|lz4:/shared/a'     (GHOST_CLASSES=./tee.so)
 */
#include <ghost/resource_class.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct both {
    const struct ghost_resource_host *host;
    void *one[2];
    int count; /* that are open */
};

static void both_release(void *object) {
    struct both *b = object;
    for (int i = 0; i < b->count; i++) b->host->close(b->one[i]);
    free(b);
}

/* "FIRST|SECOND" */
static int both_init(void **object, enum ghost_use use, const char *parameters,
                     const struct ghost_resource_host *host) {
    char *text = strdup(parameters), *bar = text ? strchr(text, '|') : NULL;
    struct both *b = calloc(1, sizeof *b);
    int status = -EINVAL;
    if (b != NULL && bar != NULL) {
        const char *names[2] = {text, bar + 1};
        *bar = '\0';
        b->host = host;
        for (int i = 0; i < 2; i++) {
            status = host->open(names[i], use, &b->one[b->count]);
            if (status == 0) b->count++;
            if (use == GHOST_USE_WRITE ? status != 0 : status == 0) break;
        }
    }
    free(text);
    if (status == 0)
        *object = b;
    else if (b != NULL)
        both_release(b);
    return status;
}

static int both_write(void *object, const void *data, size_t size) {
    struct both *b = object;
    int status = 0;
    for (int i = 0; i < b->count && status == 0; i++)
        status = b->host->write(b->one[i], data, size);
    return status;
}

static ssize_t both_read(void *object, void *data, size_t size) {
    struct both *b = object;
    return b->host->read(b->one[0], data, size);
}

static int both_finalize(void *object) {
    struct both *b = object;
    int status = 0;
    for (int i = 0; i < b->count && status == 0; i++) status = b->host->finalize(b->one[i]);
    return status;
}

const struct ghost_resource_class *ghost_resource_class_2(void) {
    static const struct ghost_resource_class table = {
        .id = 1002,
        .name = "both",
        .init = both_init,
        .read = both_read,
        .write = both_write,
        .finalize = both_finalize,
        .release = both_release,
    };
    return &table;
}
