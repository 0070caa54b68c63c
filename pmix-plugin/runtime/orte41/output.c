/* SPDX-License-Identifier: BSD-3-Clause */
#define _GNU_SOURCE
#include "pmix-plugin/runtime/orte41/output.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "orte_config.h"

#include "orte/constants.h"
#include "orte/mca/iof/base/base.h"
#include "orte/mca/iof/iof.h"
#include "orte/mca/rml/base/base.h"
#include "orte/runtime/orte_globals.h"

/* Both of ORTE's components begin so (orte/mca/iof/hnp/iof_hnp.h, orted/iof_orted.h); their own
 * headers are not installed, and the framework has no call that tells a rank's streams. */
typedef struct {
    orte_iof_base_component_t super;
    opal_list_t procs;
    orte_iof_read_event_t* own_input; /* mpirun's only: it reads its standard input */
} iof_component_t;

static const char* component_name(void) {
    return ORTE_PROC_IS_HNP ? "mca_iof_hnp" : "mca_iof_orted";
}

static int open_if_component(struct dl_phdr_info* info, size_t size, void* library) {
    char file[64];
    const char* base = strrchr(info->dlpi_name, '/');
    (void)size;
    snprintf(file, sizeof file, "/%s.so", component_name());
    if (!base || strcmp(base, file)) return 0;
    *(void**)library = dlopen(info->dlpi_name, RTLD_NOLOAD | RTLD_NOW);
    return 1;
}

static iof_component_t* find_component(void) {
    static iof_component_t* component;
    if (!component) {
        void* library = NULL;
        char symbol[64];
        dl_iterate_phdr(open_if_component, &library);
        snprintf(symbol, sizeof symbol, "%s_component", component_name());
        if (library) component = dlsym(library, symbol);
    }
    return component;
}

static orte_iof_proc_t* find_streams(unsigned job, unsigned rank) {
    iof_component_t* component = find_component();
    orte_iof_proc_t* streams;
    if (!component) return NULL;
    OPAL_LIST_FOREACH(streams, &component->procs, orte_iof_proc_t)
    if (streams->name.jobid == job && streams->name.vpid == rank) return streams;
    return NULL;
}

static int readable(const orte_iof_read_event_t* stream) {
    if (!stream) return 0;
    struct pollfd waiting = {stream->fd, POLLIN, 0};
    return poll(&waiting, 1, 0) > 0 && (waiting.revents & POLLIN);
}

int ghost_output_pending(unsigned job, unsigned rank) {
    const orte_iof_proc_t* streams = find_streams(job, rank);
    return streams && (readable(streams->revstdout) || readable(streams->revstderr));
}

static void drop_input(orte_iof_proc_t* streams) {
    if (streams && streams->stdinev) OBJ_RELEASE(streams->stdinev);
    if (streams) streams->stdinev = NULL;
}

/* mpirun: is this the rank (or all ranks) its own standard input is for? */
static int has_own_input(const orte_iof_proc_t* streams) {
    if (!streams || !ORTE_PROC_IS_HNP) return 0;
    const orte_iof_read_event_t* input = find_component()->own_input;
    return input && (const void*)input->proc == streams;
}

static event_callback_fn stock_read; /* of own_input, where it is overheard */
static int overheard_end;

/* Its end has been read. Where nobody has seen that: ORTE has no sink any more when all of it is on
 * the way. */
static int own_input_ended(const orte_iof_proc_t* streams) {
    static int ended;
    if (stock_read) return overheard_end;
    if (!streams->stdinev || streams->stdinev->closed) ended = 1;
    return ended;
}

/* Whoever reads the terminal in the background is stopped; ORTE reads again at SIGCONT. */
static int may_be_read(int fd) {
    return !isatty(fd) || getpgrp() == tcgetpgrp(fd);
}

/* Never after its end, which whoever has the last of it would be told once more. While it is not to
 * be read ORTE has to believe that it is: it starts what is not "active" from three places (the
 * write handler, XON, a timer for terminals). */
static void read_own_input(const orte_iof_proc_t* streams, int on) {
    if (!has_own_input(streams)) return;
    orte_iof_read_event_t* input = find_component()->own_input;
    const int reads = on && !own_input_ended(streams);
    if (reads && may_be_read(input->fd)) {
        ORTE_IOF_READ_ACTIVATE(input);
    } else {
        opal_event_del(input->ev);
        input->active = !reads;
    }
}

