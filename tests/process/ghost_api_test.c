/* SPDX-License-Identifier: BSD-3-Clause */
/* A program in C on libghost and its installed headers, with the paper's names: a process goes into
 * a file, memory, the network and a class of the user's, and comes back going on where it was. */
#include <ghost/paper.h>

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tests/free_port.h"

#define CHECK(condition)                                                              \
    do {                                                                              \
        if (!(condition)) {                                                           \
            fprintf(stderr, "line %d: %s; errno %d; ghost: %s\n", __LINE__, #condition, \
                    errno, ghost_error());                                            \
            return 0;                                                                 \
        }                                                                             \
    } while (0)

static char folder[] = "/var/tmp/ghost-api.XXXXXX";
static pid_t child;

static void path_in(char *to, const char *name) {
    snprintf(to, 200, "%s/%s", folder, name);
}

/* Counts in memory and tells how far it is at a fixed place of a file. */
static void subject(const char *file) {
    volatile long n = 0;
    int null = open("/dev/null", O_RDWR), out = open(file, O_CREAT | O_RDWR, 0600);
    char text[32];
    setsid();
    dup2(null, 0), dup2(null, 1), dup2(null, 2);
    dup2(out, 3);
    syscall(SYS_close_range, 4u, ~0u, 0u);
    for (;;) {
        struct timespec pause = {0, 1000000};
        snprintf(text, sizeof text, "%16ld", (long)++n);
        if (pwrite(3, text, 16, 0) != 16) _exit(1);
        nanosleep(&pause, NULL);
    }
}

static long count_in(const char *file) {
    char text[17] = {0};
    int fd = open(file, O_RDONLY);
    if (fd < 0) return 0;
    if (read(fd, text, 16) != 16) text[0] = 0;
    close(fd);
    return atol(text);
}

/* 1 once the subject has come further than `from`. */
static int comes_further(const char *file, long from) {
    for (int tries = 0; tries < 5000; tries++) {
        struct timespec pause = {0, 2000000};
        if (count_in(file) > from) return 1;
        nanosleep(&pause, NULL);
    }
    return 0;
}

static pid_t start(const char *file) {
    unlink(file);
    child = fork();
    if (child == 0) subject(file);
    return comes_further(file, 5) ? child : -1;
}

static void end_child(void) {
    if (child > 0) {
        kill(child, SIGKILL);
        waitpid(child, NULL, 0);
    }
    child = 0;
}

/* The original is killed by the export; its number has to be free for the import. */
static int reaped(pid_t pid) {
    int status = 0;
    return waitpid(pid, &status, 0) == pid && WIFSIGNALED(status);
}

/* Exports the subject through `out`, imports it through `in`: it goes on where it was. */
static int goes_on(ghost_t out, ghost_t in, const char *file) {
    struct ghost_statistics statistics = {.size = sizeof statistics};
    pid_t pid = start(file);
    long before;
    CHECK(pid > 0);
    CHECK(ghost_set_then(out, GHOST_THEN_KILL) == 0);
    CHECK(export_process(out, pid) == 0);
    CHECK(ghost_get_statistics(out, &statistics) == 0);
    CHECK(statistics.page_bytes > 0 && statistics.stopped_us > 0);
    CHECK(reaped(pid));
    child = 0;
    before = count_in(file);
    CHECK(before > 5);
    child = import_process(in);
    CHECK(child == pid);
    CHECK(comes_further(file, before));
    CHECK(count_in(file) < before + 100000);
    end_child();
    return 1;
}

static int through_a_file(void) {
    char file[200], path[200];
    ghost_t out = create_new_ghost(), in = create_new_ghost();
    ghost_file *written, *read;
    int good;
    path_in(file, "count"), path_in(path, "ghost");
    written = file_open(path), read = file_open(path);
    CHECK(plug_resource_object(GHOST_FILE, out) == 0);
    CHECK(associate_file_to_ghost(written, out) == 0);
    CHECK(plug_resource_object(GHOST_FILE, in) == 0);
    CHECK(associate_file_to_ghost(read, in) == 0);
    good = goes_on(out, in, file);
    CHECK(file_close(written) == 0);
    CHECK(file_close(read) == 0);
    ghost_free(out), ghost_free(in);
    return good;
}

