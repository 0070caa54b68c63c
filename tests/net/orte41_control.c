/* SPDX-License-Identifier: BSD-3-Clause */
/* Asks for a snapshot by PMIx_Job_control() and says what came of it: orte41_control tool|rank.
 * As a tool it connects to the mpirun of this node whose pid is $MPIRUN. As a rank only rank 1
 * asks; then all wait for the file done in the folder $OMPI_MCA_ghost_test. */
#include <pmix.h>
#include <pmix_tool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void ask(const char* who, const char* then) {
    pmix_info_t directives[2], *results = NULL;
    size_t count = 0;
    PMIX_INFO_LOAD(&directives[0], PMIX_JOB_CTRL_CHECKPOINT, "test", PMIX_STRING);
    PMIX_INFO_LOAD(&directives[1], "ghost.then", then, PMIX_STRING);
    const pmix_status_t rc = PMIx_Job_control(NULL, 0, directives, 2, &results, &count);
    printf("%s: %s", who, PMIx_Error_string(rc));
    for (size_t i = 0; i < count; ++i)
        if (PMIX_CHECK_KEY(&results[i], "ghost.why"))
            printf(" because %s", results[i].value.data.string);
    printf("\n");
    fflush(stdout);
}

static int be_tool(void) {
    pmix_proc_t me;
    pmix_info_t info;
    const pid_t pid = (pid_t)atoi(getenv("MPIRUN"));
    PMIX_INFO_LOAD(&info, PMIX_SERVER_PIDINFO, &pid, PMIX_PID);
    const pmix_status_t rc = PMIx_tool_init(&me, &info, 1);
    if (PMIX_SUCCESS != rc) {
        printf("tool: no connection, %s\n", PMIx_Error_string(rc));
        return 1;
    }
    ask("tool", "continue");
    PMIx_tool_finalize();
    return 0;
}

int main(int argc, char** argv) {
    pmix_proc_t me;
    char path[300];
    if (argc > 1 && 0 == strcmp(argv[1], "tool")) return be_tool();
    if (PMIX_SUCCESS != PMIx_Init(&me, NULL, 0)) return 4;
    PMIx_Fence(NULL, 0, NULL, 0);
    if (1 == me.rank) ask("rank", "stop");
    snprintf(path, sizeof path, "%s/done", getenv("OMPI_MCA_ghost_test"));
    /* at most two minutes */
    for (int i = 0; i < 6000 && 0 != access(path, F_OK); i++) usleep(20000);
    PMIx_Finalize(NULL, 0);
    return 0 == access(path, F_OK) ? 0 : 5;
}