void ghost_output_read_own_input(int on) {
    iof_component_t* component = ORTE_PROC_IS_HNP ? find_component() : NULL;
    const orte_iof_proc_t* streams =
        component && component->own_input ? (const void*)component->own_input->proc : NULL;
    if (streams && ORTE_VPID_WILDCARD != streams->name.vpid) read_own_input(streams, on);
}

void ghost_output_close(unsigned job, unsigned rank) {
    const orte_process_name_t name = {job, rank};
    orte_iof_proc_t* streams = find_streams(job, rank);
    if (!streams) return;
    if (!ORTE_PROC_IS_HNP || !streams->stdinev) {
        orte_iof.close(&name, ORTE_IOF_STDALL);
        return;
    }
    /* mpirun's read event of its own standard input points to this very object: it has to stay,
     * with a sink that names the rank's new daemon (push looks that up) and no local descriptor.
     * Where the rank is not the one that input is for, push would make mpirun read it. */
    const int goes_on = has_own_input(streams) && !own_input_ended(streams);
    drop_input(streams);
    if (goes_on) orte_iof.push(&name, ORTE_IOF_STDIN, 0);
    read_own_input(streams, 1);
    orte_iof.close(&name, ORTE_IOF_STDOUT | ORTE_IOF_STDERR);
}

int ghost_output_open(unsigned job, unsigned rank, int in, int out, int err) {
    const orte_process_name_t name = {job, rank};
    orte_iof_proc_t* streams = find_streams(job, rank);
    /* While its end is to be seen. ORTE, which writes to the rank from now on, starts it again when
     * little is left, and a second end finds no sink and crashes. */
    if (has_own_input(streams) && own_input_ended(streams)) read_own_input(streams, 0);
    drop_input(streams); /* mpirun: the sink that named the old daemon */
    int rc = orte_iof.pull(&name, ORTE_IOF_STDIN, in);
    if (ORTE_SUCCESS == rc) rc = orte_iof.push(&name, ORTE_IOF_STDOUT, out);
    if (ORTE_SUCCESS == rc) rc = orte_iof.push(&name, ORTE_IOF_STDERR, err);
    return rc;
}

void ghost_output_redirect_input(unsigned job, unsigned rank, unsigned to) {
    orte_iof_proc_t* streams = find_streams(job, rank);
    if (!ORTE_PROC_IS_HNP || to == ORTE_PROC_MY_NAME->vpid) return;
    if (!streams || !streams->stdinev) return;
    streams->stdinev->daemon.vpid = to;
    read_own_input(streams, 1); /* the old daemon may have asked for a rest */
}

void ghost_output_renew_input(unsigned job, unsigned rank) {
    orte_iof_proc_t* streams = find_streams(job, rank);
    read_own_input(streams, 0);
    drop_input(streams);
}

/* ORTE has forgotten the streams of a rank that ended beside mpirun, but for this one pointer. */
static void take_up_own_input(const orte_process_name_t* name) {
    orte_iof_proc_t* streams = find_streams(name->jobid, name->vpid);
    orte_iof_read_event_t* input = find_component()->own_input;
    if (!input || !streams || has_own_input(streams)) return;
    orte_iof_proc_t* before = (orte_iof_proc_t*)(void*)input->proc;
    if (before->name.jobid != name->jobid || before->name.vpid != name->vpid) return;
    OBJ_RETAIN(streams);
    input->proc = (struct orte_iof_proc_t*)(void*)streams;
    OBJ_RELEASE(before);
}

void ghost_output_readdress_input(unsigned job, unsigned rank) {
    const orte_process_name_t name = {job, rank};
    if (!ORTE_PROC_IS_HNP || !find_component()) return;
    const orte_iof_read_event_t* input = find_component()->own_input;
    const orte_iof_proc_t* target = input ? (const void*)input->proc : NULL;
    if (!target || target->name.jobid != job || target->name.vpid != rank) return;
    if (!own_input_ended(target)) {
        drop_input(find_streams(job, rank));
        orte_iof.push(&name, ORTE_IOF_STDIN, 0);
    }
    take_up_own_input(&name);
}

