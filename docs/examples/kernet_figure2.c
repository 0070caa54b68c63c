/* SPDX-License-Identifier: BSD-3-Clause */
/* The example of the paper (Gallard, Morin, RR-4987, Figure 2): P1 and P2 talk over a DIRECT stream;
 * P2 suspends its socket and exits; P3, anywhere, wakes it up and gets what P1 has sent meanwhile.
 *
 *   cc kernet_figure2.c -o figure2 $(pkg-config --cflags --libs kernet)
 *   node 1$ ./figure2 P1 /shared/folder
 *   node 2$ ./figure2 P2 /shared/folder
 *   node 3$ ./figure2 P3 /shared/folder
 *
 * The folder only carries the number of the stream and the handle from one process to the next. */
#include <fcntl.h>
#include <inttypes.h>
#include <kernet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void must(int good, const char *what) {
    if (good) return;
    fprintf(stderr, "%s: %s\n", what, kernet_error());
    exit(1);
}

/* A file appears whole or not at all. */
static void put(const char *folder, const char *name, const void *bytes, size_t size) {
    char path[512], fresh[520];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    snprintf(fresh, sizeof fresh, "%s.new", path);
    FILE *file = fopen(fresh, "w");
    if (!file || fwrite(bytes, 1, size, file) != size || fclose(file) || rename(fresh, path)) {
        perror(path);
        exit(1);
    }
}

static size_t get(const char *folder, const char *name, void *bytes, size_t room) {
    char path[512];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    for (;;) {
        FILE *file = fopen(path, "r");
        if (file) {
            size_t size = fread(bytes, 1, room, file);
            fclose(file);
            return size;
        }
        usleep(1000);
    }
}

static void p1(kernet_node *node, const char *folder) {
    kernet_stream stream;
    char ch;
    must(kernet_create(node, KERNET_DIRECT, 2, &stream) == 0, "create");
    int socket1 = kernet_attach(node, stream, KERNET_BOTH);
    must(socket1 > 0, "attach");
    put(folder, "stream", &stream, sizeof stream);
    must(kernet_wait(node, socket1, -1) == 0, "wait");
    must(kernet_recv(node, socket1, &ch, 1, -1) == 1, "recv");
    printf("P1 on %s has received %c\n", kernet_node_name(node), ch);
    ch++;
    must(kernet_send(node, socket1, &ch, 1, -1) == 0, "send");
    must(kernet_unattach(node, socket1, -1) == 0, "unattach");
}

static void p2(kernet_node *node, const char *folder) {
    kernet_stream stream;
    void *sec2;
    size_t size;
    get(folder, "stream", &stream, sizeof stream);
    int socket2 = kernet_attach(node, stream, KERNET_BOTH);
    must(socket2 > 0, "attach");
    must(kernet_wait(node, socket2, -1) == 0, "wait");
    must(kernet_send(node, socket2, "c", 1, -1) == 0, "send");
    must(kernet_suspend(node, socket2, &sec2, &size) == 0, "suspend");
    printf("P2 on %s has sent c and is suspended\n", kernet_node_name(node));
    put(folder, "handle", sec2, size);
    kernet_free(sec2);
}

static void p3(kernet_node *node, const char *folder) {
    char handle[65536], ch;
    size_t size = get(folder, "handle", handle, sizeof handle);
    int socket3 = kernet_wakeup(node, handle, size);
    must(socket3 > 0, "wakeup");
    must(kernet_recv(node, socket3, &ch, 1, -1) == 1, "recv");
    printf("P3 on %s has received %c\n", kernet_node_name(node), ch);
    must(kernet_unattach(node, socket3, -1) == 0, "unattach");
}

int main(int argc, char **argv) {
    if (argc != 3) {
        fprintf(stderr, "usage: %s P1|P2|P3 FOLDER\n", argv[0]);
        return 2;
    }
    kernet_node *node = kernet_open(NULL);
    must(node != NULL, "open");
    if (strcmp(argv[1], "P1") == 0) p1(node, argv[2]);
    if (strcmp(argv[1], "P2") == 0) p2(node, argv[2]);
    if (strcmp(argv[1], "P3") == 0) p3(node, argv[2]);
    kernet_close(node);
    return 0;
}