/* The original runs on after the export; it is ended before it comes back a second time. */
static int through_memory(void) {
    char file[200];
    ghost_t g = create_new_ghost();
    buff_t buffer = create_new_buffer(8 << 20);
    pid_t pid;
    long at_export;
    path_in(file, "count");
    CHECK(buffer != NULL);
    CHECK(plug_resource_object(GHOST_MEMORY, g) == 0);
    CHECK(associate_buffer_to_ghost(buffer, g) == 0);
    pid = start(file);
    CHECK(pid > 0);
    CHECK(export_process(g, pid) == 0);
    at_export = count_in(file);
    CHECK(comes_further(file, at_export));
    CHECK(import_process(g) == -1); /* its number is taken */
    CHECK(errno == EPERM);
    end_child();
    child = import_process(g);
    CHECK(child == pid);
    CHECK(comes_further(file, at_export));
    CHECK(destroy_process(child) == 0);
    CHECK(reaped(child));
    child = 0;
    ghost_buffer_free(buffer), ghost_free(g);
    return 1;
}

static uint16_t port;

static void *import_over_network(void *place) {
    ghost_t g = create_new_ghost();
    *(pid_t *)place = -1;
    if (associate_network_to_ghost(NULL, "of this test", port, g) == 0)
        *(pid_t *)place = import_process(g);
    ghost_free(g);
    return NULL;
}

/* Both ends in one process; the target's end first waits, so it does not disturb the export. The
 * original has to be gone before the head has come: it is sent by a relay of bytes. */
static int over_the_network(void) {
    char file[200];
    ghost_t out = create_new_ghost();
    buff_t buffer = create_new_buffer(0);
    pthread_t importer;
    pid_t pid, made = -1;
    long before;
    ghost_connection *node = NULL;
    char bytes[65536];
    ssize_t got;
    port = free_port();
    CHECK(port != 0);
    path_in(file, "count");
    pid = start(file);
    CHECK(pid > 0);
    CHECK(associate_buffer_to_ghost(buffer, out) == 0);
    CHECK(ghost_set_then(out, GHOST_THEN_KILL) == 0);
    CHECK(export_process(out, pid) == 0);
    CHECK(reaped(pid));
    child = 0;
    before = count_in(file);
    CHECK(pthread_create(&importer, NULL, import_over_network, &made) == 0);
    for (int tries = 0; node == NULL && tries < 500; tries++) {
        struct timespec pause = {0, 10000000};
        node = ghost_connection_open("localhost", "of this test", port);
        if (node == NULL) nanosleep(&pause, NULL);
    }
    CHECK(node != NULL);
    while ((got = buff_read(bytes, buffer, sizeof bytes)) > 0)
        CHECK(network_write(node, bytes, (size_t)got) == 0);
    ghost_connection_close(node);
    CHECK(pthread_join(importer, NULL) == 0);
    CHECK(made == pid);
    child = made;
    CHECK(comes_further(file, before));
    end_child();
    ghost_buffer_free(buffer), ghost_free(out);
    return 1;
}

static int through_a_class_of_ones_own(void) {
    char file[200], text[300];
    ghost_t out = create_new_ghost(), in = create_new_ghost();
    const char *library = getenv("GHOST_TEST_OBJECT_STORE");
    int good;
    path_in(file, "count");
    CHECK(ghost_load_class(library != NULL ? library : "docs/examples/.libs/object_store.so") == 0);
    CHECK(plug_resource_object(1001, out) == 0);
    snprintf(text, sizeof text, "%s/objects", folder);
    CHECK(ghost_set_parameters(out, text) == 0);
    snprintf(text, sizeof text, "objects:%s/objects", folder);
    CHECK(ghost_plug_specification(in, text) == 0);
    good = goes_on(out, in, file);
    ghost_free(out), ghost_free(in);
    return good;
}

static int packed(void) {
    char file[200], text[300];
    ghost_t out = create_new_ghost(), in = create_new_ghost();
    int good;
    path_in(file, "count");
    snprintf(text, sizeof text, "zstd:%s/packed", folder);
    CHECK(ghost_plug_specification(out, text) == 0);
    CHECK(ghost_plug_specification(in, text + 5) == 0); /* it tells itself how it is packed */
    good = goes_on(out, in, file);
    ghost_free(out), ghost_free(in);
    return good;
}