int ghost_output_input_ended(void) {
    iof_component_t* component = ORTE_PROC_IS_HNP ? find_component() : NULL;
    if (!component || !component->own_input) return 0;
    return own_input_ended((const orte_iof_proc_t*)(const void*)component->own_input->proc);
}

/* What is written to the rank, where it is on this daemon and its input has not ended. */
static orte_iof_write_event_t* local_input(const orte_iof_proc_t* streams) {
    orte_iof_write_event_t* writer = streams && streams->stdinev ? streams->stdinev->wev : NULL;
    return writer && writer->fd >= 0 ? writer : NULL;
}

void ghost_output_hold_input(unsigned job, unsigned rank) {
    const orte_iof_proc_t* streams = find_streams(job, rank);
    orte_iof_write_event_t* writer = local_input(streams);
    if (!writer) return;
    read_own_input(streams, 0);
    opal_event_del(writer->ev);
    writer->pending = true; /* who adds to it believes that it is being written */
}

void ghost_output_resume_input(unsigned job, unsigned rank) {
    const orte_iof_proc_t* streams = find_streams(job, rank);
    orte_iof_write_event_t* writer = local_input(streams);
    if (!writer) return;
    writer->pending = false;
    if (!opal_list_is_empty(&writer->outputs)) ORTE_IOF_SINK_ACTIVATE(writer);
    read_own_input(streams, 1);
}

size_t ghost_output_take_input(unsigned job, unsigned rank, char* data, size_t size, int* end) {
    orte_iof_write_event_t* writer = local_input(find_streams(job, rank));
    size_t taken = 0;
    *end = !writer; /* ORTE has written it, to somebody who has not read so far */
    while (writer && size - taken >= ghost_output_piece && !*end &&
           !opal_list_is_empty(&writer->outputs)) {
        orte_iof_write_output_t* output =
            (orte_iof_write_output_t*)opal_list_remove_first(&writer->outputs);
        memcpy(data + taken, output->data, output->numbytes);
        taken += output->numbytes;
        *end = 0 == output->numbytes; /* so ORTE says it */
        OBJ_RELEASE(output);
    }
    return taken;
}

void ghost_output_give_input(unsigned job, unsigned rank, const char* data, size_t size, int end) {
    /* What a pipe takes whole or not at all: ORTE writes a piece that was written in part as if it
     * had its old length. */
    enum { most = ORTE_IOF_BASE_MSG_MAX };
    orte_iof_proc_t* streams = find_streams(job, rank);
    orte_iof_write_event_t* writer = local_input(streams);
    if (!writer) return;
    if (end && 0 == size && opal_list_is_empty(&writer->outputs)) {
        /* What ORTE does when it comes to the piece that says so. That piece (8 KiB) it would lose,
         * at each move of a rank whose input has ended. */
        streams->stdinev->wev = NULL;
        OBJ_RELEASE(writer);
        return;
    }
    if (end) {
        orte_iof_write_output_t* output = OBJ_NEW(orte_iof_write_output_t);
        output->numbytes = 0;
        opal_list_prepend(&writer->outputs, &output->super);
    }
    while (size > 0) {
        const size_t piece = size % most ? size % most : most;
        orte_iof_write_output_t* output = OBJ_NEW(orte_iof_write_output_t);
        size -= piece;
        memcpy(output->data, data + size, piece);
        output->numbytes = (int)piece;
        opal_list_prepend(&writer->outputs, &output->super);
    }
}

static int (*stock_push)(const orte_process_name_t*, orte_iof_tag_t, int);
static ghost_input_heard* input_heard;
static void* input_context;
static int passed_on[2], nothing; /* what ORTE reads instead */

/* ORTE's own handler (orte_iof_hnp_read_local_handler()) reads one piece, and here what was read
 * before it. When the job ends it releases the event and closes what that names. */
