/* SPDX-License-Identifier: BSD-3-Clause */
/* The names and argument orders of "Ghost Process" (Vallée et al., section 3.2), for programs written
 * after the paper. Inline functions only: the shared object exports names that begin with "ghost_".
 * Other libraries have a file_open or network_read too; include this header only where none is used. */
#ifndef GHOST_PAPER_H
#define GHOST_PAPER_H

#include "../ghost.h"

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
    return ghost_plug(g, class_id);
}
static inline int destroy_process(pid_t process) {
    return ghost_destroy_process(process);
}
static inline buff_t create_new_buffer(size_t size) {
    return ghost_buffer_create(size);
}
static inline ssize_t buff_read(void *destination, buff_t b, size_t size) {
    return ghost_buffer_read(b, destination, size);
}
static inline int buff_write(buff_t b, const void *source, size_t size) {
    return ghost_buffer_write(b, source, size);
}
static inline int associate_buffer_to_ghost(buff_t b, ghost_t g) {
    return ghost_associate_buffer(g, b);
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
    return ghost_associate_file(g, f);
}
static inline ssize_t network_read(ghost_connection *c, void *variable, size_t size) {
    return ghost_connection_read(c, variable, size);
}
static inline int network_write(ghost_connection *c, const void *variable, size_t size) {
    return ghost_connection_write(c, variable, size);
}
static inline int associate_network_to_ghost(const char *node, const char *channel, int port,
                                             ghost_t g) {
    return ghost_associate_network(g, node, channel, port);
}

#endif