static int failures_leave_the_original_running(void) {
    char file[200];
    ghost_t g = create_new_ghost();
    pid_t pid;
    path_in(file, "count");
    pid = start(file);
    CHECK(pid > 0);
    CHECK(export_process(g, pid) == -1 && errno == EINVAL); /* nothing is plugged */
    CHECK(ghost_plug_specification(g, "/no/such/folder/ghost") == 0);
    CHECK(export_process(g, pid) == -1 && errno == ENOENT);
    CHECK(ghost_plug_specification(g, "/dev/full") == 0);
    CHECK(export_process(g, pid) == -1 && errno == ENOSPC);
    CHECK(strstr(ghost_error(), "/dev/full") != NULL);
    CHECK(comes_further(file, count_in(file)));
    CHECK(export_process(g, 999999999) == -1 && errno == ENOENT);
    CHECK(import_process(g) == -1);
    end_child();
    ghost_free(g);
    return 1;
}

struct watched {
    ghost_t g;
    int calls, from_a_signal, answer;
    uint64_t done, total;
};
static struct watched watched;

static void cancel_by_signal(int number) {
    (void)number;
    ghost_cancel(watched.g);
}

static int watch(void *argument, uint64_t done, uint64_t total) {
    struct watched *w = argument;
    w->calls++, w->done = done, w->total = total;
    if (w->from_a_signal) raise(SIGUSR1);
    return w->answer;
}

/* 1 if the export is cancelled: the subject runs on, and no ghost is there. */
static int is_cancelled(pid_t pid, const char *file, const char *path) {
    CHECK(export_process(watched.g, pid) == -1 && errno == ECANCELED);
    CHECK(watched.calls > 0);
    CHECK(access(path, F_OK) == -1 && errno == ENOENT);
    CHECK(comes_further(file, count_in(file)));
    return 1;
}

static int progress_and_cancel(void) {
    char file[200], path[200];
    pid_t pid;
    path_in(file, "count"), path_in(path, "cancelled");
    pid = start(file);
    CHECK(pid > 0);
    signal(SIGUSR1, cancel_by_signal);
    memset(&watched, 0, sizeof watched);
    watched.g = create_new_ghost();
    CHECK(ghost_plug_specification(watched.g, path) == 0);
    CHECK(ghost_set_progress(watched.g, watch, &watched) == 0);
    watched.answer = 1;
    CHECK(is_cancelled(pid, file, path));
    watched.answer = 0, watched.calls = 0, watched.from_a_signal = 1;
    CHECK(is_cancelled(pid, file, path));
    watched.from_a_signal = 0;
    ghost_cancel(watched.g); /* none is under way */
    CHECK(export_process(watched.g, pid) == 0);
    CHECK(watched.total > 0 && watched.done == watched.total);
    CHECK(access(path, F_OK) == 0);
    end_child();
    ghost_free(watched.g);
    return 1;
}

int main(void) {
    static const struct {
        const char *name;
        int (*run)(void);
    } cases[] = {
        {"a file", through_a_file},
        {"memory", through_memory},
        {"the network", over_the_network},
        {"a class of one's own", through_a_class_of_ones_own},
        {"a packed file", packed},
        {"progress and cancel", progress_and_cancel},
        {"failures leave the original running", failures_leave_the_original_running},
    };
    char command[300];
    int failed = 0;
    if (geteuid() != 0) {
        printf("needs root\n");
        return 77;
    }
    if (access("criu/sbin/criu", X_OK) == 0) {
        char *path = realpath("criu/sbin/criu", NULL);
        setenv("GHOST_CRIU", path, 0);
        free(path);
    }
    if (mkdtemp(folder) == NULL) return 1;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int good = cases[i].run();
        end_child();
        printf("%s %s\n", good ? "ok" : "not ok", cases[i].name);
        fflush(stdout);
        failed |= !good;
    }
    snprintf(command, sizeof command, "rm -rf %s", folder);
    return system(command) != 0 || failed;
}