static void read_input(int fd, short event, void* data) {
    orte_iof_read_event_t* input = data;
    const int own = input->fd;
    char piece[ORTE_IOF_BASE_MSG_MAX];
    if (orte_job_term_ordered) {
        stock_read(fd, event, data);
        return;
    }
    const ssize_t size = read(own, piece, sizeof piece);
    if (size < 0 && (EAGAIN == errno || EINTR == errno)) {
        ORTE_IOF_READ_ACTIVATE(input);
        return;
    }
    const size_t some = size > 0 ? (size_t)size : 0;
    overheard_end = 0 == some;
    input_heard(input_context, piece, some);
    /* Of a rank that has just died here: at its end ORTE would look for what waits for it. */
    const orte_iof_proc_t* streams = (const void*)input->proc;
    if (0 == some && streams->stdinev && !streams->stdinev->wev) {
        input->active = false;
        return;
    }
    input->fd = some > 0 && write(passed_on[1], piece, some) == size ? passed_on[0] : nothing;
    stock_read(input->fd, event, data);
    input->fd = own;
}

static int push_and_overhear(const orte_process_name_t* name, orte_iof_tag_t stream, int fd) {
    const int rc = stock_push(name, stream, fd);
    orte_iof_read_event_t* input = find_component() ? find_component()->own_input : NULL;
    if (!input || stock_read) return rc;
    if (ORTE_VPID_WILDCARD == ((const orte_iof_proc_t*)(const void*)input->proc)->name.vpid)
        return rc;
    stock_read = event_get_callback(input->ev);
    opal_event_del(input->ev);
    if (input->always_readable)
        opal_event_evtimer_set(orte_event_base, input->ev, read_input, input);
    else
        opal_event_set(orte_event_base, input->ev, input->fd, OPAL_EV_READ, read_input, input);
    opal_event_set_priority(input->ev, ORTE_MSG_PRI);
    if (input->active) ORTE_IOF_READ_ACTIVATE(input);
    return rc;
}

int ghost_input_overhear(ghost_input_heard* heard, void* context) {
    nothing = open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (stock_push || nothing < 0 || pipe2(passed_on, O_CLOEXEC | O_NONBLOCK)) return -1;
    input_heard = heard;
    input_context = context;
    stock_push = orte_iof.push;
    orte_iof.push = push_and_overhear;
    return 0;
}

int ghost_input_is_overheard(void) {
    return NULL != stock_read;
}

static orte_rml_buffer_callback_fn_t show_output;
static ghost_output_heard* output_heard;
static void* output_context;

/* As orte_iof_hnp_recv() reads it (orte/mca/iof/hnp/iof_hnp_receive.c). */
static void count_output(opal_buffer_t* buffer) {
    orte_iof_tag_t stream;
    orte_process_name_t origin;
    char data[ORTE_IOF_BASE_MSG_MAX];
    int32_t count = 1, size = ORTE_IOF_BASE_MSG_MAX;
    if (ORTE_SUCCESS != opal_dss.unpack(buffer, &stream, &count, ORTE_IOF_TAG)) return;
    if ((ORTE_IOF_XON | ORTE_IOF_XOFF | ORTE_IOF_PULL | ORTE_IOF_CLOSE) & stream) return;
    count = 1;
    if (ORTE_SUCCESS != opal_dss.unpack(buffer, &origin, &count, ORTE_NAME)) return;
    if (ORTE_SUCCESS != opal_dss.unpack(buffer, data, &size, OPAL_BYTE) || size <= 0) return;
    if (ORTE_IOF_STDOUT & stream)
        output_heard(output_context, origin.jobid, origin.vpid, 0, data, (size_t)size);
    if (ORTE_IOF_STDERR & stream)
        output_heard(output_context, origin.jobid, origin.vpid, 1, data, (size_t)size);
}

static void output_comes(int status, orte_process_name_t* sender, opal_buffer_t* buffer,
                         orte_rml_tag_t tag, void* data) {
    char* const unread = buffer->unpack_ptr;
    count_output(buffer);
    buffer->unpack_ptr = unread;
    show_output(status, sender, buffer, tag, data);
}

int ghost_output_count(ghost_output_heard* heard, void* context) {
    orte_rml_posted_recv_t* posted;
    if (show_output) return -1;
    OPAL_LIST_FOREACH(posted, &orte_rml_base.posted_recvs, orte_rml_posted_recv_t) {
        if (ORTE_RML_TAG_IOF_HNP != posted->tag || !posted->buffer_data) continue;
        output_heard = heard;
        output_context = context;
        show_output = posted->cbfunc.buffer;
        posted->cbfunc.buffer = output_comes;
        return 0;
    }
    return -1;
}
