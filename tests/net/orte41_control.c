/* SPDX-License-Identifier: BSD-3-Clause */
/* Asks for something by PMIx_Job_control() and says what came of it:
 *   orte41_control tool [KEY VALUE [RANK...]]   as a tool: connects to the mpirun of this node
 * whose pid is $MPIRUN orte41_control rank                         only rank 1 asks; then all wait
 * for the file done in the folder $OMPI_MCA_ghost_test Without a key for a snapshot. */
#include <pmix.h>
#include <pmix_tool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int say(const char* who, pmix_status_t rc) {
    printf("%s: %s\n", who, PMIx_Error_string(rc));
    fflush(stdout);
    return PMIX_SUCCESS == rc ? 0 : 1;
}

static int ask_for_snapshot(const char* who, const char* then) {
    pmix_info_t directives[2], *results = NULL;
    size_t count = 0;
    PMIX_INFO_LOAD(&directives[0], PMIX_JOB_CTRL_CHECKPOINT, "test", PMIX_STRING);
    PMIX_INFO_LOAD(&directives[1], "ghost.then", then, PMIX_STRING);
    const pmix_status_t rc = PMIx_Job_control(NULL, 0, directives, 2, &results, &count);
    return say(who, rc);
}

static int ask_for(const char* key, const char* value, char** ranks, int count_ranks) {
    pmix_info_t directive, *results = NULL;
    pmix_proc_t targets[16];
    size_t count = 0, asked = 0;
    const pid_t pid = getpid(); /* a value that is no text */
    if (0 == strcmp(value, "PID")) {
        PMIX_INFO_LOAD(&directive, key, &pid, PMIX_PID);
    } else {
        PMIX_INFO_LOAD(&directive, key, value, PMIX_STRING);
    }
    for (; asked < (size_t)count_ranks && asked < 16; ++asked) /* of the job that is there */
        PMIX_LOAD_PROCID(&targets[asked], "", (pmix_rank_t)atoi(ranks[asked]));
    const pmix_status_t rc = PMIx_Job_control(targets, asked, &directive, 1, &results, &count);
    return say("tool", rc);
}

static int be_tool(int argc, char** argv) {
    pmix_proc_t me;
    pmix_info_t info;
    const pid_t pid = (pid_t)atoi(getenv("MPIRUN"));
    PMIX_INFO_LOAD(&info, PMIX_SERVER_PIDINFO, &pid, PMIX_PID);
    const pmix_status_t rc = PMIx_tool_init(&me, &info, 1);
    if (PMIX_SUCCESS != rc) {
        printf("tool: no connection, %s\n", PMIx_Error_string(rc));
        return 1;
    }
    const int status = argc > 3 ? ask_for(argv[2], argv[3], argv + 4, argc - 4)
                                : ask_for_snapshot("tool", "continue");
    PMIx_tool_finalize();
    return status;
}

int main(int argc, char** argv) {
    pmix_proc_t me;
    char path[300];
    if (argc > 1 && 0 == strcmp(argv[1], "tool")) return be_tool(argc, argv);
    if (PMIX_SUCCESS != PMIx_Init(&me, NULL, 0)) return 4;
    PMIx_Fence(NULL, 0, NULL, 0);
    if (1 == me.rank) ask_for_snapshot("rank", "stop");
    snprintf(path, sizeof path, "%s/done", getenv("OMPI_MCA_ghost_test"));
    /* at most two minutes */
    for (int i = 0; i < 6000 && 0 != access(path, F_OK); i++) usleep(20000);
    PMIx_Finalize(NULL, 0);
    return 0 == access(path, F_OK) ? 0 : 5;
}
